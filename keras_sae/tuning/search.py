"""Hyperparameter search with keras-tuner, in one or several processes."""

import math
import os
import shutil
import sys
import tempfile
import weakref
from collections.abc import Sequence
from pathlib import Path

import keras
import keras_tuner
import numpy as np

from keras_sae.models import Autoencoder
from keras_sae.models.data_adapter import as_arrays, labeled_arrays
from keras_sae.tuning import objectives
from keras_sae.tuning import workers as processes
from keras_sae.tuning.results import check_outcome
from keras_sae.tuning.tuner import ORACLES, Arrays, SearchTuner, trials_with_status
from keras_sae.types import ArrayLike, Data, PathLike
from keras_sae.utils import validation
from keras_sae.utils.fingerprint import fingerprint, model_fingerprint
from keras_sae.utils.io import RunDirectory


def search(
    hypermodel: keras_tuner.HyperModel,
    x: Data,
    validation_data: Data | Arrays,
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
    """Search for the best hyperparameters, and return the finished tuner.

    A trial's metrics are computed on the validation data after its last epoch. All
    trials start from the same random seed. To resume a search that has a `directory`,
    repeat the call. Completed trials are kept, and failed or interrupted trials are
    retried. A larger `max_trials` adds trials.

    Args:
        hypermodel: A `SparsityHyperModel`, or another `keras_tuner.HyperModel`.
        x: Array of shape `(samples, *input_shape)`, or a finite dataset of batches of
            `x` or `(x, label)`. A dataset is read into memory.
        validation_data: Data like `x`, or `(x, target)` as in `keras.Model.fit`.
        max_trials: Maximum number of trials, including those of earlier calls.
        epochs: Number of passes through the data per trial. For Hyperband, this is the
            maximum.
        tuner: `"random"`, `"bayesian"`, `"hyperband"`, `"grid"`, or a
            `keras_tuner.Tuner` for `hypermodel` with its own objective and directory.
        objective: `"reconstruction_under_l0"` (see `ReconstructionUnderL0`),
            `"probe_accuracy"`, `"reconstruction"`, the name of a logged metric, or a
            `keras_tuner.Objective`. Do not use `"val_loss"`: it contains the penalty,
            so the search would turn sparsity off.
        max_l0: Limit for `"reconstruction_under_l0"`, in active units per sample. The
            default is the square root of the number of values per sample.
        labels: `(y, y_val)`, the labels of `x` and of the validation data. They are
            needed for `"probe_accuracy"`, the accuracy of a linear classifier on the
            codes. If None, the labels in the datasets are used, if there are any.
        directory: Folder of the search. None means a temporary folder.
        seed: Random seed for the hyperparameters and for each training run, or None.
        max_failures: Number of failed trials that the search tolerates.
        callbacks: Keras callbacks. Each trial gets its own copies.
        workers: Number of worker processes on this machine. If there are several,
            `launch_workers` starts them.
        command: Command line that the chief and the workers run. Its script must call
            `search` with the same arguments. None means this process's command line.
        progress: Whether to print a line to stderr when a trial ends.

    Returns:
        The finished `keras_tuner.Tuner`, for `trials`, `pareto_front` and
        `best_model`. In a worker, or in a chief that `launch_workers` started, the
        process exits instead.

    Raises:
        ValueError: An argument is invalid, or `directory` belongs to another search.
        ConstraintError: No trial meets the objective's limit.
        FailedTrialsError: More than `max_failures` trials failed, or none completed.

    Example:

    >>> import numpy as np
    >>> from keras_sae import tuning
    >>> x = np.random.default_rng(0).random((40, 6), dtype="float32")
    >>> space = tuning.SparsityHyperModel("shallow", (6,), sparsity="l1", units=4)
    >>> tuner = tuning.search(space, x, x, 2, 1, max_l0=4, progress=False)
    >>> len(tuning.trials(tuner))
    2
    """
    counts = {"max_trials": max_trials, "epochs": epochs, "workers": workers}
    for argument, count in counts.items():
        validation.positive_integer(argument, count)
    role = processes.role()
    launches = workers > 1 and role is None
    x, validation_data, y = _as_arrays(x, validation_data, labels)
    fit = {"validation_data": validation_data, "callbacks": list(callbacks)}
    if isinstance(tuner, keras_tuner.Tuner):
        excluded = directory or labels or max_l0 is not None or launches
        if tuner.hypermodel is not hypermodel or excluded:
            raise ValueError(
                "`tuner` must be a name, or a tuner created with `hypermodel`. With a "
                "`keras_tuner.Tuner`, do not pass `directory`, `labels`, `max_l0` or "
                "`workers`."
            )
        tuner.oracle.max_trials = max_trials
        # keras-tuner must not end the search early: `check_outcome` counts failures.
        tuner.oracle.max_consecutive_failed_trials = sys.maxsize
        tuner.search(x, epochs=epochs, verbose=0, **fit)
        check_outcome(tuner, max_failures)
        return tuner
    if directory is None and (launches or role is not None):
        raise ValueError(
            "The chief and workers must share the folder of a search. Received: "
            "directory=None. Pass a `directory` that all of them can access."
        )
    validation.known_name("tuner", tuner, ORACLES)
    hp = keras_tuner.HyperParameters()
    hypermodel.declare_hyperparameters(hp)
    model = hypermodel.build(hp)
    goal = objectives.get(objective, model, math.prod(x.shape[1:]), max_l0)
    if isinstance(goal, objectives.ReconstructionUnderL0) and goal.metric is None:
        metric = objectives.l0_metric(hypermodel)
        goal = objectives.ReconstructionUnderL0(goal.max_l0, metric)
    if goal.name == objectives.PROBE and y is None:
        raise ValueError(
            f"{objectives.PROBE!r} needs labels=(y, y_val). Received: labels=None."
        )
    space = [type(hypermodel).__name__, hp.get_config()["space"]]
    if isinstance(model, Autoencoder):  # add the settings that all trials share
        space.append(model_fingerprint(model))
    settings = {
        "space": fingerprint(space),
        "data": fingerprint((x, validation_data, y)),
        "tuner": tuner,
        "objective": str(goal),
        "epochs": epochs,
        "seed": seed,
    }
    folder = Path(directory or tempfile.mkdtemp(prefix="keras_sae-search-"))
    if role != "worker":  # the chief writes the settings
        RunDirectory(folder, settings, file="search.json")
    # keras-tuner treats 0 as no seed.
    options = {"objective": goal, "seed": None if seed is None else seed + 1}
    if tuner == "bayesian":  # the default is three random trials per hyperparameter
        options["num_initial_points"] = max(3, max_trials // 4)
    elif tuner == "hyperband":
        options["max_epochs"] = epochs
    oracle = ORACLES[tuner](folder, max_trials, max_failures, **options)
    made = SearchTuner(oracle, hypermodel, epochs, seed, progress)
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
    x: Data, validation_data: Data | Arrays, labels: Sequence[ArrayLike] | None
) -> tuple[np.ndarray, np.ndarray | Arrays, Arrays | None]:
    """Return the data as NumPy arrays, or raise an error if they do not match."""
    target: np.ndarray | None = None
    (x, y), y_val = labeled_arrays(x), None
    if isinstance(validation_data, tuple):
        if len(validation_data) != 2:
            raise ValueError(
                "`validation_data` must be data like `x`, or `(x, target)`. Received: "
                f"a tuple of length {len(validation_data)}."
            )
        x_val, target = as_arrays(*validation_data)
    else:
        x_val, y_val = labeled_arrays(validation_data, argument="validation_data")
    for name, array in {"x": x, "validation_data": x_val}.items():
        if array.ndim < 2:
            raise ValueError(
                f"`{name}` must have shape (samples, ...), with at least two axes. "
                f"Received: shape {array.shape}."
            )
    if labels is None and y is not None and y_val is not None:
        labels = y, y_val
    arrays = None if labels is None else tuple(np.asarray(part) for part in labels)
    if arrays is not None and [len(part) for part in arrays] != [len(x), len(x_val)]:
        raise ValueError(
            "`labels` must be (y, y_val), with one label for each sample of `x` and of "
            f"`validation_data`. Received: {[len(part) for part in arrays]} labels."
        )
    return x, x_val if target is None else (x_val, target), arrays
