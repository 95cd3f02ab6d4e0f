"""What a search is for, by name or as an object of keras-tuner."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import keras
import keras_tuner

from keras_sae import evaluation
from keras_sae.tuning.ranges import positive_number
from keras_sae.utils import validation as checks

# What a code logs: units that are not zero or, where none ever is, their sum.
ACTIVITY = ("val_l0", "val_expected_l0")
# Larger is better for figures that end so; smaller for all others.
_LARGER = ("accuracy", "explained_variance", "hoyer", "copying_gap")


class ReconstructionUnderL0(keras_tuner.Objective):
    """Reconstruction under a limit on the number of active units a sample.

    `score = 1 - EV` if `l0 <= max_l0` and `EV >= 0`; `2 - 1 / (1 - EV)` where `EV` is
    below that; `1 + l0 / max_l0` if `l0 > max_l0`

    with the explained variance `EV` and `l0` of the validation data; `l0` is
    `expected_l0`, the sum of the activations, where a code is bounded and so never
    zero. Smaller is better: whatever keeps the limit scores below 2 and is told
    apart by its reconstruction, also where that is worse than the data's mean;
    whatever does not scores above 2.

    Args:
        max_l0: The limit, in units a sample.

    Raises:
        ValueError: `max_l0` is not a finite number above 0.

    Example:

    >>> from keras_sae import tuning
    >>> objective = tuning.ReconstructionUnderL0(8)
    >>> objective.get_value({"val_explained_variance": 0.75, "val_l0": 8.0})
    0.25
    >>> objective.get_value({"val_explained_variance": 1.0, "val_expected_l0": 12.0})
    2.5
    """

    def __init__(self, max_l0: float) -> None:
        super().__init__("reconstruction_under_l0", "min")
        self.max_l0 = positive_number("max_l0", max_l0)

    def __str__(self) -> str:
        """Says the limit too: another limit is another search."""
        return f"{self.name}(max_l0={self.max_l0:g})"

    def has_value(self, logs: Mapping[str, float]) -> bool:
        """Whether the logs hold explained variance and activity."""
        return "val_explained_variance" in logs and activity(logs) is not None

    def get_value(self, logs: Mapping[str, float]) -> float:
        """Returns the score of an epoch's logs."""
        l0, lost = activity(logs), 1 - logs["val_explained_variance"]
        if l0 is None or math.isnan(l0):
            return math.nan
        if l0 > self.max_l0:
            return 1 + l0 / self.max_l0
        # Beyond 1 as steep as before it, and never as far as a model over the limit.
        return lost if lost <= 1 else 2 - 1 / lost


def activity(logs: Mapping[str, float]) -> float | None:
    """Returns `val_l0` or else `val_expected_l0`, None where neither is logged."""
    return next((logs[name] for name in ACTIVITY if name in logs), None)


class Probe(keras.callbacks.Callback):
    """Adds the accuracy of a linear classifier on the code to a fit's history.

    Args:
        train: `(x, labels)` that it learns from.
        held_out: `(x, labels)` that it is measured on.
    """

    name = "probe_accuracy"

    def __init__(self, train: tuple, held_out: tuple) -> None:
        super().__init__()
        self.train, self.held_out = train, held_out

    def __deepcopy__(self, memo: dict) -> "Probe":
        """keras-tuner copies callbacks for each trial; the data need no copies."""
        return Probe(self.train, self.held_out)

    def on_train_end(self, logs: Mapping[str, float] | None = None) -> None:
        """Trains the classifier; a code that is zero throughout scores 0."""
        del logs
        (x, y), (x_val, y_val) = self.train, self.held_out
        codes = self.model.encode(x)
        accuracy = 0.0
        if codes.any():
            accuracy = evaluation.probe(codes, y, self.model.encode(x_val), y_val)
        self.model.history.history[self.name] = [accuracy]


def _under_limit(size: int, max_l0: float | None) -> keras_tuner.Objective:
    return ReconstructionUnderL0(math.sqrt(size) if max_l0 is None else max_l0)


def _plain(name: str, direction: str) -> Callable[..., keras_tuner.Objective]:
    return lambda *_: keras_tuner.Objective(name, direction)


OBJECTIVES: dict[str, Callable[..., keras_tuner.Objective]] = {
    "reconstruction_under_l0": _under_limit,
    "probe_accuracy": _plain(Probe.name, "max"),
    "reconstruction": _plain("val_reconstruction_loss", "min"),
}
DEFAULT = "reconstruction_under_l0"


def get(
    identifier: Any, size: int, max_l0: float | None, logged: set[str]
) -> keras_tuner.Objective:
    """Returns the objective that `identifier` stands for.

    Args:
        identifier: A name in `OBJECTIVES`, the name of a logged figure, or a
            `keras_tuner.Objective`.
        size: Number of values in a sample, for the default limit.
        max_l0: The limit, or None.
        logged: Figures that a model of the search logs.

    Returns:
        A `keras_tuner.Objective`.

    Raises:
        ValueError: It is unknown and not logged, or a list; a limit is given
            where there is none.
    """
    limited = isinstance(identifier, str) and identifier in (DEFAULT,)
    if max_l0 is not None and not limited:
        raise ValueError(
            f"`max_l0` belongs to the objective {DEFAULT!r}. Received: "
            f"max_l0={max_l0!r} with objective={str(identifier)!r}. Leave one out."
        )
    if isinstance(identifier, keras_tuner.Objective):
        return _single(identifier)
    if not isinstance(identifier, str):
        raise ValueError(
            "`objective` must be one name or one `keras_tuner.Objective`. Received: "
            f"objective={identifier!r}. Of a list keras-tuner would search the plain "
            "sum; search one, and see both in keras_sae.tuning.pareto_front."
        )
    if identifier in OBJECTIVES:
        return OBJECTIVES[identifier](size, max_l0)
    checks.known_name("objective", identifier, {*OBJECTIVES, *logged})
    direction = "max" if identifier.endswith(_LARGER) else "min"
    return keras_tuner.Objective(identifier, direction)


def _single(objective: keras_tuner.Objective) -> keras_tuner.Objective:
    if hasattr(objective, "objectives"):
        raise ValueError(
            "`objective` is a list, of which keras-tuner searches the plain sum. "
            f"Received: {objective}. Give one of them."
        )
    return objective


def logged_by(model: Any) -> set[str]:
    """Returns the names of the figures that a fit of `model` logs."""
    names = {"loss", "l0", "expected_l0", *(metric.name for metric in model.metrics)}
    return names | {f"val_{name}" for name in names}
