"""Batches of model inputs from any data that `predict` accepts."""

from collections.abc import Iterable, Iterator
from typing import Any

import keras
import numpy as np

from keras_sae.models.data_adapter import check_finite
from keras_sae.models.validation import as_numpy, is_array, is_dataset
from keras_sae.types import ArrayLike, Data, Tensor
from keras_sae.utils.validation import positive_integer


def sample_count(data: Data) -> int | None:
    """Return the number of samples in arrays, or None for batches."""
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

    Missing targets and weights are None.

    Args:
        data: An array, or batches of `x`, `(x, y)` or `(x, y, sample_weight)` from a
            `tf.data.Dataset`, a `keras.utils.PyDataset`, a data loader or a generator.
            A model with several inputs takes a list or dict of arrays.
        batch_size: Number of samples per batch, if `data` consists of arrays.
        y: Targets, if `data` consists of arrays. In batches, targets are included.
        sample_weight: Sample weights, as `y`.

    Raises:
        ValueError: The data is empty, never ends, is ragged or is not numeric.
    """
    positive_integer("batch_size", batch_size)
    if _is_arrays(data):
        given = {"x": data, "y": y, "sample_weight": sample_weight}
        parts = {name: part for name, part in given.items() if part is not None}
        arrays = {name: _checked(name, part) for name, part in parts.items()}
        lengths = {len(array) for array in keras.tree.flatten(arrays)}
        if len(lengths) > 1 or 0 in lengths:
            raise ValueError(
                "All arrays must have the same number of samples, at least 1. "
                f"Received: arrays of {sorted(lengths)} samples."
            )
        for start in range(0, max(lengths), batch_size):
            part = slice(start, start + batch_size)
            batch = keras.tree.map_structure(lambda v, p=part: v[p], arrays)
            yield batch["x"], batch.get("y"), batch.get("sample_weight")
        return
    if y is not None or sample_weight is not None:
        raise ValueError(
            "`y` and `sample_weight` must be None for batches. Received: `x` of type "
            f"{type(data).__name__}, with `y` or `sample_weight`. Include them in each "
            "batch, as `(x, y)` or `(x, y, sample_weight)`."
        )
    check_finite(data)
    if is_dataset(data):
        elements: Iterable[Any] = data.as_numpy_iterator()
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
        yield _checked("x", x), _checked("y", y), _checked("sample_weight", weight)
        empty = False
    if empty:
        raise ValueError(
            "`x` has no batches. Received: an empty or exhausted iterator. Pass a "
            "dataset that can be read again, or a new generator."
        )


def _is_arrays(data: Any) -> bool:
    if isinstance(data, (list, tuple, dict)):
        return bool(data) and all(is_array(x) for x in keras.tree.flatten(data))
    return is_array(data)


def _checked(name: str, structure: Any) -> Any:
    """Convert arrays to NumPy, and check that they have a sample axis.

    None is returned unchanged.
    """

    def check(array: Tensor) -> np.ndarray:
        values = None if hasattr(array, "row_splits") else as_numpy(array)
        if values is None or values.ndim == 0 or values.dtype.kind == "O":
            shape = "" if values is None else f" of {values.dtype}, {values.shape}"
            raise ValueError(
                f"`{name}` must be arrays of numbers with the samples on the first "
                f"axis. Received: {type(array).__name__}{shape}. Pad ragged data, for "
                "example with `keras.utils.pad_sequences`."
            )
        return values

    return None if structure is None else keras.tree.map_structure(check, structure)
