"""Comparisons of models with each other and with baselines."""

import functools
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keras_sae.evaluation.baselines import (
    PCA,
    DictionaryLearning,
    Identity,
    RandomEncoder,
)
from keras_sae.evaluation.evaluate import evaluate, labeled_data
from keras_sae.evaluation.training import Builder, Prepare, plan_runs
from keras_sae.models import Autoencoder
from keras_sae.types import Data, LabeledData, PathLike

if TYPE_CHECKING:
    import pandas as pd

_BATCH_SIZE = 64
# Codes count as never exactly zero if at least this fraction of values is non-zero.
_ALL_UNITS = 0.999


def compare(
    builders: Mapping[str, Builder],
    train: LabeledData | Data,
    test: LabeledData | Data,
    epochs: int,
    seeds: Iterable[int] = (0,),
    *,
    batch_size: int | None = None,
    optimizer: str = "adam",
    prepare: Mapping[str, Prepare] | None = None,
    fine_tuning: int = 10,
    directory: PathLike | None = None,
    callbacks: Callable[[str], list[keras.callbacks.Callback]] | None = None,
    baselines: bool = True,
) -> "pd.DataFrame":
    """Train models on the same data, and compare their metrics with baselines.

    The table has one row per model and random seed. It contains the metrics of
    `keras_sae.evaluation.evaluate` on the test data, with probes fitted to the training
    data. `fine_tuned_accuracy` is the encoder's test accuracy after supervised training
    with a softmax layer. `seconds` is the training time. The baselines are the raw
    data, PCA, a random encoder and dictionary learning. The last three have as many
    units as the widest code, but PCA is limited to the number of training samples and
    the number of values per sample.

    Args:
        builders: Dict that maps names to functions. Each function takes no arguments
            and returns a new model. A model that is not compiled is compiled with
            `optimizer`.
        train: The training data and their labels, as a pair `(x, y)` or a finite
            dataset of such batches. `y` may be None. A dataset is read into memory.
        test: The test data, in the same form.
        epochs: Number of epochs, the same for all models.
        seeds: Random seeds. Each model is trained once per seed.
        batch_size: Number of samples per training step. None means 64, or all samples
            if there are fewer.
        optimizer: Name of a Keras optimizer.
        prepare: Dict that maps names in `builders` to functions `f(model, x)`. Each
            function is called with the training samples before `fit`, for example for
            greedy pretraining.
        fine_tuning: Number of epochs for `fine_tuned_accuracy`. With 0, this metric is
            left out.
        directory: None, or a folder in which each finished training run saves
            `NAME-seed0.keras` and `NAME-seed0.json` (settings, metrics and history). A
            later call with the same settings reads these files, so an interrupted
            comparison can be resumed.
        callbacks: None, or a function that takes the name of a training run and returns
            the Keras callbacks for `fit`, for example a progress bar.
        baselines: Whether to add the baselines.

    Returns:
        A `pandas.DataFrame` with the columns `model`, `seed` and the metrics.
        `keras_sae.evaluation.summarize` averages the metrics over the seeds.

    Raises:
        ValueError: An argument is invalid, the data, labels and models do not match, or
            `directory` contains a training run with other settings. These checks happen
            before the first training run.

    Example:

    >>> import numpy as np
    >>> from keras_sae import evaluation, models
    >>> x, y = np.random.default_rng(0).random((40, 6)), np.arange(40) % 2
    >>> builders = {"L1": lambda: models.shallow((6,), 4, "l1")}
    >>> table = evaluation.compare(builders, (x, y), (x, y), 1, batch_size=8)
    >>> list(table["model"])
    ['L1', 'PCA', 'raw pixels', 'random encoder', 'dictionary learning']
    """
    import pandas as pd

    if not isinstance(builders, Mapping) or not builders:
        raise ValueError(
            "`builders` must be a dict of at least one function that returns a model. "
            f"Received: {builders!r}. For example, pass "
            "{'L1': lambda: keras_sae.models.shallow((8, 8, 1), 64, 'l1')}."
        )
    train, test = labeled_data("train", train), labeled_data("test", test)
    if batch_size is None:
        batch_size = max(1, min(_BATCH_SIZE, len(train[0])))
    runs = plan_runs(
        builders,
        train,
        test,
        seeds,
        {"epochs": epochs, "batch_size": batch_size, "fine_tuning": fine_tuning},
        optimizer=optimizer,
        prepare=prepare or {},
        directory=directory,
    )
    rows = []
    for run in runs:
        extra = callbacks(f"{run.name}, seed {run.seed}") if callbacks else []
        result = run.saved_metrics()
        if result is None:
            result = run.train(train, test, extra)
        rows.append({"model": run.name, "seed": run.seed, **result})
    if baselines:
        width = max(run.width for run in runs)
        first = runs[0].seed
        fitted = [("PCA", first, PCA(width)), ("raw pixels", first, Identity())]
        for seed in dict.fromkeys(run.seed for run in runs):
            learner = DictionaryLearning(width, seed)
            fitted.append(("random encoder", seed, RandomEncoder(width, seed)))
            fitted.append(("dictionary learning", seed, learner))
        for name, seed, baseline in fitted:
            begin = time.perf_counter()
            baseline.fit(train[0])
            seconds = time.perf_counter() - begin
            result = evaluate(baseline, *test, train=train)
            rows.append({"model": name, "seed": seed, "seconds": seconds, **result})
    return pd.DataFrame(rows)


def sweep(
    builder: Callable[[float], Autoencoder],
    factors: Sequence[float],
    train: LabeledData | Data,
    test: LabeledData | Data,
    epochs: int,
    **kwargs: Any,
) -> "pd.DataFrame":
    """Train one model per penalty factor, and return a table of their metrics.

    The table shows how the reconstruction error grows as the codes become sparser.

    Args:
        builder: Function that takes a factor and returns a new model.
        factors: At least two penalty factors.
        train: As in `compare`.
        test: As in `compare`.
        epochs: As in `compare`.
        **kwargs: Other arguments of `compare`. The default of `fine_tuning` is 0.

    Returns:
        A `pandas.DataFrame` with the columns `factor`, `seed` and the metrics, without
        baselines. `keras_sae.plots.pareto` plots this table.

    Raises:
        ValueError: As in `compare`, or there are fewer than two different factors.

    Example:

    >>> import numpy as np
    >>> from keras_sae import evaluation, models, regularizers
    >>> data = np.random.default_rng(0).random((40, 6)), None
    >>> build = lambda f: models.shallow((6,), 4, regularizers.L1(f))
    >>> table = evaluation.sweep(build, [1e-3, 1e-2], data, data, epochs=1)
    >>> list(table["factor"])
    [0.001, 0.01]
    """
    factors = np.atleast_1d(list(factors) if np.iterable(factors) else factors).tolist()
    if len(set(factors)) < 2:
        raise ValueError(
            "`factors` must contain at least two different numbers. Received: "
            f"factors={factors!r}. For example, pass numpy.geomspace(1e-4, 1e-2, 5)."
        )
    names = {repr(float(factor)): float(factor) for factor in factors}
    builders = {n: functools.partial(builder, f) for n, f in names.items()}
    options = {"baselines": False, "fine_tuning": 0, **kwargs}
    table = compare(builders, train, test, epochs, **options)
    return table.assign(factor=table["model"].map(names)).drop(columns="model")


def summarize(table: "pd.DataFrame") -> "pd.DataFrame":
    """Return the mean and standard deviation of each metric over the random seeds.

    Args:
        table: A table that `compare` returned.

    Returns:
        A `pandas.DataFrame` with one row per model, in the order of `table`. Each
        metric has two columns, such as `l0` (mean) and `l0_std` (standard deviation).
        Standard deviations are NaN for a single seed.

    Example:

    >>> import pandas as pd
    >>> from keras_sae import evaluation
    >>> table = pd.DataFrame({"model": ["a", "a"], "seed": [0, 1], "l0": [1.0, 3.0]})
    >>> evaluation.summarize(table).round(3).to_dict("records")
    [{'model': 'a', 'l0': 2.0, 'l0_std': 1.414}]
    """
    groups = table.drop(columns="seed").groupby("model", sort=False)
    mean, deviation = groups.mean(), groups.std().add_suffix("_std")
    columns = [name for pair in zip(mean, deviation, strict=True) for name in pair]
    return mean.join(deviation)[columns].reset_index()


def pareto_front(
    table: "pd.DataFrame", x: str | None = None, y: str = "reconstruction"
) -> "pd.DataFrame":
    """Return the Pareto front of a table: the rows that no other row beats.

    A row beats another if it is at least as good on both metrics and better on one.
    Smaller values are better.

    Args:
        table: A `pandas.DataFrame` with the columns `x` and `y`.
        x: Name of the first metric. None means `l0`, or `effective_l0` if the codes of
            a model in the table are never exactly zero.
        y: Name of the second metric.

    Returns:
        The rows of `table` on the front, sorted by `x`. Rows with missing values are
        left out.

    Example:

    >>> import pandas as pd
    >>> from keras_sae import evaluation
    >>> table = pd.DataFrame({"l0": [1, 2, 3], "reconstruction": [3, 1, 2]})
    >>> evaluation.pareto_front(table)["l0"].tolist()
    [1, 2]
    """
    x = x or sparsity_metric(table)
    rows = table.dropna(subset=[x, y]).sort_values([x, y])
    best = rows[y].cummin()
    sparsest = rows[x].groupby(best).transform("min")
    return rows[(rows[y] == best) & (rows[x] == sparsest)]


def sparsity_metric(table: "pd.DataFrame") -> str:
    """Return the name of the column that measures how sparse the models' codes are.

    It is `effective_l0` if the codes of a model are never exactly zero, and `l0`
    otherwise.
    """
    if not {"l0", "effective_l0"} <= set(table.columns):
        return "effective_l0" if "effective_l0" in table.columns else "l0"
    is_never_zero = table["l0"] >= _ALL_UNITS * table.get("units", float("inf"))
    if "expected_l0" in table.columns:
        is_never_zero |= table["expected_l0"].notna()
    return "effective_l0" if is_never_zero.any() else "l0"
