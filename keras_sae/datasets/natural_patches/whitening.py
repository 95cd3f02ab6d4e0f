"""Whitening of patches: functions that are fitted to the training patches.

Each function takes the training patches, of shape `(patches, height, width)`, and
returns the map that is applied to both splits.
"""

from collections.abc import Callable

import numpy as np

Transform = Callable[[np.ndarray], np.ndarray]

# Added to the eigenvalues of squared intensities. It is far below the smallest one of
# 8x8 patches, about 2e-3, and keeps the inverse finite.
_ZCA_EPSILON = 1e-5


def raw(train: np.ndarray) -> Transform:
    """Return the identity: intensities stay in [0, 1]."""
    del train
    return lambda patches: patches


def classic(train: np.ndarray) -> Transform:
    """Return a map to [0.1, 0.9], the range of a sigmoid output.

    `y = 0.5 + 0.4 * clip(x - mean(x), -3 s, 3 s) / (3 s)`, with the mean of each patch
    and the standard deviation `s` of all centred training pixels.

    Reference:
        [Ng, 2011](https://web.stanford.edu/class/cs294a/sparseAutoencoder.pdf)
    """
    limit = 3.0 * _centred(train).std()
    return lambda patches: 0.5 + 0.4 * np.clip(_centred(patches), -limit, limit) / limit


def zca(train: np.ndarray) -> Transform:
    """Return a map to uncorrelated pixels with mean 0 and variance 1.

    `y = U (S + epsilon)^(-1/2) U^T (x - m)`, with the mean `m` and the covariance
    `U S U^T` of the training patches.

    Reference:
        [Bell and Sejnowski, 1997](https://doi.org/10.1016/S0042-6989(97)00121-1)
    """
    flat = train.reshape(len(train), -1)
    mean = flat.mean(axis=0)
    values, vectors = np.linalg.eigh(np.cov(flat, rowvar=False, bias=True))
    # Rounding can make an eigenvalue slightly negative.
    scale = 1.0 / np.sqrt(np.maximum(values, 0.0) + _ZCA_EPSILON)
    matrix = (vectors * scale) @ vectors.T

    def transform(patches: np.ndarray) -> np.ndarray:
        rows = patches.reshape(len(patches), -1)
        return ((rows - mean) @ matrix).reshape(patches.shape)

    return transform


def _centred(patches: np.ndarray) -> np.ndarray:
    return patches - patches.mean(axis=(1, 2), keepdims=True)


WHITENINGS: dict[str | None, Callable[[np.ndarray], Transform]] = {
    None: raw,
    "classic": classic,
    "zca": zca,
}
