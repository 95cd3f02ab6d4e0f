"""The same data, epochs and seeds for every model, and baselines beside them."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_sae import checks, files
from keras_sae.callbacks import DeadUnits
from keras_sae.evaluation.baselines import PCA, RandomEncoder, RawPixels
from keras_sae.evaluation.figures import evaluate
from keras_sae.evaluation.probing import probe

Data = tuple[Any, Any]


def compare(
    builders: Mapping[str, Callable[[], Any]],
    train: Data,
    test: Data,
    epochs: int,
    seeds: Sequence[int] = (0,),
    *,
    batch_size: int = 64,
    optimizer: str = "adam",
    directory: str | Path | None = None,
    callbacks: Callable[[str], list] | None = None,
) -> Any:
    """Trains every model on the same data and tabulates it beside baselines.

    A row is one model and one seed. Figures are of the test data:
    those of `keras_sae.evaluation.evaluate`; `probe_accuracy` of a linear
    classifier trained on codes of the training data, where there are labels;
    `seconds` of training. Baselines, at the widest code among the models: PCA,
    raw pixels, and a random encoder.

    Args:
        builders: Names, and functions without arguments that return a model; a
            model that is not compiled is compiled with `optimizer`.
        train: `(x, y)`; `y` may be None.
        test: The same, held out.
        epochs: Passes through the training data, the same for all.
        seeds: Each model is trained once a seed.
        batch_size: Samples a step.
        optimizer: Name of a Keras optimizer.
        directory: None, or a folder: each finished model leaves
            `NAME-seed0.keras` and `NAME-seed0.json` (figures and history) there.
            What is there already is not trained again, and training that was
            interrupted goes on after its last whole epoch.
        callbacks: None, or a function from a run's name to the Keras callbacks
            of its fit, e.g. for progress.

    Returns:
        A `pandas.DataFrame` with the columns `model`, `seed` and the figures.

    Raises:
        ValueError: There is no model, or the data do not fit.

    Example:

    >>> import numpy as np
    >>> from keras_sae import evaluation, models
    >>> rng = np.random.default_rng(0)
    >>> x, y = rng.random((40, 6), dtype="float32"), np.arange(40) % 2
    >>> builders = {"L1": lambda: models.shallow((6,), 4, "l1")}
    >>> table = evaluation.compare(builders, (x, y), (x, y), epochs=1)
    >>> list(table["model"])
    ['L1', 'PCA', 'raw pixels', 'random encoder']
    """
    import pandas as pd

    if not builders:
        raise ValueError(
            "`builders` holds no model to compare. Expected a dict such as "
            "{'L1': lambda: keras_sae.models.shallow((8, 8, 1), 64, 'l1')}."
        )
    checks.positive_integer("epochs", epochs)
    folder = None if directory is None else files.output_folder(directory)
    rows, width = [], 1
    for name, builder in builders.items():
        for seed in seeds:
            run = _Run(run_name(name, seed), folder)
            extra = callbacks(f"{name}, seed {seed}") if callbacks else []
            model, figures = run.finished()
            if model is None:
                keras.utils.set_random_seed(seed)
                model = builder()
                if not model.compiled:
                    model.compile(keras.optimizers.get(optimizer))
                seconds, history = run.train(model, train[0], epochs, batch_size, extra)
                figures = {**held_out(model, train, test), "seconds": seconds}
                run.finish(model, figures, history)
            width = max(width, int(model.encoder.output_shape[-1]))
            rows.append({"model": name, "seed": seed, **figures})
    for name, baseline in _baselines(width, seeds[0]).items():
        begin = time.perf_counter()
        baseline.fit(train[0])
        figures = {"seconds": time.perf_counter() - begin}
        figures |= held_out(baseline, train, test)
        rows.append({"model": name, "seed": seeds[0], **figures})
    return pd.DataFrame(rows)


def held_out(model: Any, train: Data, test: Data) -> dict[str, float]:
    """Figures of a trained model: `evaluate` on the test set, and a probe.

    Args:
        model: A model, or a baseline.
        train: `(x, y)` that the probe learns from; `y` may be None.
        test: `(x, y)` that everything is measured on.

    Returns:
        A dict of floats.

    Example:

    >>> import numpy as np
    >>> from keras_sae import evaluation, models
    >>> x = np.random.default_rng(0).random((20, 6), dtype="float32")
    >>> model = models.shallow((6,), 4)
    >>> "probe_accuracy" in evaluation.held_out(model, (x, None), (x, None))
    False
    """
    figures = evaluate(model, test[0])
    if train[1] is not None and test[1] is not None:
        codes, held = model.encode(train[0]), model.encode(test[0])
        dead = not np.asarray(codes).any()
        figures["probe_accuracy"] = (
            float("nan") if dead else probe(codes, train[1], held, test[1])
        )
    return figures


def run_name(name: str, seed: int) -> str:
    """Returns the stem of the files that one training leaves.

    Args:
        name: Name of the model.
        seed: Its seed.

    Returns:
        A name that every file system takes.

    Example:

    >>> from keras_sae import evaluation
    >>> evaluation.run_name("no penalty", 0)
    'no-penalty-seed0'
    """
    stem = "".join(c if c.isalnum() else "-" for c in name.lower()).strip("-")
    return f"{stem}-seed{seed}"


def _baselines(units: int, seed: int) -> dict[str, Any]:
    return {
        "PCA": PCA(units),
        "raw pixels": RawPixels(),
        "random encoder": RandomEncoder(units, seed),
    }


class _Run:
    """One training, and the files it leaves if it has a folder."""

    def __init__(self, name: str, folder: Path | None) -> None:
        self.name, self.folder = name, folder

    def _path(self, suffix: str) -> Path:
        assert self.folder is not None
        return self.folder / f"{self.name}{suffix}"

    def finished(self) -> tuple[Any, dict[str, float]]:
        """The model and its figures, if an earlier call has come to their end."""
        if self.folder is None or not self._path(".json").exists():
            return None, {}
        record = json.loads(self._path(".json").read_text())
        return keras.saving.load_model(self._path(".keras")), record["figures"]

    def train(
        self, model: Any, x: Any, epochs: int, batch_size: int, callbacks: list
    ) -> tuple[float, dict[str, list[float]]]:
        """Fits, resuming where a backup is found; seconds and history."""
        callbacks = [DeadUnits(), *callbacks] if model.sparse_layers else callbacks
        if self.folder is not None:
            backup = self.folder / ".backup" / self.name
            callbacks = [keras.callbacks.BackupAndRestore(backup), *callbacks]
        begin = time.perf_counter()
        history = model.fit(
            x, epochs=epochs, batch_size=batch_size, verbose=0, callbacks=callbacks
        )
        return time.perf_counter() - begin, history.history

    def finish(self, model: Any, figures: dict[str, float], history: dict) -> None:
        """Leaves the model and then its record, whose presence means finished."""
        if self.folder is None:
            return
        with files.whole(self._path(".keras")) as path:
            model.save(path)
        record = {"figures": figures, "history": history}
        with files.whole(self._path(".json")) as path:
            path.write_text(json.dumps(record, indent=1))
