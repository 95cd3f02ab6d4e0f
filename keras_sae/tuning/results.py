"""A finished search as tables, and its best model."""

from pathlib import Path
from typing import Any

import keras
import keras_tuner

from keras_sae.tuning.objectives import ACTIVITY, Probe, activity
from keras_sae.utils import io as files

# Columns that come from the logs, beside `l0`.
_FIGURES = {
    "reconstruction": "val_reconstruction_loss",
    "explained_variance": "val_explained_variance",
    "probe_accuracy": Probe.name,
}
# What Hyperband notes for itself among the settings.
_OWN = "tuner/"


def logs_of(trial: Any) -> dict[str, float]:
    """Returns the figures that a trial reported, by name."""
    return {name: trial.metrics.get_last_value(name) for name in trial.metrics.metrics}


def trials(tuner: Any) -> Any:
    """Tabulates the trials of a search, in the order in which they began.

    Args:
        tuner: What `keras_sae.tuning.search` returned.

    Returns:
        A `pandas.DataFrame`, a row a trial: `trial`, the settings (missing where
        they do not apply), `reconstruction` (squared error a value),
        `explained_variance`, `l0` and `expected`: whether `l0` is the sum of the
        activations of a bounded code; `probe_accuracy` where labels were given;
        `score` of the objective, and `status`. All figures are of the validation
        data after the last epoch.

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

    table = pd.DataFrame([_row(trial) for trial in _recorded(tuner)])
    # As the space has them: not every trial has all, nor a chief them in order.
    space = getattr(tuner.oracle, "hyperparameters", None)
    order = dict.fromkeys(hp.name for hp in space.space) if space else {}
    first = ["trial", *(name for name in order if name in table.columns)]
    return table[[*first, *table.columns.difference(first, sort=False)]]


def _recorded(tuner: Any) -> list[Any]:
    known = getattr(tuner.oracle, "trials", None)
    if known is None:  # a worker: the chief has them, and their files
        paths = Path(tuner.project_dir).glob("trial_*/trial.json")
        loaded = [keras_tuner.engine.trial.Trial.load(str(path)) for path in paths]
        known = {trial.trial_id: trial for trial in loaded}
    return [known[name] for name in sorted(known, key=int)]


def _row(trial: Any) -> dict[str, Any]:
    logs, values = logs_of(trial), trial.hyperparameters.values
    settings = {k: v for k, v in values.items() if not k.startswith(_OWN)}
    return {
        "trial": trial.trial_id,
        **settings,
        **{name: logs[key] for name, key in _FIGURES.items() if key in logs},
        "l0": activity(logs),
        "expected": ACTIVITY[0] not in logs,
        "score": trial.score,
        "status": trial.status,
    }


def pareto_front(tuner: Any) -> Any:
    """Selects the trials that no other beats on both reconstruction and sparsity.

    A trial is beaten by one that is at least as good in both and better in one.

    Args:
        tuner: What `keras_sae.tuning.search` returned.

    Returns:
        Rows of `trials`, completed ones, the sparsest first.

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
    table = table[table["status"] == "COMPLETED"]
    rows = table.dropna(subset=["l0", "reconstruction"])
    rows = rows.sort_values(["l0", "reconstruction"])
    error = rows["reconstruction"].astype("float64")
    least = rows.groupby("l0")["reconstruction"].transform("min")
    # Better than all that are sparser, and the best among equally sparse ones.
    sparser = error.groupby(rows["l0"]).min().cummin().shift(fill_value=float("inf"))
    beaten = (error > least) | (error >= rows["l0"].map(sparser))
    return rows[~beaten].reset_index(drop=True)


def best_model(
    tuner: Any,
    x: Any,
    path: str | Path,
    *,
    epochs: int | None = None,
    validation_data: Any = None,
    callbacks: Any = None,
    verbose: Any = "auto",
) -> Any:
    """Builds the best model of a search anew, trains it, and saves it.

    With the data, the epochs and the seed of the search that is the trial's model; of
    `tuner="hyperband"` nearly so, where the trial went on from an earlier round: here
    it is trained in one go, in another order of samples.

    Args:
        tuner: What `keras_sae.tuning.search` returned.
        x: Array of shape `(samples, *input_shape)`; now that the settings are
            chosen, the validation data may be among them.
        path: Where the `.keras` file goes; it is there whole or not at all.
        epochs: Passes through the data, those of the best trial if None.
        validation_data: As in `keras.Model.fit`.
        callbacks: As in `keras.Model.fit`.
        verbose: As in `keras.Model.fit`.

    Returns:
        The trained model; `model.history.history` holds its logs.

    Raises:
        ValueError: `path` does not end in `.keras`, or no trial was completed.

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
        raise ValueError(
            f"`path` must end in .keras. Received: path={str(path)!r}. For example "
            f"{path.stem or 'best'}.keras."
        )
    files.output_folder(path.parent)
    found = tuner.oracle.get_best_trials(1)
    if not found:
        raise ValueError("The search has completed no trial. Run it with more trials.")
    hp = found[0].hyperparameters
    if epochs is None:
        epochs = hp.values.get(f"{_OWN}epochs", tuner.epochs)
    if tuner.seed is not None:
        keras.utils.set_random_seed(tuner.seed)
    model = tuner.hypermodel.build(hp)
    given = {"validation_data": validation_data, "callbacks": callbacks}
    given = {name: value for name, value in given.items() if value is not None}
    tuner.hypermodel.fit(hp, model, x, epochs=epochs, verbose=verbose, **given)
    with files.atomic_write(path) as unfinished:
        model.save(unfinished)
    return model
