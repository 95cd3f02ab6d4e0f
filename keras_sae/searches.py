"""A folder that holds one search: its trials, their front, and the best model."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keras_sae import evaluation, plots, tuning
from keras_sae.tuning import workers
from keras_sae.utils import io as files

# The share of the training data that trials are compared on.
_HELD_OUT = 5


def split(x: Any, y: Any, seed: int) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    """Keeps a fifth of the training data back for the comparison of trials.

    Args:
        x: Array of shape `(samples, ...)`.
        y: Labels of shape `(samples,)`, or None.
        seed: Draws the fifth.

    Returns:
        `((x, y), (x_val, y_val))`.

    Example:

    >>> import numpy as np
    >>> from keras_sae import searches
    >>> (x, _), (x_val, _) = searches.split(np.ones((10, 4)), None, 0)
    >>> len(x), len(x_val)
    (8, 2)
    """
    order = np.random.default_rng(seed).permutation(len(x))
    held, rest = np.split(order, [len(x) // _HELD_OUT])
    rest, held = np.sort(rest), np.sort(held)
    labels = (None, None) if y is None else (y[rest], y[held])
    return (x[rest], labels[0]), (x[held], labels[1])


def run(
    hypermodel: Any, data: Any, folder: Path, *, seed: int, **options: Any
) -> tuple[Any, dict[str, float]]:
    """Searches, tabulates, draws, and retrains the best settings.

    It leaves `trials.csv` and `trials.json`, `pareto.png`, `best.keras` and
    `best.json` in the folder, and the search itself in `search`.

    Args:
        hypermodel: A `keras_sae.tuning.SparsityHyperModel`.
        data: `((x_train, y_train), (x_test, y_test))`; a fifth of the training data
            is held out for the search, the test data for the best model.
        folder: What `keras_sae.runs.open_folder` returned.
        seed: Of the held-out fifth, the settings, and each training.
        **options: Further arguments of `keras_sae.tuning.search`.

    Returns:
        The table of trials, the best first, and the figures of the best model.
    """
    (x, y), test = data
    train, held = split(x, y, seed)
    labels = None if y is None else (train[1], held[1])
    try:
        tuner = tuning.search(
            hypermodel,
            train[0],
            held[0],
            labels=labels,
            directory=folder / "search",
            seed=seed,
            **options,
        )
    except (tuning.ConstraintError, tuning.FailedTrialsError) as error:
        write(tuning.trials(error.tuner), folder)
        raise
    if workers.is_member() and not workers.is_chief():
        raise SystemExit(0)  # a worker on another machine: the chief has the rest
    table = write(tuning.trials(tuner), folder, tuner.oracle.objective.direction)
    model = tuning.best_model(tuner, train[0], folder / "best.keras", verbose=0)
    figures = evaluation.held_out(model, train, test)
    record = {"settings": _settings(tuner), "figures": figures}
    with files.atomic_write(folder / "best.json") as path:
        path.write_text(json.dumps(record, indent=1))
    return table, figures


def write(table: Any, folder: Path, direction: str = "min") -> Any:
    """Leaves a table of trials and the picture of its front in a folder.

    Args:
        table: What `keras_sae.tuning.trials` returned.
        folder: Where `trials.csv`, `trials.json` and `pareto.png` go.
        direction: `"min"` or `"max"`: whether a small score is a good one.

    Returns:
        The table, the best trial first.
    """
    table = table.sort_values("score", ascending={"min": True}.get(direction, False))
    with files.atomic_write(folder / "trials.csv") as path:
        table.to_csv(path, index=False)
    with files.atomic_write(folder / "trials.json") as path:
        path.write_text(table.to_json(orient="records", indent=1))
    with files.atomic_write(folder / "pareto.png") as path:
        plots.pareto(named(table)).savefig(path)
    return table


def named(table: Any) -> Any:
    """Names the points of a picture by family and kind of sparsity.

    Args:
        table: What `keras_sae.tuning.trials` returned.

    Returns:
        The completed trials, `model` with both names.

    Example:

    >>> import pandas as pd
    >>> from keras_sae import searches
    >>> row = {"model": "deep", "sparsity": "kl", "status": "COMPLETED"}
    >>> searches.named(pd.DataFrame([row]))["model"][0]
    'deep, kl'
    """
    done = table[table["status"] == "COMPLETED"]
    return done.assign(model=done["model"] + ", " + done["sparsity"])


def described(table: Any) -> list[str]:
    """Names each trial's kind of sparsity with what was drawn for it.

    Args:
        table: What `keras_sae.tuning.trials` returned.

    Returns:
        A list of strings, one a row.

    Example:

    >>> import pandas as pd
    >>> from keras_sae import searches
    >>> row = {"sparsity": "kl", "kl_target": 0.05, "kl_factor": 0.5, "l1_factor": None}
    >>> searches.described(pd.DataFrame([row]))
    ['kl 0.05, 0.5']
    """
    found = []
    for row in table.to_dict("records"):
        kind = row["sparsity"]
        own = [v for k, v in row.items() if k.startswith(f"{kind}_") and v == v]
        found.append(f"{kind} {', '.join(f'{value:.3g}' for value in own)}")
    return found


def names(words: str) -> Any:
    """Reads `"l1,kl"` as a list of names and `"l1"` as a name.

    Args:
        words: Names with commas between.

    Returns:
        A list, or a string.

    Example:

    >>> from keras_sae import searches
    >>> searches.names("l1, kl"), searches.names("deep")
    (['l1', 'kl'], 'deep')
    """
    parts: Sequence[str] = [word.strip() for word in words.split(",")]
    return parts[0] if len(parts) == 1 else list(parts)


def _settings(tuner: Any) -> Mapping[str, Any]:
    return tuner.oracle.get_best_trials(1)[0].hyperparameters.values
