"""Find model families and sparsities by name, for tuning and the command line."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from keras_sae.layers import BatchTopK, Matryoshka, get_sparsity
from keras_sae.layers.serialization import NAMES
from keras_sae.models.autoencoder import Autoencoder
from keras_sae.models.building_blocks import layer_units
from keras_sae.models.convolutional import convolutional
from keras_sae.models.deep import deep, stacked
from keras_sae.models.shallow import shallow
from keras_sae.models.variational import variational
from keras_sae.types import SparsityLike

FAMILIES: dict[str, Callable[..., Autoencoder]] = {
    factory.__name__: factory
    for factory in (shallow, deep, stacked, convolutional, variational)
}
# Settings that users can choose for each kind of sparsity.
KINDS: dict[str, tuple[str, ...]] = {
    "l1": ("factor",),
    "kl": ("target", "factor"),
    "top_k": ("k",),
    "batch_top_k": ("k",),
    "lifetime": ("fraction",),
    "jump_relu": ("factor", "target_l0"),
    "gated": ("factor",),
    "matryoshka": ("k",),
    "none": (),
}


def make_sparsity(kind: str, settings: Mapping[str, Any]) -> SparsityLike:
    """Return a sparsity of one of the `KINDS` with the given settings."""
    if kind == "none":
        return None
    if kind == "matryoshka":
        return Matryoshka(BatchTopK(**settings))
    return NAMES[kind](**settings)


def build(
    family: str,
    input_shape: Sequence[int],
    units: int | Sequence[int],
    sparsity: SparsityLike = None,
    depth: int = 2,
    **options: Any,
) -> Autoencoder:
    """Return a model of one of the `FAMILIES`.

    Args:
        family: Name of the family.
        input_shape: Shape of one sample.
        units: Width of the code, or the widths of all layers, with the code last.
        sparsity: Sparsity of the code, and of all levels of a stacked model.
        depth: Number of dense encoder layers, or of convolutions, if `units` is an
            integer. Each dense layer is half as wide as the previous one.
        **options: Further arguments of the family's factory.

    Raises:
        ValueError: `units` has several entries for a shallow model, or the factory
            rejects an argument.
    """
    *hidden, code = layer_units(units)
    if family == "shallow":
        if hidden:
            raise ValueError(
                "A shallow model has one layer, so `units` must be one integer. "
                f"Received: units={units!r}. Use the family 'deep' for several layers."
            )
        return shallow(tuple(input_shape), code, sparsity, **options)
    if not isinstance(units, Sequence):
        hidden = [units * 2**level for level in range(depth - 1, 0, -1)]
        if family == "convolutional":
            hidden = [16 * 2**level for level in range(depth)]
    if family == "variational":
        return variational(input_shape, hidden, code, sparsity=sparsity, **options)
    layer = get_sparsity(sparsity)
    sparsities: SparsityLike | list[SparsityLike] = layer
    if layer is not None and layer.requires_decoder:
        # Only the code can have a sparsity that needs the decoder.
        sparsities = [*[None] * len(hidden), layer]
    return FAMILIES[family](input_shape, (*hidden, code), sparsities, **options)
