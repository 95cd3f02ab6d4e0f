"""How a search can end badly, and how that is found out."""

from typing import Any

from keras_sae.tuning.objectives import ReconstructionUnderL0, activity
from keras_sae.tuning.results import logs_of


class FailedTrialsError(RuntimeError):
    """Trials of a search failed, and the first cause says why.

    Args:
        message: How many failed, how many were completed, and the first cause.
        tuner: The search as far as it came, for `keras_sae.tuning.trials`.

    Example:

    >>> from keras_sae import tuning
    >>> issubclass(tuning.FailedTrialsError, RuntimeError)
    True
    """

    def __init__(self, message: str, tuner: Any = None) -> None:
        super().__init__(message)
        self.tuner = tuner


class ConstraintError(ValueError):
    """No trial of a search kept the limit on its active units.

    Args:
        message: The limit, and the trial that came nearest.
        tuner: The finished search, for `keras_sae.tuning.trials`.

    Example:

    >>> from keras_sae import tuning
    >>> issubclass(tuning.ConstraintError, ValueError)
    True
    """

    def __init__(self, message: str, tuner: Any = None) -> None:
        super().__init__(message)
        self.tuner = tuner


def check(tuner: Any) -> None:
    """Raises for a search that failed, completed nothing, or kept no limit.

    Args:
        tuner: What `keras_sae.tuning.guard.guarded` returned, after its search.

    Raises:
        FailedTrialsError: More trials failed than may, or none was completed.
        ConstraintError: The objective has a limit that no trial kept.
    """
    oracle = tuner.oracle
    failed, completed = oracle.ended("FAILED"), oracle.ended("COMPLETED")
    if len(failed) > oracle.max_failures or not completed:
        raise FailedTrialsError(
            _failure(tuner, failed, completed), tuner
        ) from tuner.cause
    objective = oracle.objective
    if isinstance(objective, ReconstructionUnderL0):
        _check_limit(tuner, objective.max_l0, completed)


def _failure(tuner: Any, failed: list, completed: list) -> str:
    count = f"{len(completed)} completed" if completed else "none completed"
    if not failed:
        return (
            f"The search ended with {count} trials: its space holds no settings that "
            "have not been tried. Widen a range."
        )
    first = failed[0]
    cause = (first.message or "Its objective is not a number.").strip()
    return (
        f"{len(failed)} trials failed and {count} of {tuner.oracle.max_trials}. The "
        f"first to fail was trial {first.trial_id} with "
        f"{first.hyperparameters.values}, by: {_first_line(cause)}\n"
        "The same call tries failed trials again and goes on from there; with "
        f"max_failures={len(failed)} it goes on without them.\n\n{cause}"
    )


def _first_line(cause: str) -> str:
    """The line of a traceback that names the error, which may have more lines."""
    last_frame = cause.rpartition("\n  File ")[2]
    lines = last_frame.splitlines()[1:] or [cause]
    return next(line for line in lines if not line.startswith(" "))


def _check_limit(tuner: Any, limit: float, completed: list) -> None:
    l0s = {trial.trial_id: activity(logs_of(trial)) or 0.0 for trial in completed}
    nearest = min(l0s, key=l0s.__getitem__)
    l0 = l0s[nearest]
    if l0 > limit:
        settings = tuner.oracle.get_trial(nearest).hyperparameters.values
        raise ConstraintError(
            f"No trial kept the limit of {limit:g} active units a sample "
            f"({len(completed)} completed). The nearest was trial {nearest} with "
            f"l0={l0:.4g}: {settings}. Raise `max_l0`, or widen the range of the "
            "penalty's factor upwards.",
            tuner,
        )
