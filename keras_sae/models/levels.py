"""Levels of a deep autoencoder, outermost first."""

from dataclasses import dataclass

import keras

from keras_sae.layers import SparseDense, TiedDense

Layers = list[keras.layers.Layer]


@dataclass(frozen=True)
class Level:
    """A level of a deep autoencoder: a layer and its mirror, with what is around them.

    `code_l = encode(code_{l-1})`, `code_{l-1} ~ decode(code_l)`,

    where the code below the first level is the input.

    Args:
        encode: Layers that compute the code of this level from the code below, in
            order. Those of the first level begin with what flattens the input.
        decode: Layers that reconstruct the code below from the code of this level, in
            order. Those of the first level end with what restores the shape.

    Example:

    >>> from keras_sae import models
    >>> outer, inner = models.stacked((8, 8, 1), (16, 4), "l1").levels
    >>> [layer.name for layer in (*inner.encode, *inner.decode)]
    ['code', 'decode_2']
    """

    encode: tuple[keras.layers.Layer, ...]
    decode: tuple[keras.layers.Layer, ...]


def flatten(model: keras.Model) -> Layers:
    """Return the layers of a model, of models in it, and the sparsities of layers."""
    layers: Layers = []
    for layer in model.layers:
        layers += flatten(layer) if isinstance(layer, keras.Model) else [layer]
        if isinstance(layer, SparseDense) and layer.sparsity is not None:
            layers += layer.sparsity._flatten_layers()
    return layers


def levels_of(model: keras.Model) -> list[Level]:
    """Return the levels of a `keras_sae.models.Autoencoder`.

    Raises:
        ValueError: Encoder and decoder are not dense, or do not mirror each other.
    """
    encode, decode = _split(model.encoder), _split(model.decoder)[::-1]
    up, down = ([_widths(layers) for layers in side] for side in (encode, decode))
    if None in up or up != [widths and widths[::-1] for widths in down]:
        raise ValueError(
            "`levels` needs a dense encoder and a dense decoder that mirrors it, layer "
            f"by layer. Received: model={model.name!r} with widths {up} and, from the "
            f"outside in, {down}. Build the model with `keras_sae.models.stacked`, "
            "`deep` or `shallow`."
        )
    return [Level(tuple(a), tuple(b)) for a, b in zip(encode, decode, strict=True)]


def _split(model: keras.Model) -> list[Layers]:
    """Split a model's layers before each kernel but the first."""
    parts: list[Layers] = [[]]
    for layer in model.layers:
        if isinstance(layer, keras.layers.InputLayer):
            continue
        if _kernel_layers([layer]) and _kernel_layers(parts[-1]):
            parts.append([])
        parts[-1].append(layer)
    return parts


def _kernel_layers(layers: Layers) -> Layers:
    found: Layers = []
    for layer in layers:
        if isinstance(layer, keras.Model):
            found += _kernel_layers(layer.layers)
        elif hasattr(layer, "kernel"):
            found.append(layer)
    return found


def _widths(layers: Layers) -> tuple[int, int] | None:
    """Return the input and output width of the dense layer among these, if any."""
    layer = next(iter(_kernel_layers(layers)), None)
    if not isinstance(layer, (SparseDense, TiedDense, keras.layers.Dense)):
        return None
    rows, columns = layer.kernel.shape
    is_transposed = isinstance(layer, TiedDense) or (
        isinstance(layer, SparseDense) and layer.transposed_kernel
    )
    return (columns, rows) if is_transposed else (rows, columns)
