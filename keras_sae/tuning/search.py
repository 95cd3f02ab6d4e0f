"""`search`: hyperparameter search with keras-tuner, in one process or in several."""

import math
import os
import shutil
import sys
import tempfile
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import keras_tuner
import numpy as np

from keras_sae.models import Autoencoder
from keras_sae.tuning import objectives
from keras_sae.tuning import workers as processes
from keras_sae.tuning.results import check_outcome
from keras_sae.tuning.tuner import ORACLES, Arrays, SearchTuner, trials_with_status
from keras_sae.types import ArrayLike, PathLike
from keras_sae.utils import validation
from keras_sae.utils.fingerprint import fingerprint, model_fingerprint
from keras_sae.utils.io import RunDirectory


def search(
    hypermodel: keras_tuner.HyperModel,
    x: ArrayLike,
    validation_data: ArrayLike | Arrays,
    max_trials: int = 20,
    epochs: int = 20,
    *,
    tuner: str | keras_tuner.Tuner = "random",
    objective: str | keras_tuner.Objective = objectives.DEFAULT,
    max_l0: float | None = None,
    labels: tuple[ArrayLike, ArrayLike] | None = None,
    directory: PathLike | None = None,
    seed: int | None = 0,
    max_failures: int = 0,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    workers: int = 1,
    command: Sequence[str] | None = None,
    progress: bool = True,
) -> keras_tuner.Tuner:
    """Search the hyperparameters of a space, and return the finished tuner.

    The metrics of a trial are those of the validation data after its last epoch, and
    all trials start from the same random seed. A search with a `directory` is resumed
    by the same call: completed trials are kept, failed and interrupted ones are tried
    again, and a larger `max_trials` adds trials.

    Args:
        hypermodel: A `SparsityHyperModel`, or another `keras_tuner.HyperModel`.
        x: Array of shape `(samples, *input_shape)`.
        validation_data: Array like `x`, or `(x, target)` as in `keras.Model.fit`.
        max_trials: Maximum number of trials, those of earlier calls included.
        epochs: Number of passes through the data per trial. For Hyperband, the
            maximum.
        tuner: `"random"`, `"bayesian"`, `"hyperband"`, `"grid"`, or a
            `keras_tuner.Tuner` for `hypermodel`. The latter runs with its own
            objective, seed and directory, and resumes as keras-tuner does it.
        objective: `"reconstruction_under_l0"` (see `ReconstructionUnderL0`),
            `"probe_accuracy"`, `"reconstruction"`, the name of a logged metric, or a
            `keras_tuner.Objective`. Do not use `"val_loss"`: it contains the penalty,
            so the search would turn sparsity off.
        max_l0: Limit of `"reconstruction_under_l0"`, in active units per sample. None
            means the square root of the number of values per sample.
        labels: `(y, y_val)`, labels for `x` and the validation data. With them the
            accuracy of a linear classifier on the codes is measured, as
            `"probe_accuracy"`.
        directory: Folder of the search. None means a temporary folder, which is
            deleted with the tuner.
        seed: Random seed of the hyperparameters and of each training, or None.
        max_failures: Number of failed trials that do not end the search.
        callbacks: Further Keras callbacks for each fit. Each trial gets copies.
        workers: Number of processes on this machine that train trials in parallel,
            started by `launch_workers`.
        command: Command line of a script that makes this call, for `workers`. None
            means the command line of this process.
        progress: Whether to print a line to stderr when a trial ends.

    Returns:
        The finished `keras_tuner.Tuner`, for `trials`, `pareto_front` and
        `best_model`. In a worker process the function does not return: the process
        ends when no trial is left.

    Raises:
        ValueError: An argument is invalid, or `directory` belongs to another search.
        ConstraintError: No trial meets the limit of the objective.
        FailedTrialsError: More than `max_failures` trials failed. Its cause is the
            first error.

    Example:

    >>> import numpy as np
    >>> from keras_sae import tuning
    >>> x = np.random.default_rng(0).random((40, 6), dtype="float32")
    >>> space = tuning.SparsityHyperModel("shallow", (6,), sparsity="l1", units=4)
    >>> tuner = tuning.search(space, x, x, 2, 1, max_l0=4, progress=False)
    >>> len(tuning.trials(tuner))
    2
    """
    for argument, count in {"max_trials": max_trials, "epochs": epochs}.items():
        validation.positive_integer(argument, count)
    role = processes.role()
    launches = validation.positive_integer("workers", workers) > 1 and role is None
    x, validation_data, y = _as_arrays(x, validation_data, labels)
    fit = {"validation_data": validation_data, "callbacks": list(callbacks)}
    if isinstance(tuner, keras_tuner.Tuner):
        excluded = (directory, labels, max_l0, launches or None)
        if tuner.hypermodel is not hypermodel or any(a is not None for a in excluded):
            raise ValueError(
                "`tuner` must be a name, or a tuner that was made for `hypermodel`, "
                "which excludes `directory`, `labels`, `max_l0` and `workers`. "
                f"Received: tuner={tuner!r} for {tuner.hypermodel!r}."
            )
        tuner.oracle.max_trials = max_trials
        # `check_outcome` raises instead, also for fewer failures.
        tuner.oracle.max_consecutive_failed_trials = sys.maxsize
        tuner.search(x, epochs=epochs, verbose=0, **fit)
        check_outcome(tuner, max_failures)
        return tuner
    if directory is None and (launches or role is not None):
        raise ValueError(
            "Chief and workers share the folder of a search. Received: "
            "directory=None. Pass a `directory` that all of them can reach."
        )
    name = validation.known_name("tuner", str(tuner), ORACLES)
    hp = keras_tuner.HyperParameters()
    hypermodel.declare_hyperparameters(hp)
    model = hypermodel.build(hp)
    goal = objectives.get(objective, model, math.prod(x.shape[1:]), max_l0)
    if goal.name == objectives.PROBE and labels is None:
        raise ValueError(
            f"The objective {objectives.PROBE!r} needs labels. Received: labels=None. "
            "Pass labels=(y, y_val)."
        )
    space = [type(hypermodel).__name__, hp.get_config()["space"]]
    if isinstance(model, Autoencoder):
        # Settings that are equal in all trials are part of the model only.
        space.append(model_fingerprint(model))
    settings = {
        "space": fingerprint(space),
        "data": fingerprint((x, validation_data, y)),
        "tuner": name,
        "objective": str(goal),
        "epochs": epochs,
        "seed": seed,
    }
    folder = Path(directory or tempfile.mkdtemp(prefix="keras_sae-search-"))
    if role != "worker":  # the chief writes the settings
        RunDirectory(folder, settings, file="search.json")
    algorithm: dict[str, Any] = {
        # The default would be three random trials per hyperparameter.
        "bayesian": {"num_initial_points": max(3, max_trials // 4)},
        "hyperband": {"max_epochs": epochs},
    }.get(name, {})
    oracle = ORACLES[name](
        folder,
        max_trials=max_trials,
        max_failures=max_failures,
        objective=goal,
        # keras-tuner takes 0 for no seed.
        seed=None if seed is None else seed + 1,
        **algorithm,
    )
    made = SearchTuner(
        oracle,
        hypermodel,
        sample_shape=x.shape[1:],
        epochs=epochs,
        seed=seed,
        progress=progress,
    )
    if directory is None:
        weakref.finalize(made, shutil.rmtree, folder, ignore_errors=True)
    if role != "worker":
        oracle.reload(retry=True)
    if not launches:
        made.search(x, labels=y, **fit)
    elif len(trials_with_status(oracle, "COMPLETED")) < max_trials:
        processes.launch_workers(command or processes.this_command(), workers)
        oracle.reload()
    if role == "worker" or processes.LAUNCHED in os.environ:
        sys.exit(0)
    check_outcome(made, max_failures)
    return made


def _as_arrays(
    x: ArrayLike,
    validation_data: ArrayLike | Arrays,
    labels: Sequence[ArrayLike] | None,
) -> tuple[np.ndarray, np.ndarray | Arrays, Arrays | None]:
    """Return the data as NumPy arrays; raise if they do not fit each other."""
    has_target = isinstance(validation_data, (tuple, list))
    parts = validation_data if has_target else (validation_data,)
    x, *parts = (np.asarray(array) for array in (x, *parts))
    for name, array in {"x": x, "validation_data": parts[0]}.items():
        if array.ndim < 2 or array.dtype == object:
            raise ValueError(
                f"`{name}` must be an array of shape (samples, ...), because the batch "
                f"size is searched. Received: shape {array.shape}, dtype {array.dtype}."
            )
    y = None
    if labels is not None:
        y = tuple(np.asarray(part) for part in labels)
        if [len(part) for part in y] != [len(x), len(parts[0])]:
            raise ValueError(
                "`labels` must be (y, y_val), with one label for each sample of `x` "
                "and of `validation_data`. Received: labels of lengths "
                f"{[len(part) for part in y]}."
            )
    return x, tuple(parts) if has_target else parts[0], y
