"""What the sparsities in an encoder ask of its model and of the batches."""

from typing import Any


def check_sparsities(layers: list[Any], sparse_layers: list[Any]) -> None:
    """Raises if a sparsity that needs the decoder does not make the code itself.

    Args:
        layers: Those of the encoder, with the sparsities in them.
        sparse_layers: Of these the `SparseDense`, the code's last.
    """
    made = sparse_layers[-1].sparsity if sparse_layers else None
    innermost = [] if made is None else made._flatten_layers()  # it may hold another
    for layer in layers:
        asks = getattr(layer, "needs_decoder", False)
        if asks and all(layer is not own for own in innermost):
            raise ValueError(
                f"`{type(layer).__name__}` compares the input with what the decoder "
                "makes of its code, so it can only be the sparsity of the innermost "
                f"layer. Received: {layer.name!r} on another. Give the hidden layers "
                "another sparsity, or None."
            )


def check_batch(layers: list[Any], x: Any, batch_size: int | None) -> None:
    """Raises for training batches too small for a sparsity that chooses over them.

    Args:
        layers: Those of the encoder, with the sparsities in them.
        x: As given to `fit`.
        batch_size: The same.
    """
    if hasattr(x, "shape"):
        batch_size = min(x.shape[0], 32 if batch_size is None else batch_size)
    elif hasattr(x, "element_spec"):
        spec = x.element_spec
        first = spec[0] if isinstance(spec, tuple) else spec
        batch_size = first.shape[0]
    for layer in layers:
        least = getattr(layer, "least_batch", 1)
        if batch_size and batch_size < least:  # none at all is refused elsewhere
            raise ValueError(
                f"`{type(layer).__name__}` chooses over the samples of a batch, so a "
                f"batch needs at least {least}. Received: batch_size={batch_size}. "
                "Raise it, or use `keras_sae.layers.TopK`, which looks at one sample."
            )
