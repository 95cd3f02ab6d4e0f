"""Warm up the sparsity over the first epochs."""

import warnings

import keras

from keras_sae.layers import Sampling, Sparsity
from keras_sae.types import Logs
from keras_sae.utils import validation


class SparsityWarmup(keras.callbacks.Callback):
    """Raise the coefficient of the sparsity penalty linearly over the first epochs.

    `coefficient(epoch) = min(1, (epoch + 1) / (epochs + 1))`, where `epoch` starts at 0

    Units can then learn features before the code becomes sparse, so fewer units die. A
    `TopK` or `BatchTopK` with an `initial_k` anneals its `k` on the same schedule. The
    KL divergence of a variational model is warmed up as well. The coefficient is logged
    as `sparsity_scale`.

    During validation and between epochs, the coefficient is 1. `val_loss` is therefore
    comparable across epochs, and early stopping can monitor it. Do not monitor the
    training loss, because it rises with the coefficient. Callbacks that save the model
    must come after this one.

    The callback counts epochs across all calls of `fit` on the same model, so you can
    call `fit(epochs=1)` in a loop. If a call ends before the coefficient reaches 1, a
    warning is issued.

    Args:
        epochs: Number of epochs before the coefficient reaches 1, a positive integer.

    Raises:
        ValueError: `epochs` is not a positive integer, or the model has no penalty, KL
            divergence or `initial_k`.

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

    def set_model(self, model: keras.Model) -> None:
        """Restart the warm-up if the callback is used with another model."""
        if model is not self.model:
            self._finished_epochs, self._fraction = 0, 1.0
        super().set_model(model)

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        """Set the coefficient of every penalty and KL divergence, and anneal `k`."""
        self._finished_epochs = max(self._finished_epochs, epoch)  # if `fit` resumes
        self._fraction = min(1.0, (self._finished_epochs + 1) / (self.epochs + 1))
        self._set_progress(self._fraction)

    def on_test_begin(self, logs: Logs = None) -> None:
        """Validate with the full coefficient."""
        self._set_progress(1.0)

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Log the epoch's coefficient, and restore the full coefficient."""
        self._finished_epochs += 1
        self._set_progress(1.0)
        if logs is not None:
            logs["sparsity_scale"] = self._fraction

    def on_train_end(self, logs: Logs = None) -> None:
        """Warn if training ended before the coefficient reached 1."""
        if self._fraction < 1:
            warnings.warn(
                "Training ended during the warm-up: the coefficient of the last epoch "
                f"was only {self._fraction:.2g}. Received: "
                f"SparsityWarmup(epochs={self.epochs}), and {self._finished_epochs} "
                "epochs of training. Train for more epochs, call `fit` again with the "
                "same callback, or lower `epochs`.",
                stacklevel=2,
            )

    def _set_progress(self, fraction: float) -> None:
        layers = [
            layer
            for layer in self.model._flatten_layers()
            if isinstance(layer, Sampling)
            or (isinstance(layer, Sparsity) and (layer.has_penalty or layer.anneals))
        ]
        if not layers:
            raise ValueError(
                "`SparsityWarmup` needs a model with a sparsity penalty. Received: "
                f"model={self.model.name!r}, which has none. Build it with sparsity="
                "'l1', 'kl' or `TopK(k, initial_k=...)`, or remove the callback."
            )
        for layer in layers:
            layer.set_progress(fraction)
