"""A controller of the penalty's weight: the user says how sparse, not how heavy."""

import math
import warnings
from typing import Any

import keras
import numpy as np

from keras_sae.layers import Weighted
from keras_sae.utils import validation as checks

# The figures that count active units, whichever the model logs.
_FIGURES = ("l0", "expected_l0")

# Within this share of the target the controller has done its work.
_TOLERANCE = 0.05

# Where the scale starts, and the least it can be. From above, a penalty would kill
# units before the controller has seen anything; far below, it could not come back
# in time.
_START, _LEAST = 1e-3, 1e-4

_MOST = 1e8  # whose square, which Adam keeps, is far from the end of float32

_WIDER = "move the thresholds faster, by a larger `bandwidth` or learning rate."

_PROPORTIONAL = 2.0  # with the logarithm of the scale for the integral part
_SMOOTHING = 5  # steps
_JUDGED = 0.02  # of all steps: how far back the figure goes that is judged at the end
# Steps of an epoch of unknown length, until the first has ended: so many, or so often
# what it has had. Too few would drive the weight to the end of its range at once.
_UNKNOWN, _MORE = 1000, 2


class SparsityTarget(keras.callbacks.Callback):
    """Steers the weight of a soft penalty so that L0 ends at a target.

    `log(scale) = I + 2 e`, `I <- I + gain / steps * e`, `e = log(l0 / target)`

    after every training step, `e` smoothed over some steps and held within
    [-1, 1]: a proportional-integral controller of the logarithm of the weight. It
    starts at a thousandth of the weight that the model was built with, so that no
    unit is killed before the controller has seen anything.

    The thresholds of a `keras_sae.layers.JumpReLU` stay where a penalty has brought
    them, so there it has to push both ways: `scale = S e`, `log(S) <- log(S) + gain /
    steps * |e|`, from a thousandth too. A scale below 0 rewards active units, so the
    loss is no figure to stop by: take `val_reconstruction_loss`. Between epochs and
    when the fit is over the scale is 0: the thresholds hold what they have learned.
    Callbacks that save or restore the model are to come after this one.

    A fit that goes on (`initial_epoch`, `keras.callbacks.BackupAndRestore`) goes on
    from the weight that the model was left with, and reckons with the epochs left; a
    `JumpReLU` keeps its thresholds, and the push begins anew from a thousandth.

    How far a step goes depends on how many there are. Of a stream of unknown length the
    first epoch is taken for 1,000 steps or more, which is slow where it has fewer:
    several epochs, or `steps_per_epoch`, mend that.

    The controlled figure is `l0`, or `expected_l0` for a code that is never exactly
    zero. The scale is logged as `sparsity_scale`. A fit that ends more than 5% off
    the target, by a mean of the last steps, warns with what came and what to change.

    Args:
        l0: Number of active units a sample to end at.
        gain: How often the weight could change by a factor of `e` in the fit; more
            is faster, and less steady.

    Raises:
        ValueError: `l0` is not a positive number, or the model has no penalty whose
            weight could be steered (a `TopK` has none, it has `k`; a `JumpReLU` may
            have a target of its own).

    Reference:
        Rajamanoharan et al., "Jumping Ahead", 2024, for a target in the loss itself:
        `keras_sae.layers.JumpReLU(target_l0=...)`.

    Example:

    >>> import keras, numpy as np
    >>> from keras_sae import callbacks, models
    >>> model = models.shallow((16,), units=32, sparsity="l1")
    >>> model.compile(keras.optimizers.Adam(0.01))
    >>> x = np.random.default_rng(0).random((512, 16), dtype="float32")
    >>> steer = callbacks.SparsityTarget(l0=6)
    >>> history = model.fit(x, epochs=40, verbose=0, callbacks=[steer]).history
    >>> bool(abs(history["l0"][-1] / 6 - 1) < 0.05)
    True
    """

    def __init__(self, l0: float, gain: float = 40.0) -> None:
        super().__init__()
        self.l0 = checks.positive_number("l0", l0)
        self.gain = checks.positive_number("gain", gain)

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Checks that there is a penalty, and starts from its weight."""
        layers = self._layers()
        if not layers:
            raise ValueError(
                "`SparsityTarget` steers the weight of a soft penalty, and this model "
                f"has none. Received: model={self.model.name!r}. Build it with "
                "sparsity='l1', 'kl', 'jump_relu' or 'gated'; a `TopK(k)` has its L0 "
                "in k."
            )
        for layer in layers:
            if getattr(layer, "target_l0", None) is not None:
                raise ValueError(
                    "`SparsityTarget` cannot steer a layer that has a target of its "
                    f"own. Received: l0={self.l0:g} for {layer.name!r} with "
                    f"target_l0={layer.target_l0:g}. Leave one of the two out."
                )
        self._first: int | None = None
        self._an_epoch, self._count = self.params.get("steps"), 0
        self._active: float | None = None

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Begins the epoch's running mean; the first of them finds the weight."""
        if self._first is None:
            self._first, self._error = epoch, 0.0
            self._integral = self._strength = math.log(self._start())
        self._set()
        self._sum, self._count = 0.0, 0

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Moves the weight by what the last steps' L0 was."""
        active, taken = self._of_the_last_steps(batch + 1, logs or {})
        share = min(1.0, taken / max(_SMOOTHING, _JUDGED * self._steps))
        before = active if self._active is None else self._active
        self._active = before + (active - before) * share
        error = float(np.clip(math.log(max(active, 1e-3) / self.l0), -1, 1))
        self._error += (error - self._error) * min(1.0, taken / _SMOOTHING)
        rate = taken * self.gain / self._steps
        low, high = math.log(_LEAST), math.log(_MOST)
        self._integral = float(np.clip(self._integral + rate * self._error, low, high))
        self._strength = min(self._strength + rate * abs(self._error), high)
        self._set()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Adds `sparsity_scale` to the logs."""
        if logs is not None:
            logs["sparsity_scale"] = float(self._layers()[0].scale)
        self._an_epoch = self._an_epoch or self._count
        self._rest()

    def on_train_end(self, logs: dict | None = None) -> None:
        """Warns if the target was not reached."""
        ended = float("nan") if self._active is None else self._active
        if not abs(ended / self.l0 - 1) <= _TOLERANCE:  # NaN is off the target too
            layer = self._layers()[0]
            nearer = f"start from a penalty nearer to {float(layer.scale):.2g} times"
            warnings.warn(
                f"`SparsityTarget` ended at an L0 of {ended:.3g}, more than 5% "
                f"off its target. Received: l0={self.l0:g}, in {self._steps} steps. "
                "Train for more epochs, raise `gain`, or "
                + (_WIDER if layer.lasting else f"{nearer} the one given."),
                stacklevel=2,
            )
        self._rest()

    def _start(self) -> float:
        """The scale to begin at: that of earlier epochs, where a fit goes on."""
        layer = self._layers()[0]
        scale = float(layer.scale)
        steered = self._first and not layer.lasting and scale != 1
        return max(scale, _LEAST) if steered else _START

    def _rest(self) -> None:
        """Leaves a weight, not an error, where the model may be saved."""
        for layer in self._layers():
            if layer.lasting:
                layer.scale.assign(0.0)

    @property
    def _steps(self) -> int:
        """Steps of the whole fit, from its first epoch on."""
        an_epoch = self._an_epoch or max(_UNKNOWN, _MORE * self._count)
        epochs = self.params.get("epochs", 1) - (self._first or 0)
        return max(int(an_epoch * epochs), 1)

    def _of_the_last_steps(self, count: int, logs: dict[str, Any]) -> tuple[float, int]:
        """The figure since it was last read, and over how many steps that was.

        The logs hold the mean of the epoch so far.
        """
        total, taken = self._figure(logs) * count, max(count - self._count, 1)
        active = (total - self._sum) / taken
        self._sum, self._count = total, count
        return active, taken

    def _figure(self, logs: dict[str, Any]) -> float:
        return float(next(logs[name] for name in _FIGURES if name in logs))

    def _layers(self) -> list[Any]:
        found = [x for x in self.model._flatten_layers() if isinstance(x, Weighted)]
        return [x for x in found if x.term == Weighted.term]

    def _set(self) -> None:
        one_way = math.exp(self._integral + _PROPORTIONAL * self._error)
        both_ways = math.exp(self._strength) * self._error
        for layer in self._layers():
            layer.scale.assign(both_ways if layer.lasting else one_way)
