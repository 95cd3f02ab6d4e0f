"""Record a layer's outputs on disk in random order."""

import contextlib
import errno
from pathlib import Path
from typing import Any

import keras

from keras_sae.activations.data import batches, sample_count
from keras_sae.activations.paths import LayerKey
from keras_sae.activations.rows import Keep, RowReader
from keras_sae.activations.store import ActivationStore, part_folder
from keras_sae.activations.writer import STORED_DTYPES, Batch, PartWriter
from keras_sae.models.validation import as_numpy
from keras_sae.types import Data, PathLike
from keras_sae.utils.fingerprint import fingerprint
from keras_sae.utils.io import RunDirectory
from keras_sae.utils.validation import known_name, positive_integer

# Default and maximum number of files per part. All files are open at the same time, so
# their number is limited.
_FILES, _MAX_FILES = 32, 256
_DISK_IS_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def record(
    model: keras.Model,
    layer: LayerKey | tuple[LayerKey, LayerKey],
    data: Data,
    folder: PathLike,
    dtype: str = "float16",
    keep: Keep = None,
    part: tuple[int, int] = (0, 1),
    *,
    batch_size: int = 32,
    first_sample: int = 0,
    file_bytes: int = 2**24,
    seed: int = 0,
) -> ActivationStore:
    """Record the outputs of a layer on disk.

    A row is a vector along the last axis of the output: one per sample, position or
    token. Each row is written to a random file, and each file is shuffled at the end.
    Reading the files one after another then returns the rows in random order.

    If the process is killed, call `record` again with the same arguments to resume. The
    result is the same as that of an uninterrupted call.

    Args:
        model: Any built Keras model.
        layer: A layer, its path, the end of its path, or its name. A pair `(a, b)`
            records inputs and targets for `keras_sae.models.transcoder`.
        data: Inputs of the model: arrays, or batches of arrays. To resume, pass the
            same data in the same order.
        folder: A new or empty folder, or the folder of an earlier call.
        dtype: Type of the numbers on disk: "float16", "bfloat16" or "float32".
        keep: Rows to keep. None keeps all rows. "mask" applies the layer's Keras mask
            (for a pair, the mask of `b`), which drops padding. A list of token ids
            drops the rows of these tokens. A function takes a batch of inputs and
            returns booleans, one per row or one per sample.
        part: A pair `(i, n)` if `data` is part `i` of `n` parts, counted from 0.
            Several processes can each record one part into the same folder.
        batch_size: Number of samples per batch, if `data` consists of arrays.
        first_sample: Index of the first sample of `data`. With several parts, pass the
            number of samples in all earlier parts, so that `ActivationStore.origin`
            counts samples across parts.
        file_bytes: Approximate size of a file in bytes, if `data` consists of arrays.
            Files of large arrays are larger, because there are at most 256. Batches
            are written to 32 files. Shuffling takes four times as much memory as a
            file.
        seed: Random seed for the order of the rows.

    Returns:
        An `ActivationStore`. Until all parts are complete, it contains only this part.

    Raises:
        ValueError: The folder belongs to a call with other data or settings, an
            activation is not finite or is too large for `dtype`, no row is kept, or an
            argument is out of range.
        OSError: The disk is full. After you free some space, recording can be resumed.

    Example:

    >>> import keras
    >>> import numpy as np
    >>> from keras_sae import activations
    >>> layers = [keras.layers.Dense(8, "relu", name="hidden"), keras.layers.Dense(3)]
    >>> model = keras.Sequential([keras.Input((5,)), *layers])
    >>> x = np.random.default_rng(0).random((100, 5))
    >>> store = activations.record(model, "hidden", x, "activations")
    >>> store.shape, store.array(3).shape
    ((100, 8), (3, 8))
    """
    known_name("dtype", dtype, STORED_DTYPES)
    index, count = part[0], positive_integer("part[1]", part[1])
    if not 0 <= index < count:
        raise ValueError(
            f"`part` must be (i, n) with 0 <= i < n. Received: part={part!r}."
        )
    reader = RowReader(model, layer, keep)
    kept: str | list[Any] | None
    if callable(keep):
        kept = [getattr(keep, "__qualname__", "function")]
    elif keep is None or isinstance(keep, str):
        kept = keep
    else:
        kept = [int(token) for token in keep]
    settings = {
        "model": fingerprint([as_numpy(weight) for weight in model.weights]),
        "layers": [place.path for place in reader.places],
        "dtype": dtype,
        "keep": kept,
        "parts": count,
    }
    folder = Path(folder)
    with contextlib.suppress(ValueError):  # another process may be creating the folder
        RunDirectory(folder, settings, argument="folder")
    RunDirectory(folder, settings, argument="folder")
    own = {"batch_size": batch_size, "first_sample": first_sample, "seed": seed}
    directory = RunDirectory(part_folder(folder, index), own, argument="folder")
    try:
        with contextlib.closing(PartWriter(directory.path, dtype, seed)) as writer:
            _record_part(reader, data, writer, own, file_bytes)
    except OSError as error:
        if error.errno not in _DISK_IS_FULL:
            raise
        raise OSError(
            f"The activations could not be written to {str(folder)!r}: "
            f"{error.strerror or error}. To resume, free some space and call `record` "
            "again with the same arguments."
        ) from error
    parts = [part_folder(folder, n) for n in range(count)]
    complete = all(PartWriter.read_progress(path).complete for path in parts)
    return ActivationStore(folder, None if complete else index)


def _record_part(
    reader: RowReader,
    data: Data,
    writer: PartWriter,
    own: dict[str, int],
    file_bytes: int,
) -> None:
    """Record the batches of one part that are not recorded yet."""
    progress = writer.progress
    if progress.rows and not progress.finished:
        writer.open()
    done, known, samples = progress.batches, progress.digest, progress.samples
    digest, number = "", 0
    other_data = ValueError(
        "`folder` belongs to a recording of other data. Received: data that differs "
        f"within the first {done} batches, or has another length. Pass the same data, "
        "or choose another folder."
    )
    for number, inputs in enumerate(batches(data, own["batch_size"]), start=1):
        digest = fingerprint([digest, *keras.tree.flatten(inputs)])
        if number < done:
            continue
        if number == done or progress.finished:
            if digest != known:
                raise other_data
            continue
        rows, origins = reader.read(inputs, own["first_sample"] + samples)
        count = len(keras.tree.flatten(inputs)[0])
        if not progress.rows:
            total = sample_count(data)
            widths = [array.shape[1] for array in rows]
            row_bytes = sum(widths) * STORED_DTYPES[writer.dtype].itemsize
            expected = (total or 0) * len(origins) / count * row_bytes
            files = round(expected / file_bytes) if expected else _FILES
            writer.start(widths, origins.shape[1], min(max(files, 1), _MAX_FILES))
        writer.append(Batch(rows, origins, count, digest))
        samples += count
    if number < done:
        raise other_data
    writer.finish()
