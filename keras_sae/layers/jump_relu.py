"""JumpReLU sparsity: each unit learns its own threshold."""

from typing import Any

import keras
from keras import ops

from keras_sae.layers import forward_pass
from keras_sae.layers.sparsity import Sparsity
from keras_sae.ops import top_k
from keras_sae.ops.sparse_code import SparseCode
from keras_sae.ops.statistics import weighted_mean
from keras_sae.types import Config, Shape, Tensor
from keras_sae.utils import validation
from keras_sae.utils.serialization import register


@register
class JumpReLU(Sparsity):
    """Activate units above a learned threshold, and penalize L0.

    `h_j = z_j * 1[z_j > threshold_j]`,
    `loss += coefficient * factor * L0`, or with `target_l0`
    `loss += coefficient * factor * (L0 / target_l0 - 1)^2`, where
    `L0 = mean_i(sum_j 1[z_ij > threshold_j])` for pre-activations `z`

    Neither the code `h` nor the step function `1[z > t]` has a useful derivative with
    respect to the threshold `t`. Both derivatives are therefore estimated with the
    rectangular kernel `K(u) = 1[|u| < 1/2]`:
    `dh/dt = -(t / bandwidth) K((z - t) / bandwidth)` and
    `d1[z > t]/dt = -(1 / bandwidth) K((z - t) / bandwidth)`.
    With respect to `z`, the derivative of `h` is `1[z > t]`, and that of the step
    function is 0.

    The defaults assume inputs with a mean square of 1. To scale other inputs, use
    `scaling=True` in `keras_sae.models.shallow`.

    Args:
        factor: Weight of the penalty.
        target_l0: None, or the target number of active units per sample.
        threshold: Initial threshold of every unit.
        bandwidth: Width of the kernel, on the scale of the pre-activations.
        **kwargs: Arguments of `keras.layers.Layer`.

    Input and output shape:
        `(batch, ..., units)`, for the pre-activations and for the code.

    Attributes:
        threshold: float32 variable of shape `(units,)`, never negative.

    Raises:
        ValueError: `factor` or `threshold` is negative, `target_l0` or `bandwidth` is
            not positive, or one of them is not finite.

    References:
        [Rajamanoharan et al., "Jumping Ahead: Improving Reconstruction Fidelity with
        JumpReLU Sparse Autoencoders", 2024](https://arxiv.org/abs/2407.14435).

    Example:

    >>> import numpy as np
    >>> from keras_sae import layers
    >>> jump = layers.JumpReLU(factor=0.5, threshold=1.0)
    >>> code = jump(np.array([[0.5, 1.5, -2.0, 3.0]], "float32"))
    >>> np.asarray(code).tolist(), float(jump.losses[0])
    ([[0.0, 1.5, 0.0, 3.0]], 1.0)
    """

    activation = "linear"
    has_penalty = True
    selects = True

    def __init__(
        self,
        factor: float = 1e-3,
        target_l0: float | None = None,
        threshold: float = 1e-3,
        bandwidth: float = 1e-3,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.factor = validation.non_negative("factor", factor)
        self.target_l0 = target_l0
        if target_l0 is not None:
            self.target_l0 = validation.positive_number("target_l0", target_l0)
        self.persistent = target_l0 is None  # with a target, thresholds can also fall
        self.initial_threshold = validation.non_negative("threshold", threshold)
        self.bandwidth = validation.positive_number("bandwidth", bandwidth)

    def build(self, input_shape: Shape) -> None:
        """Create the thresholds and the coefficient of the penalty."""
        super().build(input_shape)
        self.threshold = self.add_weight(
            shape=(input_shape[-1],),
            initializer=keras.initializers.Constant(self.initial_threshold),
            constraint=keras.constraints.NonNeg(),
            name="threshold",
            dtype="float32",
            autocast=False,
        )

    def select(
        self, pre_activations: Tensor, training: bool | None
    ) -> SparseCode | None:
        """Return all entries that are active or affect the gradient of a threshold."""
        del training
        lowest = ops.convert_to_tensor(self.threshold) - self.bandwidth / 2
        margin = ops.cast(pre_activations, "float32") - lowest
        # No threshold is negative, so the padding is outside every window.
        entries = top_k.positive_entries(pre_activations, margin, -self.bandwidth)
        return SparseCode(*entries)

    def call(
        self, inputs: Tensor | SparseCode, training: bool | None = None
    ) -> Tensor | SparseCode:
        """Return the code and add the penalty to the loss."""
        del training
        z, threshold = inputs, ops.convert_to_tensor(self.threshold)
        if isinstance(inputs, SparseCode):
            z, threshold = inputs.values, inputs.per_entry(threshold)
        z = ops.cast(z, "float32")
        active = z > threshold
        inside = ops.cast(ops.abs(z - threshold) < self.bandwidth / 2, "float32")
        window = ops.stop_gradient(inside / self.bandwidth)
        # The differences below are 0 and have the gradient of their first term.
        jump = ops.stop_gradient(threshold) * window * threshold
        code = ops.where(active, z, 0.0) - (jump - ops.stop_gradient(jump))
        edge = window * threshold
        step = ops.cast(active, "float32") - (edge - ops.stop_gradient(edge))
        l0 = ops.sum(step, axis=-1)
        if self.target_l0 is not None:
            mean = ops.mean(weighted_mean(l0, forward_pass.sample_weight()))
            l0 = ops.square(mean / self.target_l0 - 1)
        self.add_penalty(self.factor * l0, z)
        code = ops.cast(code, self.compute_dtype)
        if isinstance(inputs, SparseCode):
            return SparseCode(code, *inputs.positions)
        return code

    def per_unit_state(self) -> list[tuple[keras.Variable, float]]:
        """Return the thresholds and their initial value."""
        return [(self.threshold, self.initial_threshold)]

    def get_config(self) -> Config:
        """Return the constructor's arguments."""
        return {
            **super().get_config(),
            "factor": self.factor,
            "target_l0": self.target_l0,
            "threshold": self.initial_threshold,
            "bandwidth": self.bandwidth,
        }
