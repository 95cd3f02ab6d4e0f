"""Learned sparsity: units decide by thresholds of their own which are on."""

import math
from typing import Any

import keras
from keras import ops

from keras_sae.layers._forward import Step
from keras_sae.layers._weighted import Weighted
from keras_sae.utils import validation as checks
from keras_sae.utils.serialization import register


@register
class JumpReLU(Weighted):
    """Switches a unit on above a threshold that it learns, and penalises L0.

    `h_j = z_j * 1[z_j > threshold_j]`,
    `loss += scale * factor * L0`, or `scale * factor * (L0 / target_l0 - 1)^2` with a
    target, where `L0 = mean_i(sum_j 1[z_ij > threshold_j])`

    Neither the jump nor the step has a useful derivative by `threshold`; a rectangle
    `K(u) = 1[|u| < 1/2]` of width `bandwidth` stands in:
    `dh/dthreshold = -(threshold / bandwidth) K((z - threshold) / bandwidth)` and
    `d1[z > threshold]/dthreshold = -(1 / bandwidth) K((z - threshold) / bandwidth)`.
    By `z` the jump has its own derivative, `1[z > threshold]`, and the step has none.

    The defaults are for inputs of unit mean square; see `scaling=` of
    `keras_sae.models.shallow`.

    Args:
        factor: Weight of the penalty.
        target_l0: Number of active units a sample to aim at, or None.
        threshold: `threshold` at the start.
        bandwidth: Width of the rectangle, in units of the pre-activations.
        **kwargs: Those of `keras.layers.Layer`.

    Input shape:
        `(batch, ..., units)`, pre-activations.

    Output shape:
        The same.

    Attributes:
        threshold: float32 variable of shape `(units,)`, never negative.

    Raises:
        ValueError: `factor` is negative, `target_l0` or `bandwidth` is not positive,
            or `threshold` is negative or not finite.

    Reference:
        Rajamanoharan et al., "Jumping Ahead: Improving Reconstruction Fidelity with
        JumpReLU Sparse Autoencoders", 2024.

    Example:

    >>> import numpy as np
    >>> from keras_sae import layers
    >>> jump = layers.JumpReLU(factor=0.5, threshold=1.0)
    >>> code = jump(np.array([[0.5, 1.5, -2.0, 3.0]], "float32"))
    >>> np.asarray(code).tolist(), float(jump.losses[0])
    ([[0.0, 1.5, 0.0, 3.0]], 1.0)
    """

    activation = "linear"

    def __init__(
        self,
        factor: float = 1e-3,
        target_l0: float | None = None,
        threshold: float = 1e-3,
        bandwidth: float = 1e-3,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.factor = checks.finite_factor("factor", factor)
        self.target_l0 = target_l0
        if target_l0 is not None:
            self.target_l0 = checks.positive_number("target_l0", target_l0)
        self.lasting = target_l0 is None  # the penalty alone lowers no threshold
        self.initial_threshold = _not_negative("threshold", threshold)
        self.bandwidth = checks.positive_number("bandwidth", bandwidth)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Makes the thresholds and the penalty's scale."""
        super().build(input_shape)
        self.threshold = self.add_weight(
            shape=(input_shape[-1],),
            initializer=keras.initializers.Constant(self.initial_threshold),
            constraint=keras.constraints.NonNeg(),
            name="threshold",
            dtype="float32",
            autocast=False,
        )

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Returns the code; adds the penalty to the loss."""
        del training
        z = ops.cast(inputs, "float32")
        threshold = ops.convert_to_tensor(self.threshold)
        on = z > threshold
        window = ops.stop_gradient(
            ops.cast(ops.abs(z - threshold) < self.bandwidth / 2, "float32")
            / self.bandwidth
        )
        slope = ops.stop_gradient(threshold) * window
        code = ops.where(on, z, 0.0) - _gradient_alone(slope * threshold)
        active = ops.cast(on, "float32") - _gradient_alone(window * threshold)
        self.add_term(self.factor * self._excess(ops.sum(active, axis=-1)))
        return ops.cast(code, self.compute_dtype)

    def starts(self) -> list[tuple[Any, float]]:
        """Returns what each unit has of its own here, and what it starts from."""
        return [(self.threshold, self.initial_threshold)]

    def _excess(self, active: Any) -> Any:
        l0 = ops.mean(active)
        return l0 if self.target_l0 is None else ops.square(l0 / self.target_l0 - 1)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """Returns `input_shape`."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {
            **super().get_config(),
            "factor": self.factor,
            "target_l0": self.target_l0,
            "threshold": self.initial_threshold,
            "bandwidth": self.bandwidth,
        }


@register
class Gated(Weighted):
    """Decides by a gate which units are on, and by a path of its own how strongly.

    `h_j = 1[z_j > 0] * ReLU(z_j exp(r_j) + b_j)`, with `r` and `b` learned,
    `loss += scale * factor * mean_i(sum_j ReLU(z_ij))`, and
    `loss += mean((x - decode(ReLU(z)))^2)` with the decoder held fixed

    The penalty acts on the gate alone, so it does not shrink what is on. The gate
    has no gradient of its own: the penalty and the second reconstruction, which
    stands as `auxiliary_loss` in the logs, train it.

    Args:
        factor: Weight of the penalty.
        **kwargs: Those of `keras.layers.Layer`.

    Input shape:
        `(batch, ..., units)`, pre-activations.

    Output shape:
        The same.

    Raises:
        ValueError: `factor` is negative or not finite.

    Reference:
        Rajamanoharan et al., "Improving Dictionary Learning with Gated Sparse
        Autoencoders", 2024.

    Example:

    >>> import numpy as np
    >>> from keras_sae import layers
    >>> gated = layers.Gated(factor=0.5)
    >>> code = gated(np.array([[0.5, -1.0, 2.0]], "float32"))
    >>> np.asarray(code).tolist(), float(gated.losses[0])
    ([[0.5, 0.0, 2.0]], 1.25)
    """

    activation = "linear"
    extra_terms = ("auxiliary_loss",)
    needs_decoder = True

    def __init__(self, factor: float = 1e-3, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.factor = checks.finite_factor("factor", factor)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Makes the magnitude's gain and bias, and the penalty's scale."""
        super().build(input_shape)
        shape = (input_shape[-1],)
        self.log_gain = self.add_weight(
            shape=shape, initializer="zeros", name="log_gain"
        )
        self.bias = self.add_weight(shape=shape, initializer="zeros", name="bias")

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Returns the code; adds the penalty to the loss."""
        del training
        gate = ops.relu(ops.cast(inputs, "float32"))
        self.add_term(self.factor * ops.mean(ops.sum(gate, axis=-1)))
        strength = ops.relu(inputs * ops.exp(self.log_gain) + self.bias)
        return ops.where(inputs > 0, strength, ops.zeros_like(strength))

    def starts(self) -> list[tuple[Any, float]]:
        """Returns what each unit has of its own here, and what it starts from."""
        return [(self.log_gain, 0.0), (self.bias, 0.0)]

    def terms(self, step: Step) -> dict[str, Any]:
        """Returns the reconstruction from the gate alone, the decoder held fixed."""
        rebuilt = step.decode_frozen(ops.relu(step.pre_activations()))
        x, rebuilt = (ops.cast(v, "float32") for v in (step.target, rebuilt))
        return {"auxiliary_loss": ops.mean(ops.square(x - rebuilt))}

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """Returns `input_shape`."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {**super().get_config(), "factor": self.factor}


def _gradient_alone(value: Any) -> Any:
    """Zero, with the gradient of `value`."""
    return value - ops.stop_gradient(value)


def _not_negative(name: str, value: Any) -> float:
    if not (isinstance(value, (int, float)) and math.isfinite(value) and value >= 0):
        raise ValueError(
            f"`{name}` must be a finite number >= 0. Received: {name}={value!r}. "
            "A usual value is 0.001."
        )
    return float(value)
