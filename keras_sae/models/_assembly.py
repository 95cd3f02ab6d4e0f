"""How every family is put together: chains of layers, and two chains a model."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_sae import checks


def chain(
    input_shape: tuple[int, ...], layers: Sequence[keras.layers.Layer], name: str
) -> keras.Model:
    """Returns the model that applies `layers` one after the other."""
    outputs = inputs = keras.Input(
        input_shape, name="x" if name == "encoder" else "code"
    )
    for layer in layers:
        outputs = layer(outputs)
    return keras.Model(inputs, outputs, name=name)


def known_shape(input_shape: Any) -> tuple[int, ...]:
    """Returns `input_shape` as a tuple of positive integers, or raises."""
    shape = (input_shape,) if isinstance(input_shape, int) else tuple(input_shape)
    if not shape or not all(isinstance(n, (int, np.integer)) and n > 0 for n in shape):
        raise ValueError(
            "`input_shape` must hold the known, positive sizes of one sample, without "
            f"the batch. Received: input_shape={input_shape!r}. For images of 28 by "
            "28 it is (28, 28, 1)."
        )
    return tuple(checks.positive_integer("input_shape", n) for n in shape)


def size(input_shape: tuple[int, ...]) -> int:
    """Returns the number of values in one sample."""
    return int(np.prod(input_shape))
