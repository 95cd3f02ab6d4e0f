"""Plots of filters, reconstructions and samples as sheets of small images."""

from collections.abc import Mapping, Sequence

import numpy as np

from keras_sae.models import Autoencoder, VariationalAutoencoder
from keras_sae.models.data_adapter import as_arrays
from keras_sae.plots.figure import Figure
from keras_sae.types import Data
from keras_sae.utils.images import (
    as_images,
    enlarge,
    filter_images,
    rescale,
    tile_sheet,
)

# Percentiles of an image that are drawn as black and white.
_BLACK, _WHITE = 2, 98
# Sizes in inches of a tile, a title, a letter in a row name, and the margin.
_TILE_INCHES, _TITLE_INCHES, _LETTER_INCHES, _MARGIN = 0.6, 0.3, 0.08, 0.05
# Pixels per tile before matplotlib scales the sheet down, so that edges stay sharp.
_TILE_PIXELS = 128


def filters(
    model: Autoencoder | Mapping[str, Autoencoder], count: int = 64, columns: int = 16
) -> Figure:
    """Plot each unit's contribution to the reconstruction as an image.

    Filters show the features that a model has learned: strokes, edges or whole digits.
    The filter of unit `j` is row `j` of `model.dictionary()`. Each image has its own
    scale, and zero is gray.

    Args:
        model: A `keras_sae.models.Autoencoder`, or a dict that maps names to models.
        count: Maximum number of units to draw per model, starting with the first.
        columns: Images per row.

    Returns:
        A `matplotlib.figure.Figure` with one block of images per model.

    Example:

    >>> from keras_sae import models, plots
    >>> figure = plots.filters(models.shallow((4, 4, 1), 8), count=4)
    >>> figure.axes[0].get_title("left")
    'Filters of shallow'
    """
    named = model if isinstance(model, Mapping) else {model.name: model}
    blocks = {
        f"Filters of {name}": filter_images(each.dictionary()[:count])
        for name, each in named.items()
    }
    return _draw_sheets(blocks, min(columns, max(map(len, blocks.values()))))


def reconstructions(
    model: Autoencoder | Mapping[str, Autoencoder], x: Data, count: int = 12
) -> Figure:
    """Plot samples with their reconstructions below.

    Args:
        model: A `keras_sae.models.Autoencoder`, or a dict that maps names to models.
        x: Array of shape `(samples, *input_shape)`, or a dataset of batches. The first
            samples are drawn.
        count: Maximum number of samples to draw.

    Returns:
        A `matplotlib.figure.Figure` with one row for the input and one per model. All
        images are drawn on the input's scale.

    Example:

    >>> import numpy as np
    >>> from keras_sae import models, plots
    >>> x = np.random.default_rng(0).random((3, 4, 4, 1), dtype="float32")
    >>> figure = plots.reconstructions(models.shallow((4, 4, 1), 8), x)
    >>> [label.get_text() for label in figure.axes[0].get_yticklabels()]
    ['input', 'shallow']
    """
    x = as_arrays(x, limit=count)[0][:count]
    named = model if isinstance(model, Mapping) else {model.name: model}
    rows = {"input": x}
    rows |= {name: each.decode(each.encode(x)) for name, each in named.items()}
    images = rescale(as_images(np.concatenate(list(rows.values()))), x.min(), x.max())
    return _draw_sheets({"Inputs and reconstructions": images}, len(x), list(rows))


def samples(
    model: VariationalAutoencoder, count: int = 60, columns: int = 15, seed: int = 0
) -> Figure:
    """Plot samples from a variational model, decoded from codes drawn from the prior.

    Each image has its own scale, from its 2nd to its 98th percentile. Otherwise a
    single outlier would turn all other images gray.

    Args:
        model: A model built with `keras_sae.models.variational`.
        count: Number of samples.
        columns: Images per row.
        seed: Random seed for the codes.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        ValueError: `model` is not a variational model.

    Example:

    >>> from keras_sae import models, plots
    >>> model = models.variational((4, 4, 1), 8, latent_dim=2)
    >>> plots.samples(model, count=6).axes[0].get_title("left")
    'Samples from the prior'
    """
    if not isinstance(model, VariationalAutoencoder):
        raise ValueError(
            "`model` must be a variational model, because others cannot draw samples. "
            f"Received: {model!r}. Build one with `keras_sae.models.variational`."
        )
    images = as_images(model.sample(count, seed=seed))
    limits = np.percentile(images, (_BLACK, _WHITE), axis=(1, 2, 3), keepdims=True)
    images = rescale(images, *limits)
    return _draw_sheets({"Samples from the prior": images}, min(columns, count))


def latent_plane(
    model: VariationalAutoencoder, x: Data, steps: int = 11, reach: float = 2.0
) -> Figure:
    """Plot decoded codes on a grid over two latent dimensions.

    The grid spans the two dimensions whose posterior means vary most over `x`, from
    `-reach` to `reach` standard deviations of the prior. All other dimensions are set
    to the prior mean, which is zero. Each image has its own scale, as in `samples`.

    Args:
        model: A model built with `keras_sae.models.variational` and `latent_dim >= 2`.
        x: Array of shape `(samples, *input_shape)`, or a dataset of batches.
        steps: Images per side of the grid.
        reach: Half the width of the grid, in standard deviations of the prior.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        ValueError: The code has only one dimension.

    Example:

    >>> import numpy as np
    >>> from keras_sae import models, plots
    >>> model = models.variational((4, 4, 1), 8, latent_dim=2)
    >>> figure = plots.latent_plane(model, np.ones((5, 4, 4, 1)), steps=3)
    >>> figure.axes[0].get_title("left")
    'Latent plane: dimension 1 to the right, 0 upwards'
    """
    means = model.encode(x)
    if means.shape[1] < 2:
        raise ValueError(
            "`model` must have a code with at least two dimensions. Received: a code "
            f"with {means.shape[1]} dimension. Build the model with latent_dim=2."
        )
    up, right = np.sort(np.argsort(means.var(axis=0))[-2:])
    positions = np.linspace(-reach, reach, steps)
    codes = np.zeros((steps * steps, means.shape[1]), "float32")
    codes[:, up] = np.repeat(positions[::-1], steps)
    codes[:, right] = np.tile(positions, steps)
    title = f"Latent plane: dimension {right} to the right, {up} upwards"
    images = as_images(model.decode(codes))
    limits = np.percentile(images, (_BLACK, _WHITE), axis=(1, 2, 3), keepdims=True)
    return _draw_sheets({title: rescale(images, *limits)}, steps)


def _draw_sheets(
    blocks: Mapping[str, np.ndarray], columns: int, row_names: Sequence[str] = ()
) -> Figure:
    """Draw blocks of images in [0, 1], each as a sheet below its title."""
    gap = _TILE_PIXELS // 8
    tiles = {title: enlarge(images, _TILE_PIXELS) for title, images in blocks.items()}
    sheets = [tile_sheet(images, columns, gap, 1.0) for images in tiles.values()]
    # The sheet sizes are known, so no matplotlib layout engine is needed.
    left = _MARGIN + _LETTER_INCHES * max(map(len, row_names), default=0)
    width = columns * _TILE_INCHES
    heights = [width * len(sheet) / sheet.shape[1] for sheet in sheets]
    right = left + max(width, _LETTER_INCHES * max(map(len, blocks)))
    bottom = sum(heights) + _TITLE_INCHES * len(sheets) + _MARGIN
    figure = Figure(right + _MARGIN, bottom)
    figure.set_layout_engine("none")
    for title, sheet, height in zip(tiles, sheets, heights, strict=True):
        bottom -= _TITLE_INCHES + height
        box = np.array([left, bottom, width, height])
        ax = figure.add_axes(tuple(box / np.tile(figure.get_size_inches(), 2)))
        ax.imshow(sheet, cmap="gray", vmin=0.0, vmax=1.0)
        ax.set_title(title, fontsize=9, loc="left")
        ax.spines[:].set_visible(False)
        ax.tick_params(length=0, labelsize=9)
        ax.set_xticks([])
        pitch = tiles[title].shape[1] + gap
        ax.set_yticks((np.arange(len(row_names)) + 0.5) * pitch - gap / 2, row_names)
    return figure
