"""Layers that center and scale the data."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_sae.layers import forward_pass
from keras_sae.layers.base import ShapePreservingLayer, layer_state
from keras_sae.ops.statistics import weighted_mean
from keras_sae.types import Config, Shape, Tensor
from keras_sae.utils.serialization import register
from keras_sae.utils.validation import known_name, positive_integer


@register
class Centering(ShapePreservingLayer):
    """Subtract the running mean of the training samples.

    `y = x - mean`. After `n` samples, a batch of `b` more samples updates the mean:
    `mean <- mean + (mean(batch) - mean) * b / (n + b)`.

    A ReLU unit whose weights point away from the mean of the data is inactive for
    nearly all samples and gets little gradient. On images, whose values are
    non-negative, up to half of a new encoder's units are inactive in this way. With
    centering, each unit is active for about half of the samples.

    Inputs from a hidden layer change during training. For such inputs, set `window`:
    `n` is then at most `window`, so values that earlier weights produced lose their
    influence on the mean. Under `tf.distribute`, a layer with a window subtracts a mean
    that does not yet include the current samples of other replicas.

    `keras_sae.models.Autoencoder.adapt` sets the mean in advance, unless the layer has
    a window. The mean is fixed at inference, and also in training if `count` is
    infinite or `trainable` is False.

    Args:
        window: Maximum of `n`, for the outputs of a hidden layer. If None, all samples
            have equal influence on the mean.
        **kwargs: Arguments of `keras.layers.Layer`.

    Input and output shape:
        `(batch, ..., input_dim)`.

    Attributes:
        mean: float32 variable of shape `(input_dim,)`.
        count: float32 variable of the same shape: the number of values that `mean`
            averages, or the sum of their weights.

    Raises:
        ValueError: `window` is not a positive integer.

    Example:

    >>> import numpy as np
    >>> from keras_sae import layers
    >>> layer = layers.Centering()
    >>> y = layer(np.array([[1.0, 2.0], [3.0, 6.0]], "float32"), training=True)
    >>> np.asarray(layer.mean).tolist()
    [2.0, 4.0]
    """

    def __init__(self, window: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.window = None if window is None else positive_integer("window", window)

    def build(self, input_shape: Shape) -> None:
        """Create the variables `mean` and `count`."""
        self.mean = layer_state("mean", (input_shape[-1],))
        self.count = layer_state("count", (input_shape[-1],))

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        """Return `inputs` minus the mean, after updating the mean in training."""
        step = forward_pass.current()
        if training and (step is None or self not in step.centered):
            self.update(inputs)
        return inputs - ops.cast(self.mean, self.compute_dtype)

    def update(self, x: Tensor) -> None:
        """Update the mean with a batch, unless `trainable` is False.

        Args:
            x: Tensor of shape `(batch, ..., input_dim)`.
        """
        if not self.trainable:
            return
        x = ops.stop_gradient(ops.cast(x, "float32"))
        old, count = ops.copy(self.mean), ops.copy(self.count)
        weight = forward_pass.value_weight(x)
        x = ops.reshape(x, (-1, x.shape[-1]))
        if weight is None:
            rows = ops.cast(ops.shape(x)[0], "float32") * ops.ones_like(old)
        else:
            weight = ops.reshape(weight, ops.shape(x))
            rows = ops.sum(weight, axis=0)

        def assign(means: Tensor, rows: Tensor) -> None:
            mean, rows = weighted_mean(means, rows), ops.sum(rows, axis=0)
            share = ops.divide_no_nan(rows, count + rows)
            self.mean.assign(old + (mean - old) * share)
            total = count + rows
            if self.window is not None:  # An infinite count keeps the mean fixed.
                total = ops.where(
                    ops.isfinite(total), ops.minimum(total, self.window), total
                )
            self.count.assign(total)

        forward_pass.update(assign, weighted_mean(x, weight), rows)

    def get_config(self) -> Config:
        """Return the constructor arguments."""
        return {**super().get_config(), "window": self.window}


@register
class Scaling(ShapePreservingLayer):
    """Divide inputs by the root mean square of the data, or multiply them by it.

    `y = x / rms`, or `y = x * rms` with `inverse=True`

    Published thresholds and penalty weights of sparse autoencoders assume inputs with a
    mean square of 1. A model built with `scaling=True` has this layer in the encoder
    and its inverse at the end of the decoder. The model's `adapt` method sets the root
    mean square of both layers. All values are divided by the same number, so the
    directions of the samples do not change.

    Args:
        inverse: Whether to multiply instead of dividing.
        **kwargs: Arguments of `keras.layers.Layer`.

    Input and output shape:
        Any.

    Attributes:
        rms: float32 scalar variable, initially 0. While it is 0, the layer returns its
            inputs unchanged.

    Example:

    >>> import numpy as np
    >>> from keras_sae import layers
    >>> layer = layers.Scaling()
    >>> layer.build((None, 2))
    >>> _ = layer.rms.assign(3.0)
    >>> np.asarray(layer(np.array([[6.0, 1.5]], "float32"))).tolist()
    [[2.0, 0.5]]
    """

    def __init__(self, inverse: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.inverse = inverse

    def build(self, input_shape: Shape) -> None:
        """Create the variable `rms`."""
        del input_shape
        self.rms = layer_state("rms")

    def call(self, inputs: Tensor) -> Tensor:
        """Return the scaled inputs."""
        return inputs * ops.cast(self.factor(), self.compute_dtype)

    def factor(self) -> Tensor:
        """Return the factor that multiplies the inputs, a float32 scalar."""
        rms = ops.convert_to_tensor(self.rms)
        rms = ops.where(rms > 0, rms, 1.0)
        return rms if self.inverse else 1 / rms

    def get_config(self) -> Config:
        """Return the constructor arguments."""
        return {**super().get_config(), "inverse": self.inverse}


def adapt_layers(
    encoder: Sequence[keras.layers.Layer],
    decoder: Sequence[keras.layers.Layer],
    samples: np.ndarray,
    location: str = "mean",
) -> np.ndarray:
    """Set `Centering` and `Scaling` layers, and return the center of the scaled data.

    In the decoder, only `Scaling` layers are set. A `Centering` layer with a window is
    left unchanged, because its inputs are the outputs of a hidden layer. `location` is
    `"mean"` or `"geometric_median"`, the point with the smallest sum of distances to
    the samples.
    """
    known_name("location", location, ("mean", "geometric_median"))
    rows = samples.reshape(len(samples), -1)
    center = rows.mean(axis=0)
    for _ in range(100 if location == "geometric_median" else 0):  # Weiszfeld
        weight = 1 / np.maximum(np.linalg.norm(rows - center, axis=1), 1e-12)
        previous, center = center, (weight[:, None] * rows).sum(axis=0) / weight.sum()
        if np.linalg.norm(center - previous) <= 1e-7 * np.linalg.norm(center):
            break
    scaling = [x for x in (*encoder, *decoder) if isinstance(x, Scaling)]
    if scaling and (samples == samples[0]).all():
        raise ValueError(
            "`x` must vary if `scaling=True`. Received: samples that are all equal. "
            "Pass the training data, or build the model with scaling=False."
        )
    centered = samples
    for layer in encoder:
        if isinstance(layer, Centering) and layer.window is None:
            channels = layer.mean.shape[0]
            mean = center.reshape(-1, channels).mean(axis=0)
            centered = samples.reshape(-1, channels) - mean
            layer.mean.assign(mean)
            # Training can update a mean with more samples, but not a median.
            count = len(centered) if location == "mean" else np.inf
            layer.count.assign(np.full(channels, count))
    rms = np.sqrt(np.mean(centered**2)) if scaling else 1.0
    for layer in scaling:
        layer.rms.assign(rms)
    return center / rms
