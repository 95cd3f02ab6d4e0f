"""Data of a level: an array in memory, or batches that are read again each epoch."""

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import keras
import numpy as np

from keras_sae.models import Autoencoder, validation
from keras_sae.types import Data

LevelData: TypeAlias = np.ndarray | keras.utils.PyDataset | Iterable[Any]

# Without gradients more samples fit into memory than in a training step.
_ENCODE_FACTOR = 8


class DiskBatches(keras.utils.PyDataset):
    """Batches of an array on disk, shuffled again after every epoch if at all."""

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
        # Ascending indices let the disk read in one direction.
        rows = np.sort(self.order[start : start + self.batch_size])
        return (np.asarray(self.array[rows], "float32"),)

    def on_epoch_end(self) -> None:
        """Shuffle the order of the samples."""
        if self.rng is not None:
            self.rng.shuffle(self.order)


def open_data(
    model: Autoencoder, x: Data, batch_size: int, argument: str = "x"
) -> LevelData:
    """Check `x` and return it as an array or as batches that can be read repeatedly.

    Only the first batch of a stream is checked. A `numpy.memmap` becomes batches.

    Args:
        model: The model to pretrain.
        x: As in `keras_sae.pretraining.greedy`.
        batch_size: Samples per step, for arrays.
        argument: Name of the caller's argument; only `"x"` is shuffled.
    """
    if isinstance(x, tuple):
        raise ValueError(
            f"`{argument}` must be one array or one stream of batches, without labels. "
            f"Received: a tuple of {len(x)}. Pass its first element."
        )
    stream = not isinstance(x, list) and not validation.is_array(x)
    if stream:
        sample = _first_batch(x, argument)
    else:
        x = sample = validation.as_numpy(x)
    try:
        training = argument == "x" and not stream
        model.check_data(sample, None, batch_size if training else None)
    except ValueError as error:
        raise ValueError(str(error).replace("`x`", f"`{argument}`")) from error
    if stream:
        return x
    if isinstance(x, np.memmap):
        return DiskBatches(x, batch_size, shuffle=argument == "x")
    return np.asarray(x, keras.config.floatx())


def _first_batch(x: Data, argument: str) -> np.ndarray:
    """Return the first batch of a stream that can be read repeatedly."""
    if isinstance(x, Iterator) or not hasattr(x, "__iter__"):
        raise ValueError(
            f"`{argument}` is read once per epoch and level, so it must be an array, a "
            "`tf.data.Dataset`, a `keras.utils.PyDataset` or a PyTorch `DataLoader`. "
            f"Received: {type(x).__name__}. A `PyDataset` can wrap any source."
        )
    cardinality = getattr(x, "cardinality", None)
    if cardinality is not None and cardinality() == -1:  # as tf.data defines it
        raise ValueError(
            f"`{argument}` must be finite. Received: {x!r}, which never ends. Remove "
            "`.repeat()`: `epochs` repeats the data."
        )
    first = next(batches(x), None)
    if first is None:
        raise ValueError(
            f"`{argument}` must hold at least one batch. Received: {x!r}, which is "
            "empty."
        )
    return first


def batches(x: LevelData, batch_size: int = 256) -> Iterator[np.ndarray]:
    """Yield the samples of an array or a stream once, without targets."""
    if isinstance(x, np.ndarray):
        yield from (x[i : i + batch_size] for i in range(0, len(x), batch_size))
        return
    stream: Any = x
    if isinstance(x, keras.utils.PyDataset):
        stream = map(stream.__getitem__, range(len(stream)))
    for batch in stream:
        first = batch[0] if isinstance(batch, (tuple, list)) else batch
        yield validation.as_numpy(first)


def encode(
    encoder: keras.Model, x: LevelData, batch_size: int, folder: Path | None = None
) -> LevelData:
    """Return the codes of `x`, in memory for an array and on disk for a stream.

    Args:
        encoder: Encoder of one level.
        x: What `open_data` or an earlier call returned.
        batch_size: Samples per batch of the codes of a stream.
        folder: Folder for the codes of a stream. Their file has no name, so the system
            deletes it even if the process is killed.
    """
    shape = tuple(encoder.output_shape[1:])
    codes = (
        # `predict` would collect all batches first and then join them.
        keras.ops.convert_to_numpy(encoder(batch, training=False))
        for batch in batches(x, _ENCODE_FACTOR * batch_size)
    )
    if isinstance(x, np.ndarray):
        array = np.empty((len(x), *shape), "float32")
        start = 0
        for code in codes:
            array[start : start + len(code)] = code
            start += len(code)
        return array
    with tempfile.TemporaryFile(dir=folder) as file:
        for code in codes:
            file.write(code.astype("float32").tobytes())
        file.flush()
        on_disk = np.memmap(file, "float32", "r").reshape(-1, *shape)
    return DiskBatches(on_disk, batch_size, shuffle=True)


class Summary(NamedTuple):
    """Size of the data of a level, and the mean per input as float64."""

    samples: int
    steps: int
    mean: np.ndarray


def summarize(x: LevelData, batch_size: int) -> Summary:
    """Read an array or a stream once, in constant memory."""
    samples = steps = 0
    total: Any = 0.0
    for batch in batches(x, batch_size):
        total = total + batch.reshape(len(batch), -1).sum(axis=0, dtype="float64")
        samples, steps = samples + len(batch), steps + 1
    return Summary(samples, steps, total / samples)
