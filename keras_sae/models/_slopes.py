"""Derivatives of activations, from their outputs where those tell."""

import math
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from keras_sae.layers import SparseDense

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


def _hard_silu(z: Any) -> Any:
    slope = (2 * z + 3) / 6
    return ops.where(z > -3, ops.where(z < 3, slope, 1.0), 0.0)


def _squareplus(z: Any) -> Any:
    return (1 + z / ops.sqrt(ops.square(z) + 4)) / 2


# f'(z) where an output belongs to more than one z, or says little about it.
SLOPES_BY_INPUT: dict[Any, Callable[[Any], Any]] = {
    _activations.hard_silu: _hard_silu,
    _activations.log_sigmoid: lambda z: ops.sigmoid(-z),
    _activations.squareplus: _squareplus,
    _activations.tanh_shrink: lambda z: ops.square(ops.tanh(z)),
    _activations.soft_shrink: lambda z: ops.cast(ops.abs(z) > 0.5, z.dtype),
    _activations.hard_shrink: lambda z: ops.cast(ops.abs(z) > 0.5, z.dtype),
    _activations.sparse_plus: lambda z: ops.clip((z + 1) / 2, 0.0, 1.0),
    _activations.sparse_sigmoid: lambda z: _between(z, -1, 1) / 2,
    _activations.celu: lambda z: ops.exp(ops.minimum(z, 0.0)),
    _activations.silu: _silu,
    _activations.gelu: _gelu,
    _activations.mish: _mish,
}


def known() -> str:
    """The names of the activations whose derivative is known."""
    return ", ".join(sorted(f.__name__ for f in {**SLOPES, **SLOPES_BY_INPUT}))


def slope(layer: Any, x: Any, h: Any) -> Any:
    """Returns `f'` of a layer that has made `h` of `x`, float32 and in its shape."""
    if layer.activation in SLOPES:
        return SLOPES[layer.activation](ops.cast(h, "float32"))
    by_input = SLOPES_BY_INPUT[layer.activation]
    return by_input(ops.cast(_before(layer, x), "float32"))


def _before(layer: Any, x: Any) -> Any:
    if isinstance(layer, SparseDense):
        return layer.pre_activations(x)
    # In the layer's precision, whatever the kernel is kept in.
    x, kernel = (ops.cast(v, layer.compute_dtype) for v in (x, layer.kernel))
    convolves = isinstance(layer, keras.layers.Conv2D)
    z = (layer.convolution_op if convolves else ops.matmul)(x, kernel)
    bias = layer.bias
    return z if bias is None else ops.add(z, ops.cast(bias, layer.compute_dtype))
