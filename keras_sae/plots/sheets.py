"""Sheets of small images or curves, arranged in blocks below titles."""

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes

from keras_sae.plots.figure import BASE, GROUND, MUTED, Figure
from keras_sae.types import ArrayLike
from keras_sae.utils.images import (
    as_images,
    as_series,
    enlarge,
    is_image,
    rescale,
    tile_sheet,
)

# Sizes in inches: the width of an image, of a curve and of a letter; the height of a
# curve, of a title and of a line of text; and the margin.
_IMAGE_WIDTH, _CURVE_WIDTH, _LETTER_WIDTH = 0.6, 1.0, 0.08
_CURVE_HEIGHT, _TITLE_HEIGHT, _LINE_HEIGHT, _MARGIN = 0.55, 0.28, 0.19, 0.08
_PAGE_WIDTH = 4.0  # minimum, in inches
# Images are enlarged until their longer side has about this number of pixels, so that
# edges stay sharp when matplotlib scales the sheet down.
_TILE_PIXELS = 128
# Maximum length of curves drawn as steps, and of curves drawn with a thick line.
_STEPS, _DENSE = 32, 128


def as_tiles(x: np.ndarray, low: ArrayLike, high: ArrayLike) -> np.ndarray:
    """Return samples as images or curves, with `low` mapped to 0 and `high` to 1.

    The limits are numbers, or arrays of shape `(samples,)`. Images have the shape
    `(samples, height, width, channels)`, and curves `(samples, length, channels)`.
    """
    tiles = as_images(x) if is_image(x.shape[1:]) else as_series(x)
    low, high = (np.reshape(v, (-1,) + (1,) * (tiles.ndim - 1)) for v in (low, high))
    return rescale(tiles, low, high)


def draw_sheets(
    heading: str,
    blocks: Mapping[str, np.ndarray],
    columns: int,
    row_names: Sequence[str] = (),
    row_notes: Sequence[str] = (),
    column_names: Sequence[str] = (),
    reference: ArrayLike | None = None,
) -> Figure:
    """Draw blocks of tiles, each below its title.

    Args:
        heading: Text above all blocks.
        blocks: Dict from titles to tiles, as returned by `as_tiles`.
        columns: Tiles per row.
        row_names: Text to the left of each row.
        row_notes: Text to the right of each row.
        column_names: Text below each column.
        reference: Curves or a constant to draw in gray behind all curves, or None.
    """
    sheets, sizes = [], []
    for tiles in blocks.values():
        rows = -(-len(tiles) // columns)
        width, height = columns * _CURVE_WIDTH, rows * _CURVE_HEIGHT
        if tiles.ndim == 4:
            tiles = enlarge(tiles, _TILE_PIXELS)
            width = columns * _IMAGE_WIDTH
            height = rows * _IMAGE_WIDTH * tiles.shape[1] / tiles.shape[2]
        sheets.append(tiles)
        sizes.append((width, height))
    widest, longest_title = max(sizes)[0], _LETTER_WIDTH * max(map(len, blocks))
    left, notes = (
        _LETTER_WIDTH * max(map(len, texts), default=0) + _MARGIN
        for texts in (row_names, row_notes)
    )
    page = max(left + max(widest + notes, longest_title) + _MARGIN, _PAGE_WIDTH)
    # The heading is not bold, so its letters are narrower than those of titles.
    letters = int((page - 2 * _MARGIN) / (0.85 * _LETTER_WIDTH))
    lines = textwrap.wrap(heading, letters)
    bottom = _MARGIN + _LINE_HEIGHT * len(lines) + _LINE_HEIGHT * bool(column_names)
    bottom += sum(height + _TITLE_HEIGHT for _, height in sizes) + _MARGIN
    figure = Figure(page, bottom)
    figure.set_layout_engine("none")  # all positions are set below
    scale = np.tile(figure.get_size_inches(), 2)
    top = 1 - _MARGIN / bottom
    figure.text(_MARGIN / page, top, "\n".join(lines), fontsize=9, va="top")
    bottom -= _MARGIN + _LINE_HEIGHT * len(lines)
    for title, tiles, (width, height) in zip(blocks, sheets, sizes, strict=True):
        bottom -= height + _TITLE_HEIGHT
        ax = figure.add_axes(tuple(np.array([left, bottom, width, height]) / scale))
        if tiles.ndim == 4:
            x, y = _draw_images(ax, tiles, columns)
        else:
            x, y = _draw_curves(ax, tiles, columns, reference)
        ax.set_title(title, fontsize=9, fontweight="bold", loc="left", pad=3)
        ax.spines[:].set_visible(False)
        ax.tick_params(length=0, labelsize=9)
        ax.set_xticks(x[: len(column_names)], column_names)
        ax.set_yticks(y[: len(row_names)], row_names)
        for position, note in zip(y, row_notes, strict=False):
            ax.annotate(
                note,
                (1, position),
                xytext=(5, 0),
                xycoords=ax.get_yaxis_transform(),
                textcoords="offset points",
                va="center",
                fontsize=9,
            )
    return figure


def _draw_images(
    ax: Axes, tiles: np.ndarray, columns: int
) -> tuple[np.ndarray, np.ndarray]:
    """Draw images, and return the centers of the columns and rows."""
    gap = _TILE_PIXELS // 8
    sheet = tile_sheet(tiles, columns, gap, 1.0)
    ax.imshow(sheet, cmap="gray", vmin=0.0, vmax=1.0, aspect="auto")
    pitches = np.array(tiles.shape[2:0:-1]) + gap
    x, y = ((np.arange(len(tiles)) + 0.5) * pitch - gap / 2 for pitch in pitches)
    return x, y


def _draw_curves(
    ax: Axes, tiles: np.ndarray, columns: int, reference: ArrayLike | None
) -> tuple[np.ndarray, np.ndarray]:
    """Draw curves, and return the centers of the columns and rows."""
    places, length = np.arange(len(tiles)), tiles.shape[1]
    row, column = np.divmod(places, columns)
    for i in range(row[-1] + 1):
        starts = column[row == i] + 0.02
        ax.broken_barh([(x, 0.88) for x in starts], (i + 0.04, 0.92), color=GROUND)
    is_short = length <= _STEPS
    steps = np.linspace(0.05, 0.87, length + is_short)
    if is_short:
        steps = steps.repeat(2)[1:-1]
    # NaN separates the curves of neighboring tiles.
    x = (column[:, None] + np.append(steps, np.nan)).ravel()
    thin = 1.0 if length <= _DENSE else 0.6
    layers = [(tiles, BASE, thin)]
    if reference is not None:
        layers.insert(0, (np.broadcast_to(reference, tiles.shape), MUTED, 2 * thin))
    for values, color, width in layers:
        for channel in np.moveaxis(values, -1, 0):
            y = channel.repeat(2, axis=1) if is_short else channel
            y = row[:, None] + 0.9 - 0.8 * np.pad(y, ((0, 0), (0, 1)))
            ax.plot(x, y.ravel(), color=color, lw=width)
    ax.set_xlim(0, columns)
    ax.set_ylim(row[-1] + 1, 0)
    return places + 0.46, places + 0.5
