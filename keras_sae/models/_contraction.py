"""The contractive penalty: how far a code moves when its input does.

For a chain of dense layers `h_l = f_l(h_{l-1} W_l + b_l)` the Jacobian of the last
by the input is `W_1 diag(f_1') W_2 diag(f_2') ...`, a matrix a sample. Where they
can be, the derivatives are taken from the outputs: one forward pass serves for both.
"""

import math
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from keras_sae.layers import (
    Centering,
    MaskingNoise,
    Penalty,
    SaltAndPepper,
    Scaling,
    SparseDense,
)

_activations = keras.activations
_SELU_SCALE, _SELU_ALPHA = 1.0507009873554805, 1.6732632423543772


def _between(h: Any, low: float, high: float) -> Any:
    return ops.cast(ops.logical_and(h > low, h < high), h.dtype)


# f'(z), written as a function of h = f(z).
SLOPES: dict[Any, Callable[[Any], Any]] = {
    _activations.linear: ops.ones_like,
    _activations.sigmoid: lambda h: h * (1 - h),
    _activations.tanh: lambda h: 1 - ops.square(h),
    _activations.softsign: lambda h: ops.square(1 - ops.abs(h)),
    _activations.softplus: lambda h: -ops.expm1(-h),
    _activations.exponential: lambda h: h,
    _activations.relu: lambda h: ops.cast(h > 0, h.dtype),
    _activations.relu6: lambda h: _between(h, 0, 6),
    _activations.leaky_relu: lambda h: ops.where(h > 0, 1.0, 0.2),
    _activations.elu: lambda h: ops.where(h > 0, 1.0, h + 1),
    _activations.selu: lambda h: ops.where(
        h > 0, _SELU_SCALE, h + _SELU_SCALE * _SELU_ALPHA
    ),
    _activations.hard_sigmoid: lambda h: _between(h, 0, 1) / 6,
    _activations.hard_tanh: lambda h: _between(h, -1, 1),
}


def _silu(z: Any) -> Any:
    s = ops.sigmoid(z)
    return s * (1 + z * (1 - s))


def _gelu(z: Any) -> Any:
    density = ops.exp(-ops.square(z) / 2) / math.sqrt(2 * math.pi)
    return (1 + ops.erf(z / math.sqrt(2))) / 2 + z * density


def _mish(z: Any) -> Any:
    t = ops.tanh(ops.softplus(z))
    return t + z * ops.sigmoid(z) * (1 - ops.square(t))


# f'(z) where an output belongs to more than one z.
SLOPES_BY_INPUT: dict[Any, Callable[[Any], Any]] = {
    _activations.silu: _silu,
    _activations.gelu: _gelu,
    _activations.mish: _mish,
}

# Layers whose derivative by their input is the identity, or a constant.
_PASSIVE = (
    keras.layers.InputLayer,
    keras.layers.Flatten,
    keras.layers.Reshape,
    keras.layers.GaussianNoise,
    Centering,
    Scaling,
)

# The derivative is by what these leave of the input.
_DAMAGING = (
    keras.layers.Dropout,
    keras.layers.GaussianDropout,
    MaskingNoise,
    SaltAndPepper,
)


def check(encoder: keras.Model) -> None:
    """Raises unless the Jacobian of the encoder is known."""
    inside = False
    for layer in encoder.layers:
        if isinstance(layer, _PASSIVE if inside else (*_PASSIVE, *_DAMAGING)):
            continue
        problem = _problem(layer)
        if problem:
            known = ", ".join(sorted(f.__name__ for f in {**SLOPES, **SLOPES_BY_INPUT}))
            raise ValueError(
                "`contractive` needs the Jacobian of the code: dense layers, soft or "
                f"no sparsity, and activations among {known}. Received: an encoder "
                f"with {problem}. Choose another, or contractive=0."
            )
        inside = True


def _problem(layer: keras.layers.Layer) -> str | None:
    if not isinstance(layer, SparseDense):
        return f"the layer {layer.name!r}, a {type(layer).__name__}"
    if layer.sparse is not None and not isinstance(layer.sparse, Penalty):
        return f"sparsity={type(layer.sparse).__name__}"
    if layer.activation not in SLOPES and layer.activation not in SLOPES_BY_INPUT:
        name = getattr(layer.activation, "__name__", repr(layer.activation))
        return f"activation={name!r}"
    return None


def encode(encoder: keras.Model, x: Any) -> tuple[Any, Any]:
    """Returns the code, and the mean over the batch of `|d code / dx|_F^2`.

    Args:
        encoder: A model that `check` has passed.
        x: Inputs of shape `(batch, *input_shape)`.

    Returns:
        A tensor of shape `(batch, units)` and a float32 scalar. The derivative is
        by what a corruption layer leaves of `x`.
    """
    kernels, slopes, factor = [], [], 1.0
    for layer in encoder.layers:
        if isinstance(layer, keras.layers.InputLayer):
            continue
        below, x = x, layer(x)
        if isinstance(layer, Scaling):
            factor = factor * layer.factor()
        if isinstance(layer, SparseDense):
            kernel = ops.transpose(layer.kernel) if layer.unit_rows else layer.kernel
            kernels.append(ops.cast(kernel, "float32"))
            slopes.append(_slope(layer, below, x))
    return x, ops.square(factor) * squared_norm(kernels, slopes)


def _slope(layer: SparseDense, x: Any, h: Any) -> Any:
    """Returns `f'` of a layer that has made `h` of `x`."""
    if layer.activation in SLOPES:
        return SLOPES[layer.activation](ops.cast(h, "float32"))
    by_input = SLOPES_BY_INPUT[layer.activation]
    return by_input(ops.cast(layer.pre(x), "float32"))


def squared_norm(kernels: list[Any], slopes: list[Any]) -> Any:
    """Returns the mean over the batch of `|W_1 diag(s_1) W_2 diag(s_2) ...|_F^2`.

    The first kernel enters by its Gram matrix: a product of the width of the input
    is never made for a sample.

    Args:
        kernels: `W_l` of shape `(units_{l-1}, units_l)`, outermost first.
        slopes: `s_l` of shape `(batch, units_l)`.
    """
    if len(kernels) == 1:
        atoms = ops.sum(ops.square(kernels[0]), axis=0)
        return ops.mean(ops.sum(ops.square(slopes[0]) * atoms, axis=-1))
    product = kernels[-1] * slopes[-1][:, None, :]
    for kernel, slope in zip(kernels[-2:0:-1], slopes[-2:0:-1], strict=True):
        product = ops.matmul(kernel, slope[:, :, None] * product)
    product = slopes[0][:, :, None] * product
    gram = ops.matmul(ops.transpose(kernels[0]), kernels[0])
    return ops.mean(ops.sum(product * ops.matmul(gram, product), axis=(1, 2)))
