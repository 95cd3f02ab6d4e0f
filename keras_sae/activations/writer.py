"""Files of one part of an activation store, while they are written.

Rows are appended to files of raw numbers. A checkpoint holds the size of each file, so
that what was appended after it can be cut off. At the end each file is shuffled and
written as an array of NumPy, which replaces the raw file.
"""

import contextlib
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import ml_dtypes
import numpy as np

from keras_sae.utils.io import UNREADABLE, atomic_write, read_json, write_json

PROGRESS = "progress.json"
# Dtypes on disk. NumPy's files store bfloat16 as integers of 16 bits.
STORED_DTYPES: dict[str, np.dtype] = {
    "float16": np.dtype("float16"),
    "bfloat16": np.dtype("uint16"),
    "float32": np.dtype("float32"),
}
# Seconds between checkpoints. After a kill, what came after the last one is repeated.
_CHECKPOINT_SECONDS = 5.0


@dataclass
class Progress:
    """How much of a part has been recorded; read and written as JSON.

    Attributes:
        batches: Number of batches that were recorded.
        samples: Number of samples in them.
        digest: Hash of these batches.
        widths: Width of each layer.
        axes: Columns of the origins.
        rows: Number of rows in each file.
        total: Sum of the rows of the first layer.
        squares: Sum of the squares of their values.
        finished: Whether all data was recorded.
        complete: Whether all files were shuffled, too.
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


class PartWriter:
    """Writer of one part, a context manager.

    Args:
        folder: Folder of the part.
        dtype: Type of the numbers on disk.
        seed: Random seed of the order.

    Attributes:
        progress: The state after the last call.
    """

    def __init__(self, folder: Path, dtype: str, seed: int) -> None:
        self.folder = folder
        self.dtype = dtype
        self.seed = seed
        self.progress = self.read_progress(folder)
        self._files: dict[str, list[BinaryIO]] = {}
        self._saved = time.monotonic()

    @staticmethod
    def read_progress(folder: Path) -> Progress:
        """Return the last checkpoint of a part."""
        file = folder / PROGRESS
        if not file.exists():
            return Progress()
        kinds = {name: type(value) for name, value in asdict(Progress()).items()}
        values = read_json(file, **kinds)
        return Progress(**{name: values[name] for name in kinds})

    def __enter__(self) -> "PartWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
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
        """Open the raw files at the length that the checkpoint says.

        Raises:
            ValueError: A file is shorter.
        """
        for kind, (dtype, width) in array_kinds(self.progress, self.dtype).items():
            self._files[kind] = []
            for number, rows in enumerate(self.progress.rows):
                raw = array_file(self.folder, kind, number).with_suffix(".raw")
                # Without a buffer a kill loses nothing that the checkpoint counts.
                file = open(raw, "ab", buffering=0)  # noqa: SIM115
                self._files[kind].append(file)
                size = rows * width * dtype.itemsize
                if file.tell() < size:
                    error = f"it has {file.tell()} bytes instead of {size}"
                    raise ValueError(UNREADABLE.format(path=str(raw), error=error))
                file.truncate(size)

    def append(
        self, rows: Sequence[np.ndarray], origins: np.ndarray, samples: int, digest: str
    ) -> None:
        """Append the rows of one batch to random files."""
        progress = self.progress
        if progress.widths != [array.shape[1] for array in rows]:
            raise ValueError(
                "The width of a layer must not change. Received: rows of width "
                f"{[array.shape[1] for array in rows]} after {progress.widths}."
            )
        limit = np.finfo("float16" if self.dtype == "float16" else "float32").max
        for array in rows:
            largest = max(array.max(initial=0), -array.min(initial=0))
            if not largest <= limit:  # also if it is NaN
                raise ValueError(
                    f"Activations must be finite in {self.dtype}. Received: an "
                    f"activation of size {largest:g}. Use dtype='bfloat16' or "
                    "'float32' if it is finite."
                )
        rng = np.random.default_rng([self.seed, progress.batches])
        targets = rng.integers(len(progress.rows), size=len(origins))
        order = np.argsort(targets, kind="stable")
        counts = np.bincount(targets, minlength=len(progress.rows))
        bounds = np.concatenate([[0], np.cumsum(counts)])
        stored = STORED_DTYPES[self.dtype]
        arrays = [*(array.astype(self.dtype).view(stored) for array in rows), origins]
        for files, array in zip(self._files.values(), arrays, strict=True):
            scattered = array[order]
            for number in np.flatnonzero(counts):
                part = scattered[bounds[number] : bounds[number + 1]]
                _write(files[number], part.tobytes())
        values = rows[0].astype("float64")
        progress.total = (np.asarray(progress.total) + values.sum(axis=0)).tolist()
        # Unlike a product of BLAS, this does not wait for busy threads.
        progress.squares += float(np.einsum("ij,ij->", values, values))
        progress.rows = (np.asarray(progress.rows) + counts).tolist()
        progress.batches += 1
        progress.samples += samples
        progress.digest = digest
        if time.monotonic() - self._saved >= _CHECKPOINT_SECONDS:
            self.checkpoint()

    def checkpoint(self) -> None:
        """Write the progress, so that a later call can resume here."""
        write_json(self.folder / PROGRESS, asdict(self.progress))
        self._saved = time.monotonic()

    def finish(self) -> None:
        """Shuffle each file, and replace it by an array of NumPy."""
        progress = self.progress
        progress.finished = True
        if not progress.complete:
            self.checkpoint()
        for kind, (dtype, width) in array_kinds(progress, self.dtype).items():
            for number, rows in enumerate(progress.rows):
                raw = array_file(self.folder, kind, number).with_suffix(".raw")
                if not raw.exists():
                    continue
                array = np.fromfile(raw, dtype).reshape(rows, width)
                # The same order for rows and origins, whichever was finished before.
                rng = np.random.default_rng([self.seed, number, 1])
                with atomic_write(array_file(self.folder, kind, number)) as path:
                    np.save(path, np.take(array, rng.permutation(rows), axis=0))
                os.unlink(raw)
        if not progress.complete:
            progress.complete = True
            self.checkpoint()


def _write(file: BinaryIO, data: bytes) -> None:
    """Write all bytes to a file without a buffer."""
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


def array_file(folder: Path, kind: str, number: int) -> Path:
    """Return the path of one array of a part."""
    return folder / f"{kind}-{number:05d}.npy"


def array_kinds(progress: Progress, dtype: str) -> dict[str, tuple[np.dtype, int]]:
    """Return the arrays of a part with their dtypes on disk and numbers of columns."""
    names = ("rows", "targets")[: len(progress.widths)]
    kinds = {
        name: (STORED_DTYPES[dtype], width)
        for name, width in zip(names, progress.widths, strict=True)
    }
    return {**kinds, "origins": (np.dtype("int64"), progress.axes)}


def decoded(rows: np.ndarray) -> np.ndarray:
    """Return rows from disk as float32."""
    is_bfloat16 = rows.dtype == "uint16"
    return (rows.view(ml_dtypes.bfloat16) if is_bfloat16 else rows).astype("float32")
