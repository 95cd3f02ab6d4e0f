"""Search results: the table of trials, the best model, and errors."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import keras
import keras_tuner

from keras_sae import evaluation
from keras_sae.models import Autoencoder
from keras_sae.models.data_adapter import labeled_arrays
from keras_sae.tuning.objectives import PROBE, ReconstructionUnderL0
from keras_sae.tuning.tuner import ERROR_FILE, SearchTuner, trials_with_status
from keras_sae.types import Data, PathLike
from keras_sae.utils.io import atomic_write, output_folder

if TYPE_CHECKING:
    import pandas as pd

# Columns of the table of trials, and the metrics that they contain.
_COLUMNS = {
    "reconstruction": "val_reconstruction_loss",
    "explained_variance": "val_explained_variance",
    "l0": "val_l0",
    "effective_l0": "val_effective_l0",
    "expected_l0": "val_expected_l0",
    PROBE: PROBE,
}


class SearchError(Exception):
    """Base class of the errors that are raised at the end of a search.

    Attributes:
        tuner: The tuner of the search. `keras_sae.tuning.trials` lists its trials.
    """

    tuner: keras_tuner.Tuner


class FailedTrialsError(SearchError, RuntimeError):
    """Too many trials of a search failed, or none completed.

    `__cause__` is the first exception that a trial of this process raised, if any.

    Example:

    >>> from keras_sae import tuning
    >>> issubclass(tuning.FailedTrialsError, RuntimeError)
    True
    """


class ConstraintError(SearchError, ValueError):
    """No completed trial of a search meets the limit on active units.

    Example:

    >>> from keras_sae import tuning
    >>> issubclass(tuning.ConstraintError, ValueError)
    True
    """


def check_outcome(tuner: keras_tuner.Tuner, max_failures: int) -> None:
    """Raise an error if a search failed or no trial meets the objective's limit."""
    oracle, objective = tuner.oracle, tuner.oracle.objective
    error: SearchError
    failed = trials_with_status(oracle, "FAILED")
    completed = trials_with_status(oracle, "COMPLETED")
    if len(failed) > max_failures or not completed:
        message = "The search ended without completing a trial. Widen the search space."
        if failed:
            name, hp = failed[0].trial_id, failed[0].hyperparameters
            file = Path(tuner.get_trial_dir(name), ERROR_FILE)
            has_file = file.is_file()  # missing if no exception was raised
            cause = file.read_text(errors="replace") if has_file else failed[0].message
            message = (
                f"Of {len(oracle.trials)} trials, {len(failed)} failed and "
                f"{len(completed) or 'none'} completed. The first to fail was trial "
                f"{name} with {hp.values}: {cause}\nRepeat the call to resume the "
                "search and retry the failed trials, or pass "
                f"max_failures={len(failed)} to continue without them."
            )
        error = FailedTrialsError(message)
        error.tuner = tuner
        raise error from (tuner.first_error if isinstance(tuner, SearchTuner) else None)
    if not isinstance(objective, ReconstructionUnderL0):
        return
    l0s = []
    for trial in completed:
        observed = trial.metrics
        last = {name: observed.get_last_value(name) for name in observed.metrics}
        l0s.append(objective.l0(last) or 0.0)
    l0, closest = min(zip(l0s, completed, strict=True), key=lambda pair: pair[0])
    if l0 > objective.max_l0:
        error = ConstraintError(
            f"None of the {len(completed)} completed trials meets the limit of "
            f"{objective.max_l0:g} active units per sample. The closest is trial "
            f"{closest.trial_id} with {objective.metric or 'l0'}={l0:.4g}: "
            f"{closest.hyperparameters.values}. Raise `max_l0`, or the maximum penalty "
            "factor in the search space."
        )
        error.tuner = tuner
        raise error


def trials(tuner: keras_tuner.Tuner) -> "pd.DataFrame":
    """Tabulate the trials of a search, in the order in which they started.

    Args:
        tuner: The output of `keras_sae.tuning.search`.

    Returns:
        A `pandas.DataFrame` with one row per trial. The columns are `trial`, the
        hyperparameters (missing if they do not apply), `reconstruction` (mean
        squared error per value), `explained_variance`, `l0`, `effective_l0`,
        `expected_l0` (see `keras_sae.evaluation.evaluate`), `probe_accuracy` if there
        are labels, `score` (value of the objective), and `status`. All metrics are
        computed on the validation data.

    Example:

    >>> import numpy as np
    >>> from keras_sae import tuning
    >>> x = np.random.default_rng(0).random((40, 6), dtype="float32")
    >>> space = tuning.SparsityHyperModel("shallow", (6,), sparsity="l1", units=4)
    >>> tuner = tuning.search(space, x, x, 2, 1, max_l0=4, progress=False)
    >>> table = tuning.trials(tuner)
    >>> list(table["status"])
    ['COMPLETED', 'COMPLETED']
    >>> {"l1_factor", "reconstruction", "l0"} <= set(table.columns)
    True
    """
    import pandas as pd

    rows = []
    for trial in tuner.oracle.trials.values():
        observed = trial.metrics  # the values after each epoch
        metrics = {name: observed.get_last_value(name) for name in observed.metrics}
        row = {"trial": trial.trial_id}
        # Hyperband stores its state among the hyperparameters, as "tuner/...".
        settings = trial.hyperparameters.values.items()
        row |= {name: v for name, v in settings if not name.startswith("tuner/")}
        row |= {name: metrics[key] for name, key in _COLUMNS.items() if key in metrics}
        rows.append(row | {"score": trial.score, "status": trial.status})
    table = pd.DataFrame(rows)
    # Trials may lack hyperparameters, so take the order of columns from the space.
    space = dict.fromkeys(hp.name for hp in tuner.oracle.get_space().space)
    first = ["trial", *(name for name in space if name in table.columns)]
    return table[[*first, *table.columns.difference(first, sort=False)]]


def pareto_front(tuner: keras_tuner.Tuner) -> "pd.DataFrame":
    """Return the completed trials on the Pareto front of reconstruction error and L0.

    Args:
        tuner: The output of `keras_sae.tuning.search`.

    Returns:
        The rows of `trials` that are on the front, with the sparsest trial first.

    Example:

    >>> import numpy as np
    >>> from keras_sae import tuning
    >>> x = np.random.default_rng(0).random((40, 6), dtype="float32")
    >>> space = tuning.SparsityHyperModel("shallow", (6,), sparsity="l1", units=4)
    >>> tuner = tuning.search(space, x, x, 2, 1, max_l0=4, progress=False)
    >>> front = tuning.pareto_front(tuner)
    >>> front["reconstruction"].is_monotonic_decreasing
    True
    """
    table = trials(tuner)
    completed = table[table["status"] == "COMPLETED"]
    return evaluation.pareto_front(completed).reset_index(drop=True)


def best_model(
    tuner: keras_tuner.Tuner,
    x: Data,
    path: PathLike,
    epochs: int | None = None,
    *,
    validation_data: Data | None = None,
    callbacks: Sequence[keras.callbacks.Callback] | None = None,
    verbose: int | str = "auto",
) -> Autoencoder:
    """Train a new model with the best hyperparameters of a search, and save it.

    With the same data, epochs and random seed as the search, the result is the best
    trial's model. With `tuner="hyperband"`, the model may differ slightly, because a
    trial that resumed an earlier one is now trained without interruption.

    Args:
        tuner: The output of `keras_sae.tuning.search`.
        x: As in `search`. The validation data may be included, because the
            hyperparameters have already been chosen.
        path: Path of the `.keras` file, which is written atomically.
        epochs: Number of passes through the data. The default is the number of epochs
            of the best trial.
        validation_data: As in `keras.Model.fit`.
        callbacks: List of Keras callbacks.
        verbose: As in `keras.Model.fit`.

    Returns:
        The trained model.

    Raises:
        ValueError: `path` does not end in `.keras` or is not writable, or `epochs` is
            None for a tuner that `search` did not create.

    Example:

    >>> import numpy as np
    >>> from keras_sae import tuning
    >>> x = np.random.default_rng(0).random((40, 6), dtype="float32")
    >>> space = tuning.SparsityHyperModel("shallow", (6,), sparsity="l1", units=4)
    >>> tuner = tuning.search(space, x, x, 2, 1, max_l0=4, progress=False)
    >>> model = tuning.best_model(tuner, x, "best.keras", verbose=0)
    >>> model.encode(x).shape
    (40, 4)
    """
    path = Path(path)
    if path.suffix != ".keras":
        raise ValueError(f"`path` must end in .keras. Received: path={str(path)!r}.")
    output_folder(path.parent, "path", "Choose another path.")
    (hp,) = tuner.get_best_hyperparameters(1)
    if isinstance(tuner, SearchTuner):
        if epochs is None:
            epochs = hp.values.get("tuner/epochs", tuner.epochs)
        if tuner.seed is not None:
            keras.utils.set_random_seed(tuner.seed)
    elif epochs is None:
        raise ValueError(
            "`epochs` is required, because `search` did not create this tuner. "
            "Received: epochs=None."
        )
    model = tuner.hypermodel.build(hp)
    x, _ = labeled_arrays(x)
    fit = {"validation_data": validation_data, "callbacks": callbacks}
    tuner.hypermodel.fit(hp, model, x, epochs=epochs, verbose=verbose, **fit)
    with atomic_write(path) as unfinished:
        model.save(unfinished)
    return model
