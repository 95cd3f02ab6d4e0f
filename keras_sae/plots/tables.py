"""Pictures of a table of models."""

from typing import Any

from keras_sae import evaluation
from keras_sae.plots import _canvas


def pareto(table: Any, x: str = "l0", y: str = "reconstruction") -> Any:
    """Draws models by sparsity and error, and the front that no other model beats.

    Args:
        table: A `pandas.DataFrame` with the columns `x` and `y`, smaller is
            better in both, and perhaps `model`, which names the points.
        x: Column of the horizontal axis. Of `"l0"` a row without one takes its
            `expected_l0`, as codes that are never exactly zero have.
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
    if x == "l0" and "expected_l0" in table:
        table = table.assign(l0=evaluation.active_units(table))
    missing = [name for name in (x, y) if name not in table.columns]
    if missing:
        raise ValueError(
            f"`table` must have the columns {x!r} and {y!r}. Received columns: "
            f"{', '.join(map(str, table.columns))}; missing: {', '.join(missing)}."
        )
    figure = _canvas.figure(6.4, 4.2)
    ax = figure.subplots()
    rows = table.dropna(subset=[x, y]).sort_values([x, y])
    groups = (
        rows.groupby("model", sort=False) if "model" in rows else [("models", rows)]
    )
    for colour, (name, group) in zip(_canvas.cycle(len(groups)), groups, strict=True):
        ax.scatter(group[x], group[y], color=colour, label=str(name), zorder=3)
    front = rows[rows[y] <= rows[y].cummin()]
    ax.step(
        front[x], front[y], where="post", color=_canvas.INK, lw=1, label="Pareto front"
    )
    ax.set_xlabel(x)
    ax.set_ylabel(y)
    ax.set_title("Reconstruction against sparsity", fontsize=10)
    ax.legend(frameon=False, fontsize=8)
    return figure
