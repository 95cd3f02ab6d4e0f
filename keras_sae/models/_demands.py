"""Check that sparsity layers fit the model and the batch size."""

import keras

from keras_sae.layers import SparseDense, Sparsity
from keras_sae.types import Data


def check_sparsities(
    layers: list[keras.layers.Layer], sparse_layers: list[SparseDense]
) -> None:
    """Raise if a sparsity that needs the decoder is not the one of the code.

    Args:
        layers: Layers of the encoder, including their sparsities.
        sparse_layers: The `SparseDense` among them; the last one computes the code.
    """
    sparsity = sparse_layers[-1].sparsity if sparse_layers else None
    innermost = [] if sparsity is None else sparsity._flatten_layers()
    for layer in layers:
        if not isinstance(layer, Sparsity) or not layer.requires_decoder:
            continue
        if all(layer is not other for other in innermost):
            raise ValueError(
                f"`{type(layer).__name__}` decodes the code, so it must be the "
                f"sparsity of the innermost layer. Received: {layer.name!r} on "
                "another layer. Give hidden layers another sparsity, or None."
            )


def check_batch(
    layers: list[keras.layers.Layer], x: Data, batch_size: int | None
) -> None:
    """Raise if training batches are too small for a sparsity.

    Args:
        layers: Layers of the encoder, including their sparsities.
        x: As given to `fit`.
        batch_size: As given to `fit`.
    """
    if hasattr(x, "shape"):
        batch_size = min(x.shape[0], 32 if batch_size is None else batch_size)
    elif hasattr(x, "element_spec"):
        spec = x.element_spec
        first = spec[0] if isinstance(spec, tuple) else spec
        batch_size = first.shape[0]
    for layer in layers:
        if not isinstance(layer, Sparsity):
            continue
        smallest = layer.min_batch_size
        if batch_size and batch_size < smallest:  # Keras refuses an empty batch
            raise ValueError(
                f"`{type(layer).__name__}` selects units over the samples of a batch, "
                f"so `batch_size` must be at least {smallest}. Received: "
                f"batch_size={batch_size}. Raise it, or use `keras_sae.layers.TopK`, "
                "which looks at one sample."
            )
