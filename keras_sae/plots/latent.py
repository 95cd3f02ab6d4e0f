"""Pictures of what a variational model draws from its prior."""

import math
from typing import Any

import numpy as np

from keras_sae.plots import _canvas

# Percentiles of a picture that are its black and its white.
_CLIP = (2, 98)


def samples(model: Any, count: int = 60, columns: int = 15, seed: int = 0) -> Any:
    """Draws what a variational model makes of codes drawn from its prior.

    Each picture has its own scale, from its 2nd to its 98th percentile.

    Args:
        model: What `keras_sae.models.variational` returns.
        count: Samples to draw.
        columns: Images a row.
        seed: Draws the codes.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        ValueError: The model draws no samples.

    Example:

    >>> from keras_sae import models, plots
    >>> model = models.variational((4, 4, 1), 8, latent_dim=2)
    >>> len(plots.samples(model, count=6).axes)
    6
    """
    if not hasattr(model, "sample"):
        raise ValueError(
            "`model` must be one that draws samples, of `keras_sae.models.variational`."
            f" Received: {model!r}."
        )
    images = np.asarray(model.sample(count, seed=seed))
    title = "Samples: decoded draws from the prior"
    return _sheet(images, min(columns, count), title)


def latent_plane(model: Any, x: Any, steps: int = 11, reach: float = 2.0) -> Any:
    """Draws a walk through the two dimensions of the code that vary the most.

    Those are the two whose mean varies most over `x`; the others rest at zero, the
    prior's mean. Both run from `-reach` to `reach` standard deviations of the prior.
    Each picture has its own scale, from its 2nd to its 98th percentile.

    Args:
        model: What `keras_sae.models.variational` returns, `latent_dim` at least 2.
        x: Array of shape `(samples, *input_shape)`.
        steps: Images a side.
        reach: Standard deviations to either side.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        ValueError: The code has one dimension, which makes no plane.

    Example:

    >>> import numpy as np
    >>> from keras_sae import models, plots
    >>> model = models.variational((4, 4, 1), 8, latent_dim=3)
    >>> len(plots.latent_plane(model, np.ones((5, 4, 4, 1)), steps=3).axes)
    9
    """
    means = model.encode(np.asarray(x))
    if means.shape[1] < 2:
        raise ValueError(
            "A plane needs a code of two dimensions or more. Received: "
            f"{means.shape[1]}. Build the model with latent_dim=2."
        )
    down, across = np.sort(np.argsort(means.var(axis=0))[-2:])
    walk = np.linspace(-reach, reach, steps)
    codes = np.zeros((steps * steps, means.shape[1]), "float32")
    codes[:, down] = np.repeat(walk[::-1], steps)
    codes[:, across] = np.tile(walk, steps)
    title = f"Latent plane: dimension {across} across, {down} upwards"
    return _sheet(model.decode(codes), steps, title)


def _sheet(images: np.ndarray, columns: int, title: str) -> Any:
    """A grid of images.

    Draws from a prior differ in their norm by far: on one scale, a single wild one
    turns all the others grey.
    """
    rows = math.ceil(len(images) / columns)
    figure = _canvas.figure(columns * 0.6 + 0.4, rows * 0.6 + 0.5)
    for axes, image in _canvas.sheet(figure, rows, columns, list(images)):
        _canvas.image(axes, image, *np.percentile(image, _CLIP).tolist())
    figure.suptitle(title, fontsize=10)
    return figure
