"""Report and resample dead units."""

import math
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_sae.layers import SparseDense
from keras_sae.models import Autoencoder
from keras_sae.types import ArrayLike, Logs
from keras_sae.utils import validation


class DeadUnits(keras.callbacks.Callback):
    """Report the fraction of dead units, and optionally resample them.

    A unit is dead if its activation was exactly zero for every sample of the last
    `window` training steps. The fraction of dead units is logged as `dead_units`. It is
    0 for codes that are never exactly zero, such as sigmoid codes.

    With `resample`, each dead unit is reinitialized from a random sample. A sample is
    drawn with probability proportional to its squared reconstruction error. The unit's
    dictionary row becomes the residual of the sample, scaled to unit norm. The unit's
    encoder weights point in the same direction, and their norm is a fifth of the mean
    norm over the units that are not dead. The bias, threshold and gain are reset to
    their initial values, and the optimizer's moments to zero.

    Args:
        window: Number of training steps without activity after which a unit is dead.
            If None, it is the number of steps per epoch.
        resample: None, or an array of shape `(samples, *input_shape)`. Before each
            epoch, dead units are reinitialized from its samples. The model must have
            one `SparseDense`, followed by one dense output layer.
        seed: Random seed for choosing the samples.

    Raises:
        ValueError: `window` is not a positive integer, the model has no `SparseDense`,
            the model has several and is not an `Autoencoder`, or the model does not
            support `resample`.

    References:
        [Bricken et al., "Towards Monosemanticity", 2023](
        https://transformer-circuits.pub/2023/monosemantic-features).

    Example:

    >>> import numpy as np
    >>> from keras_sae import callbacks, models
    >>> model = models.shallow((6,), units=8, sparsity="l1")
    >>> model.compile("adam")
    >>> x = np.random.default_rng(0).random((64, 6), dtype="float32")
    >>> history = model.fit(x, verbose=0, callbacks=[callbacks.DeadUnits()])
    >>> 0 <= history.history["dead_units"][0] <= 1
    True
    """

    def __init__(
        self,
        window: int | None = None,
        resample: ArrayLike | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if window is not None:
            validation.positive_integer("window", window)
        self.window = window
        self.resample = resample
        self.rng = np.random.default_rng(seed)
        self._steps = math.inf  # steps per epoch; infinite until known

    def on_train_begin(self, logs: Logs = None) -> None:
        """Check that the model has a code layer and supports `resample`."""
        self._layers()
        self._steps = self.params["steps"] or self._steps

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        """Resample dead units if `resample` is set."""
        code, output = self._layers()
        window = self._steps if self.window is None else self.window
        dead = ops.convert_to_numpy(code.steps_since_active) >= window
        if output is not None and dead.any():
            self._restart(code, output, np.flatnonzero(dead))

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        """Count the steps of the epoch."""
        self._steps = batch + 1  # with `steps_per_execution`, `batch` is the last step

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Log `dead_units`."""
        if logs is not None:
            inactive = ops.convert_to_numpy(self._layers()[0].steps_since_active)
            window = self._steps if self.window is None else self.window
            logs["dead_units"] = float((inactive >= window).mean())

    def _layers(self) -> tuple[SparseDense, keras.layers.Dense | None]:
        """Return the code layer and, for resampling, the output layer."""
        layers = self.model._flatten_layers()
        sparse = [layer for layer in layers if isinstance(layer, SparseDense)]
        is_autoencoder = isinstance(self.model, Autoencoder)
        codes = self.model.sparse_layers[-1:] if is_autoencoder else sparse
        if len(codes) != 1:
            raise ValueError(
                "`DeadUnits` needs an autoencoder with a "
                "`keras_sae.layers.SparseDense`, or another model with exactly one. "
                f"Received: model={self.model.name!r}, which has {len(codes)}."
            )
        if self.resample is None:
            return codes[0], None
        decoder = self.model.decoder.layers if is_autoencoder else []
        outputs = [layer for layer in decoder if hasattr(layer, "kernel")]
        is_shallow = len(sparse) == len(outputs) == 1
        if not is_shallow or not isinstance(outputs[0], keras.layers.Dense):
            raise ValueError(
                "`resample` needs a shallow model whose decoder is one dense layer "
                f"with its own kernel. Received: model={self.model.name!r}, which is "
                "deep, tied or not an autoencoder. To only report dead units, use "
                "DeadUnits(resample=None)."
            )
        return codes[0], outputs[0]

    def _restart(
        self, code: SparseDense, output: keras.layers.Dense, dead: np.ndarray
    ) -> None:
        """Reinitialize dead units, and set the optimizer's moments to zero.

        With the old moments, the optimizer would keep moving a unit in its former
        direction. With `use_ema`, Keras copies the moving averages into the model at
        the end of training, so the averages are set to the new values.
        """
        x = np.asarray(self.resample, "float32")
        residual = x - self.model.predict(x, verbose=0)
        residual = residual.reshape(-1, output.kernel.shape[-1])  # one row per code
        error = (residual**2).sum(axis=1).astype("float64")
        if not error.any():
            return  # The model reconstructs every sample exactly.
        # Two units that are reinitialized from the same sample would remain identical.
        replace = bool(np.count_nonzero(error) < len(dead))
        probability = error / error.sum()
        chosen = self.rng.choice(len(error), len(dead), replace=replace, p=probability)
        directions = residual[chosen]
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        kernel = ops.convert_to_numpy(code.kernel)
        rows = kernel if code.transposed_kernel else kernel.T
        alive = np.setdiff1d(np.arange(code.units), dead)
        norm = np.linalg.norm(rows[alive], axis=1).mean() if len(alive) else 1.0
        encoder = 0.2 * norm * directions
        changes: list[tuple[keras.Variable, Any, Any]] = [
            (code.kernel, dead, encoder)
            if code.transposed_kernel
            else (code.kernel, (slice(None), dead), encoder.T),
            (output.kernel, dead, directions),
        ]
        if code.bias is not None:
            initial = code.bias_initializer((code.units,), dtype="float32")
            changes.append((code.bias, dead, ops.convert_to_numpy(initial)[dead]))
        if code.sparsity is not None:
            changes += [(v, dead, start) for v, start in code.sparsity.per_unit_state()]
        for variable, entries, value in changes:
            name = variable.path.replace("/", "_")
            for target in (variable, *self.model.optimizer.variables):
                is_moment = name in target.path and target.shape == variable.shape
                if target is variable or is_moment:
                    keeps_value = target is variable or target.path.endswith("_average")
                    values = ops.convert_to_numpy(target).copy()
                    values[entries] = value if keeps_value else 0.0
                    target.assign(values)
