"""What every picture is drawn on: figures, grids of axes, images, colours."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

INK, ACCENT, MUTED = "#1f2933", "#c2410c", "#3b6ea5"
COLOURS = [
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
    "#111827",
    "#f472b6",
]


_TITLE = 0.35  # inches


def figure(width: float, height: float) -> Any:
    from keras_sae.plots._picture import Picture

    return Picture(figsize=(width, height), layout="constrained", dpi=120)


def grid(
    figure: Any, rows: int, columns: int, items: Sequence[Any], **kwargs: Any
) -> list[tuple[Any, Any]]:
    """Returns (axes, item); axes that nothing is drawn in are removed."""
    axes = figure.subplots(rows, columns, squeeze=False, **kwargs).ravel()
    for unused in axes[len(items) :]:
        unused.remove()
    return list(zip(axes, items, strict=False))


def sheet(
    figure: Any, rows: int, columns: int, items: Sequence[Any]
) -> list[tuple[Any, Any]]:
    """Returns (axes, item) for images close together below a title.

    They have nothing beside them, so their places are known. To look for them would
    take longer than to draw.
    """
    top = 1 - _TITLE * figure.dpi / figure.bbox.height
    places = {"left": 0.01, "right": 0.99, "bottom": 0.02, "top": max(top, 0.5)}
    gaps = {"wspace": 0.12, "hspace": 0.12}
    found = grid(figure, rows, columns, items, gridspec_kw=places | gaps)
    for axes, _ in found:
        axes.set_in_layout(False)
    return found


def image(axes: Any, values: np.ndarray, low: float, high: float) -> None:
    image, aspect = np.squeeze(values), "equal"
    side = math.isqrt(image.size)
    if image.ndim == 1 and side * side == image.size:
        image = image.reshape(side, side)
    elif image.ndim == 1:  # bars as high as the place allows
        image, aspect = image[None], "auto"
    if image.ndim == 3:
        image = np.clip((image - low) / (high - low or 1), 0, 1)
    axes.imshow(image, cmap="gray", vmin=low, vmax=high, aspect=aspect)
    axes.set_xticks([])
    axes.set_yticks([])


def named(model: Any) -> Mapping[str, Any]:
    return model if isinstance(model, Mapping) else {model.name: model}


def cycle(count: int) -> list[str]:
    return [COLOURS[i % len(COLOURS)] for i in range(count)]
