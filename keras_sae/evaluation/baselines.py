"""Models that need no training by gradient, to hold a sparse autoencoder against.

Each has `fit(x)`, `encode(x)`, `decode(code)` and `parameters`, so that
`keras_sae.evaluation.evaluate` takes it as it takes a model.
"""

from typing import Any

import numpy as np


class Identity:
    """The identity: what a classifier reads from the data as they are.

    Example:

    >>> import numpy as np
    >>> from keras_sae.evaluation import Identity
    >>> x = np.ones((4, 2, 2, 1))
    >>> Identity().fit(x).encode(x).shape
    (4, 4)
    """

    parameters = 0

    def fit(self, x: Any) -> "Identity":
        """Remembers the shape of one sample of `x`, shape `(samples, ...)`."""
        self.sample_shape = np.shape(x)[1:]
        return self

    def encode(self, x: Any) -> np.ndarray:
        """Returns `x` as `(samples, values)`."""
        return np.asarray(x, "float32").reshape(len(x), -1)

    def decode(self, code: Any) -> np.ndarray:
        """Returns the code in the shape of the data."""
        return np.asarray(code).reshape(len(code), *self.sample_shape)


class PCA(Identity):
    """Principal components: the best linear code of its size, and a dense one.

    Args:
        units: Number of components; as many as the data allow if that is fewer.

    Example:

    >>> import numpy as np
    >>> from keras_sae.evaluation import PCA
    >>> x = np.random.default_rng(0).random((20, 3, 3, 1))
    >>> PCA(4).fit(x).encode(x).shape
    (20, 4)
    """

    def __init__(self, units: int) -> None:
        self.units = units

    def fit(self, x: Any) -> "PCA":
        """Finds the components of `x`, shape `(samples, ...)`."""
        from sklearn import decomposition

        super().fit(x)
        rows = super().encode(x)
        count = min(self.units, *rows.shape)
        self.components = decomposition.PCA(count).fit(rows)
        self.parameters = self.components.components_.size + rows.shape[1]
        return self

    def encode(self, x: Any) -> np.ndarray:
        """Returns the scores, shape `(samples, units)`."""
        return self.components.transform(super().encode(x))

    def decode(self, code: Any) -> np.ndarray:
        """Returns the data that the scores stand for."""
        return super().decode(self.components.inverse_transform(code))


class RandomEncoder(Identity):
    """A layer of random ReLU units, read out by the best linear decoder.

    `h = relu((x - mean) W)`, `W` standard normal over the square root of the
    input's size; the decoder solves ridge regression on the training codes. What
    it scores is due to the width of a code, not to what was learned.

    Args:
        units: Width of the code.
        seed: Draws `W`.

    Example:

    >>> import numpy as np
    >>> from keras_sae.evaluation import RandomEncoder
    >>> x = np.random.default_rng(0).random((20, 3, 3, 1))
    >>> RandomEncoder(4).fit(x).encode(x).shape
    (20, 4)
    """

    def __init__(self, units: int, seed: int = 0) -> None:
        self.units = units
        self.seed = seed

    def fit(self, x: Any) -> "RandomEncoder":
        """Draws the encoder and solves for the decoder; `x` is `(samples, ...)`."""
        from sklearn.linear_model import Ridge

        super().fit(x)
        rows = super().encode(x)
        rng = np.random.default_rng(self.seed)
        self.mean = rows.mean(axis=0)
        self.kernel = (
            rng.normal(size=(rows.shape[1], self.units)) / rows.shape[1] ** 0.5
        )
        self.decoder = Ridge(alpha=1e-3).fit(self.encode(x), rows)
        self.parameters = self.decoder.coef_.size + rows.shape[1]
        return self

    def encode(self, x: Any) -> np.ndarray:
        """Returns the codes, shape `(samples, units)`."""
        return np.maximum((super().encode(x) - self.mean) @ self.kernel, 0)

    def decode(self, code: Any) -> np.ndarray:
        """Returns the linear reconstruction."""
        return super().decode(self.decoder.predict(code))


class DictionaryLearning(Identity):
    """Sparse coding without an encoder: each code is the answer to a search.

    scikit-learn's `MiniBatchDictionaryLearning` on centred data; codes by
    orthogonal matching pursuit with a tenth of the data's dimension active, at
    most a quarter of the atoms. What it
    gains over an autoencoder of the same sparsity, it pays for at inference.

    Args:
        units: Number of atoms.
        seed: Draws the first atoms and the batches.

    Reference:
        Mairal et al., "Online dictionary learning for sparse coding", ICML 2009.

    Example:

    >>> import numpy as np
    >>> from keras_sae.evaluation import DictionaryLearning
    >>> x = np.random.default_rng(0).random((40, 4, 4, 1))
    >>> codes = DictionaryLearning(8).fit(x).encode(x)
    >>> codes.shape, int((codes != 0).sum(axis=1).max())
    ((40, 8), 1)
    """

    def __init__(self, units: int, seed: int = 0) -> None:
        self.units = units
        self.seed = seed

    def fit(self, x: Any) -> "DictionaryLearning":
        """Learns the atoms; `x` is `(samples, ...)`."""
        from sklearn import decomposition

        super().fit(x)
        rows = super().encode(x)
        self.mean = rows.mean(axis=0)
        active = max(1, min(self.units // 4, rows.shape[1] // 10))
        self.learner = decomposition.MiniBatchDictionaryLearning(
            self.units,
            alpha=0.1,
            batch_size=64,
            max_iter=20,  # five times as fast as the defaults, EV .846 for .850
            transform_algorithm="omp",
            transform_n_nonzero_coefs=active,
            random_state=self.seed,
        ).fit(rows - self.mean)
        self.parameters = self.learner.components_.size + rows.shape[1]
        return self

    def encode(self, x: Any) -> np.ndarray:
        """Returns the sparse codes, shape `(samples, units)`."""
        return self.learner.transform(super().encode(x) - self.mean)

    def decode(self, code: Any) -> np.ndarray:
        """Returns the sums of atoms that the codes stand for."""
        return super().decode(code @ self.learner.components_ + self.mean)
