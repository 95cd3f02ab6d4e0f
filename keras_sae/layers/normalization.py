"""Layers that bring the data to mean 0 and unit size, and back."""

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_sae.layers.sparsity import layer_state as state
from keras_sae.utils.serialization import register


@register
class Centering(keras.layers.Layer):
    """Subtracts the mean of all training samples seen so far.

    `y = x - mean`, where after `n` samples and a batch of `b` more
    `mean <- mean + (mean(batch) - mean) * b / (n + b)`

    A ReLU unit whose weights point away from the data's mean is off for nearly
    every sample and gets no gradient: on images, which are non-negative, that
    is up to half of the units of a random encoder. About the mean, half of the
    samples reach each unit. `adapt` sets the mean beforehand; without it the
    mean settles within the first steps of a fit, and is fixed at inference. A
    count that is infinite fixes it in training too, and so does `trainable = False`, as
    in `keras.layers.BatchNormalization`, once the model is compiled again.

    Args:
        **kwargs: Those of `keras.layers.Layer`.

    Input shape:
        `(batch, ..., input_dim)`.

    Output shape:
        The same.

    Example:

    >>> import numpy as np
    >>> from keras_sae import layers
    >>> layer = layers.Centering()
    >>> y = layer(np.array([[1.0, 2.0], [3.0, 6.0]], "float32"), training=True)
    >>> np.asarray(layer.mean).tolist()
    [2.0, 4.0]
    """

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Makes the mean and the count of samples."""
        self.mean = state("mean", (input_shape[-1],))
        self.count = state("count")

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Returns `inputs` less the mean; learns the mean when training."""
        learns = training and self.trainable
        mean = self._learn(inputs) if learns else ops.convert_to_tensor(self.mean)
        return inputs - ops.cast(mean, self.compute_dtype)

    def _learn(self, inputs: Any) -> Any:
        samples = tuple(range(len(inputs.shape) - 1))
        x = ops.stop_gradient(ops.cast(inputs, "float32"))
        batch = ops.cast(ops.size(x) // ops.shape(x)[-1], "float32")
        seen = self.count + batch
        # The last batch of an epoch may leave a replica without a sample.
        here = ops.where(batch > 0, ops.mean(x, axis=samples), 0.0)
        share = batch / ops.maximum(seen, 1.0)
        mean = self.mean + (here - self.mean) * share
        self.mean.assign(mean)
        self.count.assign(seen)
        return mean

    def adapt(self, x: Any) -> None:
        """Sets the mean to that of `x`, as if it had been trained on it.

        Args:
            x: Array of shape `(samples, ..., input_dim)`.
        """
        x = np.asarray(x)
        if not self.built:
            self.build(x.shape)
        rows = x.reshape(-1, x.shape[-1])
        self.mean.assign(rows.mean(axis=0, dtype="float64"))
        self.count.assign(len(rows))

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """Returns `input_shape`."""
        return input_shape


@register
class Scaling(keras.layers.Layer):
    """Divides by the root mean square that it was adapted to, or multiplies by it.

    `y = x / rms`, or `y = x * rms` with `inverse`

    The thresholds and weights of the published sparse autoencoders are for inputs
    of unit mean square. A model made with `scaling=True` has this layer before its
    encoder and the inverse behind its decoder, and its `adapt` sets both. One number
    for all values keeps the directions of the data.

    Args:
        inverse: Whether to multiply.
        **kwargs: Those of `keras.layers.Layer`.

    Input shape:
        Any.

    Output shape:
        The same.

    Attributes:
        rms: float32 variable, 0 before it was adapted, which leaves the data alone.

    Example:

    >>> import numpy as np
    >>> from keras_sae import layers
    >>> layer = layers.Scaling()
    >>> layer.adapt(np.array([[3.0, -3.0]], "float32"))
    >>> np.asarray(layer(np.array([[6.0, 1.5]], "float32"))).tolist()
    [[2.0, 0.5]]
    """

    def __init__(self, inverse: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.inverse = inverse

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Makes the root mean square."""
        del input_shape
        self.rms = self.add_weight(
            shape=(),
            initializer="zeros",
            name="rms",
            trainable=False,
            dtype="float32",
            autocast=False,
        )

    def call(self, inputs: Any) -> Any:
        """Returns the scaled inputs."""
        return inputs * ops.cast(self.factor(), self.compute_dtype)

    def factor(self) -> Any:
        """Returns what the inputs are multiplied by, a float32 scalar."""
        rms = ops.convert_to_tensor(self.rms)
        rms = ops.where(rms > 0, rms, 1.0)
        return rms if self.inverse else 1 / rms

    def adapt(self, x: Any) -> None:
        """Sets the root mean square to that of `x`.

        Args:
            x: Array of any shape, centred as the layer will see it.
        """
        if not self.built:
            self.build(np.shape(x))
        self.rms.assign(np.sqrt(np.mean(np.square(x, dtype="float64"))))

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """Returns `input_shape`."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {**super().get_config(), "inverse": self.inverse}
