"""The contractive penalty: the squared norm of the code's Jacobian."""

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import keras
from keras import activations, ops

from keras_sae.layers import (
    ActivityPenalty,
    Centering,
    MaskingNoise,
    SaltAndPepperNoise,
    Sampling,
    Scaling,
    SparseDense,
    UnitNormDense,
)
from keras_sae.layers.forward_pass import mean_loss
from keras_sae.types import Tensor

_DENSE = (SparseDense, UnitNormDense, keras.layers.Dense)
# The Jacobian of these layers is the identity.
_LINEAR = (ActivityPenalty, Centering, keras.layers.GaussianNoise)
# Layers that are allowed only in front of the first dense layer. Reshaping does not
# change the norm of the Jacobian. With noise or dropout, the Jacobian is the derivative
# with respect to the corrupted input.
_IN_FRONT = (
    keras.layers.Dropout,
    keras.layers.Flatten,
    keras.layers.GaussianDropout,
    keras.layers.Reshape,
    keras.layers.SpatialDropout1D,
    keras.layers.SpatialDropout2D,
    keras.layers.SpatialDropout3D,
    MaskingNoise,
    SaltAndPepperNoise,
)
_SCALE, _ALPHA = 1.0507009873554805, 1.6732632423543772  # SELU constants

# Derivatives f'(z) of activations, computed from the output h = f(z) where possible.
_DERIVATIVES: dict[Callable[..., Tensor], Callable[[Tensor, Tensor], Tensor]] = {
    activations.linear: lambda h, _: ops.ones_like(h),
    activations.relu: lambda h, _: ops.cast(h > 0, h.dtype),
    activations.relu6: lambda h, _: ops.cast((h > 0) & (h < 6), h.dtype),
    activations.leaky_relu: lambda h, _: ops.where(h > 0, 1.0, 0.2),
    activations.elu: lambda h, _: ops.where(h > 0, 1.0, h + 1),
    activations.selu: lambda h, _: ops.where(h > 0, _SCALE, h + _SCALE * _ALPHA),
    activations.sigmoid: lambda h, _: h * (1 - h),
    activations.hard_sigmoid: lambda h, _: ops.cast((h > 0) & (h < 1), h.dtype) / 6,
    activations.tanh: lambda h, _: 1 - ops.square(h),
    activations.softplus: lambda h, _: -ops.expm1(-h),
    activations.softsign: lambda h, _: ops.square(1 - ops.abs(h)),
    activations.exponential: lambda h, _: h,
    activations.silu: lambda h, z: ops.sigmoid(z) + h * (1 - ops.sigmoid(z)),
    activations.gelu: lambda _, z: (
        (1 + ops.erf(z / math.sqrt(2))) / 2
        + z * ops.exp(-ops.square(z) / 2) / math.sqrt(2 * math.pi)
    ),
}
_NOT_MONOTONIC = (activations.silu, activations.gelu)
# A dense layer with its symbolic input and output.
_Step: TypeAlias = tuple[Any, Tensor, Tensor]


class ContractivePenalty:
    """Compute an encoder's code and the squared norm of the code's Jacobian.

    `penalty = mean_i(|dh_i / dx_i|_F^2)`

    The encoder must be a chain of dense layers with elementwise activations. The
    Jacobian is then `W_1 diag(f_1') W_2 diag(f_2') ...`, so the penalty can be computed
    exactly in one forward pass. Centering, scaling, reshaping, noise and dropout may
    precede the first dense layer. For a variational encoder, the penalty applies to the
    posterior mean. Any other layer or activation raises a `ValueError`.

    Reference:
        [Rifai et al., 2011](https://icml.cc/2011/papers/455_icmlpaper.pdf)
    """

    def __init__(self, encoder: keras.Model) -> None:
        self._units = int(encoder.output_shape[-1])
        steps: list[_Step] = []
        scalings: list[Scaling] = []
        in_front: list[keras.layers.Layer] = []
        code = tensor = encoder.outputs[0]
        while True:
            history = tensor._keras_history
            layer = history.operation
            inputs = layer._inbound_nodes[history.node_index].input_tensors
            if not inputs:
                break
            # Match only exact types, because a subclass may have another derivative.
            if type(layer) is Sampling and tensor is code:
                tensor = layer.mean_input
                continue
            if type(layer) in _DENSE:
                if in_front:
                    raise _error(in_front[0], " after a dense layer")
                if len(inputs[0].shape) != 2:
                    raise _error(
                        layer, f" with inputs of shape {tuple(inputs[0].shape)}"
                    )
                sparsity = layer.sparsity if isinstance(layer, SparseDense) else None
                if sparsity is not None and type(sparsity) is not ActivityPenalty:
                    raise _error(layer, f" with sparsity={type(sparsity).__name__}")
                if layer.activation not in _DERIVATIVES:
                    name = getattr(layer.activation, "__name__", repr(layer.activation))
                    raise _error(layer, f" with activation={name!r}")
                steps.append((layer, inputs[0], tensor))
            elif type(layer) is Scaling:
                scalings.append(layer)
            elif type(layer) in _IN_FRONT:
                in_front.append(layer)
            elif type(layer) not in _LINEAR:
                raise _error(layer)
            tensor = inputs[0]
        if not steps:
            raise _error(encoder, ", which has no dense layer")
        self._steps, self._scalings = steps[::-1], scalings
        # A single pass computes all tensors, so that noise is drawn only once.
        tensors = [(below, above) for _, below, above in self._steps]
        self._model = keras.Model(encoder.inputs[0], [encoder.outputs[0], tensors])

    def __call__(
        self, x: Tensor, training: bool | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the code and the penalty, a float32 scalar."""
        code, tensors = self._model(x, training=training)
        factors = []  # per layer: f'(z), `(batch, units)`, and W, `(input_dim, units)`
        for (layer, _, _), (below, h) in zip(self._steps, tensors, strict=True):
            kernel, z = ops.cast(layer.kernel, "float32"), None
            if isinstance(layer, SparseDense) and layer.transposed_kernel:
                kernel = ops.transpose(kernel)
            if layer.activation in _NOT_MONOTONIC:
                z = ops.matmul(ops.cast(below, "float32"), kernel)
                z = z if layer.bias is None else z + ops.cast(layer.bias, "float32")
            derivative = _DERIVATIVES[layer.activation](ops.cast(h, "float32"), z)
            factors.append((derivative, kernel))
        # The last dense layer of a variational encoder may also compute log variances.
        derivative, kernel = factors[-1]
        factors[-1] = derivative[:, : self._units], kernel[:, : self._units]
        (derivative, kernel), *deeper = factors
        if deeper:
            slope, weights = deeper.pop()
            jacobian = slope[:, :, None] * ops.transpose(weights)
            for slope, weights in reversed(deeper):
                jacobian = ops.matmul(jacobian * slope[:, None], ops.transpose(weights))
            # Using |J W^T|^2 = <J W^T W, J> avoids a product as wide as the input.
            jacobian = jacobian * derivative[:, None]
            gram = ops.matmul(ops.transpose(kernel), kernel)
            norms = ops.sum(jacobian * ops.matmul(jacobian, gram), axis=(1, 2))
        else:
            columns = ops.sum(ops.square(kernel), axis=0)
            norms = ops.sum(ops.square(derivative) * columns, axis=1)
        penalty = mean_loss(norms)
        for layer in self._scalings:
            penalty = penalty * ops.square(layer.factor())
        return code, penalty


def _error(layer: keras.layers.Layer, detail: str = "") -> ValueError:
    known = sorted(f.__name__ for f in _DERIVATIVES)
    return ValueError(
        "`contractive` requires an encoder of dense layers whose sparsity is a "
        "regularizer or None, and whose activation is one of "
        f"{', '.join(known)}. Received: {layer.name!r} "
        f"({type(layer).__name__}){detail}. Change it, or pass contractive=0."
    )
