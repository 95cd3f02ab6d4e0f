"""How likely data are under a reconstruction: the two usual assumptions."""

import math
from typing import Any

import keras
import numpy as np

from keras_sae.layers import serialization as sparsity
from keras_sae.utils import validation as checks
from keras_sae.utils.serialization import register

# Probabilities are kept this far from 0 and 1, as Keras's cross-entropy keeps them.
_EPSILON = 1e-7


@register
class GaussianLikelihood:
    """Values that scatter about the reconstruction with one known variance.

    `log p(x | r) = -sum_d (x_d - r_d)^2 / (2 variance) - D/2 log(2 pi variance)`

    Keras's `"mse"` is `2 * variance / D` times the first term: with a variance of
    1/2 the loss `mse + KL / D` is the negative ELBO divided by `D`, but for a
    constant.

    Args:
        variance: Variance of each value about its reconstruction, positive.

    Raises:
        ValueError: `variance` is not positive and finite.

    Example:

    >>> import numpy as np
    >>> from keras_sae import models
    >>> x, r = np.array([[1.0, 0.0]]), np.array([[0.0, 0.0]])
    >>> models.GaussianLikelihood(0.5).log_likelihood(x, r).round(4).tolist()
    [-2.1447]

    which is `-1 - log(pi)`.
    """

    loss = "mse"
    output_activation = "linear"
    bounds = (-math.inf, math.inf)

    def __init__(self, variance: float = 0.5) -> None:
        self.variance = checks.finite_factor("variance", variance)
        if variance == 0:
            raise ValueError(
                "`variance` must be positive. Received: variance=0. A usual value is "
                "the squared error a value that a good reconstruction has."
            )

    @property
    def scale(self) -> float:
        """What a nat is worth in the loss, times `D`."""
        return 2 * self.variance

    def log_likelihood(self, x: Any, reconstruction: Any) -> np.ndarray:
        """Returns `log p(x | r)` in nats, one a sample, in float64.

        Args:
            x: Data of shape `(samples, ...)`.
            reconstruction: The same shape.
        """
        x, r = _rows(x), _rows(reconstruction)
        constant = x.shape[1] / 2 * math.log(2 * math.pi * self.variance)
        return -((x - r) ** 2).sum(axis=1) / (2 * self.variance) - constant

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {"variance": self.variance}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "GaussianLikelihood":
        """Makes the likelihood that `get_config` describes."""
        return cls(**config)


@register
class BernoulliLikelihood:
    """Values that are 0 or 1, at the probability that the reconstruction gives.

    `log p(x | r) = sum_d x_d log(r_d) + (1 - x_d) log(1 - r_d)`

    Keras's `"binary_crossentropy"` is its negative, divided by `D`. For values
    between 0 and 1 it is a score, not a likelihood: no density belongs to it.

    Example:

    >>> import numpy as np
    >>> from keras_sae import models
    >>> x, r = np.array([[1.0, 0.0]]), np.array([[0.5, 0.5]])
    >>> models.BernoulliLikelihood().log_likelihood(x, r).round(4).tolist()
    [-1.3863]

    which is `-2 log(2)`.
    """

    loss = "binary_crossentropy"
    output_activation = "sigmoid"
    bounds = (0.0, 1.0)
    scale = 1.0

    def log_likelihood(self, x: Any, reconstruction: Any) -> np.ndarray:
        """Returns `log p(x | r)` in nats, one a sample, in float64.

        Args:
            x: Data of shape `(samples, ...)`, values in [0, 1].
            reconstruction: The same shape.
        """
        x, r = _rows(x), np.clip(_rows(reconstruction), _EPSILON, 1 - _EPSILON)
        return (x * np.log(r) + (1 - x) * np.log1p(-r)).sum(axis=1)

    def get_config(self) -> dict[str, Any]:
        """Returns an empty dict: there is nothing to set."""
        return {}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "BernoulliLikelihood":
        """Makes the likelihood that `get_config` describes."""
        return cls(**config)


NAMES = {"gaussian": GaussianLikelihood, "bernoulli": BernoulliLikelihood}


def get(identifier: Any) -> Any:
    """Returns the likelihood that an object, a name or a config stands for."""
    if isinstance(identifier, str):
        return NAMES[checks.known_name("likelihood", identifier, NAMES)]()
    if isinstance(identifier, dict):
        return keras.saving.deserialize_keras_object(identifier)
    if hasattr(identifier, "log_likelihood") and not isinstance(identifier, type):
        return identifier
    raise ValueError(
        "`likelihood` must be `keras_sae.models.GaussianLikelihood(variance)`, "
        "`keras_sae.models.BernoulliLikelihood()`, or the name of one. "
        f"Received: likelihood={identifier!r}."
    )


def check_range(likelihood: Any, activation: Any) -> None:
    """Raises if an output activation leaves what the likelihood can be given."""
    low, high = sparsity.activation_bounds(keras.activations.get(activation))
    if low < likelihood.bounds[0] or high > likelihood.bounds[1]:
        raise ValueError(
            f"`output_activation` must give values in {likelihood.bounds} for a "
            f"{type(likelihood).__name__}. Received: output_activation={activation!r}, "
            f"whose values reach from {low:g} to {high:g}. Use "
            f"{likelihood.output_activation!r} or 'auto'."
        )


def _rows(values: Any) -> np.ndarray:
    values = np.asarray(values, "float64")
    return values.reshape(len(values), -1)
