"""Many small pictures as one PNG: a sheet that the page cuts its tiles from."""

import base64
import io
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

# Longest side of a tile; what is larger is averaged down.
_SIDE, _STRIP = 48, 256
_PLUS, _MINUS = (217, 119, 6), (59, 130, 246)


@dataclass(frozen=True)
class Sheet:
    """A PNG of equal tiles, `columns` a row, and how wide to show one.

    Args:
        url: A `data:` URL.
        columns: Tiles a row.
        rows: Rows of tiles.
        aspect: Width of a tile over its height, as shown.
    """

    url: str
    columns: int
    rows: int
    aspect: float


def inputs(samples: np.ndarray, low: float, high: float) -> Sheet:
    """A sheet of samples, black at `low` and white at `high`.

    Vectors have no picture of their own: they are strips, blue below zero and
    orange above.
    """
    images = _images(samples)
    if images.ndim == 3 and images.shape[1] == 1:
        return _sheet(_signed(images, max(abs(low), abs(high))))
    grey = np.clip((images - low) / ((high - low) or 1.0), 0.0, 1.0)
    return _sheet(np.round(255 * grey).astype("uint8"))


def atoms(values: np.ndarray) -> Sheet:
    """A sheet of filters, each on its own scale: orange adds, blue takes away.

    What is zero is transparent, so that it is the page's background in light and
    dark. Filters of three channels keep their colours, with zero at mid-grey.
    """
    images = _images(values)
    largest = np.abs(images).reshape(len(images), -1).max(axis=1)
    scale = np.where(largest > 0, largest, 1.0).reshape(-1, *[1] * (images.ndim - 1))
    if images.ndim == 4:
        colours = 127.5 * (1 + images / scale)
        return _sheet(np.round(colours).astype("uint8"))
    return _sheet(_signed(images / scale, 1.0))


def _images(samples: np.ndarray) -> np.ndarray:
    """`(samples, height, width)`, or with three channels; vectors are one row."""
    samples = np.asarray(samples, "float64")
    if samples.ndim == 4 and samples.shape[-1] not in (1, 3):
        samples = samples.mean(axis=-1)  # no colours: how strong it is on the whole
    if samples.ndim == 4 and samples.shape[-1] == 1:
        samples = samples[..., 0]
    if samples.ndim not in (3, 4):
        samples = samples.reshape(len(samples), 1, -1)
    strip = samples.shape[1] == 1
    for axis in (1, 2):
        samples = _averaged(samples, axis, _STRIP if strip else _SIDE)
    return samples


def _averaged(samples: np.ndarray, axis: int, most: int) -> np.ndarray:
    """Neighbours along an axis averaged until `most` are left."""
    length = samples.shape[axis]
    if length <= most:
        return samples
    starts = np.linspace(0, length, most, endpoint=False).astype(int)
    counts = np.diff([*starts, length])
    shape = [-1 if i == axis else 1 for i in range(samples.ndim)]
    return np.add.reduceat(samples, starts, axis=axis) / counts.reshape(shape)


def _signed(values: np.ndarray, limit: float) -> np.ndarray:
    """RGBA: the sign is the hue, the magnitude the opacity."""
    strength = np.clip(np.abs(values) / (limit or 1.0), 0.0, 1.0)
    hue = np.where((values > 0)[..., None], _PLUS, _MINUS)
    opacity = np.round(255 * strength)[..., None]
    return np.concatenate([hue, opacity], axis=-1).astype("uint8")


def _sheet(tiles: np.ndarray) -> Sheet:
    """Tiles of shape `(count, height, width)`, with channels or without."""
    count, height, width = tiles.shape[:3]
    columns = max(1, min(count, round(math.sqrt(count * height / width))))
    rows = math.ceil(count / columns)
    blank = np.zeros((rows * columns, *tiles.shape[1:]), "uint8")
    blank[:count] = tiles
    grid = blank.reshape(rows, columns, *tiles.shape[1:]).swapaxes(1, 2)
    sheet = grid.reshape(rows * height, columns * width, *tiles.shape[3:])
    aspect = min(max(width / height, 0.25), 4.0)
    return Sheet(_png(sheet), columns, rows, aspect)


def _png(pixels: np.ndarray) -> Any:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")
