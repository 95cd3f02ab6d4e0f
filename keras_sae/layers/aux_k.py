"""AuxK: an auxiliary loss that revives dead units."""

import math

from keras import ops

from keras_sae.layers.sparsity import Step
from keras_sae.ops.sparse_code import SparseCode
from keras_sae.ops.statistics import weighted_mean
from keras_sae.types import Config, Tensor
from keras_sae.utils import validation
from keras_sae.utils.serialization import register

# Dead units are decoded from a `SparseCode` if `k_aux * dimension` is at most
# `_MAX_VALUES * units`, where `dimension` is the number of values per sample. Above
# this limit, dense products are no slower and need less memory.
_MAX_VALUES = 4

# A residual counts as constant if its variance is at most this fraction of its mean
# square.
_MIN_VARIANCE = 1e-3


@register
class AuxK:
    """Auxiliary loss that trains dead units to reconstruct the residual.

    The loss is `factor * mean((e - d)^2) / var(e)`. Here, `e = x - r` is the residual
    of the reconstruction `r`, and no gradient flows through `e`. The decoder computes
    `d`, without adding its bias, from the `k_aux` largest pre-activations among the
    dead units.

    A hard sparsity never selects a dead unit, so dead units get no gradient from the
    reconstruction loss. `d` is computed without a ReLU, so that units with negative
    pre-activations also get a gradient. While no unit is dead, the loss is 0 and `d` is
    not computed. The loss is also 0 if the residual does not vary, as in a batch of one
    sample.

    On data with known features, `k_aux=1` revived more units than the published default
    of half the input dimension. A single dead unit per sample learns a feature, while
    many dead units at once learn a dense code of the residual. In `TopK` and
    `BatchTopK`, `auxiliary="auto"` is therefore `AuxK(k_aux=1, dead_after=50)`.

    Args:
        k_aux: Number of dead units per sample that reconstruct the residual. Half the
            input dimension if None.
        factor: Weight of the loss.
        dead_after: Number of training steps without activity after which a unit counts
            as dead.

    Raises:
        ValueError: `k_aux` or `dead_after` is not positive, or `factor` is negative.

    References:
        [Gao et al., "Scaling and evaluating sparse autoencoders", 2024](
        https://arxiv.org/abs/2406.04093).

    Example:

    >>> from keras_sae import layers, models
    >>> top_k = layers.TopK(4, auxiliary=layers.AuxK(k_aux=8, dead_after=50))
    >>> model = models.shallow((12,), units=32, sparsity=top_k)
    >>> sorted(model.loss_means)
    ['auxiliary_loss', 'reconstruction_loss']
    """

    def __init__(
        self, k_aux: int | None = None, factor: float = 1 / 32, dead_after: int = 100
    ) -> None:
        if k_aux is not None:
            k_aux = validation.positive_integer("k_aux", k_aux)
        self.k_aux = k_aux
        self.factor = validation.non_negative("factor", factor)
        self.dead_after = validation.positive_integer("dead_after", dead_after)

    def loss(self, step: Step) -> Tensor:
        """Return the loss of a step as a float32 scalar."""
        dead = ops.convert_to_tensor(step.steps_since_active) >= self.dead_after
        return ops.cond(
            ops.any(dead),
            lambda: self._loss_of_dead_units(step, dead),
            lambda: ops.zeros((), "float32"),
        )

    def _loss_of_dead_units(self, step: Step, dead: Tensor) -> Tensor:
        dimension = math.prod(step.reconstruction.shape[1:])
        units = step.code.shape[-1]
        k = min(units, self.k_aux or max(1, dimension // 2))
        if step.top_pre_activations and k * dimension <= _MAX_VALUES * units:
            code = step.top_pre_activations(dead, k)
            zero = ops.zeros((1, 1), code.values.dtype)
            empty = SparseCode(zero, ops.zeros((1, 1), "int32"))
        else:
            values = ops.cast(step.pre_activations(), "float32")
            candidates = ops.where(dead, ops.stop_gradient(values), -1e30)
            # Select by a threshold: with TensorFlow, XLA cannot compile the gradient of
            # `top_k` inside a conditional.
            threshold = ops.min(ops.top_k(candidates, k)[0], axis=-1, keepdims=True)
            selected = ops.logical_and(dead, candidates >= threshold)
            code = ops.where(selected, values, 0.0)
            empty = ops.zeros_like(code[:1])
        # Subtract the decoder's bias, because `d` does not include it.
        answer = ops.cast(step.decode(code) - step.decode(empty), "float32")
        residual = ops.stop_gradient(
            ops.cast(step.target, "float32") - ops.cast(step.reconstruction, "float32")
        )
        weight, error = step.sample_weight, ops.square(residual - answer)
        error = ops.mean(error if weight is None else error * weight)
        deviation = residual - weighted_mean(residual, weight)
        variance = ops.mean(weighted_mean(ops.square(deviation), weight))
        size = ops.mean(weighted_mean(ops.square(residual), weight))
        varies = variance > _MIN_VARIANCE * size
        share = error / ops.where(varies, variance, 1.0)
        return self.factor * ops.where(varies, share, 0.0)

    def get_config(self) -> Config:
        """Return the constructor's arguments."""
        return {
            "k_aux": self.k_aux,
            "factor": self.factor,
            "dead_after": self.dead_after,
        }

    @classmethod
    def from_config(cls, config: Config) -> "AuxK":
        """Create an instance from its config."""
        return cls(**config)
