"""Data of a level: an array in memory, or batches that are read again each epoch."""

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import keras
import numpy as np

from keras_sae.models import Autoencoder, validation
from keras_sae.types import Data

LevelData: TypeAlias = np.ndarray | keras.utils.PyDataset | Iterable[Any]


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

    Only the first batch of a stream is checked. A `numpy.memmap` becomes batches,
    which are shuffled if `argument`, the caller's name for the data, is `"x"`.
    """
    if isinstance(x, tuple):
        raise ValueError(
            f"`{argument}` must be one array or one stream of batches, without labels. "
            f"Received: a tuple of {len(x)}. Pass its first element."
        )
    is_array = isinstance(x, list) or validation.is_array(x)
    if is_array:
        x = first = validation.as_numpy(x)
    elif isinstance(x, Iterator) or not isinstance(x, Iterable):
        raise ValueError(
            f"`{argument}` is read once per epoch and level, so it must be an array, a "
            "`tf.data.Dataset`, a `keras.utils.PyDataset` or a PyTorch `DataLoader`. "
            f"Received: {type(x).__name__}. A `PyDataset` can wrap any source."
        )
    elif validation.is_dataset(x) and x.cardinality() == -1:  # infinite
        raise ValueError(
            f"`{argument}` must be finite. Received: {x!r}, which never ends. Remove "
            "`.repeat()`: `epochs` repeats the data."
        )
    else:
        first = next(batches(x), np.empty(0))
        if not len(first):
            raise ValueError(
                f"`{argument}` must hold at least one batch. Received: {x!r}."
            )
    try:
        training = argument == "x" and is_array
        model.check_data(first, None, batch_size if training else None)
    except ValueError as error:
        raise ValueError(str(error).replace("`x`", f"`{argument}`")) from error
    if isinstance(x, np.memmap):
        return DiskBatches(x, batch_size, shuffle=argument == "x")
    return np.asarray(x, keras.config.floatx()) if is_array else x


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
    """Return the codes of `x`, in memory for an array and in `folder` for a stream.

    The file in `folder` has no name, so the system deletes it even if the process is
    killed.
    """
    shape = tuple(encoder.output_shape[1:])
    # Without gradients more samples fit into memory than in a training step.
    step = 8 * batch_size
    codes = (
        # `predict` would collect all batches first and then join them.
        keras.ops.convert_to_numpy(encoder(batch, training=False))
        for batch in batches(x, step)
    )
    if isinstance(x, np.ndarray):
        array = np.empty((len(x), *shape), "float32")
        for i, code in enumerate(codes):
            array[i * step : (i + 1) * step] = code
        return array
    with tempfile.TemporaryFile(dir=folder) as file:
        for code in codes:
            file.write(code.astype("float32").tobytes())
        file.flush()
        on_disk = np.memmap(file, "float32", "r").reshape(-1, *shape)
    return DiskBatches(on_disk, batch_size, shuffle=True)


def summarize(x: LevelData, batch_size: int) -> tuple[int, int, np.ndarray]:
    """Return the numbers of batches and of samples, and the mean of the samples."""
    steps = samples = 0
    total = np.zeros((), "float64")
    for batch in batches(x, batch_size):
        total = total + batch.reshape(len(batch), -1).sum(axis=0, dtype="float64")
        steps, samples = steps + 1, samples + len(batch)
    return steps, samples, total / samples
