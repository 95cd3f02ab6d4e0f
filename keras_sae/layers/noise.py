"""Layers that damage their input while training, and only then.

`keras.layers.GaussianNoise` is the third of them. `keras.layers.Dropout` is not:
it scales up what it keeps, so that the clean input at inference is another one.
"""

import math
import numbers
from typing import Any

import keras
from keras import ops

from keras_sae.utils.serialization import register


class _Corruption(keras.layers.Layer):
    """What the two have in common: a rate, a seed, and the input at inference."""

    def __init__(self, rate: float, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not isinstance(rate, numbers.Real) or not 0 <= rate < 1:
            raise ValueError(
                "`rate` is the fraction of the values that is destroyed, so it must "
                f"lie in [0, 1). Received: rate={rate!r}. A usual value is 0.3."
            )
        self.rate: float = float(rate)
        self.seed: int | None = seed
        self.seed_generator: Any = keras.random.SeedGenerator(seed)
        self.supports_masking = True

    def _uniform(self, inputs: Any) -> Any:
        """Numbers in [0, 1), one a value, in float32 under any policy."""
        shape = ops.shape(inputs)
        return keras.random.uniform(shape, dtype="float32", seed=self.seed_generator)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """Returns `input_shape`."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {**super().get_config(), "rate": self.rate, "seed": self.seed}


@register
class MaskingNoise(_Corruption):
    """Sets a random part of the values to zero while training.

    `y = x * m`, with `m_ij = 0` at the probability `rate`, else 1

    What is kept stays as it is, unlike in `keras.layers.Dropout`. So a clean input
    is stronger by `1 / (1 - rate)` than what a model with this layer was trained
    on: it rebuilds damaged inputs best, and clean ones worse than a plain model.
    Where the clean ones matter, take `keras.layers.Dropout`, which makes up for it.

    Args:
        rate: Probability that a value is set to zero, in [0, 1).
        seed: None, or an integer that makes the masks repeatable.
        **kwargs: Those of `keras.layers.Layer`.

    Input shape:
        `(batch, ...)`.

    Output shape:
        The same.

    Raises:
        ValueError: `rate` is outside [0, 1).

    Reference:
        Vincent et al., "Extracting and composing robust features with denoising
        autoencoders", ICML 2008.

    Example:

    >>> import numpy as np
    >>> from keras_sae import layers
    >>> y = layers.MaskingNoise(0.5, seed=0)(np.full((1, 100), 3.0), training=True)
    >>> sorted(set(np.asarray(y)[0].tolist()))
    [0.0, 3.0]
    """

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Returns `inputs`, masked when training."""
        if not training or self.rate == 0:
            return inputs
        kept = self._uniform(inputs) >= self.rate
        return ops.where(kept, inputs, ops.zeros_like(inputs))


@register
class SaltAndPepperNoise(_Corruption):
    """Sets a random part of the values to the least or the greatest value.

    `y_ij = low` or `high`, at the probability `rate / 2` each, else `x_ij`

    Args:
        rate: Probability that a value is destroyed, in [0, 1).
        low: Least value of the data (pepper).
        high: Greatest value of the data (salt).
        seed: None, or an integer that makes the noise repeatable.
        **kwargs: Those of `keras.layers.Layer`.

    Input shape:
        `(batch, ...)`.

    Output shape:
        The same.

    Raises:
        ValueError: `rate` is outside [0, 1), or `low` is not below `high`, both finite.

    Reference:
        Vincent et al., "Stacked denoising autoencoders", JMLR 2010.

    Example:

    >>> import numpy as np
    >>> from keras_sae import layers
    >>> noise = layers.SaltAndPepperNoise(0.5, seed=0)
    >>> y = noise(np.full((1, 100), 0.25), training=True)
    >>> sorted(set(np.asarray(y)[0].tolist()))
    [0.0, 0.25, 1.0]
    """

    def __init__(
        self,
        rate: float,
        low: float = 0.0,
        high: float = 1.0,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(rate, seed, **kwargs)
        real = all(isinstance(x, numbers.Real) for x in (low, high))
        if not (real and -math.inf < low < high < math.inf):
            raise ValueError(
                "`low` must be less than `high`: the least and the greatest value of "
                f"the data, both finite. Received: low={low!r}, high={high!r}."
            )
        self.low, self.high = float(low), float(high)

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Returns `inputs`, with salt and pepper when training."""
        if not training or self.rate == 0:
            return inputs
        draw = self._uniform(inputs)
        salt = ops.cast(draw < self.rate / 2, inputs.dtype)
        noise = self.low + (self.high - self.low) * salt
        return ops.where(draw < self.rate, ops.cast(noise, inputs.dtype), inputs)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {**super().get_config(), "low": self.low, "high": self.high}
