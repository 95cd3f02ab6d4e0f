"""Baselines for comparison with autoencoders, fitted without gradient descent."""

import abc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, Self, TypeAlias, runtime_checkable

import numpy as np

from keras_sae.types import ArrayLike

_UNITS = 1024  # number of units decoded at once
RowFunction: TypeAlias = Callable[[np.ndarray], np.ndarray]


@runtime_checkable
class Codec(Protocol):
    """An object that encodes samples and decodes codes, such as an autoencoder."""

    def encode(self, x: ArrayLike) -> np.ndarray: ...  # noqa: D102
    def decode(self, code: ArrayLike) -> np.ndarray: ...  # noqa: D102


def linear_dictionary(model: Codec, codes: np.ndarray) -> np.ndarray:
    """Return the rows of a linear decoder by decoding one-hot codes.

    Only the shape of `codes` is used.
    """
    units, rows = codes[0].size, []
    rest = model.decode(np.zeros((1, *codes.shape[1:]), "float32"))
    for begin in range(0, units, _UNITS):
        ones = np.eye(min(_UNITS, units - begin), units, begin, dtype="float32")
        rows.append(model.decode(ones.reshape(-1, *codes.shape[1:])) - rest)
    return np.concatenate(rows)


class Baseline(abc.ABC):
    """Base class of the baselines."""

    parameters = 0  # number of learned parameters

    def fit(self, x: ArrayLike) -> Self:
        """Fit the baseline to `x` of shape `(samples, ...)`, and return `self`."""
        x = np.asarray(x, "float32")
        self.sample_shape = x.shape[1:]
        self._encode, self._decode = self._fit(x.reshape(len(x), -1))
        return self

    def encode(self, x: ArrayLike) -> np.ndarray:
        """Return the codes of `x`, with shape `(samples, units)`."""
        x = np.asarray(x, "float32")
        return self._encode(x.reshape(len(x), -1))

    def decode(self, code: ArrayLike) -> np.ndarray:
        """Return the reconstructions of `code`, in the shape of the data."""
        code = np.asarray(code)
        return self._decode(code).reshape(len(code), *self.sample_shape)

    def dictionary(self) -> np.ndarray:
        """Return the contribution of each unit to a reconstruction.

        The shape is `(units, *sample_shape)`.
        """
        return linear_dictionary(self, self.encode(np.zeros((1, *self.sample_shape))))

    @abc.abstractmethod
    def _fit(self, rows: np.ndarray) -> tuple[RowFunction, RowFunction]:
        """Fit to flat samples, and return functions that encode and decode them."""


class Identity(Baseline):
    """Baseline whose code is the flattened input.

    A probe on this code shows what a classifier achieves without an autoencoder.

    Example:

    >>> from keras_sae import evaluation
    >>> evaluation.Identity().fit([[0, 1], [2, 3]]).encode([[4, 5]]).tolist()
    [[4.0, 5.0]]
    """

    def _fit(self, rows: np.ndarray) -> tuple[RowFunction, RowFunction]:
        del rows
        return np.asarray, np.asarray


@dataclass
class PCA(Baseline):
    """Principal component analysis, the best linear code of a given width.

    No other linear code of this width has a smaller squared error.

    Args:
        units: Number of components, limited to the number of samples and the number of
            values per sample.

    Example:

    >>> from keras_sae import evaluation
    >>> evaluation.PCA(units=1).fit([[0, 1], [2, 3]]).encode([[4, 5]]).shape
    (1, 1)
    """

    units: int

    def _fit(self, rows: np.ndarray) -> tuple[RowFunction, RowFunction]:
        from sklearn import decomposition

        pca = decomposition.PCA(min(self.units, *rows.shape)).fit(rows)
        self.parameters = pca.components_.size + rows.shape[1]
        return pca.transform, pca.inverse_transform


@dataclass
class RandomEncoder(Baseline):
    """Random ReLU units with a linear decoder that is fitted by ridge regression.

    The code is `h = relu((x - mean) W)`, where `mean` is the mean of the training data.
    The entries of `W` are standard normal, divided by the square root of the number of
    values per sample. This baseline shows what a code of this width achieves without
    learned features.

    Args:
        units: Width of the code.
        seed: Random seed for `W`.

    Example:

    >>> import numpy as np
    >>> from keras_sae import evaluation
    >>> x = np.random.default_rng(0).random((20, 3, 3, 1))
    >>> evaluation.RandomEncoder(units=4).fit(x).encode(x).shape
    (20, 4)
    """

    units: int
    seed: int = 0

    def _fit(self, rows: np.ndarray) -> tuple[RowFunction, RowFunction]:
        from sklearn.linear_model import Ridge

        rng = np.random.default_rng(self.seed)
        mean, size = rows.mean(axis=0), rows.shape[1]
        kernel = rng.normal(size=(size, self.units)) / size**0.5

        def encode(rows: np.ndarray) -> np.ndarray:
            return np.maximum((rows - mean) @ kernel, 0)

        decoder = Ridge(alpha=1e-3).fit(encode(rows), rows)
        self.parameters = decoder.coef_.size + size
        return encode, decoder.predict


@dataclass
class DictionaryLearning(Baseline):
    """Dictionary learning, which finds codes by sparse coding instead of an encoder.

    This is scikit-learn's `MiniBatchDictionaryLearning` on centered data. Orthogonal
    matching pursuit selects the active units of each code. Their number is a tenth of
    the number of values per sample, but at most a quarter of `units`, and at least 1.
    This baseline often reconstructs better than an equally sparse autoencoder, but
    encoding is much slower.

    Args:
        units: Size of the dictionary.
        seed: Random seed for the initial dictionary and the batches.

    Reference:
        [Mairal et al., "Online dictionary learning for sparse coding", ICML
        2009](https://doi.org/10.1145/1553374.1553463).

    Example:

    >>> import numpy as np
    >>> from keras_sae import evaluation
    >>> x = np.random.default_rng(0).random((40, 4, 4, 1))
    >>> evaluation.DictionaryLearning(units=8).fit(x).encode(x).shape
    (40, 8)
    """

    units: int
    seed: int = 0

    def _fit(self, rows: np.ndarray) -> tuple[RowFunction, RowFunction]:
        from sklearn import decomposition

        mean = rows.mean(axis=0)
        learner = decomposition.MiniBatchDictionaryLearning(
            self.units,
            alpha=0.1,
            batch_size=64,
            # 5 times faster than the default, with 0.004 less explained variance.
            max_iter=20,
            transform_algorithm="omp",
            transform_n_nonzero_coefs=max(1, min(self.units // 4, rows.shape[1] // 10)),
            random_state=self.seed,
        ).fit(rows - mean)
        self.parameters = learner.components_.size + rows.shape[1]
        return (
            lambda rows: learner.transform(rows - mean),
            lambda code: code @ learner.components_ + mean,
        )
