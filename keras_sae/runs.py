"""A folder that holds one run: its settings, models, figures and pictures."""

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_sae import evaluation, files, plots
from keras_sae.regularizers import KLDivergence

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
        found = json.loads(written.read_text())
        differing = sorted(
            key for key in {*found, *settings} if found.get(key) != settings.get(key)
        )
        if differing:
            changes = "; ".join(
                f"{key} was {found.get(key)!r} and is now {settings.get(key)!r}"
                for key in differing
            )
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
    with files.whole(written) as unfinished:
        unfinished.write_text(json.dumps(dict(settings), indent=1))
    return folder


def run(
    builders: Mapping[str, Callable[[], Any]],
    data: Data,
    folder: Path,
    *,
    epochs: int,
    seed: int,
    batch_size: int,
    callbacks: Callable[[str], list] | None = None,
) -> Any:
    """Compares models, and leaves figures and pictures in the run's folder.

    It leaves `table.csv`, `metrics.json`, a `.keras` file a model, and the
    pictures `filters.png`, `reconstructions.png`, `activations.png` and
    `history.png`, each of them whole or not there.

    Args:
        builders: As for `keras_sae.evaluation.compare`.
        data: `((x_train, y_train), (x_test, y_test))`.
        folder: What `open_folder` returned.
        epochs: Passes through the training data.
        seed: Of weights and batches.
        batch_size: Samples a step.
        callbacks: As for `keras_sae.evaluation.compare`.

    Returns:
        The table, a `pandas.DataFrame`.

    Example:

    >>> import tempfile
    >>> import numpy as np
    >>> from keras_sae import models, runs
    >>> x = np.random.default_rng(0).random((40, 4, 4, 1), dtype="float32")
    >>> folder = runs.open_folder(tempfile.mkdtemp() + "/run", {"seed": 0})
    >>> builders = {"L1": lambda: models.shallow((4, 4, 1), 8, "l1")}
    >>> data = ((x, None), (x, None))
    >>> table = runs.run(builders, data, folder, epochs=1, seed=0, batch_size=8)
    >>> (folder / "filters.png").exists()
    True
    """
    train, test = data
    table = evaluation.compare(
        builders,
        train,
        test,
        epochs,
        seeds=(seed,),
        batch_size=batch_size,
        directory=folder,
        callbacks=callbacks,
    )
    with files.whole(folder / "table.csv") as path:
        table.to_csv(path, index=False)
    with files.whole(folder / "metrics.json") as path:
        path.write_text(json.dumps(_json(table.to_dict("records")), indent=1))
    models, histories = {}, {}
    for name in builders:
        stem = folder / f"{evaluation.run_name(name, seed)}"
        models[name] = keras.saving.load_model(stem.with_suffix(".keras"))
        histories[name] = json.loads(stem.with_suffix(".json").read_text())["history"]
    draw(models, histories, test[0], folder)
    return table


def draw(
    models: Mapping[str, Any], histories: Mapping[str, Any], x: Any, folder: Path
) -> None:
    """Draws the pictures of a run.

    Args:
        models: Trained models by name.
        histories: Their logs by name.
        x: Held-out samples of shape `(samples, *input_shape)`.
        folder: Where the PNG files go.

    Example:

    >>> import pathlib, tempfile
    >>> import numpy as np
    >>> from keras_sae import models, runs
    >>> x = np.random.default_rng(0).random((9, 4, 4, 1), dtype="float32")
    >>> model = models.shallow((4, 4, 1), 8, "l1")
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> runs.draw({"L1": model}, {"L1": {"loss": [1.0]}}, x, folder)
    >>> len(list(folder.glob("*.png")))
    4
    """
    codes = {name: model.encode(x) for name, model in models.items()}
    targets = {name: _target(model) for name, model in models.items()}
    spread = np.linspace(0, len(x) - 1, min(12, len(x))).astype(int)
    pictures = {
        "filters": plots.filters(models),
        "reconstructions": plots.reconstructions(models, np.asarray(x)[spread]),
        "activations": plots.activations(codes, targets),
        "history": plots.history(histories),
    }
    for name, figure in pictures.items():
        with files.whole(folder / f"{name}.png") as path:
            figure.savefig(path)


def _target(model: Any) -> float | None:
    """The mean activation that a model's code is pressed to, if there is one."""
    penalty = getattr(model.sparse_layers[-1].sparse, "regularizer", None)
    return penalty.target if isinstance(penalty, KLDivergence) else None


def _json(value: Any) -> Any:
    """JSON has no NaN: what could not be computed is null."""
    if isinstance(value, dict):
        return {key: _json(v) for key, v in value.items()}
    if isinstance(value, list):
        return [_json(v) for v in value]
    return None if isinstance(value, float) and math.isnan(value) else value
