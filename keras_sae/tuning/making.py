"""A tuner by its name, or the user's own, in a folder that is this search's."""

import math
import shutil
import tempfile
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras_tuner

from keras_sae.tuning import objectives, project, workers
from keras_sae.tuning.guard import quiet
from keras_sae.utils import io as files
from keras_sae.utils import validation as checks


@dataclass(frozen=True)
class Request:
    """What `search` was asked for, as far as it decides what the trials give."""

    hypermodel: Any
    data: tuple  # x, validation data, labels
    max_trials: int
    epochs: int
    seed: int | None
    max_l0: float | None

    def objective(self, given: Any) -> Any:
        """Returns the objective that `given` stands for, held against the data."""
        logged = objectives.logged_by(
            self.hypermodel.build(keras_tuner.HyperParameters())
        )
        x, _, labels = self.data
        size = math.prod(x.shape[1:])
        goal = objectives.get(given, size, self.max_l0, logged)
        if goal.name == objectives.Probe.name and labels is None:
            raise ValueError(
                f"The objective {goal.name!r} reads labels from the code. Received: "
                "labels=None. Give labels=(y, y_val)."
            )
        return goal

    def fingerprint(self, tuner: str, goal: Any) -> dict[str, Any]:
        """Returns what tells this search from another."""
        return project.fingerprint(
            self.hypermodel,
            self.data,
            tuner=tuner,
            objective=str(goal),
            epochs=self.epochs,
            seed=self.seed,
        )


def _random(request: Request, **common: Any) -> Any:
    return keras_tuner.RandomSearch(max_trials=request.max_trials, **common)


def _bayesian(request: Request, **common: Any) -> Any:
    # Its own default is three random trials a setting: more than most searches have.
    first = max(3, request.max_trials // 4)
    return keras_tuner.BayesianOptimization(
        max_trials=request.max_trials, num_initial_points=first, **common
    )


def _hyperband(request: Request, **common: Any) -> Any:
    return keras_tuner.Hyperband(max_epochs=request.epochs, **common)


def _grid(request: Request, **common: Any) -> Any:
    return keras_tuner.GridSearch(max_trials=request.max_trials, **common)


TUNERS: dict[str, Callable[..., Any]] = {
    "random": _random,
    "bayesian": _bayesian,
    "hyperband": _hyperband,
    "grid": _grid,
}


def tuner(given: Any, request: Request, objective: Any, directory: Any) -> Any:
    """Returns the tuner that `given` stands for, its folder marked as the search's.

    Args:
        given: A name in `TUNERS`, or a `keras_tuner.Tuner`.
        request: What is searched.
        objective: As for `keras_sae.tuning.search`.
        directory: Folder, or None.

    Returns:
        A `keras_tuner.Tuner`, as keras-tuner makes it.

    Raises:
        ValueError: The name is unknown, the tuner is for another space, or the
            folder holds another search.
    """
    if isinstance(given, keras_tuner.Tuner):
        return _taken(given, request, directory)
    if not isinstance(given, str):
        raise ValueError(
            f"`tuner` must be one of the names {', '.join(TUNERS)}, or a "
            f"`keras_tuner.Tuner`. Received: tuner={given!r}."
        )
    make = TUNERS[checks.known_name("tuner", given, TUNERS)]
    goal = request.objective(objective)
    settings = request.fingerprint(given, goal)
    folder = Path(tempfile.mkdtemp()) if directory is None else Path(directory)
    project.claim(files.output_folder(folder), settings)
    with quiet():
        made = make(
            request,
            hypermodel=request.hypermodel,
            objective=goal,
            # keras-tuner takes 0 for "no seed".
            seed=None if request.seed is None else request.seed + 1,
            directory=str(folder),
            project_name=project.name_of(settings),
        )
    if directory is None:
        weakref.finalize(made, shutil.rmtree, folder, ignore_errors=True)
    return made


def _taken(given: Any, request: Request, directory: Any) -> Any:
    if given.hypermodel is not request.hypermodel:
        raise ValueError(
            "`tuner` was made for another hypermodel. Received: "
            f"{given.hypermodel!r} in the tuner. Make it with the one that is searched."
        )
    if directory is not None:
        raise ValueError(
            "`directory` belongs to a tuner that is given by name; a tuner of yours "
            f"has its own. Received: directory={str(directory)!r}. Leave it out."
        )
    goal = request.objective(given.oracle.objective)
    settings = request.fingerprint(type(given).__name__, goal)
    known = getattr(given.oracle, "trials", None)
    project.claim(Path(given.project_dir), settings, trials=bool(known))
    return given


def check_folder(directory: Any, many: bool) -> None:
    """Raises if processes that share a search have no folder to share.

    Args:
        directory: As given to `search`.
        many: Whether this process starts workers.

    Raises:
        ValueError: `directory` is missing.
    """
    if directory is None and (many or workers.is_member()):
        raise ValueError(
            "Chief and workers share the folder of a search. Received: "
            "directory=None. Give a `directory` that all of them reach."
        )
