"""Batches of the inputs of a model, from whatever Keras takes as data."""

from collections.abc import Iterable, Iterator
from typing import Any

import keras
import numpy as np

from keras_sae.models.validation import as_numpy, is_array, is_dataset
from keras_sae.types import ArrayLike, Data
from keras_sae.utils.validation import positive_integer


def sample_count(data: Data) -> int | None:
    """Return the number of samples of arrays, or None for batches."""
    leaves = keras.tree.flatten(data) if _is_arrays(data) else []
    return int(leaves[0].shape[0]) if leaves and len(leaves[0].shape) else None


def batches(data: Data, batch_size: int) -> Iterator[Any]:
    """Yield the inputs of a model, one batch of NumPy arrays at a time."""
    for x, _, _ in labeled_batches(data, batch_size):
        yield x


def labeled_batches(
    data: Data,
    batch_size: int,
    y: Any = None,
    sample_weight: ArrayLike | None = None,
) -> Iterator[tuple[Any, Any, Any]]:
    """Yield inputs, targets and sample weights, one batch of NumPy arrays at a time.

    What is missing is None.

    Args:
        data: An array; a list or dict of arrays for a model with several inputs; or
            batches of `x`, `(x, y)` or `(x, y, sample_weight)`: a `tf.data.Dataset`, a
            `keras.utils.PyDataset`, a data loader or a generator.
        batch_size: Samples per batch of arrays.
        y: Targets, for arrays.
        sample_weight: Sample weights, for arrays.

    Raises:
        ValueError: The data is empty, ragged, or not numeric.
    """
    positive_integer("batch_size", batch_size)
    if _is_arrays(data):
        given = [data, *(part for part in (y, sample_weight) if part is not None)]
        arrays = keras.tree.map_structure(_checked, given)
        lengths = {len(array) for array in keras.tree.flatten(arrays)}
        if len(lengths) > 1 or 0 in lengths:
            raise ValueError(
                "`x` must hold one or more samples, as many in each array. Received: "
                f"arrays of {sorted(lengths)} samples."
            )
        for start in range(0, max(lengths), batch_size):
            part = slice(start, start + batch_size)
            x, *rest = keras.tree.map_structure(lambda v, p=part: v[p], arrays)
            targets = rest.pop(0) if y is not None else None
            yield x, targets, rest[0] if rest else None
        return
    if isinstance(data, keras.utils.PyDataset):
        elements: Iterable[Any] = (data[n] for n in range(data.num_batches or 0))
    elif is_dataset(data):
        elements = data.as_numpy_iterator()
    elif isinstance(data, Iterable) and not isinstance(data, (str, bytes)):
        elements = data
    else:
        raise ValueError(
            "`x` must be arrays or batches of arrays, as for `predict`. Received: "
            f"{type(data).__name__}."
        )
    empty = True
    for element in elements:
        pair = tuple(element) if isinstance(element, list) else element
        x, y, weight = keras.utils.unpack_x_y_sample_weight(pair)
        targets, weights = (
            None if part is None else keras.tree.map_structure(_checked, part)
            for part in (y, weight)
        )
        yield keras.tree.map_structure(_checked, x), targets, weights
        empty = False
    if empty:
        raise ValueError(
            "`x` has no batches. Received: an empty or exhausted iterator. Give a "
            "dataset that can be read again, or a new generator."
        )


def _is_arrays(data: Any) -> bool:
    if isinstance(data, (list, tuple, dict)):
        return bool(data) and all(is_array(x) for x in keras.tree.flatten(data))
    return is_array(data)


def _checked(array: Any) -> np.ndarray:
    """Return an array of numbers with a first axis."""
    is_ragged = hasattr(array, "row_splits") or hasattr(array, "flat_values")
    values = None if is_ragged else as_numpy(array)
    if values is None or values.ndim == 0 or values.dtype.kind == "O":
        raise ValueError(
            "`x` must hold arrays of numbers with the samples on the first axis. "
            f"Received: {type(array).__name__}"
            f"{'' if values is None else f' of {values.dtype}, shape {values.shape}'}. "
            "Pad ragged data, for example by `keras.utils.pad_sequences`."
        )
    return values
