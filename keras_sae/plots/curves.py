"""Plots of activations, learning curves, and the trade-off of error and sparsity."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import keras
import numpy as np
import pandas as pd

from keras_sae import evaluation
from keras_sae.evaluation.comparison import sparsity_metric
from keras_sae.plots.figure import ACCENT, BASE, COLORS, INK, Figure
from keras_sae.types import ArrayLike

History: TypeAlias = keras.callbacks.History | Mapping[str, Sequence[float]]

# Width of an entry such as "stacked, greedy (validation)" in a legend, and row height.
_ENTRY_INCHES, _ROW_INCHES = 2.5, 0.18
_AXIS_LABELS = {
    "l0": "active units per sample (L0)",
    "effective_l0": "effective number of active units per sample",
    "reconstruction": "mean squared error of the reconstruction",
}


def activations(
    codes: ArrayLike | Mapping[str, ArrayLike],
    target: float | Mapping[str, float | None] | None = None,
) -> Figure:
    """Plot the distribution of activations, and the mean activation of each unit.

    The histogram shows the non-zero activations on a logarithmic axis. The bars show
    whether all units are used or only a few.

    Args:
        codes: Array of shape `(samples, ..., units)`, or a dict that maps names to
            arrays.
        target: Target mean activation, drawn as a line, or a dict that maps names to
            targets. If None, no line is drawn.

    Returns:
        A `matplotlib.figure.Figure` with two panels per code.

    Example:

    >>> import numpy as np
    >>> from keras_sae import plots
    >>> figure = plots.activations(np.eye(4), target=0.05)
    >>> [axes.get_xlabel() for axes in figure.axes]
    ['activation', 'unit, in order of mean activation']
    """
    named = codes if isinstance(codes, Mapping) else {"code": codes}
    targets = target if isinstance(target, Mapping) else dict.fromkeys(named, target)
    figure = Figure(8.5, 2.4 * len(named) + 0.3)
    panels = figure.subplots(len(named), 2, squeeze=False)
    for (left, right), (name, code) in zip(panels, named.items(), strict=True):
        values = np.asarray(code)
        values = values.reshape(-1, values.shape[-1])
        active = values[values != 0]
        if active.size:  # an empty histogram cannot have a logarithmic axis
            left.hist(active, bins=50, color=BASE)
            left.set_yscale("log")
        zeros = 1 - active.size / values.size
        left.set_title(f"{name}: {zeros:.0%} of activations are zero", fontsize=9)
        left.set_xlabel("activation")
        left.set_ylabel("non-zero activations")
        means = np.sort(values.mean(axis=0))[::-1]
        right.bar(np.arange(len(means)), means, width=1.0, color=BASE)
        right.set_title(f"{name}: mean activation per unit", fontsize=9)
        right.set_xlabel("unit, in order of mean activation")
        right.set_ylabel("mean activation")
        aim = targets.get(name)
        if aim is not None:
            right.axhline(aim, color=ACCENT, label=f"target {aim:g}")
            right.legend(frameon=False)
    return figure


def history(history: History | Mapping[str, History]) -> Figure:
    """Plot learning curves: the training logs per epoch.

    Each panel shows the training metric as a solid line, and the validation metric as a
    dashed line of the same color. A validation loss that rises while the training loss
    falls is a sign of overfitting.

    Args:
        history: The return value of `fit`, its `history` attribute, or a dict that maps
            names to either.

    Returns:
        A `matplotlib.figure.Figure` with one panel per logged metric.

    Example:

    >>> from keras_sae import plots
    >>> figure = plots.history({"loss": [2.0, 1.0], "val_loss": [2.5, 1.5]})
    >>> [axes.get_title() for axes in figure.axes]
    ['loss']
    """
    given: Mapping[str, Any] = (
        history.history if isinstance(history, keras.callbacks.History) else history
    )
    named: dict[str, Mapping[str, Sequence[float]]] = {}
    for name, logs in given.items():
        if isinstance(logs, keras.callbacks.History):
            named[name] = logs.history
        elif isinstance(logs, Mapping):
            named[name] = logs
    named = named or {"": given}
    keys = [key.removeprefix("val_") for logs in named.values() for key in logs]
    metrics = [key for key in dict.fromkeys(keys) if key != "learning_rate"]
    columns = min(3, len(metrics))
    rows = math.ceil(len(metrics) / columns)
    figure = Figure(3.4 * columns + 0.4, 2.5 * rows + 0.5)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    lines = {}
    for ax, metric in zip(panels, metrics, strict=False):
        kinds = ("training", metric, "-"), ("validation", f"val_{metric}", "--")
        for index, (name, logs) in enumerate(named.items()):
            color = COLORS[index % len(COLORS)]
            for kind, key, style in kinds:
                if key in logs:
                    epochs = np.arange(1, len(logs[key]) + 1)
                    label = f"{name} ({kind})" if name else kind
                    [lines[label]] = ax.plot(epochs, logs[key], style, color=color)
        ax.set_title(metric.replace("_", " ").replace("l0", "L0"), fontsize=9)
        ax.set_xlabel("epoch")
    for unused in panels[len(metrics) :]:
        unused.remove()
    # One legend below all panels. A long legend makes the figure taller.
    width, height = figure.get_size_inches()
    entries = max(1, min(4, int(width / _ENTRY_INCHES)))
    extra_rows = math.ceil(len(lines) / entries) - 1
    figure.set_size_inches(width, height + extra_rows * _ROW_INCHES)
    layout: dict[str, Any] = {"loc": "outside lower center", "ncols": entries}
    figure.legend(lines.values(), lines, **layout, frameon=False, fontsize=8)
    return figure


def pareto(
    table: pd.DataFrame, x: str | None = None, y: str = "reconstruction"
) -> Figure:
    """Plot the error of models against their sparsity, with the Pareto front.

    Sparser codes reconstruct worse, so one number cannot rank models. The Pareto front
    connects the models that no other model beats on both metrics.

    Args:
        table: A `pandas.DataFrame` with the columns `x` and `y`, such as what
            `keras_sae.evaluation.compare` returns. A `model` column names the points.
        x: Column of the horizontal axis; smaller is better. None is `"l0"`, or
            `"effective_l0"` if a code of the table is never exactly zero.
        y: Column of the vertical axis; smaller is better.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        ValueError: A column is missing.

    Example:

    >>> import pandas as pd
    >>> from keras_sae import plots
    >>> table = pd.DataFrame({"l0": [1, 2, 3], "reconstruction": [3, 1, 2]})
    >>> plots.pareto(table).axes[0].get_xlabel()
    'active units per sample (L0)'
    """
    x = x or sparsity_metric(table)
    missing = [name for name in (x, y) if name not in table.columns]
    if missing:
        raise ValueError(
            f"`table` must have the columns {x!r} and {y!r}. Received columns: "
            f"{', '.join(map(str, table.columns))}; missing: {', '.join(missing)}."
        )
    figure = Figure(6.4, 4.2)
    ax = figure.subplots()
    rows = table.dropna(subset=[x, y])
    names = rows["model"] if "model" in rows else np.full(len(rows), "models")
    for index, (name, group) in enumerate(rows.groupby(names, sort=False)):
        color = COLORS[index % len(COLORS)]
        ax.scatter(group[x], group[y], color=color, label=str(name), zorder=3)
    front = evaluation.pareto_front(rows, x, y)
    ax.step(front[x], front[y], where="post", color=INK, lw=1, label="Pareto front")
    ax.set_xlabel(_AXIS_LABELS.get(x, x.replace("_", " ")))
    ax.set_ylabel(_AXIS_LABELS.get(y, y.replace("_", " ")))
    ax.set_title("Models and their Pareto front", fontsize=10)
    ax.legend(frameon=False, fontsize=8)
    return figure
