"""Activations of a code, and the logs of a fit."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_sae.plots import _canvas

# What a label such as "stacked, greedy (validation)" takes in a legend.
_LABEL_INCHES, _LEGEND_ROW_INCHES = 2.5, 0.18


def activations(codes: Any, target: Any = None) -> Any:
    """Draws how strongly units fire, and the mean activation of every unit.

    Args:
        codes: Array of shape `(samples, units)`, or a dict from names to such.
        target: Mean activation aimed at, drawn as a line; or a dict from names.

    Returns:
        A `matplotlib.figure.Figure`.

    Example:

    >>> import numpy as np
    >>> from keras_sae import plots
    >>> figure = plots.activations(np.eye(4), target=0.05)
    >>> [axes.get_xlabel() for axes in figure.axes]
    ['activation', 'unit, by its mean']
    """
    named = codes if isinstance(codes, Mapping) else {"code": codes}
    targets = target if isinstance(target, Mapping) else dict.fromkeys(named, target)
    figure = _canvas.figure(8.5, 2.4 * len(named) + 0.3)
    axes = figure.subplots(len(named), 2, squeeze=False)
    for (left, right), (name, values) in zip(axes, named.items(), strict=True):
        values = np.asarray(values)
        zero = float((values == 0).mean())
        if zero < 1:  # a logarithmic axis needs something to count
            left.hist(values[values != 0], bins=50, color=_canvas.MUTED)
            left.set_yscale("log")
        left.set_title(f"{name}: {zero:.0%} are exactly zero", fontsize=9)
        left.set_xlabel("activation")
        left.set_ylabel("how many, not zero")
        means = np.sort(values.mean(axis=0))[::-1]
        right.bar(np.arange(len(means)), means, width=1.0, color=_canvas.MUTED)
        right.set_title(f"{name}: mean activation of each unit", fontsize=9)
        right.set_xlabel("unit, by its mean")
        right.set_ylabel("mean activation")
        if targets.get(name) is not None:
            right.axhline(
                targets[name], color=_canvas.ACCENT, label=f"target {targets[name]:g}"
            )
            right.legend(frameon=False)
    return figure


def history(history: Any) -> Any:
    """Draws the logs of a fit over its epochs, training and validation together.

    Args:
        history: What `fit` returned, its `.history`, or a dict from names to
            such, a line each.

    Returns:
        A `matplotlib.figure.Figure`, one panel a figure of the logs.

    Example:

    >>> from keras_sae import plots
    >>> figure = plots.history({"loss": [2.0, 1.0], "val_loss": [2.5, 1.5]})
    >>> [axes.get_title() for axes in figure.axes]
    ['loss']
    """
    named = _histories(history)
    panels = list(
        dict.fromkeys(
            key.removeprefix("val_")
            for logs in named.values()
            for key in logs
            if key != "learning_rate"
        )
    )
    columns = min(3, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure = _canvas.figure(3.4 * columns + 0.4, 2.5 * rows + 0.5)
    for ax, panel in _canvas.grid(figure, rows, columns, panels):
        for colour, (name, logs) in zip(
            _canvas.cycle(len(named)), named.items(), strict=True
        ):
            for key, style in ((panel, "-"), (f"val_{panel}", "--")):
                if key in logs:
                    epochs = np.arange(1, len(logs[key]) + 1)
                    kind = "validation" if key != panel else "training"
                    label = f"{name} ({kind})" if name else kind
                    ax.plot(epochs, logs[key], style, color=colour, label=label)
        ax.set_title(panel, fontsize=9)
        ax.set_xlabel("epoch")
    _legend(figure)
    return figure


def _legend(figure: Any) -> None:
    """Names the lines of all panels below them; a long legend makes room for itself."""
    lines = {label: line for ax in figure.axes for line, label in _labelled(ax)}
    width, height = figure.get_size_inches()
    columns = max(1, min(4, int(width / _LABEL_INCHES)))
    extra_rows = math.ceil(len(lines) / columns) - 1
    figure.set_size_inches(width, height + extra_rows * _LEGEND_ROW_INCHES)
    figure.legend(
        list(lines.values()),
        list(lines),
        loc="outside lower center",
        ncols=columns,
        frameon=False,
        fontsize=8,
    )


def _histories(history: Any) -> dict[str, Mapping[str, Sequence[float]]]:
    logs = getattr(history, "history", history)
    if not all(
        isinstance(v, (Mapping, keras.callbacks.History)) for v in logs.values()
    ):
        return {"": logs}
    return {name: getattr(v, "history", v) for name, v in logs.items()}


def _labelled(axes: Any) -> Any:
    """The lines of one panel with their labels; no panel has those of all."""
    return zip(*axes.get_legend_handles_labels(), strict=True)
