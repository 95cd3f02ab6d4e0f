"""Adjust the penalty coefficient to reach a target L0."""

import math
import warnings

import keras
import numpy as np
from keras import ops

from keras_sae.layers import JumpReLU, Sparsity
from keras_sae.metrics import EffectiveL0
from keras_sae.types import Logs
from keras_sae.utils import validation

# Names under which a model may log the number of active units.
_METRICS = ("effective_l0", "l0")

# Maximum relative deviation from the target that counts as reaching it.
_TOLERANCE = 0.05

# Initial and minimum coefficient. A much smaller coefficient could not rise in time.
_INITIAL, _MIN = 1e-3, 1e-4

# Maximum coefficient. With a larger one, Adam's squared gradients could overflow.
_MAX = 1e8

_PROPORTIONAL = 2.0  # gain of the controller's proportional term
_SMOOTHING = 5  # steps over which the error is averaged
_FINAL = 0.02  # fraction of all steps over which the final L0 is averaged

# If the number of steps per epoch is unknown, the callback assumes `_UNKNOWN_STEPS` in
# the first epoch, or `_UNKNOWN_FACTOR` times the steps so far if that is more. If the
# assumed number were too small, the coefficient would reach its limit immediately.
_UNKNOWN_STEPS, _UNKNOWN_FACTOR = 1000, 2


class SparsityTarget(keras.callbacks.Callback):
    """Adjust the coefficient of a soft penalty so that L0 reaches a target.

    `log(coefficient) = I + 2 e`, `I <- I + gain / steps * e`, `e = log(L0 / target)`

    Use this callback if you know the sparsity that you want, but not the penalty factor
    that achieves it. The callback is a proportional-integral (PI) controller, and
    `steps` is the number of training steps of the whole fit. `e` is clipped to [-1, 1]
    and averaged over several steps. `I` starts at `log(0.001)`, because a larger
    coefficient would kill units before the controller could react.

    The thresholds of a `keras_sae.layers.JumpReLU` do not fall when the penalty falls,
    so its coefficient may become negative: `coefficient = S e`, where
    `log(S) <- log(S) + gain / steps * |e|` and `S` also starts at 0.001. A negative
    coefficient rewards active units and thereby lowers the loss, so let early stopping
    monitor `val_reconstruction_loss`. Between epochs and after `fit`, the coefficient
    of a `JumpReLU` is 0. Callbacks that save or restore the model must come after this
    one.

    A resumed fit (`initial_epoch`, `keras.callbacks.BackupAndRestore`) continues with
    the model's coefficient and counts only the remaining epochs. A `JumpReLU` keeps its
    thresholds, but `S` starts again at 0.001.

    Train with a single call of `fit`, because each call restarts the controller. If the
    number of steps per epoch is unknown, the callback assumes at least 1,000 steps
    until the first epoch ends. If the data has fewer batches, train for several epochs
    or pass `steps_per_epoch`.

    The controlled metric is `l0`, or `effective_l0` for a code that is never exactly
    zero. With a KL divergence, `effective_l0` depends less on the coefficient than on
    the divergence's `target`. The coefficient is logged as `sparsity_scale`. If the
    mean L0 of the last steps differs from the target by more than 5%, a warning is
    issued.

    Args:
        l0: Target number of active units per sample.
        gain: Gain of the controller. `I` and `log(S)` can change by at most `gain`
            during the fit. A larger gain is faster but less stable.

    Raises:
        ValueError: `l0` or `gain` is not a positive number, the model has no penalty
            with a coefficient, or a `JumpReLU` has its own `target_l0`.

    References:
        [Rajamanoharan et al., "Jumping Ahead", 2024](https://arxiv.org/abs/2407.14435),
        who add the target to the loss, as `JumpReLU(target_l0=...)` does.

    Example:

    >>> import keras, numpy as np
    >>> from keras_sae import callbacks, models
    >>> model = models.shallow((16,), units=32, sparsity="l1")
    >>> model.compile(keras.optimizers.Adam(0.01))
    >>> x = np.random.default_rng(0).random((512, 16), dtype="float32")
    >>> target = callbacks.SparsityTarget(l0=6)
    >>> history = model.fit(x, epochs=40, verbose=0, callbacks=[target]).history
    >>> bool(abs(history["l0"][-1] / 6 - 1) < 0.05)
    True
    """

    def __init__(self, l0: float, gain: float = 40.0) -> None:
        super().__init__()
        self.l0 = validation.positive_number("l0", l0)
        self.gain = validation.positive_number("gain", gain)

    def on_train_begin(self, logs: Logs = None) -> None:
        """Check that the model has a penalty with a coefficient."""
        layers = self._layers()
        if not layers:
            raise ValueError(
                "`SparsityTarget` needs a model with a soft penalty. Received: "
                f"model={self.model.name!r}, which has none. Build it with sparsity="
                "'l1', 'kl', 'jump_relu' or 'gated'. `TopK(k)` sets L0 directly."
            )
        for layer in layers:
            own = layer.target_l0 if isinstance(layer, JumpReLU) else None
            if own is not None:
                raise ValueError(
                    "`SparsityTarget` cannot adjust a layer with its own `target_l0`. "
                    f"Received: l0={self.l0:g}, and {layer.name!r} with "
                    f"target_l0={own:g}. Remove one of the two."
                )
        self._first_epoch: int | None = None
        self._epoch_steps, self._count = self.params.get("steps"), 0
        self._final_l0: float | None = None

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        """Set the coefficient, and reset the epoch's running mean."""
        if self._first_epoch is None:
            self._first_epoch, self._error = epoch, 0.0
            layer = self._layers()[0]
            coefficient = float(ops.convert_to_numpy(layer.coefficient))
            resumed = epoch > 0 and not layer.persistent and coefficient != 1
            initial = max(coefficient, _MIN) if resumed else _INITIAL
            self._integral = self._strength = math.log(initial)
        self._set_coefficient()
        self._sum, self._count, self._measured_at = 0.0, 0, 0

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        """Update the coefficient from the latest L0."""
        logs = logs or {}
        name = next((name for name in _METRICS if name in logs), None)
        if name is None:  # Keras would treat a `StopIteration` as the end of the data.
            raise ValueError(
                "`SparsityTarget` needs `l0` or `effective_l0` in the logs. Received: "
                f"logs with {', '.join(logs)}. Train a `keras_sae.models.Autoencoder`."
            )
        # The logged L0 is the mean over all steps measured in this epoch so far.
        interval = EffectiveL0.interval if name == "effective_l0" else 1
        measured = -(-(batch + 1) // interval)
        new = measured - -(-self._measured_at // interval)
        self._count = batch + 1
        if new < 1:
            return
        steps, self._measured_at = self._count - self._measured_at, self._count
        total = float(logs[name]) * measured
        l0, self._sum = (total - self._sum) / new, total
        unknown = max(_UNKNOWN_STEPS, _UNKNOWN_FACTOR * self._count)
        epochs = self.params.get("epochs", 1) - (self._first_epoch or 0)
        all_steps = max(int((self._epoch_steps or unknown) * epochs), 1)
        share = min(1.0, steps / max(_SMOOTHING, _FINAL * all_steps))
        before = l0 if self._final_l0 is None else self._final_l0
        self._final_l0 = before + (l0 - before) * share
        error = float(np.clip(math.log(max(l0, 1e-3) / self.l0), -1, 1))
        self._error += (error - self._error) * min(1.0, steps / _SMOOTHING)
        rate = steps * self.gain / all_steps
        low, high = math.log(_MIN), math.log(_MAX)
        self._integral = float(np.clip(self._integral + rate * self._error, low, high))
        self._strength = min(self._strength + rate * abs(self._error), high)
        self._set_coefficient()

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Log the coefficient as `sparsity_scale`."""
        layers = self._layers()
        if logs is not None:
            coefficient = ops.convert_to_numpy(layers[0].coefficient)
            logs["sparsity_scale"] = float(coefficient)
        self._epoch_steps = self._epoch_steps or self._count
        for layer in layers:
            if layer.persistent:
                layer.coefficient.assign(0.0)  # for callbacks that save the model

    def on_train_end(self, logs: Logs = None) -> None:
        """Warn if the target was not reached."""
        final = float("nan") if self._final_l0 is None else self._final_l0
        if not abs(final / self.l0 - 1) <= _TOLERANCE:  # also for NaN
            layer = self._layers()[0]
            advice = (
                "use a larger `bandwidth` or learning rate for the thresholds."
                if layer.persistent
                else "multiply the penalty's factor by about "
                f"{ops.convert_to_numpy(layer.coefficient):.2g}."
            )
            warnings.warn(
                f"`SparsityTarget` ended at an L0 of {final:.3g}, more than 5% off its "
                f"target. Received: l0={self.l0:g}. Train for more epochs, raise "
                f"`gain`, or {advice}",
                stacklevel=2,
            )

    def _layers(self) -> list[Sparsity]:
        layers = self.model._flatten_layers()
        return [x for x in layers if isinstance(x, Sparsity) and x.has_penalty]

    def _set_coefficient(self) -> None:
        one_way = math.exp(self._integral + _PROPORTIONAL * self._error)
        both_ways = math.exp(self._strength) * self._error
        for layer in self._layers():
            layer.coefficient.assign(both_ways if layer.persistent else one_way)
