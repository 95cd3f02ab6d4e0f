"""What each unit of a code stands for, in the terms of the input."""

from typing import Any

import numpy as np

# Small beside the reach of a sigmoid, large beside float32's rounding.
_STEP = 0.05


def atoms(model: Any) -> np.ndarray:
    """What each unit adds to the reconstruction, a small step away from no code.

    `atom_j = (decode(s e_j) - decode(0)) / s` with `s = 0.05`, which an output
    activation does not saturate: the decoder's row `j` in a shallow model.

    Args:
        model: A `keras_sae.models.Autoencoder`.

    Returns:
        Array of shape `(units, *input_shape)`.

    Example:

    >>> from keras_sae import evaluation, models
    >>> evaluation.atoms(models.shallow((4, 4, 1), 8)).shape
    (8, 4, 4, 1)
    """
    units = int(model.decoder.input_shape[-1])
    points = np.concatenate([np.zeros((1, units)), _STEP * np.eye(units)])
    images = model.decode(points.astype("float32"))
    return (images[1:] - images[:1]) / _STEP
