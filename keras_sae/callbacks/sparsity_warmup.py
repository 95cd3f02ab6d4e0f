"""Raise the sparsity over the first epochs."""

import keras

from keras_sae.layers import Sampling, Sparsity
from keras_sae.types import Logs
from keras_sae.utils import validation


class SparsityWarmup(keras.callbacks.Callback):
    """Raise the coefficient of the sparsity penalty linearly over the first epochs.

    `coefficient(epoch) = min(1, (epoch + 1) / (epochs + 1))`, where epochs start at 0

    Units learn features before they are made sparse, which leaves fewer dead units.
    `val_sparsity_loss` uses the same coefficient. A `TopK` or `BatchTopK` with an
    `initial_k` anneals its `k` on the same schedule. The KL divergence of a variational
    model is warmed up as well. The coefficient is logged as `sparsity_scale`.

    Args:
        epochs: Number of epochs below the full coefficient, a positive integer.

    Raises:
        ValueError: `epochs` is not a positive integer, or the model has no sparsity
            that can be raised.

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
        self.epochs = validation.positive_integer("epochs", epochs)

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        """Set the coefficient of every penalty, the `k` and the KL divergence."""
        self._fraction = min(1.0, (epoch + 1) / (self.epochs + 1))
        layers = [
            layer
            for layer in self.model._flatten_layers()
            if isinstance(layer, Sampling)
            or (isinstance(layer, Sparsity) and (layer.has_penalty or layer.anneals))
        ]
        if not layers:
            raise ValueError(
                "`SparsityWarmup` needs a model with a sparsity penalty. Received: "
                f"model={self.model.name!r} without one. Build it with sparsity='l1' "
                "or 'kl', or with `TopK(k, initial_k=...)`, or leave out the callback."
            )
        for layer in layers:
            layer.set_progress(self._fraction)

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Log the coefficient as `sparsity_scale`."""
        if logs is not None:
            logs["sparsity_scale"] = self._fraction
