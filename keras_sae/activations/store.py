"""Read recorded activations from disk."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from keras_sae.activations.rows import dataset_of
from keras_sae.activations.writer import PartWriter, array_file, decoded
from keras_sae.types import ArrayLike, PathLike
from keras_sae.utils.io import read_json
from keras_sae.utils.validation import positive_integer

if TYPE_CHECKING:
    import tensorflow as tf

SETTINGS = "settings.json"


def part_folder(folder: Path, index: int) -> Path:
    """Return the folder of one part of a store."""
    return folder / f"part-{index:05d}"


class ActivationStore:
    """Rows of activations that `keras_sae.activations.record` wrote to a folder.

    The rows of each part are in random order, and each file contains rows of one part.
    `array`, `origin` and `dataset(shuffle=False)` use the same order.

    Args:
        folder: Folder of the store.
        part: Index of the part to read, or None to read all parts. In distributed
            training, each process can read a different part.

    Attributes:
        shape: `(rows, width)` of the layer, or of the first layer of a pair.
        target_shape: `(rows, width)` of the second layer of a pair, or None.
        layers: Paths of the layers.
        mean: Mean over the rows of the first layer, a float32 array of shape
            `(width,)`.
        rms: Root mean square of the values of the first layer.
        fingerprint: Hash of the weights of the recorded model.

    Raises:
        ValueError: The folder does not contain a store, or a part to read is not
            complete.

    Example:

    >>> import keras
    >>> import numpy as np
    >>> from keras_sae import activations
    >>> model = keras.Sequential([keras.Input((5,)), keras.layers.ReLU(name="relu")])
    >>> _ = activations.record(model, "relu", np.ones((10, 5)), "ones")
    >>> store = activations.ActivationStore("ones")
    >>> len(store), store.mean.tolist(), store.rms
    (10, [1.0, 1.0, 1.0, 1.0, 1.0], 1.0)
    """

    def __init__(self, folder: PathLike, part: int | None = None) -> None:
        folder = Path(folder)
        if not (folder / SETTINGS).exists():
            raise ValueError(
                "`folder` must be a folder that `keras_sae.activations.record` has "
                f"written. Received: folder={str(folder)!r}."
            )
        settings = read_json(folder / SETTINGS, parts=int, layers=list, model=str)
        indices = range(settings["parts"]) if part is None else [part]
        parts = {i: PartWriter.read_progress(part_folder(folder, i)) for i in indices}
        unfinished = [i for i, progress in parts.items() if not progress.complete]
        if unfinished:
            raise ValueError(
                "All parts that are read must be complete. Received: "
                f"{str(folder)!r}, whose parts {unfinished} are incomplete. Call "
                "`record` again for these parts."
            )
        self.layers: list[str] = settings["layers"]
        self.fingerprint: str = settings["model"]
        self._files = [
            (part_folder(folder, index), number, progress.rows[number])
            for number in range(max(len(p.rows) for p in parts.values()))
            for index, progress in parts.items()
            if number < len(progress.rows) and progress.rows[number]
        ]
        self._ends = np.cumsum([rows for _, _, rows in self._files])
        rows = int(self._ends[-1])
        first_part = next(iter(parts.values()))
        widths, self._axes = first_part.widths, first_part.axes
        self.shape = (rows, widths[0])
        self.target_shape = (rows, widths[1]) if len(widths) > 1 else None
        totals = [progress.total for progress in parts.values()]
        self.mean = (np.sum(totals, axis=0) / rows).astype("float32")
        squares = sum(progress.squares for progress in parts.values())
        self.rms = float(np.sqrt(squares / rows / widths[0]))

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(
        self, dtype: str | np.dtype | None = None, copy: bool | None = None
    ) -> np.ndarray:
        """Return all rows as a NumPy array."""
        del copy
        return self.array().astype(dtype or "float32", copy=False)

    def array(self, n: int | None = None) -> np.ndarray:
        """Return the first `n` rows as float32.

        If the store has one part, these rows are a random sample.

        Args:
            n: Number of rows, or None for all rows.
        """
        return self[: None if n is None else positive_integer("n", n)]

    def __getitem__(self, rows: slice) -> np.ndarray:
        """Return a range of rows as float32, such as `store[1000:2000]`."""
        if not isinstance(rows, slice) or rows.step not in (None, 1):
            raise ValueError(
                "The index must be a range of rows, such as `store[:1000]`. Received: "
                f"{rows!r}. Use `store.array()[rows]` for other rows."
            )
        begin, end, _ = rows.indices(len(self))
        end = max(begin, end)
        result = np.empty((end - begin, self.shape[1]), "float32")
        first, last = np.searchsorted(self._ends, [begin, end - 1], side="right")
        for place in range(first, last + 1):
            folder, number, count = self._files[place]
            start = int(self._ends[place]) - count
            array = np.load(array_file(folder, "rows", number), mmap_mode="r")
            skipped = max(begin - start, 0)
            part = decoded(array[skipped : end - start])
            position = start + skipped - begin
            result[position : position + len(part)] = part
        return result

    def origin(self, rows: ArrayLike) -> np.ndarray:
        """Return the sample of each row, and the position of the row in that sample.

        Args:
            rows: Indices of rows.

        Returns:
            Integers of shape `(len(rows), columns)`. The first column is the sample,
            counted from the `first_sample` of `record`. The other columns are the
            position in the sample, such as the index of a token.

        Raises:
            ValueError: An index is negative or too large.
        """
        wanted = np.atleast_1d(np.asarray(rows, "int64"))
        if wanted.size and not 0 <= wanted.min() <= wanted.max() < len(self):
            raise ValueError(
                f"`rows` must lie between 0 and {len(self) - 1}. Received: rows from "
                f"{wanted.min()} to {wanted.max()}."
            )
        places = np.searchsorted(self._ends, wanted, side="right")
        result = np.empty((len(wanted), self._axes), "int64")
        for place in np.unique(places):
            folder, number, count = self._files[place]
            array = np.load(array_file(folder, "origins", number), mmap_mode="r")
            chosen = wanted[places == place] - (self._ends[place] - count)
            result[places == place] = array[chosen]
        return result

    def dataset(
        self, batch_size: int = 1024, shuffle: bool = True, seed: int | None = None
    ) -> "tf.data.Dataset":
        """Return the rows as a dataset for `fit` on any backend.

        Files are read into memory one at a time. If `shuffle` is True, each epoch uses
        a new order of the files and of the rows in each file. With several parts, most
        batches contain rows of only one part.

        Args:
            batch_size: Number of rows per batch. The last batch may be smaller.
            shuffle: Whether to shuffle again. The rows of each part are already in
                random order on disk.
            seed: Random seed of the order. If None, it is drawn from NumPy's global
                generator.

        Returns:
            A `tf.data.Dataset` with a known length. Its elements are batches of float32
            rows, or pairs `(x, y)` of batches for a store of two layers.
        """
        import tensorflow as tf

        positive_integer("batch_size", batch_size)
        seed = int(np.random.randint(2**31)) if seed is None else seed
        epochs = itertools.count()

        def generate() -> Iterator[tuple[np.ndarray, ...]]:
            rng = np.random.default_rng([seed, next(epochs)]) if shuffle else None
            yield from self._batches(batch_size, rng)

        widths = [x[1] for x in (self.shape, self.target_shape) if x]
        data = dataset_of(generate, widths)
        length = tf.data.experimental.assert_cardinality(-(-len(self) // batch_size))
        return data.apply(length).prefetch(2)

    def _batches(
        self, batch_size: int, rng: np.random.Generator | None
    ) -> Iterator[tuple[np.ndarray, ...]]:
        """Yield the batches of one epoch."""
        kinds = ("rows", "targets") if self.target_shape else ("rows",)
        files = len(self._files)
        order = np.arange(files) if rng is None else rng.permutation(files)
        rest: list[np.ndarray] = []
        for place in order:
            folder, number, count = self._files[place]
            rows = np.arange(count) if rng is None else rng.permutation(count)
            arrays = [np.load(array_file(folder, kind, number))[rows] for kind in kinds]
            if rest:
                pairs = zip(rest, arrays, strict=True)
                arrays = [np.concatenate(pair) for pair in pairs]
            whole = len(arrays[0]) // batch_size * batch_size
            for start in range(0, whole, batch_size):
                part = slice(start, start + batch_size)
                yield tuple(decoded(array[part]) for array in arrays)
            rest = [array[whole:].copy() for array in arrays]
        if len(rest[0]):
            yield tuple(decoded(array) for array in rest)
