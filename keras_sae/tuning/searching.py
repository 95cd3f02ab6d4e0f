"""`search`: a tuner by its name, guarded, run to its end, and checked."""

import contextlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import keras_tuner
import numpy as np

from keras_sae.tuning import making, objectives, outcome
from keras_sae.tuning import workers as crew
from keras_sae.tuning.guard import guarded, quiet
from keras_sae.tuning.progress import shown
from keras_sae.utils import validation as checks

# What keras-tuner imports in the middle of a trial, without declaring it.
_NEEDED = {"tensorflow": "tensorboard"}


def search(
    hypermodel: Any,
    x: Any,
    validation_data: Any,
    max_trials: int = 20,
    epochs: int = 20,
    *,
    tuner: Any = "random",
    objective: Any = objectives.DEFAULT,
    max_l0: float | None = None,
    labels: Any = None,
    directory: str | Path | None = None,
    seed: int | None = 0,
    max_failures: int = 0,
    callbacks: Sequence[Any] = (),
    workers: int = 1,
    command: Sequence[str] | None = None,
    progress: bool = True,
) -> Any:
    """Tries settings of a space on the data, and returns the finished tuner.

    The figures of a trial are those of the validation data after its last epoch,
    and every trial starts from the same seed. A search that has a `directory` goes
    on where it was cut off, and on with more trials if `max_trials` has grown.

    Args:
        hypermodel: A `SparsityHyperModel`, or another `keras_tuner.HyperModel`.
        x: Array of shape `(samples, *input_shape)`.
        validation_data: Held-out `x`, or `(x, target)` as in `keras.Model.fit`.
        max_trials: Most trials in all, those of earlier calls included.
        epochs: Passes through the data in each trial; the most of Hyperband.
        tuner: `"random"`, `"bayesian"`, `"hyperband"`, `"grid"`, or a
            `keras_tuner.Tuner` made for `hypermodel`, whose own objective, seed
            and folder then count.
        objective: `"reconstruction_under_l0"` (see `ReconstructionUnderL0`),
            `"probe_accuracy"`, `"reconstruction"`, the name of any logged figure,
            or a `keras_tuner.Objective`. The total loss contains the penalty: a
            search on `"val_loss"` turns sparsity off.
        max_l0: The limit of `"reconstruction_under_l0"`, in units a sample; None is
            the square root of the number of values in one.
        labels: `(y, y_val)`, labels of both data: `probe_accuracy` needs them.
        directory: Folder of the search; None is one that goes with the tuner.
        seed: Of the settings that are tried, and of each training; 0 is one too,
            None is none.
        max_failures: Failed trials that do not end the search.
        callbacks: Further Keras callbacks of each fit.
        workers: Processes on this machine that train trials side by side, as
            `launch_workers` starts them.
        command: What runs this very call, for `workers`: a list of words; None is
            the command that runs now.
        progress: Whether to show a progress bar.

    Returns:
        The `keras_tuner.Tuner`, finished; `trials`, `pareto_front` and
        `best_model` take it.

    Raises:
        ValueError: An argument does not fit, `directory` holds another search, or
            (as `ConstraintError`) no trial kept the limit.
        FailedTrialsError: More than `max_failures` trials failed; raised from the cause
            of the first.

    Example:

    >>> import numpy as np
    >>> from keras_sae import tuning
    >>> x = np.random.default_rng(0).random((40, 6), dtype="float32")
    >>> space = tuning.SparsityHyperModel("shallow", (6,), sparsity="l1", units=4)
    >>> tuner = tuning.search(space, x, x, 2, 1, max_l0=4, progress=False)
    >>> len(tuning.trials(tuner))
    2
    """
    for name, count in {"max_trials": max_trials, "epochs": epochs}.items():
        checks.positive_integer(name, count)
    launches = checks.positive_integer("workers", workers) > 1 and not crew.is_member()
    _check_data(x, validation_data, labels)
    _check_installed()
    if not isinstance(tuner, keras_tuner.Tuner):
        making.check_folder(directory, launches)
    data = (x, validation_data, labels)
    request = making.Request(hypermodel, data, max_trials, epochs, seed, max_l0)
    made = guarded(making.tuner(tuner, request, objective, directory), max_failures)
    made.seed, made.epochs, made.oracle.max_trials = seed, epochs, max_trials
    extra = [*callbacks, *_probe(x, validation_data, labels)]
    if launches:
        _launch(made, command, workers)
    else:
        fit = {"validation_data": validation_data, "callbacks": extra}
        _run(made, progress, x, epochs=epochs, verbose=0, **fit)
    if crew.is_chief() or not crew.is_member():
        outcome.check(made)
    return made


def _run(tuner: Any, progress: bool, *args: Any, **kwargs: Any) -> None:
    """Searches in this process: alone, as the chief, or as a worker."""
    crew.end_with_launcher()
    with contextlib.ExitStack() as around:
        if not crew.is_member() or crew.is_chief():
            tuner.oracle.resume()
            if progress:
                around.enter_context(shown(tuner.oracle))
        else:
            crew.wait_for_chief()
        if crew.is_member():
            around.enter_context(quiet())
        tuner.search(*args, **kwargs)
    crew.leave()


def _launch(tuner: Any, command: Sequence[str] | None, workers: int) -> None:
    """Has other processes run the search, and reads what they leave."""
    tuner.oracle.resume()
    if len(tuner.oracle.ended("COMPLETED")) < tuner.oracle.max_trials:
        crew.launch_workers(command or crew.this_command(), workers)
        tuner.oracle.reload()


def _probe(x: Any, validation_data: Any, labels: Any) -> list[objectives.Probe]:
    if labels is None:
        return []
    held_out = _first(validation_data)
    y, y_val = (np.asarray(one) for one in labels)
    return [objectives.Probe((x, y), (held_out, y_val))]


def _first(data: Any) -> Any:
    return data[0] if isinstance(data, (tuple, list)) else data


def _check_data(x: Any, validation_data: Any, labels: Any) -> None:
    if validation_data is None:
        raise ValueError(
            "A search compares trials on data that they were not trained on. "
            "Received: validation_data=None. Keep some samples of `x` back for it."
        )
    for name, array in {"x": x, "validation_data": _first(validation_data)}.items():
        if not hasattr(array, "shape") or not hasattr(array, "dtype"):
            raise ValueError(
                f"`{name}` must be an array: its batch size is searched. Received: "
                f"{name} of {type(array)}. keras_sae.datasets.load_data gives arrays."
            )
    if labels is not None and (
        not isinstance(labels, (tuple, list))
        or [len(y) for y in labels] != [len(x), len(_first(validation_data))]
    ):
        raise ValueError(
            "`labels` must be (y, y_val), one label for each sample of `x` and of "
            f"`validation_data`. Received: labels of {type(labels)}."
        )


def _check_installed() -> None:
    missing = _NEEDED.get(keras.backend.backend())
    if missing and importlib.util.find_spec(missing) is None:
        raise ImportError(
            f"keras-tuner needs {missing!r} on this backend and would let every trial "
            f"fail without it. Run: pip install {missing}"
        )
