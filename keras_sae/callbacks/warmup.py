"""A sparsity that comes in over the first epochs."""

import keras

from keras_sae.callbacks._layers import steerable
from keras_sae.utils import validation as checks


class SparsityWarmup(keras.callbacks.Callback):
    """Raises the weight of the sparsity penalty linearly over the first epochs.

    `scale(epoch) = min(1, (epoch + 1) / (epochs + 1))`, epochs counted from 0.

    Units find features first and are pressed to be sparse afterwards, which
    costs fewer dead units. `val_sparsity_loss` is reported at the same scale. A
    `TopK` or `BatchTopK` with an `initial_k` has its `k` lowered in the same steps,
    and the divergence of a variational model is raised.

    Args:
        epochs: Number of epochs below full weight, a positive integer.

    Raises:
        ValueError: `epochs` is not a positive integer, or the model has no
            penalty to raise.

    Example:

    >>> import numpy as np
    >>> from keras_sae import callbacks, models
    >>> model = models.shallow((6,), units=8, sparsity="l1")
    >>> model.compile("adam")
    >>> warmup = callbacks.SparsityWarmup(epochs=1)
    >>> x = np.ones((4, 6), "float32")
    >>> history = model.fit(x, epochs=2, verbose=0, callbacks=[warmup])
    >>> history.history["sparsity_scale"]
    [0.5, 1.0]
    """

    def __init__(self, epochs: int) -> None:
        super().__init__()
        self.epochs = checks.positive_integer("epochs", epochs)

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Checks that there is a penalty."""
        if not steerable(self.model):
            raise ValueError(
                "`SparsityWarmup` raises the weight of a sparsity penalty, and this "
                f"model has none. Received: model={self.model.name!r}. Build it with "
                "sparsity='l1' or 'kl', or with `TopK(k, initial_k=...)`, or leave the "
                "callback out."
            )

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Sets the scale of every penalty."""
        self._scale = min(1.0, (epoch + 1) / (self.epochs + 1))
        for layer in steerable(self.model):
            layer.set_progress(self._scale)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Adds `sparsity_scale` to the logs."""
        if logs is not None:
            logs["sparsity_scale"] = self._scale
