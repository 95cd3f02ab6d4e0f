"""What is done to patches before they are stored.

Each function is fitted on the training patches, of shape `(n, height, width)`,
and returns the map that is then applied to both splits.
"""

from collections.abc import Callable

import numpy as np

Transform = Callable[[np.ndarray], np.ndarray]

# Added to the eigenvalues, in units of squared intensity: far below the smallest
# one of 8x8 patches (about 2e-3), it only keeps the inverse finite.
_ZCA_EPSILON = 1e-5


def raw(train: np.ndarray) -> Transform:
    """Leaves the intensities as they are, in [0, 1]."""
    del train
    return lambda patches: patches


def classic(train: np.ndarray) -> Transform:
    """Maps patches to [0.1, 0.9], the range of a sigmoid output.

    `y = 0.5 + 0.4 * clip(x - mean(x), -3 s, 3 s) / (3 s)`, with the mean of each
    patch and `s` the standard deviation of all centred training pixels.

    Reference:
        Ng, CS294A "Sparse autoencoder" exercise, 2011.
    """
    limit = 3.0 * _centred(train).std()
    return lambda patches: 0.5 + 0.4 * np.clip(_centred(patches), -limit, limit) / limit


def zca(train: np.ndarray) -> Transform:
    """Makes pixels uncorrelated, of mean 0 and variance 1 over the training split.

    `y = U (S + epsilon)^(-1/2) U^T (x - m)`, with `m` the mean training patch and
    `U S U^T` the covariance of the training patches.

    Reference:
        Bell & Sejnowski, "The 'independent components' of natural scenes are
        edge filters", Vision Research 37, 1997.
    """
    flat = train.reshape(len(train), -1)
    mean = flat.mean(axis=0)
    values, vectors = np.linalg.eigh(np.cov(flat, rowvar=False, bias=True))
    # Rounding can leave a tiny negative eigenvalue.
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
