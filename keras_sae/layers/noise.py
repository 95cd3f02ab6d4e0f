"""Layers that corrupt their input in training, for denoising autoencoders."""

import math
from typing import Any

import keras
from keras import ops

from keras_sae.layers.base import ShapePreservingLayer
from keras_sae.types import Config, Tensor
from keras_sae.utils.serialization import register


class _Corruption(ShapePreservingLayer):
    """Base class for layers that corrupt random values in training."""

    def __init__(self, rate: float, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not 0 <= rate < 1:
            raise ValueError(
                "`rate`, the fraction of corrupted values, must lie in [0, 1). "
                f"Received: rate={rate}. A typical value is 0.3."
            )
        self.rate = float(rate)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.supports_masking = True

    def get_config(self) -> Config:
        """Return the constructor arguments."""
        return {**super().get_config(), "rate": self.rate, "seed": self.seed}


@register
class MaskingNoise(_Corruption):
    """Set random values to zero in training.

    `y = x * m`, where `m_ij` is 0 with probability `rate`, else 1

    Unlike `keras.layers.Dropout`, this layer does not scale up the other values. On
    average, outputs are therefore larger at inference by a factor of `1 / (1 - rate)`.
    Use `keras.layers.Dropout` if the model must also reconstruct clean inputs well.

    Args:
        rate: Probability that a value is set to zero, in [0, 1).
        seed: None, or an integer for reproducible masks.
        **kwargs: Arguments of `keras.layers.Layer`.

    Input and output shape:
        `(batch, ...)`.

    Raises:
        ValueError: `rate` is not in [0, 1).

    References:
        [Vincent et al., "Extracting and composing robust features with denoising
        autoencoders", 2008](https://dl.acm.org/doi/10.1145/1390156.1390294).

    Example:

    >>> import numpy as np
    >>> from keras_sae import layers
    >>> y = layers.MaskingNoise(0.5, seed=0)(np.full((1, 100), 3.0), training=True)
    >>> sorted(set(np.asarray(y)[0].tolist()))
    [0.0, 3.0]
    """

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        """Return `inputs`, masked in training."""
        if not training or self.rate == 0:
            return inputs
        shape, seed = ops.shape(inputs), self.seed_generator
        draw = keras.random.uniform(shape, dtype="float32", seed=seed)
        return ops.where(draw < self.rate, ops.zeros_like(inputs), inputs)


@register
class SaltAndPepperNoise(_Corruption):
    """Set random values to the lowest or the highest value in training.

    `y_ij = low` or `high`, with probability `rate / 2` each, else `x_ij`

    Args:
        rate: Probability that a value is replaced, in [0, 1).
        low: Lowest value of the data (pepper).
        high: Highest value of the data (salt).
        seed: None, or an integer for reproducible noise.
        **kwargs: Arguments of `keras.layers.Layer`.

    Input and output shape:
        `(batch, ...)`.

    Raises:
        ValueError: `rate` is not in [0, 1), `low` is not less than `high`, or one of
            these two is not finite.

    References:
        [Vincent et al., "Stacked denoising autoencoders", 2010](
        https://jmlr.org/papers/v11/vincent10a.html).

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
        if not -math.inf < low < high < math.inf:
            raise ValueError(
                "`low` must be less than `high`, and both must be finite. Received: "
                f"low={low}, high={high}. Use the minimum and maximum of the data."
            )
        self.low, self.high = float(low), float(high)

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        """Return `inputs`, with salt-and-pepper noise in training."""
        if not training or self.rate == 0:
            return inputs
        shape, seed = ops.shape(inputs), self.seed_generator
        draw = keras.random.uniform(shape, dtype="float32", seed=seed)
        salt = ops.cast(draw < self.rate / 2, inputs.dtype)
        noise = self.low + (self.high - self.low) * salt
        return ops.where(draw < self.rate, ops.cast(noise, inputs.dtype), inputs)

    def get_config(self) -> Config:
        """Return the constructor arguments."""
        return {**super().get_config(), "low": self.low, "high": self.high}
