"""Sheets of small images: samples, filters and reconstructions side by side."""

import math

import numpy as np

from keras_sae.types import ArrayLike

# Vectors of at least this length are drawn as squares if possible, such as 8x8 digits.
_FLATTENED_IMAGE = 64
_STRIP_LENGTH = 4  # maximum length of a strip, as a multiple of `max_side`
_STRIP_ASPECT = 2  # length of an enlarged strip divided by its height


def as_images(x: ArrayLike, max_side: int | None = None) -> np.ndarray:
    """Return samples of any shape as images that can be drawn.

    Matrices become gray images. A vector becomes a strip one pixel high, or a square
    image if its length is a square number of at least 64, as for flattened MNIST.
    Unless there are one or three channels, they are averaged into one.

    Args:
        x: Array of shape `(samples, *sample_shape)`.
        max_side: Maximum side of an image in pixels; larger images are downsampled by
            averaging. Strips may be four times as long. If None, all pixels are kept.

    Returns:
        Array of shape `(samples, height, width, channels)` with 1 or 3 channels.
    """
    images = np.asarray(x, "float64")
    if images.ndim == 4 and images.shape[-1] not in (1, 3):
        images = images.mean(axis=-1)
    if images.ndim not in (3, 4):
        images = images.reshape(len(images), -1)
        length, side = images.shape[1], math.isqrt(images.shape[1])
        is_image = side * side == length and length >= _FLATTENED_IMAGE
        images = images.reshape(len(images), side if is_image else 1, -1)
    images = images if images.ndim == 4 else images[..., None]
    if max_side is not None:
        limit = max_side * _STRIP_LENGTH if images.shape[1] == 1 else max_side
        for axis in (1, 2):
            length = images.shape[axis]
            starts = np.linspace(0, length, min(length, limit), endpoint=False)
            parts = np.array_split(images, starts.astype(int)[1:], axis=axis)
            means = [part.mean(axis=axis, keepdims=True) for part in parts]
            images = np.concatenate(means, axis=axis)
    return images


def filter_images(dictionary: ArrayLike, max_side: int | None = None) -> np.ndarray:
    """Return the rows of a dictionary as images, each on its own scale.

    Args:
        dictionary: Result of `model.dictionary()`, of shape `(units, *input_shape)`.
        max_side: As in `as_images`.

    Returns:
        Array of shape `(units, height, width, channels)` with values in [0, 1], where
        0.5 stands for zero.
    """
    images = as_images(dictionary, max_side)
    largest = np.abs(images).max(axis=(1, 2, 3), keepdims=True)
    return 0.5 + 0.5 * images / np.where(largest > 0, largest, 1.0)


def rescale(images: np.ndarray, low: ArrayLike, high: ArrayLike) -> np.ndarray:
    """Map the range from `low` to `high` to [0, 1], and clip values outside it."""
    spread = np.subtract(high, low)
    return np.clip((images - low) / np.where(spread > 0, spread, 1.0), 0.0, 1.0)


def enlarge(images: np.ndarray, side: int) -> np.ndarray:
    """Repeat pixels until the longer side of each image is about `side` pixels.

    Strips are stretched until they are half as high as they are wide. Images that are
    already large enough do not change.
    """
    height, width = images.shape[1:3]
    zoom = max(1, round(side / max(height, width)))
    tall = max(zoom, zoom * width // (_STRIP_ASPECT * height))
    wide = max(zoom, zoom * height // (_STRIP_ASPECT * width))
    return images.repeat(tall, axis=1).repeat(wide, axis=2)


def tile_sheet(
    images: np.ndarray,
    columns: int | None = None,
    gap: int = 0,
    background: float = 0.0,
) -> np.ndarray:
    """Arrange images of equal size as tiles on a sheet, row by row.

    With `columns=None`, the sheet is about as high as it is wide. `gap` is the number
    of pixels between tiles. Gaps and empty positions have the value `background`.
    """
    count, height, width, channels = images.shape
    columns = columns or math.ceil(math.sqrt(count * height / width))
    rows = math.ceil(count / columns)
    sheet = np.full(
        (rows, columns, height + gap, width + gap, channels), background, images.dtype
    )
    for index, image in enumerate(images):
        sheet[*divmod(index, columns), :height, :width] = image
    pixels = sheet.swapaxes(1, 2).reshape(rows * (height + gap), -1, channels)
    return pixels[: len(pixels) - gap, : pixels.shape[1] - gap]
