"""Units that have stopped firing: counted, and started again."""

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_sae.callbacks._layers import of_kind
from keras_sae.layers import SparseDense
from keras_sae.utils import validation as checks

# How Keras calls a weight's moving average, which `use_ema` keeps beside the moments.
_AVERAGE = "_average"


class DeadUnits(keras.callbacks.Callback):
    """Reports the units that have stopped firing, and can revive them.

    A unit is dead when its activation was exactly zero for every sample of the
    last `window` training steps. The fraction of dead code units is added to the
    logs as `dead_units`. A code that is never exactly zero (sigmoid) has none.

    With `resample`, a dead unit starts again from a sample that the model
    rebuilds badly: its atom becomes that sample's residual at unit norm, its
    encoder weights the same direction at a fifth of the mean norm of the living
    units' weights, its bias zero, a threshold or gain what it was at the start, and
    the optimizer forgets its moments.

    Args:
        window: Training steps without a sign of life; the steps of one epoch
            if None.
        resample: None, or data of shape `(samples, *input_shape)` to restart dead
            units from after every epoch but the last. The model must be
            shallow: one `SparseDense`, and a dense output layer behind it.
        seed: Chooses the samples.

    Raises:
        ValueError: `window` is not positive, the model has no `SparseDense`, or
            its units cannot be revived.

    Reference:
        Bricken et al., "Towards Monosemanticity", 2023 (resampling).

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
        self, window: int | None = None, resample: Any = None, seed: int = 0
    ) -> None:
        super().__init__()
        if window is not None:
            checks.positive_integer("window", window)
        self.window = window
        self.resample = resample
        self.rng = np.random.default_rng(seed)

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Finds the code layer, and checks that its units can be revived."""
        found = len(of_kind(self.model, SparseDense))
        if found == 0 or (found > 1 and not hasattr(self.model, "sparse_layers")):
            raise ValueError(
                "`DeadUnits` watches the code of an autoencoder, or the only "
                "`keras_sae.layers.SparseDense` of another model. Received: "
                f"model={self.model.name!r} with {found} of them."
            )
        if self.resample is not None:
            self._output_layer()

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Begins to count the steps of the epoch."""
        self._steps = 0

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Counts; `batch` is the last of the steps that were run together."""
        self._steps = batch + 1

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Adds `dead_units` to the logs; revives, if it was asked to."""
        code = self._code_layer()
        silent = ops.convert_to_numpy(code.steps_since_active)
        dead = silent >= (self._steps if self.window is None else self.window)
        if logs is not None:
            logs["dead_units"] = float(dead.mean())
        last = epoch + 1 >= self.params["epochs"]
        if self.resample is not None and dead.any() and not last:
            self._restart(code, np.flatnonzero(dead))

    def _code_layer(self) -> SparseDense:
        # Of an autoencoder the innermost; any other model must have one alone.
        found = getattr(self.model, "sparse_layers", None)
        return (found or of_kind(self.model, SparseDense))[-1]

    def _output_layer(self) -> keras.layers.Layer:
        """The layer whose kernel rows are the atoms, if it reads the code."""
        consumers = [x for x in self.model.decoder.layers if hasattr(x, "kernel")]
        shallow = len(of_kind(self.model, SparseDense)) == len(consumers) == 1
        if not shallow or not isinstance(consumers[0], keras.layers.Dense):
            raise ValueError(
                "`resample` restarts the atoms of a shallow model whose decoder is one "
                f"dense layer of its own. Received: model={self.model.name!r} with "
                f"{len(consumers)} kernels in its decoder, or a tied one. Use "
                "DeadUnits(resample=None), which reports."
            )
        return consumers[0]

    def _restart(self, code: SparseDense, dead: np.ndarray) -> None:
        output = self._output_layer()
        x = np.asarray(self.resample, "float32")
        residual = (x - self.model.predict(x, verbose=0)).reshape(len(x), -1)
        error = (residual**2).sum(axis=1).astype("float64")
        # Two units of one sample would be, and stay, the same.
        twice = bool(np.count_nonzero(error) < len(dead))
        p = error / error.sum()
        picks = self.rng.choice(len(x), size=len(dead), replace=twice, p=p)
        atoms = residual[picks] / np.linalg.norm(residual[picks], axis=1, keepdims=True)
        kernel = ops.convert_to_numpy(code.kernel).copy()
        rows = kernel if code.transposed_kernel else kernel.T  # a view of it
        alive = np.setdiff1d(np.arange(code.units), dead)
        norm = np.linalg.norm(rows[alive], axis=1).mean() if len(alive) else 1.0
        rows[dead] = 0.2 * norm * atoms
        decoder = ops.convert_to_numpy(output.kernel).copy()
        decoder[dead] = atoms
        code.kernel.assign(kernel)
        if code.bias is not None:
            bias = ops.convert_to_numpy(code.bias).copy()
            bias[dead] = 0.0
            code.bias.assign(bias)
            self._forget(code.bias, dead)
        for own, start in getattr(code.sparsity, "starts", tuple)():
            values = ops.convert_to_numpy(own).copy()
            values[dead] = start
            own.assign(values)
            self._forget(own, dead)
        output.kernel.assign(decoder)
        self._forget(
            code.kernel, dead if code.transposed_kernel else (slice(None), dead)
        )
        self._forget(output.kernel, dead)

    def _forget(self, variable: Any, entries: Any) -> None:
        """Makes the optimizer forget some entries of a variable; averages begin anew.

        A moment is named after its variable; left as it is, it would carry the
        new unit on in the direction of the old one.
        """
        name = variable.path.replace("/", "_")
        new = ops.convert_to_numpy(variable)[entries]
        for moment in self.model.optimizer.variables:
            if name in moment.path and moment.shape == variable.shape:
                values = ops.convert_to_numpy(moment).copy()
                # With `use_ema` Keras puts the averages into the model in the end.
                values[entries] = new if moment.path.endswith(_AVERAGE) else 0.0
                moment.assign(values)
