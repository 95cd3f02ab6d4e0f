"""How an array reaches `fit`: on TensorFlow as a dataset of its batches."""

from typing import Any

import keras
import numpy as np

from keras_sae.datasets.feeding import feed

# What means the same for an array and for a dataset. Weights, a split or an order
# other than at random are left to Keras.
_THE_SAME = {
    "callbacks",
    "epochs",
    "initial_epoch",
    "shuffle",
    "validation_batch_size",
    "validation_data",
    "validation_freq",
    "validation_steps",
    "verbose",
}


def fed(
    x: Any, y: Any, batch_size: int | None, kwargs: dict[str, Any]
) -> tuple[Any, Any, int | None, dict[str, Any]]:
    """Returns the arguments of `fit` as `keras.Model.fit` is to take them.

    Args:
        x: As the user gave it to `fit`, as all that follows.
        y: None, or the target.
        batch_size: Samples a step, or None.
        kwargs: Further arguments, by name.

    Returns:
        `x`, `y`, `batch_size` and `kwargs` as they are, or a dataset in the place
        of the arrays and what goes with it: the same batches in the same order.
    """
    arrays = [x] if y is None else [x, y]
    plain = (
        keras.config.backend() == "tensorflow"
        and all(_kept(array) for array in arrays)
        and kwargs.keys() <= _THE_SAME
        and kwargs.get("shuffle", True) is True
    )
    if not plain:
        return x, y, batch_size, kwargs
    batch_size = 32 if batch_size is None else batch_size
    held_out = kwargs.get("validation_batch_size") or batch_size
    # Keras would warn that it does not shuffle a dataset: this one shuffles itself.
    given = {**kwargs, "shuffle": False, "validation_batch_size": held_out}
    return feed(arrays, batch_size), None, None, given


def _kept(array: Any) -> bool:
    """Whether Keras would take the array as it is, without a conversion."""
    return type(array) is np.ndarray and (
        array.dtype == keras.config.floatx() or array.dtype.kind in "iu"
    )
