"""What a level is trained on: an array in memory, or a stream larger than it."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_sae.models import data_adapter, validation


class Rows(keras.utils.PyDataset):
    """Batches of an array on disk; the rows are shuffled anew after every epoch."""

    def __init__(self, array: np.ndarray, batch_size: int, shuffle: bool) -> None:
        super().__init__()
        self.array, self.batch_size = array, batch_size
        self.order = np.arange(len(array))
        self.rng = np.random.default_rng(0) if shuffle else None
        self.on_epoch_end()

    def __len__(self) -> int:
        return -(-len(self.array) // self.batch_size)

    def __getitem__(self, index: int) -> tuple[np.ndarray]:
        start = index * self.batch_size
        # In ascending order the disk is read in one direction.
        rows = np.sort(self.order[start : start + self.batch_size])
        return (np.asarray(self.array[rows], "float32"),)

    def on_epoch_end(self) -> None:
        if self.rng is not None:
            self.rng.shuffle(self.order)


def open_source(
    x: Any,
    sample_shape: tuple[int, ...],
    batch_size: int,
    held_out: bool = False,
) -> Any:
    """Returns `x` as an array or a stream that can be read again, once checked.

    Args:
        x: Array, tensor or nested list; `numpy.memmap`; or a stream of batches:
            `tf.data.Dataset`, `keras.utils.PyDataset`, PyTorch's `DataLoader`.
        sample_shape: What one sample must look like.
        batch_size: Samples a step, for what is not batched yet.
        held_out: Whether it is validated on: never shuffled, and of any number
            of samples.

    Returns:
        A NumPy array, or a stream.

    Raises:
        ValueError: `x` is empty, has another shape, is not finite, cannot be
            read twice or never ends. Of a stream only the first batch is seen.
    """
    if isinstance(x, tuple) and any(hasattr(part, "shape") for part in x):
        raise ValueError(
            "Pretraining takes data without labels, as one array or a stream of "
            f"batches. Received: a tuple of {len(x)}. Pass the first alone."
        )
    if is_stream(x):
        _check_stream(x, sample_shape, "validation_data" if held_out else "x")
        return x
    on_disk = isinstance(x, np.memmap)
    array = validation.as_numpy(x)
    validation.check_data(array, sample_shape)
    return Rows(array, batch_size, shuffle=not held_out) if on_disk else array


def is_stream(x: Any) -> bool:
    """Whether `x` yields batches; arrays, tensors and lists hold all samples."""
    return not hasattr(x, "shape") and not isinstance(x, (list, tuple))


def _check_stream(x: Any, sample_shape: tuple[int, ...], name: str) -> None:
    of_keras = isinstance(x, keras.utils.PyDataset) or hasattr(x, "element_spec")
    # Of PyTorch, which need not be there, a loader is told by what it has.
    if not of_keras and not (hasattr(x, "dataset") and hasattr(x, "collate_fn")):
        raise ValueError(
            f"`{name}` is read once for every epoch and level, so it must be what "
            "starts again and Keras can fit: an array, a `tf.data.Dataset`, a "
            "`keras.utils.PyDataset` or PyTorch's `DataLoader`. Received: "
            f"{type(x).__name__}. A `PyDataset` holds any source of batches."
        )
    # tf.data's own constant for a dataset that repeats for ever is -1.
    if hasattr(x, "cardinality") and int(x.cardinality()) == -1:
        raise ValueError(
            f"`{name}` never ends, and the code of every sample is computed once a "
            f"level. Received: {name}={x!r}. Leave `.repeat()` out; `epochs` repeats."
        )
    if getattr(x, "element_spec", None) is not None:
        validation.check_data(x, sample_shape)
    first = next(batches(x), None)
    if first is None:
        raise ValueError(
            f"`{name}` holds no batches. Received: {name}={x!r}. Expected at least "
            f"one batch of samples of shape {sample_shape}."
        )
    validation.check_data(first, sample_shape)


def batches(x: Any, batch_size: int = 256) -> Iterator[np.ndarray]:
    """Yields the samples of an array or a stream once, without their targets."""
    if isinstance(x, np.ndarray):
        yield from (x[i : i + batch_size] for i in range(0, len(x), batch_size))
        return
    indexed = isinstance(x, keras.utils.PyDataset)
    for batch in (x[i] for i in range(len(x))) if indexed else x:
        first = batch[0] if isinstance(batch, (tuple, list)) else batch
        yield validation.as_numpy(first)


@dataclass(frozen=True)
class Summary:
    """What one reading of the data tells: its size, its mean and its extremes."""

    samples: int
    steps: int
    mean: np.ndarray  # a value an input, float64
    low: float
    high: float


def summarize(x: Any, batch_size: int) -> Summary:
    """Reads an array or a stream once, in constant memory."""
    samples = steps = 0
    total: Any = 0.0
    low, high = np.inf, -np.inf
    for batch in batches(x, batch_size):
        rows = batch.reshape(len(batch), -1)
        total = total + rows.sum(axis=0, dtype="float64")
        # Unlike Python's, NumPy's extremes keep a NaN.
        low = float(np.minimum(low, rows.min()))
        high = float(np.maximum(high, rows.max()))
        samples, steps = samples + len(rows), steps + 1
    return Summary(samples, steps, total / samples, low, high)


def encode(encoder: keras.Model, x: Any, batch_size: int, path: Path | None) -> Any:
    """Returns the codes of `x`: an array of an array, rows on disk of a stream.

    Args:
        encoder: The level's encoder.
        x: What `open_source` or an earlier call returned.
        batch_size: Samples in a batch of the result; an array is encoded by eight
            times as many.
        path: File for the codes of a stream; training shuffles them.

    Returns:
        A read-only array in memory, or `Rows`.
    """
    if isinstance(x, np.ndarray):
        # `predict` would keep every batch and then join them.
        codes = np.empty((len(x), *encoder.output_shape[1:]), "float32")
        # No gradient is kept, so more rows fit: a call of Keras takes a millisecond.
        many = min(8 * batch_size, len(x))
        for start in range(0, len(x), many):
            # Of one size all, the last with rows of the one before: a second size
            # would be compiled for itself.
            end = min(start + many, len(x))
            codes[end - many : end] = _encode_batch(encoder, x[end - many : end])
        codes.flags.writeable = False  # so TensorFlow can read them where they lie
        return codes
    assert path is not None
    samples = 0
    with path.open("wb") as file:
        for batch in batches(x):
            code = np.asarray(_encode_batch(encoder, batch), "float32")
            file.write(code.tobytes())
            samples += len(code)
    shape = (samples, *encoder.output_shape[1:])
    return Rows(np.memmap(path, "float32", "r", shape=shape), batch_size, shuffle=True)


def _encode_batch(encoder: keras.Model, batch: np.ndarray) -> np.ndarray:
    if data_adapter.replicas(encoder) == 1:
        return encoder.predict_on_batch(batch)
    # Keras would give the whole batch to each replica, and join what they return.
    return keras.ops.convert_to_numpy(encoder(batch, training=False))
