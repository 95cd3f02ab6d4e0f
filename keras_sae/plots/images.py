"""Pictures of a model's units and of its reconstructions."""

import math
from typing import Any

import numpy as np

from keras_sae.plots import _canvas


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
    named = _canvas.named(model)
    blocks = {name: m.dictionary()[:count] for name, m in named.items()}
    rows = {name: math.ceil(len(a) / columns) for name, a in blocks.items()}
    columns = min(columns, max(len(a) for a in blocks.values()))
    figure = _canvas.figure(
        columns * 0.6 + 0.4, sum(rows.values()) * 0.62 + 0.5 * len(rows)
    )
    parts = np.atleast_1d(
        figure.subfigures(len(blocks), 1, height_ratios=list(rows.values()))
    )
    for part, (name, atoms) in zip(parts, blocks.items(), strict=True):
        title = f"{name}: what each unit adds to the reconstruction"
        part.suptitle(title, fontsize=9, color=_canvas.INK)
        for axes, atom in _canvas.sheet(part, rows[name], columns, list(atoms)):
            limit = float(np.abs(atom).max()) or 1.0
            _canvas.image(axes, atom, -limit, limit)
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
    rows |= {name: m.decode(m.encode(x)) for name, m in _canvas.named(model).items()}
    low, high = float(x.min()), float(x.max())
    figure = _canvas.figure(len(x) * 0.75 + 1.5, len(rows) * 0.8 + 0.5)
    axes = np.atleast_2d(figure.subplots(len(rows), len(x), squeeze=False))
    for line, (name, images) in zip(axes, rows.items(), strict=True):
        line[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9)
        for ax, image in zip(line, images, strict=True):
            _canvas.image(ax, image, low, high)
    figure.suptitle("Inputs and their reconstructions", fontsize=10)
    return figure
