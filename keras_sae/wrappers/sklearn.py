"""A scikit-learn transformer whose output is the code of an autoencoder."""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
from sklearn.base import (
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
)
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_array, check_is_fitted, validate_data

from keras_sae import metrics, models
from keras_sae.utils import validation as checks

# Samples that are encoded at once.
_CHUNK = 4096


class SparseAutoencoder(
    ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator
):
    """Transformer whose output is the code of a sparse autoencoder.

    `transform(X) = encode(X)`, of shape `(samples, units)`

    It stands in a `sklearn.pipeline.Pipeline` and in a grid search, where Keras's
    own wrapper would pass on the reconstruction. `score` is the explained variance
    of the reconstruction, so that a grid search without labels chooses by it.

    Args:
        units: Width of the code; for a factory of deep models a sequence.
        sparsity: As for `keras_sae.models.shallow`.
        factory: None for `keras_sae.models.shallow`, or a function of `input_shape`,
            `units` and `sparsity` that returns a `keras_sae.models.Autoencoder`.
        epochs: Passes through the training data.
        batch_size: Samples a step, fewer where there are not as many.
        optimizer: Name of a Keras optimizer, or one, which is copied for each fit.
        learning_rate: None for that of the optimizer, or a positive number.
        random_state: None, an int, or a `numpy.random.RandomState`: weights and the
            order of the samples.
        verbose: As in `keras.Model.fit`.

    Attributes:
        model_: The trained `keras_sae.models.Autoencoder`.
        history_: The logs of its training, a dict of lists.
        n_features_in_: Width of the input.

    Example:

    >>> import numpy as np
    >>> from keras_sae import wrappers
    >>> x = np.random.default_rng(0).random((32, 6))
    >>> encoder = wrappers.SparseAutoencoder(units=4, epochs=1, random_state=0)
    >>> encoder.fit_transform(x).shape
    (32, 4)
    """

    def __init__(
        self,
        units: Any = 64,
        sparsity: Any = "l1",
        *,
        factory: Callable | None = None,
        epochs: int = 20,
        batch_size: int = 64,
        optimizer: Any = "adam",
        learning_rate: float | None = None,
        random_state: Any = None,
        verbose: Any = 0,
    ) -> None:
        self.units = units
        self.sparsity = sparsity
        self.factory = factory
        self.epochs = epochs
        self.batch_size = batch_size
        self.optimizer = optimizer
        self.learning_rate = learning_rate
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: Any, y: Any = None) -> "SparseAutoencoder":
        """Trains an autoencoder to rebuild `X`.

        Args:
            X: Array of shape `(samples, features)`.
            y: Ignored; here because scikit-learn passes it.

        Returns:
            The transformer itself.

        Raises:
            ValueError: A setting is out of its range, or `X` is no finite matrix.
        """
        del y
        X = validate_data(self, X, dtype="float32")
        checks.positive_integer("epochs", self.epochs)
        checks.positive_integer("batch_size", self.batch_size)
        with _seeded(self.random_state):
            factory = models.shallow if self.factory is None else self.factory
            self.model_ = factory((X.shape[1],), self.units, self.sparsity)
            self.model_.compile(self._optimizer())
            history = self.model_.fit(
                X,
                epochs=self.epochs,
                batch_size=min(self.batch_size, len(X)),
                verbose=self.verbose,
            )
        self.history_ = history.history
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Returns the codes of `X`.

        Args:
            X: Array of shape `(samples, features)`.

        Returns:
            float32 array of shape `(samples, units)`.
        """
        check_is_fitted(self)
        X = validate_data(self, X, dtype="float32", reset=False)
        return _applied(self.model_.encoder, X)

    def inverse_transform(self, X: Any) -> np.ndarray:
        """Returns the reconstructions that codes stand for.

        Args:
            X: Codes, an array of shape `(samples, units)`.

        Returns:
            float32 array of shape `(samples, features)`.

        Raises:
            ValueError: `X` is as wide as no code of this model.
        """
        check_is_fitted(self)
        X = check_array(X, dtype="float32")
        if X.shape[1] != self._n_features_out:
            raise ValueError(
                f"`X` must be codes of {self._n_features_out} units. Received: X of "
                f"shape {X.shape}. Pass what `transform` returns."
            )
        return _applied(self.model_.decoder, X)

    def score(self, X: Any, y: Any = None) -> float:
        """Returns the explained variance of the reconstruction of `X`.

        Args:
            X: Array of shape `(samples, features)`.
            y: Ignored; here because scikit-learn passes it.

        Returns:
            A float, at most 1; see `keras_sae.metrics.explained_variance`.
        """
        del y
        rebuilt = self.inverse_transform(self.transform(X))
        X = validate_data(self, X, dtype="float32", reset=False)
        return metrics.explained_variance(X, rebuilt)

    @property
    def _n_features_out(self) -> int:
        return int(self.model_.decoder.input_shape[-1])

    def _optimizer(self) -> keras.optimizers.Optimizer:
        """An optimizer of its own for each fit: it remembers the last one's weights."""
        given = keras.optimizers.get(self.optimizer)
        optimizer = type(given).from_config(given.get_config())
        if self.learning_rate is not None:
            if checks.finite_factor("learning_rate", self.learning_rate) == 0:
                raise ValueError(
                    "`learning_rate` must be positive. Received: "
                    f"learning_rate={self.learning_rate}."
                )
            optimizer.learning_rate = self.learning_rate
        return optimizer

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags


def _applied(part: keras.Model, x: np.ndarray) -> np.ndarray:
    """A half of the model on all samples; `predict` would trace it once more."""
    chunks = [x[i : i + _CHUNK] for i in range(0, len(x), _CHUNK)]
    convert = keras.ops.convert_to_numpy
    return np.concatenate([convert(part(chunk, training=False)) for chunk in chunks])


@contextmanager
def _seeded(random_state: Any) -> Iterator[None]:
    """Seeds Keras for a fit; NumPy's and Python's generators stay as they were."""
    if random_state is None:
        yield
        return
    seed = int(check_random_state(random_state).randint(2**31 - 1))
    numpy, python = np.random.get_state(), random.getstate()
    keras.utils.set_random_seed(seed)
    try:
        yield
    finally:
        np.random.set_state(numpy)
        random.setstate(python)
