"""The tuner and the oracles of a search that can be interrupted and resumed."""

import copy
import json
import math
import sys
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import keras_tuner
import numpy as np
from keras_tuner.engine.trial import Trial, TrialStatus

from keras_sae import evaluation
from keras_sae.metrics import effective_l0, l0
from keras_sae.models import Autoencoder
from keras_sae.tuning import objectives
from keras_sae.utils import io

ERROR_FILE = "error.txt"
_STATE_FILE = "state.json"
_WEIGHTS_FILE = "model.npz"

Arrays = tuple[np.ndarray, ...]


def trials_with_status(oracle: keras_tuner.Oracle, status: str) -> list[Trial]:
    """Return the trials with this status, in the order in which they started."""
    return [trial for trial in oracle.trials.values() if trial.status == status]


class SearchOracle(keras_tuner.Oracle):
    """Base class of oracles that can be resumed and stop after too many failures.

    keras-tuner writes its state to several files, so a killed process can leave a state
    that cannot be loaded. This class writes the whole state to one file in `folder`.
    keras-tuner also counts failed trials as finished, whereas `reload` can retry them.
    """

    def __init__(
        self, folder: Path, max_trials: int, max_failures: int, **kwargs: Any
    ) -> None:
        # After several failures in a row, keras-tuner would raise an error without
        # releasing its lock, and the chief would hang.
        super().__init__(max_consecutive_failed_trials=sys.maxsize, **kwargs)
        self.folder, self.max_trials = folder, max_trials
        self.max_failures, self.verbose = max_failures, 0

    def create_trial(self, tuner_id: str) -> Trial:
        """Return the next trial, or a stopped one if too many trials have failed."""
        if len(trials_with_status(self, TrialStatus.FAILED)) > self.max_failures:
            self.tuner_ids.discard(tuner_id)
            return Trial(self.get_space(), status=TrialStatus.STOPPED)
        with warnings.catch_warnings(action="ignore"):  # from the Gaussian process
            return super().create_trial(tuner_id)

    def get_best_trials(self, num_trials: int = 1) -> list[Trial]:
        """Return up to `num_trials` completed trials, with the best one first."""
        best = super().get_best_trials(num_trials)
        return [trial for trial in best if trial.status == TrialStatus.COMPLETED]

    def save(self) -> None:
        """Write the state of the search and its trials atomically."""
        trials = [trial.get_state() for trial in self.trials.values()]
        with io.atomic_write(self.folder / _STATE_FILE) as path:
            path.write_text(json.dumps({"oracle": self.get_state(), "trials": trials}))

    def reload(self, retry: bool = False) -> None:
        """Read the state that `save` wrote. With `retry`, requeue incomplete trials."""
        file = self.folder / _STATE_FILE
        if not file.exists():
            return
        saved = io.read_json(file, oracle=dict, trials=list)
        state = saved["oracle"]
        try:
            trials = [Trial.from_state(trial) for trial in saved["trials"]]
            self.trials = {trial.trial_id: trial for trial in trials}
            if retry:
                state.update(ongoing_trials={}, retry_queue=[])
                for name, trial in reversed(self.trials.items()):
                    if trial.status != TrialStatus.COMPLETED:
                        self.trials[name] = Trial(trial.hyperparameters, name)
                        state["retry_queue"].append(name)
            self.set_state(state)
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            message = io.UNREADABLE.format(path=str(file), error=error)
            raise ValueError(message) from error


class RandomOracle(SearchOracle, keras_tuner.oracles.RandomSearchOracle):
    """Random search."""


class BayesianOracle(SearchOracle, keras_tuner.oracles.BayesianOptimizationOracle):
    """Bayesian optimization with a Gaussian process."""


class HyperbandOracle(SearchOracle, keras_tuner.oracles.HyperbandOracle):
    """Hyperband, which resumes the best of many short trials."""


class GridOracle(SearchOracle):
    """Grid search that can be resumed, unlike keras-tuner's own."""

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """Return the first combination of values that no trial has used."""
        del trial_id
        tried = [trial.hyperparameters.values for trial in self.trials.values()]
        for values in _combinations(self.get_space(), {}):
            if values not in tried:
                return {"status": TrialStatus.RUNNING, "values": values}
        # A trial in progress may register further hyperparameters.
        wait = TrialStatus.IDLE if self.ongoing_trials else TrialStatus.STOPPED
        return {"status": wait, "values": None}


def _combinations(
    hp: keras_tuner.HyperParameters, values: dict[str, Any], position: int = 0
) -> Iterator[dict[str, Any]]:
    """Yield all ways to complete `values` with hyperparameters from `position` on."""
    if position == len(hp.space):
        yield values
        return
    parameter, hp.values = hp.space[position], values
    choices = [values]
    if parameter.name not in values and hp.is_active(parameter):
        options = dict.fromkeys([parameter.default, *parameter.values])
        choices = [{**values, parameter.name: value} for value in options]
    for chosen in choices:
        yield from _combinations(hp, chosen, position + 1)


ORACLES: dict[str, type[SearchOracle]] = {
    "random": RandomOracle,
    "bayesian": BayesianOracle,
    "hyperband": HyperbandOracle,
    "grid": GridOracle,
}


class SearchTuner(keras_tuner.Tuner):
    """Tuner that uses one seed for all trials and reports their last epoch's metrics.

    keras-tuner would report the best epoch, but `best_model` trains for all epochs.
    """

    def __init__(
        self,
        oracle: SearchOracle,
        hypermodel: keras_tuner.HyperModel,
        epochs: int,
        seed: int | None,
        progress: bool,
    ) -> None:
        self.epochs, self.seed, self.progress = epochs, seed, progress
        self.first_error: Exception | None = None
        folder = str(oracle.folder)
        super().__init__(oracle, hypermodel, directory=folder, project_name="trials")

    def run_trial(self, trial: Trial, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Train the model of a trial, and return the metrics of its last epoch."""
        name, result = self.oracle.objective.name, "interrupted"
        try:
            metrics = self._train(trial, *args, **kwargs)
            result = f"{name} {metrics[name]:.4g}"
        except Exception as error:
            self.first_error = self.first_error or error
            message = f"{type(error).__name__}: {error}"
            result = f"failed: {message}"
            # Write the error to a file, because keras-tuner does not send it from a
            # worker to the chief.
            path = Path(self.get_trial_dir(trial.trial_id), ERROR_FILE)
            path.write_text(f"{message}\n\n{traceback.format_exc()}")
            raise
        finally:
            if self.progress:
                position = f"{int(trial.trial_id) + 1} of {self.oracle.max_trials}"
                print(f"Trial {position}: {result}", file=sys.stderr)
        return metrics

    def load_model(self, trial: Trial) -> keras.Model:
        """Return the trained model of a completed trial."""
        model = self.hypermodel.build(trial.hyperparameters)
        path = Path(self.get_trial_dir(trial.trial_id), _WEIGHTS_FILE)
        if io.load_state(path, model, with_optimizer=True) is None:
            raise ValueError(
                f"The weights of trial {trial.trial_id} are missing or damaged: "
                f"{str(path)!r}. Restore the file, or start another search."
            )
        return model

    def save(self) -> None:
        """Do nothing, because the oracle saves the whole state."""

    def _train(
        self,
        trial: Trial,
        x: np.ndarray,
        validation_data: np.ndarray | Arrays,
        callbacks: list[keras.callbacks.Callback],
        labels: Arrays | None,
    ) -> dict[str, float]:
        if self.seed is not None:
            keras.utils.set_random_seed(self.seed)
        keras.utils.clear_session()
        hp, objective = trial.hyperparameters, self.oracle.objective
        fit = {
            "validation_data": validation_data,
            "callbacks": copy.deepcopy(callbacks),
        }
        fit["epochs"] = hp.values.get("tuner/epochs", self.epochs)
        model = self.hypermodel.build(hp)
        if "tuner/trial_id" in hp.values:  # Hyperband resumes an earlier trial
            path = Path(self.get_trial_dir(hp.values["tuner/trial_id"]), _WEIGHTS_FILE)
            if io.load_state(path, model, with_optimizer=True) is None:
                warnings.warn(
                    f"{str(path)!r} is missing or damaged. Trial {trial.trial_id}, "
                    "which would resume from it, is trained from the beginning.",
                    stacklevel=2,
                )
            else:
                fit["initial_epoch"] = hp.values["tuner/initial_epoch"]
        metrics = self.hypermodel.fit(hp, model, x, verbose=0, **fit)
        path = Path(self.get_trial_dir(trial.trial_id), _WEIGHTS_FILE)
        io.clear_unfinished(path.parent)
        io.save_state(path, model, {}, with_optimizer=True)
        if isinstance(metrics, keras.callbacks.History):
            logs = metrics.history.items()
            metrics = {name: float(values[-1]) for name, values in logs}
        elif not isinstance(metrics, dict):  # a custom hypermodel returned the score
            metrics = {objective.name: float(metrics)}
        has_target = isinstance(validation_data, tuple)
        x_val = validation_data[0] if has_target else validation_data
        if isinstance(model, Autoencoder):
            codes = model.encode(x_val)
            metrics["val_l0"] = l0(codes)
            metrics["val_effective_l0"] = effective_l0(codes, model.dictionary())
            if labels is not None:
                train_codes, (y, y_val) = model.encode(x), labels
                accuracy = 0.0  # for codes that are all zero, which `probe` rejects
                if train_codes.any() and codes.any():
                    accuracy = evaluation.probe(train_codes, y, codes, y_val)
                metrics[objectives.PROBE] = accuracy
        if objective.name not in metrics:
            if not objective.has_value(metrics):
                raise ValueError(
                    "`objective` must be a logged metric. Received: "
                    f"objective={objective.name!r}. Logged: {', '.join(metrics)}."
                )
            metrics[objective.name] = objective.get_value(metrics)
        if math.isnan(metrics[objective.name]):
            raise ValueError(
                f"The trial diverged: {objective.name} is NaN. Lower the maximum "
                "`learning_rate` or the maximum penalty factor in the search space."
            )
        return metrics
