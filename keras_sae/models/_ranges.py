"""Which values can come out of a chain of layers."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_sae.layers import serialization as sparsity
from keras_sae.layers.noise import MaskingNoise, SaltAndPepperNoise

# At inference these pass their input on as it is, or reshaped.
_PASSES = (
    keras.layers.InputLayer,
    keras.layers.Flatten,
    keras.layers.Reshape,
    keras.layers.Dropout,
    keras.layers.GaussianNoise,
    keras.layers.GaussianDropout,
    MaskingNoise,
    SaltAndPepperNoise,
)
# These leave some of it out, or put it in another order.
_CHOOSES = (
    keras.layers.Cropping1D,
    keras.layers.Cropping2D,
    keras.layers.Cropping3D,
    keras.layers.Permute,
)


def passes(layer: Any) -> bool:
    """Whether a layer, or each layer of a model in its place, changes no value."""
    inside = getattr(layer, "layers", [])
    return isinstance(layer, _PASSES) or (bool(inside) and all(map(passes, inside)))


def last(layers: Sequence[Any]) -> Any:
    """Returns the last layer that decides which values come out, or None."""
    decide = [x for x in layers if not (passes(x) or isinstance(x, _CHOOSES))]
    return decide[-1] if decide else None


def bounds(layers: Sequence[Any]) -> tuple[float, float]:
    """Returns the least and the greatest value that comes out of the last layer.

    Args:
        layers: In the order of their calls.

    Returns:
        Those of its activation; infinite where it has none, as what comes behind an
        activation (batch normalisation, a scale) may take the values anywhere.
    """
    activation = getattr(last(layers), "activation", None)
    if activation is None:
        return (-np.inf, np.inf)
    return sparsity.activation_bounds(activation)
