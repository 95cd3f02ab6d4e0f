"""Log an autoencoder's units to TensorBoard."""

import os
from typing import Any

import keras
import numpy as np

from keras_sae.models import Autoencoder
from keras_sae.types import ArrayLike, Logs, PathLike
from keras_sae.utils import validation
from keras_sae.utils.images import enlarge, filter_images, scale_filters, tile_sheet

# Small filters are enlarged until their longer side has this many pixels.
_SIDE = 32


class TensorBoard(keras.callbacks.TensorBoard):
    """Log training to TensorBoard, with filters and histograms of activations.

    `keras.callbacks.TensorBoard` writes losses, `l0` and all other logs. This subclass
    adds a run named `units`, which shows how the units change during training:

    - `filters`: an image of each unit's contribution to the reconstruction. Zeros are
      nearly white, or gray if the images have three channels.
    - `activations`: a histogram of the non-zero activations for `samples`.
    - `firing`: a histogram of the fraction of `samples` that activate each unit.

    Args:
        log_dir: Folder that TensorBoard reads.
        samples: Array of shape `(samples, *input_shape)`, such as validation data. If
            None, no histograms are written.
        count: Maximum number of filters in the image.
        every: Interval in epochs at which the image and the histograms are written.
        **kwargs: Arguments of `keras.callbacks.TensorBoard`.

    Raises:
        ValueError: `count` or `every` is not positive, or the model is not a
            `keras_sae.models.Autoencoder`.

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
        log_dir: PathLike = "logs",
        samples: ArrayLike | None = None,
        *,
        count: int = 64,
        every: int = 1,
        **kwargs: Any,
    ) -> None:
        super().__init__(log_dir=os.fspath(log_dir), **kwargs)
        self.samples = None if samples is None else np.asarray(samples)
        self.count = validation.positive_integer("count", count)
        self.every = validation.positive_integer("every", every)

    def on_train_begin(self, logs: Logs = None) -> None:
        """Check the model and open the event file."""
        if not isinstance(self.model, Autoencoder):
            raise ValueError(
                "`TensorBoard` needs a `keras_sae.models.Autoencoder`. Received: "
                f"model={self.model.name!r}. For other models, use "
                "`keras.callbacks.TensorBoard`."
            )
        super().on_train_begin(logs)
        folder = os.path.join(self.log_dir, "units")
        self._units = self.summary.create_file_writer(folder)

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Write the logs, the filters and the histograms."""
        super().on_epoch_end(epoch, logs)
        if epoch % self.every:
            return
        with self._units.as_default(step=epoch):
            filters = scale_filters(self.model.dictionary()[: self.count])
            images = enlarge(filter_images(filters), _SIDE)
            sheet = tile_sheet(images, gap=2, background=1.0)
            self.summary.image("filters", sheet[None])
            if self.samples is not None:
                codes = self.model.encode(self.samples)
                self.summary.histogram("activations", codes[codes != 0])
                self.summary.histogram("firing", (codes != 0).mean(axis=0))
        self._units.flush()

    def on_train_end(self, logs: Logs = None) -> None:
        """Close the event files."""
        super().on_train_end(logs)
        self._units.close()
