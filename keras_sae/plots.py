"""Figures that a person looks at. Each function returns a matplotlib `Figure`.

No global state of pyplot is touched: save with `figure.savefig(path)`; in a
notebook the returned figure is shown.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

_INK, _ACCENT, _MUTED = "#1f2933", "#c2410c", "#3b6ea5"
# Small beside the reach of a sigmoid, large beside float32's rounding.
_STEP = 0.05
_COLOURS = [
    "#3b6ea5",
    "#c2410c",
    "#4d7c3a",
    "#7a4fa3",
    "#a16207",
    "#0f766e",
    "#be185d",
    "#64748b",
    "#84cc16",
    "#06b6d4",
]


def filters(model: Any, count: int = 64, columns: int = 16) -> Any:
    """Draws what each unit adds to the reconstruction, as an image.

    For unit `j` that is `(decode(s e_j) - decode(0)) / s` with a small step `s`,
    which an output activation does not saturate: its atom in a shallow model.
    Each image has its own scale, grey is zero.

    Args:
        model: A `keras_sae.models.Autoencoder`, or a dict from names to models,
            one block a model.
        count: Most units to draw, the first ones.
        columns: Images a row.

    Returns:
        A `matplotlib.figure.Figure`.

    Example:

    >>> from keras_sae import models, plots
    >>> figure = plots.filters(models.shallow((4, 4, 1), 8))
    >>> len(figure.axes)
    8
    """
    blocks = {name: _atoms(m)[:count] for name, m in _named(model).items()}
    rows = {name: math.ceil(len(a) / columns) for name, a in blocks.items()}
    columns = min(columns, max(len(a) for a in blocks.values()))
    figure = _figure(columns * 0.6 + 0.4, sum(rows.values()) * 0.62 + 0.5 * len(rows))
    parts = np.atleast_1d(
        figure.subfigures(len(blocks), 1, height_ratios=list(rows.values()))
    )
    for part, (name, atoms) in zip(parts, blocks.items(), strict=True):
        title = f"{name}: what each unit adds to the reconstruction"
        part.suptitle(title, fontsize=9, color=_INK)
        for axes, atom in _grid(part, rows[name], columns, list(atoms)):
            limit = float(np.abs(atom).max()) or 1.0
            _image(axes, atom, -limit, limit)
    return figure


def reconstructions(model: Any, x: Any, count: int = 12) -> Any:
    """Draws samples above their reconstructions, one row a model.

    Args:
        model: A `keras_sae.models.Autoencoder`, or a dict from names to models.
        x: Array of shape `(samples, *input_shape)`; the first ones are drawn.
        count: Samples to draw.

    Returns:
        A `matplotlib.figure.Figure`.

    Example:

    >>> import numpy as np
    >>> from keras_sae import models, plots
    >>> x = np.random.default_rng(0).random((3, 4, 4, 1), dtype="float32")
    >>> len(plots.reconstructions(models.shallow((4, 4, 1), 8), x).axes)
    6
    """
    x = np.asarray(x)[:count]
    rows = {"input": x}
    rows |= {name: m.decode(m.encode(x)) for name, m in _named(model).items()}
    low, high = float(x.min()), float(x.max())
    figure = _figure(len(x) * 0.75 + 1.5, len(rows) * 0.8 + 0.5)
    axes = np.atleast_2d(figure.subplots(len(rows), len(x), squeeze=False))
    for line, (name, images) in zip(axes, rows.items(), strict=True):
        line[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9)
        for ax, image in zip(line, images, strict=True):
            _image(ax, image, low, high)
    figure.suptitle("Inputs and their reconstructions", fontsize=10)
    return figure


def samples(model: Any, count: int = 60, columns: int = 15, seed: int = 0) -> Any:
    """Draws what a variational model makes of codes drawn from its prior.

    Args:
        model: What `keras_sae.models.variational` returns.
        count: Samples to draw.
        columns: Images a row.
        seed: Draws the codes.

    Returns:
        A `matplotlib.figure.Figure`.

    Example:

    >>> from keras_sae import models, plots
    >>> model = models.variational((4, 4, 1), 8, latent_dim=2)
    >>> len(plots.samples(model, count=6).axes)
    6
    """
    images = np.asarray(model.sample(count, seed=seed))
    columns = min(columns, count)
    return _sheet(images, columns, "Samples: decoded draws from the prior")


def latent_plane(model: Any, x: Any, steps: int = 11, reach: float = 2.0) -> Any:
    """Draws a walk through the two dimensions of the code that vary the most.

    Those are the two whose mean varies most over `x`; the others rest at zero, the
    prior's mean. Both run from `-reach` to `reach` standard deviations of the prior.

    Args:
        model: What `keras_sae.models.variational` returns, `latent_dim` at least 2.
        x: Array of shape `(samples, *input_shape)`.
        steps: Images a side.
        reach: Standard deviations to either side.

    Returns:
        A `matplotlib.figure.Figure`.

    Example:

    >>> import numpy as np
    >>> from keras_sae import models, plots
    >>> model = models.variational((4, 4, 1), 8, latent_dim=3)
    >>> len(plots.latent_plane(model, np.ones((5, 4, 4, 1)), steps=3).axes)
    9
    """
    means = model.encode(np.asarray(x))
    down, across = np.sort(np.argsort(means.var(axis=0))[-2:])
    walk = np.linspace(-reach, reach, steps)
    codes = np.zeros((steps * steps, means.shape[1]), "float32")
    codes[:, down] = np.repeat(walk[::-1], steps)
    codes[:, across] = np.tile(walk, steps)
    title = f"Latent plane: dimension {across} across, {down} upwards"
    return _sheet(model.decode(codes), steps, title)


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
    figure = _figure(8.5, 2.4 * len(named) + 0.3)
    axes = figure.subplots(len(named), 2, squeeze=False)
    for (left, right), (name, values) in zip(axes, named.items(), strict=True):
        values = np.asarray(values)
        zero = float((values == 0).mean())
        if zero < 1:  # a logarithmic axis needs something to count
            left.hist(values[values != 0], bins=50, color=_MUTED)
            left.set_yscale("log")
        left.set_title(f"{name}: {zero:.0%} are exactly zero", fontsize=9)
        left.set_xlabel("activation")
        left.set_ylabel("how many, not zero")
        means = np.sort(values.mean(axis=0))[::-1]
        right.bar(np.arange(len(means)), means, width=1.0, color=_MUTED)
        right.set_title(f"{name}: mean activation of each unit", fontsize=9)
        right.set_xlabel("unit, by its mean")
        right.set_ylabel("mean activation")
        if targets.get(name) is not None:
            right.axhline(
                targets[name], color=_ACCENT, label=f"target {targets[name]:g}"
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
    figure = _figure(3.4 * columns + 0.4, 2.5 * rows + 0.5)
    for ax, panel in _grid(figure, rows, columns, panels):
        for colour, (name, logs) in zip(_cycle(len(named)), named.items(), strict=True):
            for key, style in ((panel, "-"), (f"val_{panel}", "--")):
                if key in logs:
                    epochs = np.arange(1, len(logs[key]) + 1)
                    kind = "validation" if key != panel else "training"
                    label = f"{name} ({kind})" if name else kind
                    ax.plot(epochs, logs[key], style, color=colour, label=label)
        ax.set_title(panel, fontsize=9)
        ax.set_xlabel("epoch")
    lines = {label: line for ax in figure.axes for line, label in _labelled(ax)}
    figure.legend(
        list(lines.values()),
        list(lines),
        loc="outside lower center",
        ncols=4,
        frameon=False,
        fontsize=8,
    )
    return figure


def pareto(table: Any, x: str = "l0", y: str = "reconstruction") -> Any:
    """Draws models by sparsity and error, and the front that no other model beats.

    Args:
        table: A `pandas.DataFrame` with the columns `x` and `y`, smaller is
            better in both, and perhaps `model`, which names the points.
        x: Column of the horizontal axis.
        y: Column of the vertical axis.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        ValueError: A column is missing.

    Example:

    >>> import pandas as pd
    >>> from keras_sae import plots
    >>> table = pd.DataFrame({"l0": [1, 2, 3], "reconstruction": [3, 1, 2]})
    >>> plots.pareto(table).axes[0].get_xlabel()
    'l0'
    """
    missing = [name for name in (x, y) if name not in table.columns]
    if missing:
        raise ValueError(
            f"`table` must have the columns {x!r} and {y!r}. Received columns: "
            f"{', '.join(map(str, table.columns))}; missing: {', '.join(missing)}."
        )
    figure = _figure(6.4, 4.2)
    ax = figure.subplots()
    rows = table.dropna(subset=[x, y]).sort_values([x, y])
    groups = (
        rows.groupby("model", sort=False) if "model" in rows else [("models", rows)]
    )
    for colour, (name, group) in zip(_cycle(len(groups)), groups, strict=True):
        ax.scatter(group[x], group[y], color=colour, label=str(name), zorder=3)
    front = rows[rows[y] <= rows[y].cummin()]
    ax.step(front[x], front[y], where="post", color=_INK, lw=1, label="Pareto front")
    ax.set_xlabel(x)
    ax.set_ylabel(y)
    ax.set_title("Reconstruction against sparsity", fontsize=10)
    ax.legend(frameon=False, fontsize=8)
    return figure


def _figure(width: float, height: float) -> Any:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained", dpi=120)


def _sheet(images: np.ndarray, columns: int, title: str) -> Any:
    """A grid of images on one scale."""
    rows = math.ceil(len(images) / columns)
    figure = _figure(columns * 0.6 + 0.4, rows * 0.6 + 0.5)
    low, high = float(images.min()), float(images.max())
    for axes, image in _grid(figure, rows, columns, list(images)):
        _image(axes, image, low, high)
    figure.suptitle(title, fontsize=10)
    return figure


def _named(model: Any) -> Mapping[str, Any]:
    return model if isinstance(model, Mapping) else {model.name: model}


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


def _cycle(count: int) -> list[str]:
    return [_COLOURS[i % len(_COLOURS)] for i in range(count)]


def _grid(figure: Any, rows: int, columns: int, items: Sequence[Any]) -> Any:
    """Yields (axes, item); axes that nothing is drawn in are removed."""
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for unused in axes[len(items) :]:
        unused.remove()
    return zip(axes, items, strict=False)


def _atoms(model: Any) -> np.ndarray:
    units = int(model.decoder.input_shape[-1])
    points = np.concatenate([np.zeros((1, units)), _STEP * np.eye(units)])
    images = model.decode(points.astype("float32"))
    return (images[1:] - images[:1]) / _STEP


def _image(axes: Any, values: np.ndarray, low: float, high: float) -> None:
    image = np.squeeze(values)
    side = math.isqrt(image.size)
    if image.ndim == 1:  # a vector: a square if it can be one, else a strip
        image = image.reshape((side, side) if side * side == image.size else (1, -1))
    if image.ndim == 3:
        image = np.clip((image - low) / (high - low or 1), 0, 1)
    axes.imshow(image, cmap="gray", vmin=low, vmax=high)
    axes.set_xticks([])
    axes.set_yticks([])
