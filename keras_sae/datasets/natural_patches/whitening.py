"""Whitening of patches, fitted to the training patches.

Each function takes patches of shape `(patches, height, width)` and returns whitened
patches of the same shape. The first `count` patches are the training patches.
"""

from collections.abc import Callable

import numpy as np

# Added to the eigenvalues of the covariance to keep their inverse finite. For 8x8
# patches, the smallest eigenvalue is much larger, about 2e-3.
_ZCA_EPSILON = 1e-5


def classic(patches: np.ndarray, count: int) -> np.ndarray:
    """Map patches to [0.1, 0.9], which lies within the range of a sigmoid.

    `y = 0.5 + 0.4 * clip(x - mean(x), -3 s, 3 s) / (3 s)`, where `mean(x)` is the
    mean of each patch and `s` is the standard deviation of all centered training
    pixels.

    Reference:
        [Ng, 2011](https://web.stanford.edu/class/cs294a/sparseAutoencoder.pdf)
    """
    centered = patches - patches.mean(axis=(1, 2), keepdims=True)
    limit = 3.0 * centered[:count].std()
    return 0.5 + 0.4 * np.clip(centered, -limit, limit) / limit


def zca(patches: np.ndarray, count: int) -> np.ndarray:
    """Transform patches to have uncorrelated pixels with mean 0 and variance 1.

    `y = U (S + epsilon)^(-1/2) U^T (x - m)`, where `m` is the mean and `U S U^T` the
    covariance of the training patches.

    Reference:
        [Bell and Sejnowski, 1997](https://doi.org/10.1016/S0042-6989(97)00121-1)
    """
    rows = patches.reshape(len(patches), -1)
    values, vectors = np.linalg.eigh(np.cov(rows[:count], rowvar=False, bias=True))
    # Rounding can make an eigenvalue slightly negative.
    scale = 1.0 / np.sqrt(np.maximum(values, 0.0) + _ZCA_EPSILON)
    whitened = (rows - rows[:count].mean(axis=0)) @ ((vectors * scale) @ vectors.T)
    return whitened.reshape(patches.shape)


WHITENINGS: dict[str | None, Callable[[np.ndarray, int], np.ndarray]] = {
    None: lambda patches, _: patches,
    "classic": classic,
    "zca": zca,
}
