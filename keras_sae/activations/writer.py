"""Write the files of one part of an activation store.

Rows are collected in memory. A thread appends them to raw binary files while the model
computes the next rows. A checkpoint stores the number of rows in each file, so that
rows appended after the checkpoint can be removed. At the end, each file is shuffled and
replaced by a `.npy` file.
"""

import contextlib
import itertools
import os
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import BinaryIO, NamedTuple

import ml_dtypes
import numpy as np
from keras import ops

from keras_sae.utils.io import UNREADABLE, atomic_write, read_json, write_json

PROGRESS = "progress.json"
# Dtypes on disk. NumPy has no bfloat16, so its bits are stored as 16-bit integers.
STORED_DTYPES: dict[str, np.dtype] = {
    "float16": np.dtype("float16"),
    "bfloat16": np.dtype("uint16"),
    "float32": np.dtype("float32"),
}
# Rows and a checkpoint are written after this many bytes or seconds. After an
# interruption, the work since the last checkpoint is repeated.
_BUFFER_BYTES, _CHECKPOINT_SECONDS = 2**23, 5.0


@dataclass
class Progress:
    """Progress of recording one part, stored as JSON.

    Attributes:
        batches: Number of batches that were recorded.
        samples: Number of samples in these batches.
        digest: Hash of these batches.
        widths: Width of each layer.
        axes: Number of columns of the origins.
        rows: Number of rows in each file.
        total: Sum of the rows of the first layer.
        squares: Sum of the squares of the first layer's values.
        finished: Whether all data was recorded.
        complete: Whether all files were also shuffled.
    """

    batches: int = 0
    samples: int = 0
    digest: str = ""
    widths: list[int] = field(default_factory=list)
    axes: int = 1
    rows: list[int] = field(default_factory=list)
    total: list[float] = field(default_factory=list)
    squares: float = 0.0
    finished: bool = False
    complete: bool = False


class Batch(NamedTuple):
    """Rows of one batch of inputs.

    Attributes:
        rows: float32 array of shape `(rows, width)` per layer.
        origins: The sample of each row, and the position of the row in that sample.
        samples: Number of samples in the batch.
        digest: Hash of this batch and all earlier batches.
    """

    rows: list[np.ndarray]
    origins: np.ndarray
    samples: int
    digest: str


class PartWriter:
    """Writer of one part of a store. Call `close` at the end.

    Args:
        folder: Folder of the part.
        dtype: Type of the numbers on disk.
        seed: Random seed of the order.

    Attributes:
        progress: The last checkpoint.
    """

    def __init__(self, folder: Path, dtype: str, seed: int) -> None:
        self.folder = folder
        self.dtype = dtype
        self.seed = seed
        self.progress = self.read_progress(folder)
        self._files: dict[str, list[BinaryIO]] = {}
        self._threads = ThreadPoolExecutor(2)
        self._writing: Future[None] | None = None
        self._waiting: list[Batch] = []
        self._bytes, self._written = 0, time.monotonic()

    @staticmethod
    def read_progress(folder: Path) -> Progress:
        """Return the last checkpoint of a part."""
        file = folder / PROGRESS
        if not file.exists():
            return Progress()
        kinds = {name: type(value) for name, value in asdict(Progress()).items()}
        values = read_json(file, **kinds)
        return Progress(**{name: values[name] for name in kinds})

    def close(self) -> None:
        """Wait for the threads, and close all files."""
        self._threads.shutdown()
        for files in self._files.values():
            for file in files:
                with contextlib.suppress(OSError):
                    file.close()

    def start(self, widths: Sequence[int], axes: int, files: int) -> None:
        """Create the files of a new part, and a checkpoint without rows."""
        self.progress.widths, self.progress.axes = list(widths), axes
        self.progress.rows, self.progress.total = [0] * files, [0.0] * widths[0]
        self.checkpoint()
        self.open()

    def open(self) -> None:
        """Open the raw files, and truncate them to their length in the checkpoint.

        Raises:
            ValueError: A file is shorter than its length in the checkpoint.
        """
        for kind, (dtype, width) in array_kinds(self.progress, self.dtype).items():
            self._files[kind] = []
            for number, rows in enumerate(self.progress.rows):
                raw = array_file(self.folder, kind, number).with_suffix(".raw")
                # Without a buffer, all rows in the checkpoint survive a killed process.
                file = open(raw, "ab", buffering=0)  # noqa: SIM115
                self._files[kind].append(file)
                size = rows * width * dtype.itemsize
                if file.tell() < size:
                    error = f"it has {file.tell()} bytes instead of {size}"
                    raise ValueError(UNREADABLE.format(path=str(raw), error=error))
                file.truncate(size)

    def append(self, batch: Batch) -> None:
        """Queue a batch, and start writing the queue if it is large or old enough."""
        widths = [array.shape[1] for array in batch.rows]
        if widths != self.progress.widths:
            raise ValueError(
                "The width of a layer must not change. Received: rows of widths "
                f"{widths} after rows of widths {self.progress.widths}."
            )
        self._waiting.append(batch)
        self._bytes += sum(array.nbytes for array in (*batch.rows, batch.origins))
        seconds = time.monotonic() - self._written
        if self._bytes >= _BUFFER_BYTES or seconds >= _CHECKPOINT_SECONDS:
            if self._writing:
                self._writing.result()
            self._writing = self._threads.submit(self._write_batches, self._waiting)
            self._waiting, self._bytes = [], 0
            self._written = time.monotonic()

    def _write_batches(self, batches: Sequence[Batch]) -> None:
        """Append each row to a randomly chosen file.

        The choice of files does not depend on the number of batches per call.
        """
        progress = self.progress
        columns = zip(*([*b.rows, b.origins] for b in batches), strict=True)
        *layers, origins = (np.concatenate(column) for column in columns)
        limit = np.finfo("float16" if self.dtype == "float16" else "float32").max
        for array in layers:
            largest = max(array.max(initial=0), -array.min(initial=0))
            if not largest <= limit:  # also if it is NaN
                raise ValueError(
                    f"Activations must be finite in {self.dtype}. Received: an "
                    f"activation of magnitude {largest:g}. Use dtype='bfloat16' or "
                    "'float32' if it is finite."
                )
        # Row `n` of the part gets the `n`-th random number.
        bits = np.random.PCG64(self.seed).advance(sum(progress.rows))
        numbers = np.random.Generator(bits).random(len(origins)) * len(progress.rows)
        targets = numbers.astype("uint8")
        order = np.argsort(targets, kind="stable")
        counts = np.bincount(targets, minlength=len(progress.rows))
        bounds = np.concatenate([[0], np.cumsum(counts)])
        arrays = [*(_encoded(array, self.dtype) for array in layers), origins]
        for files, array in zip(self._files.values(), arrays, strict=True):
            scattered = np.take(array, order, axis=0)
            for number in np.flatnonzero(counts):
                part = scattered[bounds[number] : bounds[number + 1]]
                _write(files[number], part.reshape(-1).view("uint8").data)
        total = np.asarray(progress.total)
        for rows, _, samples, digest in batches:
            values = rows[0].astype("float64")
            total += values.sum(axis=0)
            # Unlike a BLAS product, `einsum` does not wait for busy threads.
            progress.squares += float(np.einsum("ij,ij->", values, values))
            progress.samples += samples
            progress.digest = digest
        progress.total = total.tolist()
        progress.rows = (np.asarray(progress.rows) + counts).tolist()
        progress.batches += len(batches)
        self.checkpoint()

    def checkpoint(self) -> None:
        """Save the progress, so that a later call can resume from it."""
        write_json(self.folder / PROGRESS, asdict(self.progress))

    def finish(self) -> None:
        """Write the remaining rows, and replace raw files with shuffled `.npy` files.

        Raises:
            ValueError: No rows were kept.
        """
        progress = self.progress
        if self._writing:
            self._writing.result()
        if self._waiting:
            self._write_batches(self._waiting)
        if not sum(progress.rows):
            raise ValueError(
                f"`keep` must keep some rows. Received: {progress.samples} samples, "
                "from which no row was kept."
            )
        progress.finished = True
        if not progress.complete:
            self.checkpoint()
        kinds = array_kinds(progress, self.dtype)

        def shuffle(kind: str, number: int) -> None:
            path = array_file(self.folder, kind, number)
            raw = path.with_suffix(".raw")
            if not raw.exists():
                return
            dtype, width = kinds[kind]
            array = np.fromfile(raw, dtype)
            if array.size != progress.rows[number] * width:
                error = f"it has {array.size} values"
                raise ValueError(UNREADABLE.format(path=str(raw), error=error))
            array = array.reshape(-1, width)
            # The same seed keeps rows and origins in the same order, even if an earlier
            # call shuffled one of them.
            rng = np.random.default_rng([self.seed, number, 1])
            with atomic_write(path) as temporary:
                np.save(temporary, np.take(array, rng.permutation(len(array)), axis=0))
            os.unlink(raw)

        files = itertools.product(kinds, range(len(progress.rows)))
        list(self._threads.map(shuffle, *zip(*files, strict=True)))
        if not progress.complete:
            progress.complete = True
            self.checkpoint()


def _write(file: BinaryIO, view: memoryview) -> None:
    """Write all bytes to an unbuffered file."""
    while view:
        view = view[file.write(view) :]


def array_file(folder: Path, kind: str, number: int) -> Path:
    """Return the path of one array of a part."""
    return folder / f"{kind}-{number:05d}.npy"


def array_kinds(progress: Progress, dtype: str) -> dict[str, tuple[np.dtype, int]]:
    """Return the dtype on disk and number of columns of each array of a part."""
    names = ("rows", "targets")[: len(progress.widths)]
    kinds = {
        name: (STORED_DTYPES[dtype], width)
        for name, width in zip(names, progress.widths, strict=True)
    }
    return {**kinds, "origins": (np.dtype("int64"), progress.axes)}


def _encoded(rows: np.ndarray, dtype: str) -> np.ndarray:
    """Convert float32 rows to the dtype on disk."""
    if dtype == "float16":  # On TensorFlow and PyTorch, this is faster than NumPy.
        return ops.convert_to_numpy(ops.cast(rows, dtype))
    return rows.astype(dtype).view(STORED_DTYPES[dtype])


def decoded(rows: np.ndarray) -> np.ndarray:
    """Return rows from disk as float32."""
    is_bfloat16 = rows.dtype == "uint16"
    return (rows.view(ml_dtypes.bfloat16) if is_bfloat16 else rows).astype("float32")
