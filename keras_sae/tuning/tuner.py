"""The tuner and the oracles of a search: keras-tuner's, made safe to interrupt."""

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
from keras_sae.tuning import objectives
from keras_sae.utils.io import atomic_write

_STATE = "state.json"

Arrays = tuple[np.ndarray, ...]


def ended_trials(oracle: keras_tuner.Oracle, status: str) -> list[Trial]:
    """Return the trials that ended with `status`, in the order in which they ended."""
    trials = (oracle.trials[name] for name in dict.fromkeys(oracle.end_order))
    return [trial for trial in trials if trial.status == status]


class SearchOracle(keras_tuner.Oracle):
    """Base class of the oracles: they can be resumed, and failed trials end a search.

    keras-tuner writes several files, one after the other and not atomically, so a
    killed process can leave a state that does not load. It also counts failed trials
    as done. This class keeps the whole state in one file, and `resume` queues all
    trials that were not completed.

    Args:
        folder: Existing folder of the search.
        max_trials: Maximum number of trials, those of earlier calls included.
        max_failures: Number of failed trials that do not end the search.
        progress: Whether to print a line to stderr when a trial ends.
        **kwargs: Arguments of the oracle of keras-tuner.
    """

    def __init__(
        self,
        folder: Path,
        *,
        max_trials: int,
        max_failures: int = 0,
        progress: bool = False,
        **kwargs: Any,
    ) -> None:
        # keras-tuner would raise while it holds its lock, and a chief would hang.
        super().__init__(max_consecutive_failed_trials=sys.maxsize, **kwargs)
        self.folder, self.max_trials = folder, max_trials
        self.max_failures, self.progress = max_failures, progress
        self.verbose = 0

    def create_trial(self, tuner_id: str) -> Trial:
        """Return the next trial, or the end of the search after too many failures."""
        if len(ended_trials(self, TrialStatus.FAILED)) > self.max_failures:
            self.tuner_ids.discard(tuner_id)
            return Trial(self.get_space(), status=TrialStatus.STOPPED)
        with warnings.catch_warnings():
            # The Gaussian process warns when it is fitted to its first few points.
            warnings.simplefilter("ignore")
            return super().create_trial(tuner_id)

    def end_trial(self, trial: Trial) -> None:
        """Record a trial that has ended.

        Messages are not sent from a worker to its chief. The tuner writes them to a
        file in the folder of the search, which both share.
        """
        message = failure_file(self.folder, trial.trial_id)
        if trial.status != TrialStatus.COMPLETED and message.exists():
            trial.message = message.read_text()
        super().end_trial(trial)
        if self.progress:
            trial = self.trials[trial.trial_id]
            if trial.status == TrialStatus.COMPLETED:
                best = self.get_best_trials()[0].score
                result = f"{self.objective.name} {trial.score:.4g}, best {best:.4g}"
            else:
                result = f"failed: {(trial.message or '').partition(chr(10))[0]}"
            ended = len(set(self.end_order))
            print(f"Trial {ended} of {self.max_trials}: {result}", file=sys.stderr)

    def get_best_trials(self, num_trials: int = 1) -> list[Trial]:
        """Return the best completed trials, fewer if there are not as many."""
        best = super().get_best_trials(num_trials)
        return [trial for trial in best if trial.status == TrialStatus.COMPLETED]

    def save(self) -> None:
        """Write the state of the search and of its trials, atomically."""
        trials = [trial.get_state() for trial in self.trials.values()]
        with atomic_write(self.folder / _STATE) as path:
            path.write_text(json.dumps({"oracle": self.get_state(), "trials": trials}))

    def reload(self) -> None:
        """Read what `save` has written."""
        state = json.loads((self.folder / _STATE).read_text())
        trials = [Trial.from_state(trial) for trial in state["trials"]]
        self.trials = {trial.trial_id: trial for trial in trials}
        self.set_state(state["oracle"])

    def resume(self) -> None:
        """Reload an earlier call's state; queue failed and interrupted trials again."""
        if not (self.folder / _STATE).exists():
            return
        self.reload()
        completed = {t.trial_id for t in ended_trials(self, TrialStatus.COMPLETED)}
        queue = sorted(self.trials.keys() - completed, key=int, reverse=True)
        for name in queue:
            self.trials[name] = Trial(self.trials[name].hyperparameters, name)
        end_order = [name for name in self.end_order if name in completed]
        state = {"ongoing_trials": {}, "retry_queue": queue, "run_times": {}}
        self.set_state({**self.get_state(), **state, "end_order": end_order})


class RandomOracle(SearchOracle, keras_tuner.oracles.RandomSearchOracle):
    """Random search."""


class BayesianOracle(SearchOracle, keras_tuner.oracles.BayesianOptimizationOracle):
    """Bayesian optimization by a Gaussian process."""


class HyperbandOracle(SearchOracle, keras_tuner.oracles.HyperbandOracle):
    """Hyperband: many short trials, of which the best are resumed."""


class GridOracle(SearchOracle):
    """Grid search in which the last hyperparameter varies fastest.

    keras-tuner's own grid search does not save its position, so it cannot be resumed.
    """

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """Return the first combination of values that no trial has."""
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
    """Yield the values of the active hyperparameters from `position` on."""
    if position == len(hp.space):
        yield values
        return
    parameter, hp.values = hp.space[position], values
    if parameter.name in values or not hp.is_active(parameter):
        yield from _combinations(hp, values, position + 1)
        return
    for value in dict.fromkeys([parameter.default, *parameter.values]):
        chosen = {**values, parameter.name: value}
        yield from _combinations(hp, chosen, position + 1)


ORACLES: dict[str, type[SearchOracle]] = {
    "random": RandomOracle,
    "bayesian": BayesianOracle,
    "hyperband": HyperbandOracle,
    "grid": GridOracle,
}


class SearchTuner(keras_tuner.Tuner):
    """Tuner that reports the metrics of the last epoch.

    The last epoch is that of the model which is kept, and of `best_model`. All trials
    start from the same random seed.

    Args:
        oracle: A `SearchOracle`.
        hypermodel: A `keras_tuner.HyperModel`.
        sample_shape: Shape of one sample, for models that are not built yet.
        epochs: Number of epochs per trial.
        seed: Random seed of each training, or None.

    Attributes:
        first_error: The first error of a trial in this process, or None.
    """

    def __init__(
        self,
        oracle: SearchOracle,
        hypermodel: keras_tuner.HyperModel,
        *,
        sample_shape: tuple[int, ...],
        epochs: int,
        seed: int | None,
    ) -> None:
        self.folder = oracle.folder
        self.sample_shape, self.epochs, self.seed = sample_shape, epochs, seed
        self.first_error: Exception | None = None
        super().__init__(
            oracle, hypermodel, directory=str(self.folder), project_name="trials"
        )

    def run_trial(self, trial: Trial, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Train the model of a trial, and return the metrics of its last epoch."""
        try:
            return self._train(trial, *args, **kwargs)
        except Exception as error:
            self.first_error = self.first_error or error
            message = f"{type(error).__name__}: {error}\n\n{traceback.format_exc()}"
            with atomic_write(failure_file(self.folder, trial.trial_id)) as path:
                path.write_text(message)
            raise

    def load_model(self, trial: Trial) -> keras.Model:
        """Return the trained model of a completed trial."""
        model = self._build(trial.hyperparameters)
        model.load_weights(self._weights_file(trial.trial_id))
        return model

    def save(self) -> None:
        """Do nothing: the oracle has the whole state and saves it."""

    def _train(
        self,
        trial: Trial,
        x: np.ndarray,
        validation_data: np.ndarray | Arrays,
        callbacks: list[keras.callbacks.Callback],
        labels: Arrays | None = None,
    ) -> dict[str, float]:
        if self.seed is not None:
            keras.utils.set_random_seed(self.seed)
        keras.utils.clear_session()
        hp = trial.hyperparameters
        model = self._build(hp)
        epochs = {"epochs": hp.values.get("tuner/epochs", self.epochs)}
        if "tuner/trial_id" in hp.values:  # Hyperband resumes an earlier trial
            model.load_weights(self._weights_file(hp.values["tuner/trial_id"]))
            epochs["initial_epoch"] = hp.values["tuner/initial_epoch"]
        metrics = self.hypermodel.fit(
            hp,
            model,
            x,
            validation_data=validation_data,
            callbacks=copy.deepcopy(callbacks),
            verbose=0,
            **epochs,
        )
        model.save_weights(self._weights_file(trial.trial_id))
        if isinstance(metrics, keras.callbacks.History):
            logs = metrics.history.items()
            metrics = {name: float(values[-1]) for name, values in logs}
        if not isinstance(metrics, dict):
            return metrics  # the score itself, from a user's own hypermodel
        if labels is not None:
            has_target = isinstance(validation_data, tuple)
            x_val = validation_data[0] if has_target else validation_data
            codes, codes_val = model.encode(x), model.encode(x_val)
            probed = codes, labels[0], codes_val, labels[1]
            # No classifier learns from codes that are zero throughout.
            accuracy = evaluation.probe(*probed) if codes.any() else 0.0
            metrics[objectives.PROBE] = accuracy
        objective = self.oracle.objective
        if not objective.has_value(metrics):
            raise ValueError(
                f"`objective` is not logged. Received: objective={objective.name!r}. "
                f"Logged metrics: {', '.join(sorted(metrics))}."
            )
        score = objective.get_value(metrics)
        if math.isnan(score):
            raise ValueError(
                f"The trial diverged: {objective.name} is NaN. Lower the upper end of "
                "the range of `learning_rate`, or of the factor of the penalty."
            )
        return {**metrics, objective.name: score}

    def _build(self, hp: keras_tuner.HyperParameters) -> keras.Model:
        model = self.hypermodel.build(hp)
        if not model.built:
            model.build((None, *self.sample_shape))
        if model.compiled:
            # The weights files hold the state of the optimizer.
            model.optimizer.build(model.trainable_variables)
        return model

    def _weights_file(self, trial_id: str) -> Path:
        return Path(self.get_trial_dir(trial_id), "model.weights.h5")


def failure_file(folder: Path, trial_id: str) -> Path:
    """Return the path of the message of a failed trial."""
    return folder / f"failure_{trial_id}.txt"
