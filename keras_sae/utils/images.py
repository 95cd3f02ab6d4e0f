"""Sheets of small images: samples, filters and reconstructions side by side."""

import math

import numpy as np

from keras_sae.types import ArrayLike

# Minimum length of a vector that is drawn as a square image, such as an 8x8 digit.
_FLATTENED_IMAGE = 64
_SERIES_ASPECT = 4  # minimum ratio of the length of a series to its channels
_STRIP_LENGTH = 4  # maximum length of a strip, as a multiple of `max_side`
_STRIP_ASPECT = 2  # length of an enlarged strip divided by its height
ORANGE, BLUE = (217, 119, 6), (59, 130, 246)  # positive and negative values
_LARGE = 99.5  # percentile of the magnitudes that is drawn in full color
_ZERO = 0.95  # gray value of zero, which is visible on white paper


def is_image(shape: tuple[int, ...]) -> bool:
    """Return whether samples of this shape are images rather than vectors or series.

    A matrix is a series of shape `(length, channels)` if it is at least four times as
    long as it is wide. A vector is an image if its length is a square number of at
    least 64, such as 784 for flattened MNIST.
    """
    if len(shape) == 2:
        return shape[0] < _SERIES_ASPECT * shape[1]
    size = math.prod(shape)
    is_square = math.isqrt(size) ** 2 == size and size >= _FLATTENED_IMAGE
    return len(shape) == 3 or is_square


def as_images(x: ArrayLike, max_side: int | None = None) -> np.ndarray:
    """Return samples of any shape as images that can be drawn.

    Matrices become gray images, and series become strips with one row per channel.
    Vectors become square images if `is_image` accepts their shape. Otherwise, they
    become strips one pixel high. Unless an image has one or three channels, its
    channels are averaged.

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
    is_strip = not is_image(images.shape[1:])
    if images.ndim not in (3, 4):
        height = 1 if is_strip else math.isqrt(images[0].size)
        images = images.reshape(len(images), height, -1)
    elif is_strip:
        images = images.swapaxes(1, 2)
    images = images if images.ndim == 4 else images[..., None]
    if max_side is not None:
        limit = max_side * _STRIP_LENGTH if is_strip else max_side
        for axis in (1, 2):
            length = images.shape[axis]
            starts = np.linspace(0, length, min(length, limit), endpoint=False)
            parts = np.array_split(images, starts.astype(int)[1:], axis=axis)
            means = [part.mean(axis=axis, keepdims=True) for part in parts]
            images = np.concatenate(means, axis=axis)
    return images


def as_series(x: ArrayLike) -> np.ndarray:
    """Return vectors or series as an array of shape `(samples, length, channels)`."""
    values = np.asarray(x, "float64")
    return values if values.ndim == 3 else values.reshape(len(values), -1, 1)


def scale_filters(dictionary: ArrayLike) -> np.ndarray:
    """Scale a dictionary to values in [-1, 1], with one scale for all units.

    The largest values are clipped. Otherwise, a few outliers would make all other
    values look like zero.
    """
    values = np.asarray(dictionary, "float64")
    largest = np.percentile(np.abs(values), _LARGE) or np.abs(values).max()
    return np.clip(values / (largest or 1.0), -1.0, 1.0)


def filter_images(filters: np.ndarray) -> np.ndarray:
    """Return the result of `scale_filters` as color images with values in [0, 1].

    Positive values are orange, negative values are blue, and zero is nearly white. If
    the filters have three channels, they keep their colors, and zero is gray.
    """
    images = as_images(filters)
    if images.shape[-1] == 3:
        return 0.5 + 0.5 * images
    color = np.where(images > 0, ORANGE, BLUE) / 255
    return _ZERO + np.abs(images) * (color - _ZERO)


def rescale(images: np.ndarray, low: ArrayLike, high: ArrayLike) -> np.ndarray:
    """Map values from [low, high] to [0, 1], and clip values outside this range."""
    spread = np.subtract(high, low)
    return np.clip((images - low) / np.where(spread > 0, spread, 1.0), 0.0, 1.0)


def enlarge(images: np.ndarray, side: int) -> np.ndarray:
    """Repeat pixels until the longer side of each image is about `side` pixels.

    Strips are also stretched, until their shorter side is half of the longer one. Other
    images do not change if they are already large enough.
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
