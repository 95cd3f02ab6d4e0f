"""The auxiliary loss that gives dead units something to do."""

import math
from typing import Any

import keras
from keras import ops

from keras_sae.layers._forward import Step
from keras_sae.utils import validation as checks
from keras_sae.utils.serialization import register

# Of how many codes the size may be that the rows of the chosen units take together.
# Above it the dense products are no slower, and smaller.
_ROWS = 4

# Least share of a residual's mean square that its variance is, to have any.
_VARIES = 1e-3


@register
class AuxK:
    """Lets the dead units rebuild what the living ones leave over.

    `factor * mean((e - d)^2) / var(e)` with the residual `e = x - r`, taken as it
    is, and `d` the decoder's answer to the `k_aux` largest pre-activations among
    the dead units, without its bias.

    A dead unit gets no gradient from a hard sparsity, for it is never chosen. The
    largest pre-activations count as they are, negative ones too: a ReLU would keep
    those dead for good. The term is 0, and costs nothing, while no unit is dead. It
    is 0 as well for a residual that does not vary, so for a batch of one sample.

    On data of known features `k_aux=1` revived more units than the published
    default, half of the values: alone each dead unit learns a feature, together they
    learn a dense code of the residual in which none stands out. A sparsity's
    `auxiliary="auto"` is `AuxK(k_aux=1, dead_after=50)`.

    Args:
        k_aux: How many dead units rebuild a sample's residual; half the number of
            values of a sample if None.
        factor: Weight of the term.
        dead_after: Training steps without a sign of life after which a unit counts
            as dead.

    Raises:
        ValueError: `k_aux` or `dead_after` is not positive, or `factor` negative.

    Reference:
        Gao et al., "Scaling and evaluating sparse autoencoders", 2024.

    Example:

    >>> from keras_sae import layers, models
    >>> top_k = layers.TopK(4, auxiliary=layers.AuxK(k_aux=8, dead_after=50))
    >>> model = models.shallow((12,), units=32, sparsity=top_k)
    >>> sorted(model.term_means)
    ['auxiliary_loss', 'reconstruction_loss']
    """

    def __init__(
        self, k_aux: int | None = None, factor: float = 1 / 32, dead_after: int = 100
    ) -> None:
        self.k_aux = None if k_aux is None else checks.positive_integer("k_aux", k_aux)
        self.factor = checks.finite_factor("factor", factor)
        self.dead_after = checks.positive_integer("dead_after", dead_after)

    def term(self, step: Step) -> Any:
        """Returns the weighted loss of one step, a float32 scalar."""
        dead = ops.convert_to_tensor(step.steps_since_active) >= self.dead_after
        return ops.cond(
            ops.any(dead),
            lambda: self.factor * self._unexplained(step, dead),
            lambda: ops.zeros((), "float32"),
        )

    def _unexplained(self, step: Step, dead: Any) -> Any:
        """The share of the residual's variance that the dead units leave."""
        x, r = (ops.cast(v, "float32") for v in (step.target, step.reconstruction))
        residual = ops.stop_gradient(x - r)
        answer = self._answer(step, dead)
        error = ops.mean(ops.square(residual - ops.cast(answer, "float32")))
        variance = ops.mean(ops.var(residual, axis=0))
        # A batch of one sample, often the last of an epoch, has no variance, and one
        # of equal samples what rounding leaves of it.
        varies = variance > _VARIES * ops.mean(ops.square(residual))
        return ops.where(varies, error / ops.where(varies, variance, 1.0), 0.0)

    def _answer(self, step: Step, dead: Any) -> Any:
        """The decoder's answer to the dead units, without its bias."""
        values, units = math.prod(step.target.shape[1:]), step.code.shape[-1]
        k = min(units, self.k_aux or max(1, values // 2))
        if step.largest is not None and k * values <= _ROWS * units:
            entries = step.largest(dead, k)
            return step.decode_entries(entries) - step.decode_entries(entries.none())
        code = self._code(step, dead, k)
        nothing = ops.stop_gradient(ops.zeros_like(code[:1]))
        return step.decode(code) - step.decode(nothing)

    def _code(self, step: Step, dead: Any, k: int) -> Any:
        pre = ops.cast(step.pre_activations(), "float32")
        silent = ops.where(dead, ops.stop_gradient(pre), -1e30)
        # By the least of them: the gradient of a `top_k` inside a condition is more
        # than XLA can compile on TensorFlow.
        least = ops.min(ops.top_k(silent, k)[0], axis=-1, keepdims=True)
        chosen = ops.logical_and(dead, silent >= least)
        return ops.where(chosen, pre, 0.0)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {
            "k_aux": self.k_aux,
            "factor": self.factor,
            "dead_after": self.dead_after,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "AuxK":
        """Makes what `get_config` describes."""
        return cls(**config)


def get(identifier: Any) -> AuxK | None:
    """Returns the auxiliary loss of an object, a config, None, or `"auto"`."""
    if isinstance(identifier, dict):
        identifier = keras.saving.deserialize_keras_object(identifier)
    if identifier == "auto":
        # Measured in benchmarks/recovery.py: several at once learn a dense code of
        # the residual, and none of them is ever large enough to be chosen.
        return AuxK(k_aux=1, dead_after=50)
    if identifier is None or isinstance(identifier, AuxK):
        return identifier
    raise ValueError(
        "`auxiliary` must be a `keras_sae.layers.AuxK`, 'auto' or None. Received: "
        f"auxiliary={identifier!r}."
    )
