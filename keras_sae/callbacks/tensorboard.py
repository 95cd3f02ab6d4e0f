"""Keras's TensorBoard callback, with the units of an autoencoder beside its logs."""

import os
from typing import Any

import keras
import numpy as np

from keras_sae.utils import validation as checks

# Pixels of the shorter side of a filter: an 8x8 one would be a speck on the page.
_SIDE = 32


class TensorBoard(keras.callbacks.TensorBoard):
    """Keras's `TensorBoard`, and after each epoch the filters and the activations.

    Losses, `l0` and the other logs are written as Keras writes them. The run
    `units` holds `filters`, one picture of the first units, grey where they are
    zero; and of `samples` two histograms: `activations`, those that are not zero,
    and `firing`, for each unit the share of samples for which it fires.

    Args:
        log_dir: Folder that TensorBoard is pointed at.
        samples: None, or held-out data of shape `(samples, *input_shape)`; without
            it there are no histograms.
        count: Most filters in the picture.
        every: Epochs between two of them.
        **kwargs: Those of `keras.callbacks.TensorBoard`.

    Raises:
        ValueError: `count` or `every` is not positive, or the model is no
            autoencoder.

    Example:

    >>> import pathlib
    >>> import numpy as np
    >>> from keras_sae import callbacks, models
    >>> model = models.shallow((6,), units=8, sparsity="l1")
    >>> model.compile("adam")
    >>> x = np.random.default_rng(0).random((16, 6), dtype="float32")
    >>> board = callbacks.TensorBoard("logs", samples=x)
    >>> history = model.fit(x, verbose=0, callbacks=[board])
    >>> sorted(path.name for path in pathlib.Path("logs").iterdir())
    ['train', 'units']
    """

    def __init__(
        self,
        log_dir: str | os.PathLike = "logs",
        samples: Any = None,
        *,
        count: int = 64,
        every: int = 1,
        **kwargs: Any,
    ) -> None:
        super().__init__(log_dir=os.fspath(log_dir), **kwargs)
        self.samples = None if samples is None else np.asarray(samples)
        self.count = checks.positive_integer("count", count)
        self.every = checks.positive_integer("every", every)
        self._units: Any = None

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Checks that there are units to write, and opens their file."""
        if not (hasattr(self.model, "encode") and hasattr(self.model, "decode")):
            raise ValueError(
                "`TensorBoard` writes the units of an autoencoder. Received: "
                f"model={self.model.name!r}. Use keras.callbacks.TensorBoard for it."
            )
        super().on_train_begin(logs)
        folder = os.path.join(self.log_dir, "units")
        self._units = self.summary.create_file_writer(folder)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Writes Keras's scalars, the filters and the histograms."""
        super().on_epoch_end(epoch, logs)
        if epoch % self.every:
            return
        with self._units.as_default(step=epoch):
            picture = sheet(self.model.dictionary()[: self.count])
            self.summary.image("filters", picture[None])
            if self.samples is not None:
                codes = self.model.encode(self.samples)
                self.summary.histogram("activations", codes[codes != 0])
                self.summary.histogram("firing", (codes != 0).mean(axis=0))
        self._units.flush()

    def on_train_end(self, logs: dict | None = None) -> None:
        """Closes the files."""
        super().on_train_end(logs)
        self._units.close()


def sheet(atoms: np.ndarray) -> np.ndarray:
    """Filters side by side, of shape `(height, width, channels)`, values in [0, 1].

    Each has its own scale, with zero at a half. Filters of vectors are rows.
    """
    images = atoms if atoms.ndim == 4 else atoms.reshape(len(atoms), 1, -1, 1)
    if images.shape[-1] not in (1, 3):
        images = images.mean(axis=-1, keepdims=True)
    largest = np.abs(images).max(axis=(1, 2, 3), keepdims=True)
    images = 0.5 + 0.5 * images / np.where(largest > 0, largest, 1.0)
    columns = 1 if images.shape[1] == 1 else int(np.ceil(np.sqrt(len(images))))
    rows = -(-len(images) // columns)
    zoom = max(1, _SIDE // max(images.shape[1:3]))
    images = images.repeat(zoom, axis=1).repeat(zoom, axis=2)
    images = np.pad(images, ((0, rows * columns - len(images)), (1, 1), (1, 1), (0, 0)))
    height, width, channels = images.shape[1:]
    grid = images.reshape(rows, columns, height, width, channels).swapaxes(1, 2)
    return grid.reshape(rows * height, columns * width, channels)
