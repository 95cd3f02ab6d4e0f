"""Gated sparsity: a gate decides which units are active."""

from typing import Any

import keras
from keras import ops

from keras_sae.layers.sparsity import Sparsity, Step
from keras_sae.ops import top_k
from keras_sae.ops.sparse_code import SparseCode
from keras_sae.types import Config, Shape, Tensor
from keras_sae.utils import validation
from keras_sae.utils.serialization import register


@register
class Gated(Sparsity):
    """Select the active units with a gate, and compute their magnitudes separately.

    `h_j = 1[z_j > 0] * ReLU(z_j exp(r_j) + b_j)` with learned `r` and `b`,
    `loss += coefficient * factor * mean_i(sum_j ReLU(z_ij))`, and
    `loss += mean((x - decode(ReLU(z)))^2)` with a frozen decoder

    An L1 penalty also shrinks the activations of active units. Here, the penalty acts
    only on the pre-activations `z`, and `r` and `b` can undo the shrinkage. The step
    function `1[z_j > 0]` has no gradient. The gate is therefore trained by the penalty
    and by the second reconstruction loss, which is logged as `auxiliary_loss`.

    Args:
        factor: Weight of the penalty.
        **kwargs: Arguments of `keras.layers.Layer`.

    Input and output shape:
        `(batch, ..., units)`, for the pre-activations and for the code.

    Raises:
        ValueError: `factor` is negative or not finite.

    References:
        [Rajamanoharan et al., "Improving Dictionary Learning with Gated Sparse
        Autoencoders", 2024](https://arxiv.org/abs/2404.16014).

    Example:

    >>> import numpy as np
    >>> from keras_sae import layers
    >>> gated = layers.Gated(factor=0.5)
    >>> code = gated(np.array([[0.5, -1.0, 2.0]], "float32"))
    >>> np.asarray(code).tolist(), float(gated.losses[0])
    ([[0.5, 0.0, 2.0]], 1.25)
    """

    activation = "linear"
    auxiliary_loss_names = ("auxiliary_loss",)
    requires_decoder = True
    has_penalty = True
    selects = True

    def __init__(self, factor: float = 1e-3, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.factor = validation.non_negative("factor", factor)

    def build(self, input_shape: Shape) -> None:
        """Create the log gain `r`, the bias `b` and the coefficient of the penalty."""
        super().build(input_shape)
        shape = (input_shape[-1],)
        self.log_gain = self.add_weight(
            shape=shape, initializer="zeros", name="log_gain"
        )
        self.bias = self.add_weight(shape=shape, initializer="zeros", name="bias")

    def select(
        self, pre_activations: Tensor, training: bool | None
    ) -> SparseCode | None:
        """Return all positive pre-activations."""
        del training
        margin = ops.cast(pre_activations, "float32")
        return SparseCode(*top_k.positive_entries(pre_activations, margin, 0.0))

    def call(
        self, inputs: Tensor | SparseCode, training: bool | None = None
    ) -> Tensor | SparseCode:
        """Return the code and add the penalty to the loss."""
        del training
        log_gain, bias = (ops.convert_to_tensor(v) for v in (self.log_gain, self.bias))
        z: Tensor = inputs
        if isinstance(inputs, SparseCode):
            z = inputs.values
            log_gain, bias = (inputs.per_entry(v) for v in (log_gain, bias))
        gate = ops.relu(ops.cast(z, "float32"))
        self.add_penalty(self.factor * ops.sum(gate, axis=-1), z)
        magnitude = ops.relu(z * ops.exp(log_gain) + bias)
        code = ops.where(z > 0, magnitude, ops.zeros_like(magnitude))
        if isinstance(inputs, SparseCode):
            return SparseCode(code, *inputs.positions)
        return code

    def per_unit_state(self) -> list[tuple[keras.Variable, float]]:
        """Return the log gain and the bias, which start at 0."""
        return [(self.log_gain, 0.0), (self.bias, 0.0)]

    def auxiliary_losses(self, step: Step) -> dict[str, Tensor]:
        """Return the loss of the reconstruction from `ReLU(z)`."""
        gate = step.pre_activations()
        if isinstance(gate, SparseCode):
            gate = SparseCode(ops.relu(gate.values), *gate.positions)
        else:
            gate = ops.relu(gate)
        reconstruction = ops.cast(step.decode_with_frozen_decoder(gate), "float32")
        # The target of a transcoder with a skip connection has a gradient.
        target = ops.stop_gradient(ops.cast(step.target, "float32"))
        error = ops.square(target - reconstruction)
        if step.sample_weight is not None:
            error = error * step.sample_weight
        return {"auxiliary_loss": ops.mean(error)}

    def get_config(self) -> Config:
        """Return the constructor's arguments."""
        return {**super().get_config(), "factor": self.factor}
