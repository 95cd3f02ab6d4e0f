"""The same data, epochs and seeds for every model, and baselines beside them."""

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_sae import models
from keras_sae.evaluation.baselines import (
    PCA,
    DictionaryLearning,
    Identity,
    RandomEncoder,
)
from keras_sae.evaluation.figures import evaluate
from keras_sae.evaluation.planning import Data, check_pairs, planned, whole
from keras_sae.evaluation.probing import check_classes, enough, few, probe

# Probes on so few labels stand beside the one on all of them.
_FEW = (100, 1000)
_BATCH = 64


def compare(
    builders: Mapping[str, Callable[[], Any]],
    train: Data,
    test: Data,
    epochs: int,
    seeds: Sequence[int] = (0,),
    *,
    batch_size: int | None = None,
    optimizer: str = "adam",
    prepare: Mapping[str, Callable[[Any, Any], Any]] | None = None,
    fine_tuning: int = 10,
    directory: str | Path | None = None,
    callbacks: Callable[[str], list] | None = None,
) -> Any:
    """Trains every model on the same data and tabulates it beside baselines.

    A row is one model and one seed. Figures are of the test data: those of
    `keras_sae.evaluation.evaluate`; `probe_accuracy` of a linear classifier trained
    on the codes of the training data, where there are labels, also with 100 and
    with 1,000 of them alone; `fine_tuned_accuracy` of encoder and softmax trained
    on together; `seconds` of training. Baselines, as wide as the widest code among
    the models: PCA, raw pixels, a random encoder, dictionary learning.

    Args:
        builders: Names, and functions without arguments that return a model; a
            model that is not compiled is compiled with `optimizer`.
        train: `(x, y)`; `y` may be None.
        test: The same, held out.
        epochs: Passes through the training data, the same for all.
        seeds: Each model is trained once a seed.
        batch_size: Samples a step; 64 if None, or all of them where they are fewer.
        optimizer: Name of a Keras optimizer.
        prepare: Names among `builders`, and functions of model and training data
            that come before `fit`, such as greedy pretraining.
        fine_tuning: Epochs of fine-tuning for `fine_tuned_accuracy`; 0 leaves it out.
        directory: None, or a folder: each finished model leaves
            `NAME-seed0.keras` and `NAME-seed0.json` (settings, figures and history)
            there. What is there already is not trained again, and training that
            was interrupted goes on after a whole epoch, the last or one that had
            ended seconds before.
        callbacks: None, or a function from a run's name to the Keras callbacks
            of its fit, e.g. for progress.

    Returns:
        A `pandas.DataFrame` with the columns `model`, `seed` and the figures.
        `summarize` takes means and spreads over the seeds.

    Raises:
        ValueError: There is no model or no seed, a builder returns something else, the
            data are no pair or do not fit a model, the labels are of another number,
            of one class alone, or of a class that is only in `test`, two names leave
            the same files, `prepare` names another model, or `directory` holds a model
            of that name that was trained on other data or with other settings; all of
            it before anything is trained.

    Example:

    >>> import numpy as np
    >>> from keras_sae import evaluation, models
    >>> rng = np.random.default_rng(0)
    >>> x, y = rng.random((40, 6), dtype="float32"), np.arange(40) % 2
    >>> builders = {"L1": lambda: models.shallow((6,), 4, "l1")}
    >>> table = evaluation.compare(builders, (x, y), (x, y), 1, batch_size=8)
    >>> list(table["model"])
    ['L1', 'PCA', 'raw pixels', 'random encoder', 'dictionary learning']
    """
    import pandas as pd

    if not isinstance(builders, Mapping) or not builders:
        raise ValueError(
            f"`builders` holds no model to compare. Received: {builders!r}. Expected "
            "e.g. {'L1': lambda: keras_sae.models.shallow((8, 8, 1), 64, 'l1')}."
        )
    seeds = whole(seeds)
    rows, width = _train(
        builders,
        train,
        test,
        epochs,
        seeds,
        batch_size=batch_size,
        optimizer=optimizer,
        prepare=prepare,
        fine_tuning=fine_tuning,
        directory=directory,
        callbacks=callbacks,
    )
    for seed in seeds:
        for name, baseline in _baselines(width, seed).items():
            if seed != seeds[0] and not hasattr(baseline, "seed"):
                continue  # nothing is drawn: the same again
            begin = time.perf_counter()
            baseline.fit(train[0])
            figures = {"seconds": time.perf_counter() - begin}
            figures |= held_out(baseline, train, test)
            rows.append({"model": name, "seed": seed, **figures})
    return pd.DataFrame(rows)


def _train(
    builders: Mapping[str, Callable[[], Any]],
    train: Data,
    test: Data,
    epochs: int,
    seeds: Sequence[int] = (0,),
    *,
    batch_size: int | None = None,
    optimizer: str = "adam",
    prepare: Mapping[str, Callable[[Any, Any], Any]] | None = None,
    fine_tuning: int = 0,
    directory: str | Path | None = None,
    callbacks: Callable[[str], list] | None = None,
) -> tuple[list[dict[str, Any]], int]:
    """The rows of the models, and the width of the widest code."""
    builds = {n: functools.partial(_built, b, optimizer) for n, b in builders.items()}
    prepare = prepare or {}
    check_pairs(train=train, test=test)
    if batch_size is None:
        batch_size = max(1, min(_BATCH, len(train[0])))  # none are refused below
    settings = {"epochs": epochs, "batch_size": batch_size, "fine_tuning": fine_tuning}
    runs = planned(builds, train, test, seeds, settings, prepare, directory)
    rows: list[dict[str, Any]] = []
    width = 1
    for name, seed, run in runs:
        extra = callbacks(f"{name}, seed {seed}") if callbacks else []
        model, figures = run.finished()
        if model is None:
            keras.utils.set_random_seed(seed)
            model = builds[name]()
            first = prepare.get(name)
            seconds, history = run.train(
                model, train[0], epochs, batch_size, extra, first
            )
            figures = held_out(model, train, test)
            if fine_tuning and train[1] is not None and test[1] is not None:
                accuracy = fine_tuned(model, train, test, fine_tuning, batch_size)
                figures["fine_tuned_accuracy"] = accuracy
            figures["seconds"] = seconds
            run.finish(model, figures, history)
        width = max(width, int(model.encoder.output_shape[-1]))
        rows.append({"model": name, "seed": seed, **figures})
    return rows, width


def _built(builder: Callable[[], Any], optimizer: str) -> Any:
    # A model is a function as well, of its input.
    model = builder if isinstance(builder, keras.Model) else builder()
    if model is builder or not isinstance(model, models.Autoencoder):
        raise ValueError(
            "A builder must be a function without arguments that returns a new model "
            f"of `keras_sae.models`. Received: {builder!r}, which gave {model!r}."
        )
    if not model.compiled:
        model.compile(keras.optimizers.get(optimizer))
    return model


def sweep(
    builder: Callable[[float], Any],
    factors: Sequence[float],
    train: Data,
    test: Data,
    epochs: int,
    **kwargs: Any,
) -> Any:
    """Trains one model for each weight of its penalty: reconstruction against L0.

    Args:
        builder: Function of a factor that returns a model.
        factors: Weights of the penalty, at least two.
        train: As for `compare`.
        test: As for `compare`.
        epochs: As for `compare`.
        **kwargs: Further arguments of `compare`; there are no baselines here.

    Returns:
        A `pandas.DataFrame` with the columns `factor` and the figures;
        `keras_sae.plots.pareto` draws it.

    Raises:
        ValueError: There are fewer than two different factors.

    Example:

    >>> import numpy as np
    >>> from keras_sae import evaluation, models, regularizers
    >>> x = np.random.default_rng(0).random((40, 6), dtype="float32")
    >>> build = lambda f: models.shallow((6,), 4, regularizers.L1(f))
    >>> data, quick = (x, None), {"epochs": 1, "batch_size": 8}
    >>> table = evaluation.sweep(build, [1e-3, 1e-2], data, data, **quick)
    >>> list(table["factor"])
    [0.001, 0.01]
    """
    import pandas as pd

    factors = np.atleast_1d(list(factors) if np.iterable(factors) else factors).tolist()
    if len(set(factors)) < 2:
        raise ValueError(
            "A sweep needs at least two different weights of the penalty. Received: "
            f"factors={factors!r}. Try numpy.geomspace(1e-4, 1e-2, 5)."
        )
    names = {repr(float(factor)): float(factor) for factor in factors}
    builders = {n: functools.partial(builder, f) for n, f in names.items()}
    table = pd.DataFrame(_train(builders, train, test, epochs, **kwargs)[0])
    return table.assign(factor=table["model"].map(names)).drop(columns="model")


def held_out(model: Any, train: Data, test: Data) -> dict[str, float]:
    """Figures of a trained model: `evaluate` on the test set, and probes.

    Args:
        model: A model, or a baseline.
        train: `(x, y)` that the probes learn from; `y` may be None.
        test: `(x, y)` that everything is measured on.

    Returns:
        A dict of floats. A probe on fewer labels than its name says is left out,
        and one on codes that are all zero, or on labels of one class, is NaN.

    Example:

    >>> import numpy as np
    >>> from keras_sae import evaluation, models
    >>> x = np.random.default_rng(0).random((20, 6), dtype="float32")
    >>> model = models.shallow((6,), 4)
    >>> "probe_accuracy" in evaluation.held_out(model, (x, None), (x, None))
    False
    """
    figures = evaluate(model, test[0])
    if train[1] is None or test[1] is None:
        return figures
    codes, held = np.asarray(model.encode(train[0])), model.encode(test[0])
    labels = np.asarray(train[1])
    parts: dict[str, Any] = {"probe_accuracy": slice(None)}
    for count in _FEW:
        if enough(labels, count):
            parts[f"probe_accuracy_{count}"] = few(labels, count)
    for name, part in parts.items():
        # Of few labels a rare class may have none.
        told = len(np.unique(labels[part])) > 1
        blind = not (told and codes[part].any() and np.any(held))
        figures[name] = (
            float("nan") if blind else probe(codes[part], labels[part], held, test[1])
        )
    return figures


def fine_tuned(
    model: Any, train: Data, test: Data, epochs: int, batch_size: int
) -> float:
    """Accuracy on `test` of a copy of the encoder trained on with a softmax layer.

    Args:
        model: A trained `keras_sae.models.Autoencoder`; it stays as it is.
        train: `(x, y)`.
        test: `(x, y)`.
        epochs: Passes through the training data.
        batch_size: Samples a step.

    Returns:
        A float in `[0, 1]`.

    Raises:
        ValueError: Labels are of another number, of one class alone, or of a class
            that is only in `test`.

    Example:

    >>> import numpy as np
    >>> from keras_sae import evaluation, models
    >>> data = np.eye(6, dtype="float32")[np.arange(60) % 6], np.arange(60) % 6
    >>> model = models.shallow((6,), 12)
    >>> 0 <= evaluation.fine_tuned(model, data, data, epochs=1, batch_size=10) <= 1
    True
    """
    check_classes(train[1], len(train[0]), test[1], len(test[0]))
    classes, labels = np.unique(np.asarray(train[1]), return_inverse=True)
    held = np.searchsorted(classes, np.asarray(test[1]))
    classifier = models.classifier(model, len(classes))
    classifier.compile("adam")
    classifier.steps_per_execution = model.steps_per_execution
    classifier.fit(train[0], labels, epochs=epochs, batch_size=batch_size, verbose=0)
    figures = classifier.evaluate(test[0], held, verbose=0, return_dict=True)
    return float(figures["accuracy"])


def _baselines(units: int, seed: int) -> dict[str, Any]:
    return {
        "PCA": PCA(units),
        "raw pixels": Identity(),
        "random encoder": RandomEncoder(units, seed),
        "dictionary learning": DictionaryLearning(units, seed),
    }
