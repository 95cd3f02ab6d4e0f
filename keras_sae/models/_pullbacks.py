"""What each layer of an encoder does to a Jacobian that is known above it.

`J` is `d code / d h`, of shape `(batch, units, *shape of h)`, for the output `h` of a
layer; a pullback takes it to the layer's input `x`. In place of the identity, which the
code's own layer gets, stands None: a dense layer need not multiply by it.
"""

import math
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from keras_sae.layers import (
    ActivityPenalty,
    Centering,
    Sampling,
    Scaling,
    SparseDense,
    UnitNormDense,
)
from keras_sae.models import _slopes

Pullback = Callable[[Any, Any, Any, Any], Any]

# Layers whose derivative by their input is the identity, or a constant.
PASSIVE = (
    keras.layers.Flatten,
    keras.layers.Reshape,
    keras.layers.GaussianNoise,
    Centering,
    ActivityPenalty,
    Scaling,
)


def _kernel(layer: Any) -> Any:
    """The kernel, its last two axes those of inputs and outputs."""
    rows = getattr(layer, "transposed_kernel", False)
    return ops.cast(ops.transpose(layer.kernel) if rows else layer.kernel, "float32")


def _explicit(jacobian: Any, h: Any) -> Any:
    if jacobian is not None:
        return jacobian
    return ops.cast(ops.ones_like(h), "float32")[:, None] * ops.eye(h.shape[-1])


def _reshaped(_: Any, x: Any, h: Any, jacobian: Any) -> Any:
    jacobian = _explicit(jacobian, h)
    return ops.reshape(jacobian, (-1, jacobian.shape[1], *x.shape[1:]))


def _dense(layer: Any, x: Any, h: Any, jacobian: Any) -> Any:
    slope, rows = _slopes.slope(layer, x, h), ops.transpose(_kernel(layer))
    if jacobian is None:
        return slope[:, :, None] * rows
    return ops.matmul(jacobian * slope[:, None], rows)


def _convolution(layer: Any, x: Any, h: Any, jacobian: Any) -> Any:
    jacobian = _explicit(jacobian, h) * _slopes.slope(layer, x, h)[:, None]
    maps = ops.conv_transpose(
        ops.reshape(jacobian, (-1, *h.shape[1:])),
        _kernel(layer),
        padding=layer.padding,
        data_format="channels_last",
    )
    return ops.reshape(maps, (-1, jacobian.shape[1], *x.shape[1:]))


def _pooling(layer: Any, x: Any, h: Any, jacobian: Any) -> Any:
    """Each value goes to the first of the largest of its window."""
    (rows, columns), (height, width) = layer.pool_size, h.shape[1:3]
    excess = (height * rows - x.shape[1], width * columns - x.shape[2])
    top, left = excess[0] // 2, excess[1] // 2
    edges = ((0, 0), (top, excess[0] - top), (left, excess[1] - left), (0, 0))
    padded = ops.pad(ops.cast(x, "float32"), edges, constant_values=-math.inf)
    split = (-1, height, rows, width, columns, h.shape[3])
    windows = ops.transpose(ops.reshape(padded, split), (0, 1, 3, 5, 2, 4))
    flat = ops.reshape(windows, (-1, height, width, h.shape[3], rows * columns))
    largest = ops.cast(flat == ops.max(flat, axis=-1, keepdims=True), "float32")
    first = largest * ops.cast(ops.cumsum(largest, axis=-1) == 1, "float32")
    first = ops.reshape(first, (-1, height, width, h.shape[3], rows, columns))
    first = ops.transpose(first, (0, 1, 4, 2, 5, 3))
    first = ops.reshape(first, (-1, height * rows, width * columns, h.shape[3]))
    wide = ops.repeat(ops.repeat(_explicit(jacobian, h), rows, axis=2), columns, axis=3)
    spread = wide * first[:, None]
    return spread[:, :, top : top + x.shape[1], left : left + x.shape[2]]


def _average(_: Any, x: Any, h: Any, jacobian: Any) -> Any:
    jacobian = _explicit(jacobian, h)
    jacobian = ops.reshape(jacobian, (-1, jacobian.shape[1], 1, 1, x.shape[3]))
    share = ops.cast(ops.ones_like(x), "float32") / (x.shape[1] * x.shape[2])
    return jacobian * share[:, None]


def _mean(_: Any, __: Any, h: Any, jacobian: Any) -> Any:
    """Of a posterior's parameters, side by side, the code without its noise is half."""
    jacobian = _explicit(jacobian, h)
    return ops.concatenate([jacobian, ops.zeros_like(jacobian)], axis=-1)


PULLBACKS: dict[Any, Pullback] = {
    SparseDense: _dense,
    UnitNormDense: _dense,
    keras.layers.Dense: _dense,
    keras.layers.Conv2D: _convolution,
    keras.layers.MaxPooling2D: _pooling,
    keras.layers.GlobalAveragePooling2D: _average,
    Sampling: _mean,
    **dict.fromkeys(PASSIVE, _reshaped),
}


def pullback(layer: Any) -> Pullback:
    """Returns the function `(layer, x, h, J above) -> J below` of a layer."""
    return PULLBACKS[type(layer)]


def squared_norm(layer: Any, x: Any, h: Any, jacobian: Any) -> Any:
    """Returns `mean_i(|J_i|_F^2)` by the input of the layer with the first kernel.

    Behind a dense layer the kernel enters by its Gram matrix: a product of the width
    of the input is never made for a sample.
    """
    if pullback(layer) is not _dense:
        return _mean_square(pullback(layer)(layer, x, h, jacobian))
    kernel, slope = _kernel(layer), _slopes.slope(layer, x, h)
    if jacobian is None:
        atoms = ops.sum(ops.square(kernel), axis=0)
        return ops.mean(ops.sum(ops.square(slope) * atoms, axis=-1))
    if len(x.shape) > 2:  # the same kernel at every place
        return _mean_square(_dense(layer, x, h, jacobian))
    jacobian = jacobian * slope[:, None]
    gram = ops.matmul(ops.transpose(kernel), kernel)
    return ops.mean(ops.sum(jacobian * ops.matmul(jacobian, gram), axis=(1, 2)))


def _mean_square(jacobian: Any) -> Any:
    axes = tuple(range(1, len(jacobian.shape)))
    return ops.mean(ops.sum(ops.square(jacobian), axis=axes))


def problem(layer: Any, shape: tuple[int | None, ...]) -> str | None:
    """Says what keeps the Jacobian of a layer from being known, or None.

    Args:
        layer: A layer of an encoder.
        shape: Of its input, with the batch.
    """
    name = f"the layer {layer.name!r}, a {type(layer).__name__}"
    # A subclass may do anything else in its call.
    if type(layer) not in PULLBACKS:
        return name
    order = getattr(layer, "data_format", "channels_last")
    if order != "channels_last":
        return f"{name} with data_format={order!r}"
    sparse = getattr(layer, "sparse", None)
    if sparse is not None and not isinstance(sparse, ActivityPenalty):
        return f"sparsity={type(sparse).__name__}"
    if isinstance(layer, keras.layers.MaxPooling2D):
        apart = tuple(layer.strides) == tuple(layer.pool_size)
        sides = zip(shape[1:3], layer.pool_size, strict=True)
        whole = layer.padding == "same" or all(n % side == 0 for n, side in sides)
        return (
            None if apart and whole else f"{name} whose windows overlap or leave a rest"
        )
    if isinstance(layer, keras.layers.Conv2D):
        plain = (*layer.strides, *layer.dilation_rate, layer.groups) == (1, 1, 1, 1, 1)
        if not plain:
            return f"{name} with strides, dilation or groups"
    activation = getattr(layer, "activation", keras.activations.linear)
    if activation not in _slopes.SLOPES and activation not in _slopes.SLOPES_BY_INPUT:
        return f"activation={getattr(activation, '__name__', repr(activation))!r}"
    return None
