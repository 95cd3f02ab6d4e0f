"""Levels of a deep autoencoder, outermost first."""

from dataclasses import dataclass

import keras

from keras_sae.layers import Centering, Sampling, SparseDense, Sparsity, TiedDense

Layers = list[keras.layers.Layer]


@dataclass(frozen=True)
class Level:
    """A level of a deep autoencoder: an encoder layer and its mirror in the decoder.

    `code_l = encode(code_{l-1})`, `code_{l-1} ~ decode(code_l)`

    For the first level, `code_0` is the input of the model. A layer without a kernel
    belongs to the level of the preceding kernel or, if there is none, to that of the
    first kernel. A `keras_sae.layers.Centering` belongs to the next kernel's level.

    Args:
        encode: Layers that compute `code_l` from `code_{l-1}`.
        decode: Layers that reconstruct `code_{l-1}` from `code_l`.

    Example:

    >>> from keras_sae import models
    >>> outer, inner = models.stacked((8, 8, 1), (16, 4), "l1").levels
    >>> [layer.name for layer in (*inner.encode, *inner.decode)]
    ['code_center', 'code', 'decode_2']
    """

    encode: tuple[keras.layers.Layer, ...]
    decode: tuple[keras.layers.Layer, ...]


def flatten(model: keras.Model) -> Layers:
    """Return the layers of a model, its nested models and its sparsities.

    Input layers are left out. Only functional models list them.
    """
    layers: Layers = []
    for layer in model.layers:
        if isinstance(layer, keras.layers.InputLayer):
            continue
        layers += flatten(layer) if isinstance(layer, keras.Model) else [layer]
        if isinstance(layer, SparseDense) and layer.sparsity is not None:
            layers += layer.sparsity._flatten_layers()
    return layers


def chain_layers(model: keras.Model) -> Layers | None:
    """Return the layers of a model if they form a chain, or None otherwise.

    Input layers are left out. A model is not a chain if it branches, calls a layer
    twice or contains a `keras.ops` function.
    """
    graph = getattr(model, "_functional", model)  # for a Sequential model
    layers = [x for x in model.layers if not isinstance(x, keras.layers.InputLayer)]
    depths = getattr(graph, "_nodes_by_depth", {})
    inputs = [len(node.input_tensors) for depth in depths for node in depths[depth]]
    # The node of the input layer has no inputs.
    return layers if layers and sorted(inputs) == [0] + [1] * len(layers) else None


def code_layer(encoder: keras.Model) -> keras.layers.Layer:
    """Return the layer that computes the code, or the mean of a variational code."""
    layer = encoder.outputs[0]._keras_history.operation
    if isinstance(layer, Sampling):
        layer = layer.mean_input._keras_history.operation
    return layer


def code_sparsity(encoder: keras.Model) -> Sparsity | None:
    """Return the sparsity of the layer that computes the code, if any."""
    layer = code_layer(encoder)
    return layer.sparsity if isinstance(layer, SparseDense) else None


def levels_of(model: keras.Model) -> list[Level]:
    """Return the levels of a `keras_sae.models.Autoencoder`.

    Raises:
        ValueError: The encoder and decoder are not both dense, or do not mirror each
            other.
    """
    encode, up = _split(model.encoder)
    decode, down = _split(model.decoder)
    mirrored = [widths and widths[::-1] for widths in reversed(down)]
    if not up or None in up or up != mirrored:
        raise ValueError(
            "`levels` requires a dense encoder and a dense decoder that mirrors the "
            f"encoder layer by layer. Received: model={model.name!r} with encoder "
            f"widths {up} and, outermost first, decoder widths {down[::-1]}. Build the "
            "model with `keras_sae.models.stacked`, `deep` or `shallow`."
        )
    return [
        Level(tuple(a), tuple(b)) for a, b in zip(encode, decode[::-1], strict=True)
    ]


def _split(model: keras.Model) -> tuple[list[Layers], list[tuple[int, int] | None]]:
    """Split a chain of layers into parts with one kernel each.

    A part ends before the next kernel, or before the centering in front of that kernel.

    Returns:
        The parts, and the input and output widths of each kernel. None replaces the
        widths of a layer that is not dense.
    """
    parts: list[Layers] = [[]]
    widths: list[tuple[int, int] | None] = []
    for layer in chain_layers(model) or []:
        has_kernel = hasattr(layer, "kernel")
        if len(parts) == len(widths) and (has_kernel or isinstance(layer, Centering)):
            parts.append([])
        if has_kernel:
            if isinstance(layer, (SparseDense, TiedDense, keras.layers.Dense)):
                rows, columns = layer.kernel.shape
                is_transposed = isinstance(layer, TiedDense) or (
                    isinstance(layer, SparseDense) and layer.transposed_kernel
                )
                widths.append((columns, rows) if is_transposed else (rows, columns))
            else:
                widths.append(None)
        parts[-1].append(layer)
    return parts, widths
