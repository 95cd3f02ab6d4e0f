"""Centring and scaling made part of the weights next to them, for serving."""

import itertools
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_sae.layers import (
    Centering,
    Scaling,
    SparseDense,
    TiedConv2DTranspose,
    TiedDense,
    tying,
)
from keras_sae.models.building_blocks import chain

_DENSE = (SparseDense, keras.layers.Dense)
_TIED = (TiedDense, TiedConv2DTranspose)


def folded(model: Any) -> Any:
    """Returns a model that answers the same, centring and scaling in its weights.

    `((x - mean) / rms) W + b = x (W / rms) + (b - (mean / rms) W)`, and behind the
    code `rms (h A + c) = h (rms A) + rms c`

    What cannot be folded stays: before a convolution, whose edges see zeros that are
    not centred, before a layer without a bias, and a scale whose kernel is tied.

    Args:
        model: An `Autoencoder`; it stays as it is.
    """
    if not hasattr(model, "decoder"):
        return model
    tied = any(isinstance(x, _TIED) for x in model.decoder.layers)
    before, dense = _before_the_code(model.encoder, tied)
    output, scale = (None, None) if tied else _behind_the_code(model.decoder)
    if not before and scale is None:
        return model
    encoder, copies = _copied(model.encoder, before)
    if before:
        _fold_in(copies[dense], before)
    with tying(copies.values()):
        decoder, copies = _copied(model.decoder, [scale])
    if scale is not None:
        _fold_out(copies[output], _rms(scale))
    config = {**model.get_config(), "encoder": encoder, "decoder": decoder}
    return type(model)(**config)


def _chain_of(model: keras.Model) -> list[Any] | None:
    """The layers of a model that applies one after the other, else None."""
    layers = [x for x in model.layers if not isinstance(x, keras.layers.InputLayer)]
    nodes = [len(x._inbound_nodes) for x in layers]
    if not layers or set(nodes) != {1}:
        return None
    follows = all(b.input is a.output for a, b in itertools.pairwise(layers))
    return layers if follows else None


def _before_the_code(encoder: keras.Model, tied: bool) -> tuple[list[Any], Any]:
    """The layers that can be folded into the first kernel, and its layer's name."""
    layers = _chain_of(encoder) or []
    place = next((i for i, x in enumerate(layers) if hasattr(x, "kernel")), 0)
    kinds = (Centering,) if tied else (Centering, Scaling)
    found = [x for x in layers[:place] if isinstance(x, kinds)]
    # Only right before the kernel, so that nothing between sees other values.
    dense: Any = layers[place] if layers else None
    plain = isinstance(dense, _DENSE) and dense.bias is not None
    if not found or layers[:place][-len(found) :] != found or not plain:
        return [], None
    return found, dense.name


def _behind_the_code(decoder: keras.Model) -> tuple[Any, Any]:
    """The name of a linear dense layer, and the scale right behind it."""
    for dense, scale in itertools.pairwise(_chain_of(decoder) or []):
        if isinstance(scale, Scaling) and isinstance(dense, _DENSE):
            linear = dense.activation is keras.activations.linear
            return (dense.name, scale) if linear else (None, None)
    return None, None


def _copied(model: keras.Model, without: list[Any]) -> tuple[keras.Model, dict]:
    """A copy of a model that may be a chain, and its layers by name."""
    layers = _chain_of(model)
    tied = any(isinstance(x, _TIED) for x in model.layers)
    if layers is None or not (tied or any(x in layers for x in without)):
        return model, {x.name: x for x in model.layers}
    kept = [x for x in layers or () if x not in without]
    copies = [type(x).from_config(x.get_config()) for x in kept]
    shape = tuple(model.input_shape[1:])
    again = chain(shape, copies, model.name)
    for layer, copy in zip(kept, copies, strict=True):
        copy.set_weights(layer.get_weights())
    return again, {x.name: x for x in copies}


def _fold_in(dense: Any, before: list[Any]) -> None:
    kernel, bias = (_numpy(v) for v in (dense.kernel, dense.bias))
    for layer in reversed(before):
        if isinstance(layer, Scaling):
            kernel = kernel / _rms(layer)
        else:
            by_rows = getattr(dense, "transposed_kernel", False)
            bias = bias - _numpy(layer.mean) @ (kernel.T if by_rows else kernel)
    dense.kernel.assign(kernel)
    dense.bias.assign(bias)


def _fold_out(dense: Any, rms: float) -> None:
    # The atoms have the data's scale from here on; nothing is trained any more.
    dense.kernel.assign(_numpy(dense.kernel) * rms)
    if dense.bias is not None:
        dense.bias.assign(_numpy(dense.bias) * rms)


def _rms(layer: Scaling) -> float:
    return float(layer.rms) or 1.0


def _numpy(variable: Any) -> np.ndarray:
    return ops.convert_to_numpy(variable).astype("float64")
