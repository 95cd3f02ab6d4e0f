"""Stands in front of what keras-tuner 1.4.8 does in silence.

A tuner and its oracle get the classes below in front of their own:

- files are whole or not there, so a search that is killed can go on;
- what a kill has left half-way, and what has failed, is tried again;
- failed trials end a search instead of passing for results;
- the best trials are completed ones, never failed ones that fill up a list;
- of a fit the last epoch counts, which is the model that is kept.
"""

import contextlib
import functools
import io
import json
import warnings
from pathlib import Path
from typing import Any

import keras
from keras_tuner.engine.trial import Trial, TrialStatus

from keras_sae.utils import io as files

_CAUSE = "failure.txt"


class GuardedOracle:
    """Comes before the class of a `keras_tuner.Oracle`."""

    trials: dict[str, Any]
    max_failures = 0

    def on_progress(self) -> None:
        """Is called whenever a trial has begun or ended."""

    def ended(self: Any, status: str) -> list[Any]:
        """Returns the trials that ended with `status`, the first to end first."""
        trials = (self.trials[name] for name in dict.fromkeys(self.end_order))
        return [trial for trial in trials if trial.status == status]

    def create_trial(self: Any, tuner_id: str) -> Any:
        """Returns the next trial, or the end of the search after too many failures."""
        if len(self.ended("FAILED")) > self.max_failures:
            self.tuner_ids.discard(tuner_id)
            return Trial(self.get_space(), status=TrialStatus.STOPPED)
        with warnings.catch_warnings():
            # Of the Gaussian process, on as few points as it has at first.
            warnings.simplefilter("ignore")
            trial = super().create_trial(tuner_id)  # type: ignore[misc]
        self.on_progress()
        return trial

    def end_trial(self: Any, trial: Any) -> None:
        """Records a trial; the cause of a failure comes from its worker's file."""
        cause = _folder(self, trial.trial_id) / _CAUSE
        if trial.status in (TrialStatus.INVALID, TrialStatus.FAILED):
            trial.message = cause.read_text() if cause.exists() else trial.message
        super().end_trial(trial)  # type: ignore[misc]
        self.on_progress()

    def get_best_trials(self: Any, num_trials: int = 1) -> list[Any]:
        """Returns the best completed trials, fewer if there are fewer."""
        best = super().get_best_trials(num_trials)  # type: ignore[misc]
        return [trial for trial in best if trial.status == TrialStatus.COMPLETED]

    def save(self: Any) -> None:
        """Writes the state of the search, whole."""
        _write(self._get_oracle_fname(), self.get_state())

    def _save_trial(self: Any, trial: Any) -> None:
        _write(_folder(self, trial.trial_id) / "trial.json", trial.get_state())

    def resume(self: Any) -> None:
        """Queues what was under way and what failed; the rest is as it was."""
        path = Path(self._get_oracle_fname())
        if not self.trials and path.exists():  # the state of another tuner's id
            self.reload()
        done = {t for t, trial in self.trials.items() if trial.status == "COMPLETED"}
        again = [name for name in sorted(self.trials, key=int) if name not in done]
        self._retry_queue = again[::-1]  # it is taken from its end
        self.end_order = [name for name in self.end_order if name in done]
        self._run_times.update(dict.fromkeys(again, 0))
        self._order_again()

    def _order_again(self: Any) -> None:
        """A grid search does not save how far through the grid it has come."""
        if not hasattr(self, "_ordered_ids"):
            return
        values = {name: t.hyperparameters.values for name, t in self.trials.items()}
        earlier = functools.cmp_to_key(
            lambda one, other: self._compare(values[one], values[other])
        )
        names = sorted(values, key=earlier)
        for name in names:
            self._ordered_ids.insert(name)
        self._populate_next = names


class GuardedTuner:
    """Comes before the class of a `keras_tuner.Tuner`."""

    seed: int | None = None
    epochs = 1
    cause: Exception | None = None  # the first failure of a trial in this process

    def run_trial(self: Any, trial: Any, *args: Any, **kwargs: Any) -> Any:
        """Trains a trial from the search's seed; returns figures of the last epoch."""
        if self.seed is not None:
            keras.utils.set_random_seed(self.seed)
        try:
            results = super().run_trial(trial, *args, **kwargs)  # type: ignore[misc]
            results = results if isinstance(results, list) else [results]
            return [_last(one, self.oracle.objective) for one in results]
        except Exception as error:
            self.cause = self.cause or error
            raise

    def _override_compile_args(self: Any, model: Any) -> None:
        """Builds the optimizer: weights that were saved with one load into no other."""
        super()._override_compile_args(model)  # type: ignore[misc]
        if model.built and model.optimizer is not None:
            model.optimizer.build(model.trainable_variables)

    def on_trial_end(self: Any, trial: Any) -> None:
        """Records a trial. Its message does not travel to a chief, so a file does."""
        if trial.message:
            with files.atomic_write(
                Path(self.get_trial_dir(trial.trial_id), _CAUSE)
            ) as path:
                path.write_text(trial.message)
        with quiet():
            super().on_trial_end(trial)  # type: ignore[misc]

    def save(self: Any) -> None:
        """Writes the state of tuner and oracle, whole."""
        if not self._is_worker():
            self.oracle.save()
        _write(self._get_tuner_fname(), self.get_state())


def guarded(tuner: Any, max_failures: int) -> Any:
    """Puts the classes above in front of those of a tuner and its oracle.

    Args:
        tuner: A `keras_tuner.Tuner`.
        max_failures: Failed trials that do not end the search.

    Returns:
        `tuner` itself.
    """
    oracle = getattr(tuner.oracle, "_oracle", tuner.oracle)  # a worker wraps it
    for thing, guard in ((tuner, GuardedTuner), (oracle, GuardedOracle)):
        kind = type(thing)
        if not isinstance(thing, guard):
            thing.__class__ = type(kind.__name__, (guard, kind), {})
    oracle.max_failures = max_failures
    # keras-tuner would raise with its lock held, and a chief would never end.
    oracle.max_consecutive_failed_trials = 2**31
    return tuner


def quiet() -> contextlib.AbstractContextManager:
    """Returns a context without the lines that keras-tuner prints for itself."""
    return contextlib.redirect_stdout(io.StringIO())


def _last(results: Any, objective: Any) -> Any:
    """The figures of the last epoch, with the objective among them."""
    history = getattr(results, "history", None)
    if history is None:
        return results  # of a hypermodel that reports figures of its own
    logs = {name: float(values[-1]) for name, values in history.items()}
    if not objective.has_value(logs):
        raise ValueError(
            f"`objective` is not logged. Received: objective={objective.name!r}. "
            f"Logged are: {', '.join(sorted(logs))}."
        )
    score = objective.get_value(logs)
    if score != score:
        raise ValueError(
            f"The trial diverged: {objective.name} is not a number. Narrow "
            "`learning_rate` or the factor of the penalty from above."
        )
    return {**logs, objective.name: score}


def _folder(oracle: Any, trial: str) -> Path:
    return Path(oracle._get_trial_dir(trial))


def _write(path: str | Path, state: Any) -> None:
    with files.atomic_write(path) as unfinished:
        unfinished.write_text(json.dumps(state))
