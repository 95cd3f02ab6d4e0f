"""Plots of activations, of learning curves, and of error against sparsity."""

import textwrap
from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator

from keras_sae import evaluation
from keras_sae.evaluation.comparison import sparsity_metric
from keras_sae.plots.figure import ACCENT, BASE, COLORS, INK, MARKERS, MUTED, Figure
from keras_sae.plots.logs import (
    LOGARITHMIC,
    History,
    Logs,
    axis_limits,
    logged_metrics,
    metric_label,
    read_logs,
)
from keras_sae.types import ArrayLike

_OVERLAY = 4  # maximum number of models whose curves share a panel
# Prefix in the logs, and line style.
_KINDS = {"training": ("", "--"), "validation": ("val_", "-")}
# Number of columns, and width and height of a panel in inches: for panels that show all
# models, and for panels that highlight one of them.
_SHARED, _SEPARATE = (3, 3.3, 2.3), (6, 2.0, 1.4)
_LABEL_LETTERS = 22  # characters per line of a vertical label
# Possible positions of a name relative to a marker: distances in typographic points,
# and directions.
_DISTANCES = (6, 14, 24)
_DIRECTIONS = np.array(
    [(1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1)]
)


def activations(
    codes: ArrayLike | Mapping[str, ArrayLike],
    target: float | Mapping[str, float | None] | None = None,
) -> Figure:
    """Plot the distribution of activations, and the mean activation of each unit.

    The histogram counts the non-zero activations on a logarithmic axis. The second
    panel shows whether all units are used or only a few.

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
    ['value of a non-zero activation', 'units, in order of their mean activation']
    """
    named = codes if isinstance(codes, Mapping) else {"code": codes}
    targets = target if isinstance(target, Mapping) else dict.fromkeys(named, target)
    figure = Figure(8.5, 1.6 * len(named) + 0.7)
    panels = figure.subplots(len(named), 2, squeeze=False)
    for (left, right), (name, code) in zip(panels, named.items(), strict=True):
        values = np.asarray(code)
        values = values.reshape(-1, values.shape[-1])
        active = values[values != 0]
        if active.size:  # an empty histogram cannot have a logarithmic axis
            left.stairs(*np.histogram(active, bins=50), fill=True, color=BASE)
            left.set_yscale("log")
        zeros = 1 - active.size / values.size
        left.set_title(f"{name}: {zeros:.0%} of activations are zero", fontsize=9)
        left.set_ylabel("number")
        means = np.sort(values.mean(axis=0))[::-1]
        right.stairs(means, np.arange(len(means) + 1) + 0.5, fill=True, color=BASE)
        right.set_xlim(0.5, len(means) + 0.5)
        alive = int((values != 0).any(axis=0).sum())
        title = f"{name}: {alive} of {len(means)} units are active at least once"
        right.set_title(title, fontsize=9)
        right.set_ylabel("mean activation")
        aim = targets.get(name)
        if aim is not None:
            right.axhline(aim, color=ACCENT)
            right.annotate(
                f"target\n{aim:g}",
                (1, aim),
                (4, 0),
                xycoords=right.get_yaxis_transform(),
                textcoords="offset points",
                va="center",
                color=ACCENT,
                fontsize=8,
            )
    panels[-1, 0].set_xlabel("value of a non-zero activation")
    panels[-1, 1].set_xlabel("units, in order of their mean activation")
    return figure


def history(history: History | Mapping[str, History]) -> Figure:
    """Plot learning curves.

    Validation curves are solid, and training curves are dashed. A validation loss that
    rises while the training loss falls is a sign of overfitting. Up to four models
    share one panel per metric. With more models, each model has its own panel per
    metric, which shows the other models in gray.

    The first values of a loss are often many times larger than all others. The limits
    of the vertical axis therefore ignore the first tenth of the epochs.

    Args:
        history: The return value of `fit`, its `history` attribute, or a dict that maps
            model names to either of them.

    Returns:
        A `matplotlib.figure.Figure` with one panel per logged metric, or one per model
        and metric.

    Raises:
        ValueError: `history` has no logs.

    Example:

    >>> from keras_sae import plots
    >>> figure = plots.history({"loss": [2.0, 1.0], "val_loss": [2.5, 1.5]})
    >>> [axes.get_title() for axes in figure.axes]
    ['total loss']
    """
    named = read_logs(history)
    metrics = logged_metrics(named.values())
    if not metrics:
        raise ValueError(
            "`history` must have the logs of at least one epoch. "
            f"Received: {history!r}."
        )
    is_shared = len(named) <= _OVERLAY
    columns, width, height = _SHARED if is_shared else _SEPARATE
    keys = {key for logs in named.values() for key in logs}
    entries = {
        kind: Line2D([], [], color=INK, ls=style)
        for kind, (prefix, style) in _KINDS.items()
        if any(prefix + metric in keys for metric in metrics)
    }
    if is_shared:
        columns = min(columns, len(metrics))
        colors = dict(zip(named, COLORS, strict=False))
        if "" not in named:
            entries |= {n: Line2D([], [], color=c, lw=3) for n, c in colors.items()}
        groups = [[(metric, "") for metric in metrics]]
    else:
        colors = dict.fromkeys(named, MUTED)
        entries["other models"] = Line2D([], [], color=MUTED)
        groups = [
            [
                (metric, name)
                for name in named
                if metric in logged_metrics([named[name]])
            ]
            for metric in metrics
        ]
    rows = [g[i : i + columns] for g in groups for i in range(0, len(g), columns)]
    width = width * columns + 0.5
    per_row = max(1, int(width / (0.6 + 0.075 * max(map(len, entries)))))
    lines = -(-len(entries) // per_row)
    figure = Figure(width, height * len(rows) + 0.2 * lines + 0.4)
    figure.supxlabel("epoch", fontsize=9)
    axes = figure.subplots(len(rows), columns, squeeze=False)
    for row, panels in zip(axes, rows, strict=True):
        for ax in row[len(panels) :]:
            ax.remove()
        for ax, (metric, shown) in zip(row, panels, strict=False):
            for name, logs in named.items():
                color = BASE if name == shown else colors[name]
                _draw_logs(ax, metric, logs, color)
            limits, is_logarithmic = axis_limits(metric, named.values())
            ax.set_yscale("log" if is_logarithmic else "linear")
            ax.set_ylim(limits)
            ax.autoscale(axis="x")
            ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
            ax.tick_params(labelsize=8, labelleft=is_shared or ax is row[0])
            ax.set_title(shown or metric_label(metric), fontsize=9)
        if not is_shared:
            label = textwrap.fill(metric_label(panels[0][0]), _LABEL_LETTERS)
            row[0].set_ylabel(label, fontsize=8)
    figure.legend(
        list(entries.values()),
        list(entries),
        loc="outside upper left",
        ncols=per_row,
        frameon=False,
        fontsize=9,
    )
    return figure


def pareto(
    table: pd.DataFrame, x: str | None = None, y: str = "reconstruction"
) -> Figure:
    """Plot the error of models against their sparsity, with the Pareto front.

    Sparser codes tend to reconstruct worse, so one number cannot rank models. The
    Pareto front connects the rows that `keras_sae.evaluation.pareto_front` returns.

    Args:
        table: A `pandas.DataFrame` with the columns `x` and `y`, such as the output of
            `keras_sae.evaluation.compare`. If it has a column `model`, the points are
            labeled with the models' names.
        x: Column of the horizontal axis, where smaller is better. None means `"l0"`, or
            `"effective_l0"` if the codes of a model in the table are never exactly
            zero.
        y: Column of the vertical axis, where smaller is better.

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
    figure = Figure(7.2, 4.6)
    ax = figure.subplots()
    rows = table.dropna(subset=[x, y])
    front = evaluation.pareto_front(rows, x, y)
    ax.step(front[x], front[y], where="post", color=MUTED, lw=1.5, zorder=1)
    names = rows["model"] if "model" in rows else np.full(len(rows), "")
    groups = {}
    for index, (name, group) in enumerate(rows.groupby(names, sort=False)):
        color, marker = COLORS[index % len(COLORS)], MARKERS[index % len(MARKERS)]
        ax.scatter(group[x], group[y], s=32, c=color, marker=marker, zorder=3)
        if name:
            groups[str(name)] = group[[x, y]].to_numpy("float64")
    low, high = rows[x].min(), rows[x].max()
    if low > 0 and high > LOGARITHMIC * low:
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        ax.xaxis.set_major_formatter("{x:g}")
        ax.xaxis.set_minor_formatter("")
    ax.margins(0.08)
    ax.set_xlabel(metric_label(x))
    ax.set_ylabel(metric_label(y))
    ax.set_title(
        "Models further left are sparser, and models further down are more accurate.\n"
        "The gray line is the Pareto front: no other model beats the models on it.",
        fontsize=9,
        loc="left",
    )
    if len(groups) > 1 or len(rows) == len(groups):  # omit a name that all points share
        figure.draw_without_rendering()  # computes the layout
        _name_groups(ax, groups)
    return figure


def _draw_logs(ax: Axes, metric: str, logs: Logs, color: str) -> None:
    """Draw the curves of a metric. In gray, draw only the last one, as a thin line."""
    keys = [(prefix + metric, style) for prefix, style in _KINDS.values()]
    keys = [(key, style) for key, style in keys if key in logs]
    is_gray = color == MUTED
    for key, style in keys[-1:] if is_gray else keys:
        epochs = np.arange(1, len(logs[key]) + 1)
        line = Line2D(epochs, np.asarray(logs[key], "float64"), color=color, ls=style)
        if is_gray:
            line.set(linestyle="-", linewidth=0.6, zorder=1.9)
        line.set_marker("o" if len(epochs) == 1 else "")
        ax.add_line(line)


def _name_groups(ax: Axes, groups: Mapping[str, np.ndarray]) -> None:
    """Write the name of each group of points next to one of its points.

    Each name is placed where it covers the fewest points and other names.
    """
    frame, scale = ax.get_window_extent(), ax.figure.dpi / 72
    pixels = {name: ax.transData.transform(points) for name, points in groups.items()}
    points = np.concatenate(list(pixels.values()))
    radius = 4 * scale
    taken = np.concatenate([points - radius, points + radius], axis=1)
    for name, own in pixels.items():
        text = ax.annotate(
            name,
            groups[name][0],
            (0, 0),
            textcoords="offset points",
            arrowprops={"arrowstyle": "-", "color": MUTED, "lw": 0.6, "shrinkA": 0},
            fontsize=8,
            color=INK,
        )
        box = text.get_window_extent()
        size = np.array([box.width, box.height])
        # All combinations of a point, a distance and a direction.
        moves = np.array([r * scale * d for r in _DISTANCES for d in _DIRECTIONS])
        signs = np.tile(_DIRECTIONS, (len(_DISTANCES), 1))
        corners = (own[:, None] + moves + size * (signs - 1) / 2).reshape(-1, 2)
        ends = corners + size
        covers = (corners[:, None] < taken[:, 2:]) & (ends[:, None] > taken[:, :2])
        cost = covers.all(axis=-1).sum(axis=1)
        inside = (corners >= frame.min) & (ends <= frame.max)
        best = np.argmin(cost + 100 * ~inside.all(axis=1))
        point = best // len(moves)
        text.xy = groups[name][point]
        text.set_position((corners[best] - own[point]) / scale)
        taken = np.append(taken, [[*corners[best], *ends[best]]], axis=0)
