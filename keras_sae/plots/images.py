"""Plots of filters, reconstructions and samples."""

from collections.abc import Mapping

import numpy as np

from keras_sae.models import Autoencoder, VariationalAutoencoder
from keras_sae.models.data_adapter import as_arrays
from keras_sae.plots.figure import Figure
from keras_sae.plots.sheets import as_tiles, draw_sheets
from keras_sae.types import Data
from keras_sae.utils.images import as_series, filter_images, is_image, scale_filters

# Percentiles of an image that are drawn as black and as white.
_BLACK, _WHITE = 2, 98


def filters(
    model: Autoencoder | Mapping[str, Autoencoder],
    count: int = 64,
    columns: int = 16,
    *,
    x: Data | None = None,
) -> Figure:
    """Plot each unit's contribution to the reconstruction.

    Filters show the features that a model has learned, such as strokes or edges. The
    filter of unit `j` is row `j` of `model.dictionary()`. All filters of a model share
    one scale, so a unit with little effect looks faint. For grayscale images, a unit
    makes orange pixels brighter and blue pixels darker. For color images, zero is gray.
    For vectors and series, each filter is a curve.

    If `x` is given, the most active units come first. The activity of unit `j` is
    `mean_i |h_ij - rest_j| |d_j|`, the mean of its contributions as defined in
    `keras_sae.metrics.effective_l0`.

    Args:
        model: A `keras_sae.models.Autoencoder`, or a dict that maps names to models.
        count: Maximum number of units to draw per model.
        columns: Filters per row.
        x: None, or data for finding the most active units: an array of shape
            `(samples, *input_shape)` or a dataset of batches. If None, the first units
            are drawn.

    Returns:
        A `matplotlib.figure.Figure` with one block of filters per model.

    Example:

    >>> from keras_sae import models, plots
    >>> figure = plots.filters(models.shallow((4, 4, 1), 8), count=4)
    >>> figure.axes[0].get_title("left")
    'shallow: units 0 to 3 of 8'
    """
    named = model if isinstance(model, Mapping) else {model.name: model}
    data = None if x is None else _samples(next(iter(named.values())), x)
    blocks, key = {}, ""
    for name, each in named.items():
        dictionary = each.dictionary()
        units = shown = len(dictionary)
        title = f"units 0 to {count - 1} of {units}"
        if data is not None:
            codes = each.encode(data).reshape(-1, units)
            activity = np.abs(codes - np.median(codes, axis=0)).mean(axis=0)
            activity *= np.linalg.norm(dictionary.reshape(units, -1), axis=1)
            dictionary = dictionary[np.argsort(-activity, kind="stable")]
            title = f"the {count} most active of {units} units"
            active = int(np.count_nonzero(activity))
            if active <= count:
                title, shown = f"{active} of {units} units are active", active or units
        elif count >= units:
            title = f"all {units} units"
        title = f"{name}: {title}"
        filters = scale_filters(dictionary[: min(count, shown)])
        if not is_image(filters.shape[1:]):
            blocks[title] = 0.5 + 0.5 * as_series(filters)
            key = "The gray line is zero."
            continue
        blocks[title] = filter_images(filters)
        key = "Orange raises a pixel, blue lowers it."
        if filters.ndim == 4 and filters.shape[-1] == 3:
            key = "Gray is zero."
    heading = f"Filters: what an active unit adds to a reconstruction. {key}"
    columns = min(columns, max(map(len, blocks.values())))
    return draw_sheets(heading, blocks, columns, reference=0.5)


def reconstructions(
    model: Autoencoder | Mapping[str, Autoencoder], x: Data, count: int = 12
) -> Figure:
    """Plot samples with their reconstructions below, and the error of each model.

    Args:
        model: A `keras_sae.models.Autoencoder`, or a dict that maps names to models.
        x: Array of shape `(samples, *input_shape)`, or a dataset of batches. The first
            samples are drawn.
        count: Maximum number of samples to draw.

    Returns:
        A `matplotlib.figure.Figure` with one row for the input and one row per model.
        The mean squared error over the drawn samples is written to the right of each
        model's row. All rows have the input's scale. Vectors and series are drawn as
        curves, with the input in gray behind each reconstruction.

    Example:

    >>> import numpy as np
    >>> from keras_sae import models, plots
    >>> x = np.random.default_rng(0).random((3, 4, 4, 1), dtype="float32")
    >>> figure = plots.reconstructions(models.shallow((4, 4, 1), 8), x)
    >>> [label.get_text() for label in figure.axes[0].get_yticklabels()]
    ['input', 'shallow']
    """
    named = model if isinstance(model, Mapping) else {model.name: model}
    first = next(iter(named.values()))
    x = _samples(first, x, count)
    rows, notes = [first.reconstruction_target(x)], ["mean squared error"]
    for each in named.values():
        rows.append(each.decode(each.encode(x)))
        gaps = each.reconstruction_target(x) - rows[-1]
        notes.append(f"{np.mean(gaps**2, dtype='float64'):#.3g}")
    tiles = as_tiles(np.concatenate(rows), rows[0].min(), rows[0].max())
    title, names = "Inputs and their reconstructions", ["input", *named]
    if tiles.ndim == 4:
        return draw_sheets("", {title: tiles}, len(x), names, notes)
    inputs = np.tile(tiles[: len(x)], (len(rows), 1, 1))
    tiles[: len(x)] = np.nan  # the first row shows only the inputs
    heading = "Gray: the input. Blue: the reconstruction."
    return draw_sheets(heading, {title: tiles}, len(x), names, notes, reference=inputs)


def samples(
    model: VariationalAutoencoder, count: int = 60, columns: int = 15, seed: int = 0
) -> Figure:
    """Plot samples from a variational model, decoded from codes drawn from the prior.

    Each image has its own scale, from its 2nd to its 98th percentile. With one scale
    for all images, an outlier would make the others look gray. Each curve is scaled
    from its minimum to its maximum.

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
    'Samples: decoded from random codes'
    """
    if not isinstance(model, VariationalAutoencoder):
        raise ValueError(
            "`model` must be a variational model, because others cannot be sampled. "
            f"Received: {model!r}. Build one with `keras_sae.models.variational`."
        )
    samples = model.sample(count, seed=seed)
    tiles = as_tiles(samples, *_limits(samples))
    title = "Samples: decoded from random codes"
    return draw_sheets("", {title: tiles}, min(columns, count))


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
    outputs = model.decode(codes)
    tiles = as_tiles(outputs, *_limits(outputs))
    title = f"Latent plane: dimension {right} to the right, {up} upwards"
    heading = "Each tile is decoded from a code that is 0 in all other dimensions."
    names = [f"{position:.1f}" for position in positions]
    return draw_sheets(heading, {title: tiles}, steps, names[::-1], (), names)


def _samples(model: Autoencoder, x: Data, count: int | None = None) -> np.ndarray:
    """Return the first samples of `x`. An array may have several sample axes."""
    samples, shape = as_arrays(x, limit=count)[0], model.sample_shape
    if samples.shape[-len(shape) :] == shape:
        samples = samples.reshape(-1, *shape)
    return samples[:count]


def _limits(x: np.ndarray) -> np.ndarray:
    """Return two limits per sample: the values that are drawn as 0 and 1."""
    percentiles = (_BLACK, _WHITE) if is_image(x.shape[1:]) else (0, 100)
    return np.percentile(x.reshape(len(x), -1), percentiles, axis=1)
