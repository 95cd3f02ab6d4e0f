"""An autoencoder taken apart into its levels, outermost first."""

from dataclasses import dataclass
from typing import Any

import keras

from keras_sae.layers import SparseDense, TiedDense

_DENSE = (SparseDense, TiedDense, keras.layers.Dense)


@dataclass(frozen=True)
class Level:
    """One level of a deep autoencoder: a layer, its mirror, and what is around them.

    `code_l = encode(code_{l-1})`, `code_{l-1} ~ decode(code_l)`,

    where the code below the first level is the input itself.

    Args:
        encode: Layers to apply in order to the code of the level below, for this
            level's code. The first level's begin with what flattens the input.
        decode: Layers to apply in order to this level's code, to rebuild the code
            of the level below. The first level's end with what restores the shape.

    Example:

    >>> from keras_sae import models
    >>> outer, inner = models.stacked((8, 8, 1), (16, 4), "l1").levels
    >>> [layer.name for layer in (*inner.encode, *inner.decode)]
    ['code', 'decode_2']
    """

    encode: tuple[keras.layers.Layer, ...]
    decode: tuple[keras.layers.Layer, ...]


def flatten(model: keras.Model) -> list[keras.layers.Layer]:
    """The layers of a model and of the layers in it, in the order they were added."""
    found = []
    for layer in model.layers:
        found += flatten(layer) if hasattr(layer, "layers") else [layer]
        if isinstance(layer, SparseDense) and layer.sparsity is not None:
            found += layer.sparsity._flatten_layers()  # one may hold another
    return found


def levels_of(model: Any) -> list[Level]:
    """Returns the levels of an `Autoencoder`, or raises if it has no such structure."""
    encode, decode = _blocks(model.encoder), _blocks(model.decoder)[::-1]
    if not _mirrored(encode, decode):
        raise ValueError(
            "`levels` are those of an encoder and a decoder that are dense and mirror "
            f"each other, layer by layer. Received: model={model.name!r} with kernels "
            f"{_shapes(encode)} and, from the outside in, {_shapes(decode)}. Build the "
            "model with `keras_sae.models.stacked`, `deep` or `shallow`."
        )
    return [Level(tuple(a), tuple(b)) for a, b in zip(encode, decode, strict=True)]


def _blocks(model: keras.Model) -> list[list[keras.layers.Layer]]:
    """The layers in groups of one kernel, and what follows it; the first leads too."""
    blocks: list[list[keras.layers.Layer]] = [[]]
    for layer in model.layers:
        if isinstance(layer, keras.layers.InputLayer):
            continue
        if _has_kernel(layer) and any(map(_has_kernel, blocks[-1])):
            blocks.append([])
        blocks[-1].append(layer)
    return blocks


def _has_kernel(layer: keras.layers.Layer) -> bool:
    # A model as a layer counts for what is in it: several corruptions are one, too.
    return hasattr(layer, "kernel") or any(map(_has_kernel, _inside(layer)))


def _inside(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    return getattr(layer, "layers", [])


def _mirrored(encode: list[list], decode: list[list]) -> bool:
    if len(encode) != len(decode):
        return False
    for up, down in zip(encode, decode, strict=True):
        here, there = (_kernel_layer(block) for block in (up, down))
        if not isinstance(here, _DENSE) or not isinstance(there, _DENSE):
            return False
        if _ends(here) != _ends(there)[::-1]:
            return False
    return True


def _kernel_layer(block: list[keras.layers.Layer]) -> Any:
    return next(filter(_has_kernel, block), None)


def _ends(layer: Any) -> tuple[int, ...]:
    """Width of the input and of the output of a dense layer."""
    shape = tuple(layer.kernel.shape)
    turned = isinstance(layer, TiedDense) or getattr(layer, "transposed_kernel", False)
    return shape[::-1] if turned else shape


def _shapes(blocks: list[list]) -> list[Any]:
    kernels = [getattr(_kernel_layer(block), "kernel", None) for block in blocks]
    return [None if kernel is None else tuple(kernel.shape) for kernel in kernels]
