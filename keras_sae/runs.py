"""A folder that holds one run: its settings, models, figures and pictures."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_sae import evaluation, plots, report
from keras_sae.plans import Plan
from keras_sae.utils import io as files

# Weights of a sweep: from hardly any penalty to hardly any code.
FACTORS = tuple(float(factor) for factor in np.geomspace(3e-4, 3e-1, 7))

Data = tuple[tuple[Any, Any], tuple[Any, Any]]


def open_folder(path: str | Path, settings: Mapping[str, Any]) -> Path:
    """Makes the folder of a run, or returns to that of the same run.

    Args:
        path: The folder.
        settings: What determines the run's figures, JSON values only.

    Returns:
        The folder's path. It holds `settings.json`.

    Raises:
        ValueError: It cannot be written, or holds another run or other files.

    Example:

    >>> import tempfile
    >>> from keras_sae import runs
    >>> folder = runs.open_folder(tempfile.mkdtemp() + "/run", {"seed": 0})
    >>> [path.name for path in folder.iterdir()]
    ['settings.json']
    """
    folder = files.output_folder(path)
    written = folder / "settings.json"
    if written.exists():
        changes = files.describe_changes(json.loads(written.read_text()), settings)
        if changes:
            raise ValueError(
                f"`output` holds another run. Received: {str(folder)!r}, where "
                f"{changes}. Choose another folder with --output, or delete it."
            )
        return folder
    if any(not entry.name.startswith(".unfinished-") for entry in folder.iterdir()):
        raise ValueError(
            f"`output` holds files that are not a run of keras-sae. Received: "
            f"{str(folder)!r}. Choose an empty or a new folder with --output."
        )
    with files.atomic_write(written) as unfinished:
        unfinished.write_text(json.dumps(dict(settings), indent=1))
    return folder


def run(
    plan: Plan,
    data: Data,
    folder: Path,
    *,
    epochs: int,
    seeds: Sequence[int],
    batch_size: int,
    fine_tuning: int = 10,
    callbacks: Callable[[str], list] | None = None,
) -> Any:
    """Compares models, and leaves figures and pictures in the run's folder.

    It leaves `table.csv`, `metrics.json`, a `.keras` file a model, and pictures,
    each of them whole or not there; of several seeds also `summary.csv`, their means
    and spreads.

    Args:
        plan: What to train.
        data: `((x_train, y_train), (x_test, y_test))`.
        folder: What `open_folder` returned.
        epochs: Passes through the training data.
        seeds: Of weights and batches; pictures are of the first.
        batch_size: Samples a step.
        fine_tuning: As for `keras_sae.evaluation.compare`.
        callbacks: As for `keras_sae.evaluation.compare`.

    Returns:
        The table, a `pandas.DataFrame`.

    Example:

    >>> import tempfile
    >>> import numpy as np
    >>> from keras_sae import models, plans, runs
    >>> x = np.random.default_rng(0).random((40, 4, 4, 1), dtype="float32")
    >>> folder = runs.open_folder(tempfile.mkdtemp() + "/run", {"seed": 0})
    >>> plan = plans.Plan({"L1": lambda: models.shallow((4, 4, 1), 8, "l1")})
    >>> data = ((x, None), (x, None))
    >>> table = runs.run(plan, data, folder, epochs=1, seeds=(0,), batch_size=8)
    >>> (folder / "filters.png").exists()
    True
    """
    train, test = data
    table = evaluation.compare(
        plan.builders,
        train,
        test,
        epochs,
        seeds=seeds,
        prepare=plan.prepare,
        fine_tuning=fine_tuning,
        batch_size=batch_size,
        directory=folder,
        callbacks=callbacks,
    )
    _write(table, folder, "table", "metrics")
    if len(seeds) > 1:
        with files.atomic_write(folder / "summary.csv") as path:
            evaluation.summarize(table).to_csv(path, index=False)
    draw(*_trained(plan, folder, seeds[0]), test[0], folder)
    return table


def write_report(plan: Plan, data: Data, folder: Path, *, seed: int) -> Path:
    """Writes the page of a finished run, `report.html` in its folder.

    Args:
        plan: As for `run`, which has been called.
        data: As for `run`; the page is of the test data.
        folder: As for `run`.
        seed: The models of this seed are shown.

    Returns:
        The page's path.
    """
    import pandas as pd

    trained, histories = _trained(plan, folder, seed)
    name = json.loads((folder / "settings.json").read_text()).get("dataset", "")
    return report.write_report(
        trained,
        data[1],
        folder / "report.html",
        history=histories,
        table=pd.read_csv(folder / "table.csv"),
        title=f"Sparse autoencoders on {name}" if name else "Sparse autoencoders",
    )


def _trained(plan: Plan, folder: Path, seed: int) -> tuple[dict, dict]:
    """The models of a finished run, and their logs."""
    trained, histories = {}, {}
    for name in plan.builders:
        stem = folder / f"{evaluation.run_name(name, seed)}"
        trained[name] = keras.saving.load_model(stem.with_suffix(".keras"))
        histories[name] = json.loads(stem.with_suffix(".json").read_text())["history"]
    return trained, histories


def sweep(
    plan: Plan,
    data: Data,
    folder: Path,
    *,
    epochs: int,
    seed: int,
    batch_size: int,
    callbacks: Callable[[str], list] | None = None,
) -> Any:
    """Sweeps the weight of each penalty, and draws the front of all of them.

    It leaves `sweep.csv`, `sweep.json` and `pareto.png` in the run's folder.

    Args:
        plan: Its `sweeps` are run over `FACTORS`, seven from 3e-4 to 3e-1.
        data: As for `run`.
        folder: As for `run`.
        epochs: As for `run`.
        seed: Of weights and batches.
        batch_size: As for `run`.
        callbacks: As for `run`.

    Returns:
        A `pandas.DataFrame`, `model` names the penalty.
    """
    import pandas as pd

    parts = [
        evaluation.sweep(
            builder,
            FACTORS,
            *data,
            epochs,
            seeds=(seed,),
            batch_size=batch_size,
            directory=folder / "sweep" / evaluation.run_name(name, seed),
            callbacks=callbacks,
        ).assign(model=name)
        for name, builder in plan.sweeps.items()
    ]
    table = pd.concat(parts, ignore_index=True)
    table["active"] = evaluation.active_units(table)
    _write(table, folder, "sweep", "sweep")
    with files.atomic_write(folder / "pareto.png") as path:
        plots.pareto(table, x="active").savefig(path)
    return table


def _write(table: Any, folder: Path, csv: str, records: str) -> None:
    with files.atomic_write(folder / f"{csv}.csv") as path:
        table.to_csv(path, index=False)
    with files.atomic_write(folder / f"{records}.json") as path:
        path.write_text(json.dumps(_json(table.to_dict("records")), indent=1))


def draw(
    trained: Mapping[str, Any], histories: Mapping[str, Any], x: Any, folder: Path
) -> None:
    """Draws the pictures of a run.

    Args:
        trained: Models by name.
        histories: Their logs by name.
        x: Held-out samples of shape `(samples, *input_shape)`.
        folder: Where the PNG files go.

    Example:

    >>> import pathlib, tempfile
    >>> import numpy as np
    >>> from keras_sae import models, plans, runs
    >>> x = np.random.default_rng(0).random((9, 4, 4, 1), dtype="float32")
    >>> model = models.shallow((4, 4, 1), 8, "l1")
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> runs.draw({"L1": model}, {"L1": {"loss": [1.0]}}, x, folder)
    >>> len(list(folder.glob("*.png")))
    4
    """
    codes = {name: model.encode(x) for name, model in trained.items()}
    targets = {name: evaluation.target(model) for name, model in trained.items()}
    spread = np.linspace(0, len(x) - 1, min(12, len(x))).astype(int)
    pictures = {
        "filters": plots.filters(trained, count=16),
        "reconstructions": plots.reconstructions(trained, np.asarray(x)[spread]),
        "activations": plots.activations(codes, targets),
        "history": plots.history(histories),
    }
    sampling = [m for m in trained.values() if hasattr(m, "sample")]
    if sampling:
        pictures["samples"] = plots.samples(sampling[0])
        if sampling[0].decoder.input_shape[-1] > 1:
            pictures["latent_plane"] = plots.latent_plane(sampling[0], x, steps=9)
    for name, figure in pictures.items():
        with files.atomic_write(folder / f"{name}.png") as path:
            figure.savefig(path)


def _json(value: Any) -> Any:
    """JSON has no NaN: what could not be computed is null."""
    if isinstance(value, dict):
        return {key: _json(v) for key, v in value.items()}
    if isinstance(value, list):
        return [_json(v) for v in value]
    return None if isinstance(value, float) and math.isnan(value) else value
