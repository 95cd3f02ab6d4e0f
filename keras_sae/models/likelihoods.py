"""Likelihoods of the data given a reconstruction."""

import abc
import math
from typing import Any, ClassVar

import keras
import numpy as np

from keras_sae.types import ArrayLike, Config
from keras_sae.utils.serialization import register
from keras_sae.utils.validation import known_name, positive_number

# Keras's cross-entropy clips probabilities at this distance from 0 and 1.
_EPSILON = 1e-7


class Likelihood(abc.ABC):
    """Base class for likelihoods of variational autoencoders.

    Attributes:
        loss: Keras loss that equals the negative log-likelihood up to a factor and a
            constant.
        output_activation: Recommended activation of the reconstruction.
        bounds: Lowest and highest value that a reconstruction can have.
        scale: Factor in `loss = scale / D * negative log-likelihood + constant`, where
            `D` is the number of values per sample.
    """

    loss: ClassVar[str]
    output_activation: ClassVar[str]
    bounds: ClassVar[tuple[float, float]]
    scale: float

    @abc.abstractmethod
    def log_likelihood(self, x: ArrayLike, reconstruction: ArrayLike) -> np.ndarray:
        """Return `log p(x | r)` in nats per sample, in float64.

        Args:
            x: Data of shape `(samples, ...)`.
            reconstruction: Reconstructions of the same shape.
        """

    def get_config(self) -> Config:
        """Return the arguments of the constructor."""
        return {}

    @classmethod
    def from_config(cls, config: Config) -> "Likelihood":
        """Create a likelihood from its config."""
        return cls(**config)


@register
class GaussianLikelihood(Likelihood):
    """Independent Gaussian noise of a known variance around the reconstruction.

    `log p(x | r) = -sum_d (x_d - r_d)^2 / (2 variance) - D/2 log(2 pi variance)`

    Args:
        variance: Variance of the noise in each of the `D` values of a sample. A common
            choice is the mean squared error of a good reconstruction.

    Raises:
        ValueError: `variance` is not positive and finite.

    Example:

    >>> import numpy as np
    >>> from keras_sae import models
    >>> x, r = np.array([[1.0, 0.0]]), np.array([[0.0, 0.0]])
    >>> models.GaussianLikelihood(0.5).log_likelihood(x, r).round(4).tolist()
    [-2.1447]
    """

    loss = "mse"
    output_activation = "linear"
    bounds = (-math.inf, math.inf)

    def __init__(self, variance: float = 0.5) -> None:
        self.variance = positive_number("variance", variance)
        self.scale = 2 * self.variance

    def log_likelihood(self, x: ArrayLike, reconstruction: ArrayLike) -> np.ndarray:
        """Return `log p(x | r)` in nats per sample."""
        error = np.asarray(x, "float64") - np.asarray(reconstruction, "float64")
        squares = np.square(error).reshape(len(error), -1)
        constant = squares.shape[1] / 2 * math.log(2 * math.pi * self.variance)
        return -squares.sum(axis=1) / (2 * self.variance) - constant

    def get_config(self) -> Config:
        """Return the arguments of the constructor."""
        return {"variance": self.variance}


@register
class BernoulliLikelihood(Likelihood):
    """Independent binary values; the reconstruction is the probability of a 1.

    `log p(x | r) = sum_d x_d log(r_d) + (1 - x_d) log(1 - r_d)`

    For data strictly between 0 and 1, the formula is not the logarithm of a density.

    Example:

    >>> import numpy as np
    >>> from keras_sae import models
    >>> x, r = np.array([[1.0, 0.0]]), np.array([[0.5, 0.5]])
    >>> models.BernoulliLikelihood().log_likelihood(x, r).round(4).tolist()
    [-1.3863]
    """

    loss = "binary_crossentropy"
    output_activation = "sigmoid"
    bounds = (0.0, 1.0)
    scale = 1.0

    def log_likelihood(self, x: ArrayLike, reconstruction: ArrayLike) -> np.ndarray:
        """Return `log p(x | r)` in nats per sample."""
        x, r = np.asarray(x, "float64"), np.asarray(reconstruction, "float64")
        r = np.clip(r, _EPSILON, 1 - _EPSILON)
        values = x * np.log(r) + (1 - x) * np.log1p(-r)
        return values.reshape(len(x), -1).sum(axis=1)


_NAMES = {"gaussian": GaussianLikelihood, "bernoulli": BernoulliLikelihood}


def get_likelihood(identifier: str | Config | Likelihood) -> Likelihood:
    """Return the likelihood for an object, a name or a config."""
    likelihood: Any = identifier
    if isinstance(identifier, str):
        likelihood = _NAMES[known_name("likelihood", identifier, _NAMES)]()
    elif isinstance(identifier, dict):
        likelihood = keras.saving.deserialize_keras_object(identifier)
    if not isinstance(likelihood, Likelihood):
        raise ValueError(
            "`likelihood` must be a `GaussianLikelihood`, a `BernoulliLikelihood`, or "
            f"one of the names {', '.join(_NAMES)}. Received: "
            f"likelihood={identifier!r}."
        )
    return likelihood
