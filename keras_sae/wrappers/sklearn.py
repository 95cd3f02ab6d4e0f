"""A scikit-learn transformer that computes the code of a sparse autoencoder."""

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
from scipy.sparse import issparse
from sklearn.base import (
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
)
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_array, check_is_fitted, validate_data

from keras_sae import metrics, models
from keras_sae.types import ArrayLike, Codes, CodesLike, OptimizerLike, SparsityLike
from keras_sae.utils import validation

RandomState = int | np.random.RandomState | None

# Samples per call of the encoder or decoder.
_BATCH_SIZE = 1024


class SparseAutoencoder(
    ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator
):
    """Transformer that computes the codes of a sparse autoencoder.

    `transform(X)` returns `encode(X)`, which has the shape `(samples, units)`.

    Use this transformer to compute sparse features in a `sklearn.pipeline.Pipeline` or
    a grid search. Keras's own scikit-learn wrapper would output the reconstruction
    instead of the code. `score` returns the explained variance of the reconstruction,
    so a grid search over this transformer alone maximizes the explained variance.

    Args:
        units: Width of the code, or a sequence of widths if `factory` builds deep
            models.
        sparsity: As in `keras_sae.models.shallow`.
        factory: A function of `input_shape`, `units` and `sparsity` that returns a
            `keras_sae.models.Autoencoder`. None means `keras_sae.models.shallow`.
        epochs: Number of passes through the training data.
        batch_size: Number of samples per step. A smaller dataset forms a single batch.
        optimizer: A Keras optimizer or its name. Each fit uses a new copy.
        learning_rate: A positive number, or None for the optimizer's learning rate.
        random_state: Random seed for the weights and the sample order: None, an
            integer, or a `numpy.random.RandomState`.
        verbose: As in `keras.Model.fit`.
        sparse_output: Whether `transform` returns a `scipy.sparse.csr_array`.

    Attributes:
        model_: The trained `keras_sae.models.Autoencoder`.
        history_: Training logs, one list of values per metric.
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
        units: int | Sequence[int] = 64,
        sparsity: SparsityLike = "l1",
        *,
        factory: Callable[..., models.Autoencoder] | None = None,
        epochs: int = 20,
        batch_size: int = 64,
        optimizer: OptimizerLike = "adam",
        learning_rate: float | None = None,
        random_state: RandomState = None,
        verbose: int | str = 0,
        sparse_output: bool = False,
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
        self.sparse_output = sparse_output

    def fit(self, X: ArrayLike, y: ArrayLike | None = None) -> "SparseAutoencoder":
        """Train an autoencoder to reconstruct `X`.

        Args:
            X: Array of shape `(samples, features)`.
            y: Ignored. scikit-learn passes this argument to every transformer.

        Returns:
            The transformer itself.

        Raises:
            ValueError: A setting is out of range, or `X` is not a finite matrix.
        """
        del y
        x = validate_data(self, X, dtype="float32")
        validation.positive_integer("epochs", self.epochs)
        validation.positive_integer("batch_size", self.batch_size)
        factory: Callable[..., models.Autoencoder] = self.factory or models.shallow
        with _seeded(self.random_state):
            # Copy the optimizer, because a used one is tied to its model's weights.
            optimizer = keras.optimizers.get(self.optimizer)
            optimizer = type(optimizer).from_config(optimizer.get_config())
            if self.learning_rate is not None:
                optimizer.learning_rate = validation.positive_number(
                    "learning_rate", self.learning_rate
                )
            self.model_ = factory((x.shape[1],), self.units, self.sparsity)
            self.model_.compile(optimizer)
            history = self.model_.fit(
                x,
                epochs=self.epochs,
                batch_size=min(self.batch_size, len(x)),
                verbose=self.verbose,
            )
        self.history_ = history.history
        return self

    def transform(self, X: ArrayLike) -> Codes:
        """Return the codes of `X` as a float32 array of shape `(samples, units)`.

        With `sparse_output=True`, the array is a `scipy.sparse.csr_array`.
        """
        check_is_fitted(self)
        x = validate_data(self, X, dtype="float32", reset=False)
        if self.sparse_output:
            return self.model_.encode(x, sparse=True)
        return _call_in_batches(self.model_.encoder, x)

    def inverse_transform(self, X: CodesLike) -> np.ndarray:
        """Return reconstructions as a float32 array of shape `(samples, features)`.

        Args:
            X: Codes as an array or a SciPy sparse matrix of shape `(samples, units)`.

        Raises:
            ValueError: `X` does not have one column per unit.
        """
        check_is_fitted(self)
        codes = check_array(X, dtype="float32", accept_sparse="csr")
        if codes.shape[1] != self._n_features_out:
            raise ValueError(
                f"`X` must contain codes with {self._n_features_out} units. Received: "
                f"X of shape {codes.shape}. Pass the output of `transform`."
            )
        if issparse(codes):
            return self.model_.decode(codes)
        return _call_in_batches(self.model_.decoder, codes)

    def score(self, X: ArrayLike, y: ArrayLike | None = None) -> float:
        """Return the explained variance of the reconstruction of `X`, at most 1."""
        del y
        check_is_fitted(self)
        x = validate_data(self, X, dtype="float32", reset=False)
        return metrics.explained_variance(x, _call_in_batches(self.model_, x))

    @property
    def _n_features_out(self) -> int:
        return int(self.model_.decoder.input_shape[-1])

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags


def _call_in_batches(model: keras.Model, x: np.ndarray) -> np.ndarray:
    """Apply `model` batch by batch, without the graph tracing of `predict`."""
    batches = [x[i : i + _BATCH_SIZE] for i in range(0, len(x), _BATCH_SIZE)]
    convert = keras.ops.convert_to_numpy
    return np.concatenate([convert(model(batch, training=False)) for batch in batches])


@contextmanager
def _seeded(random_state: RandomState) -> Iterator[None]:
    """Seed Keras for a fit, and then restore the random states of NumPy and Python."""
    if random_state is None:
        yield
        return
    seed = int(check_random_state(random_state).randint(2**31 - 1))
    numpy_state, python_state = np.random.get_state(), random.getstate()
    keras.utils.set_random_seed(seed)
    try:
        yield
    finally:
        np.random.set_state(numpy_state)
        random.setstate(python_state)
