"""A regularizer of the code as a sparsity layer."""

from typing import Any

import keras
from keras import ops

from keras_sae.layers.base import layer_state
from keras_sae.layers.sparsity import Sparsity
from keras_sae.regularizers import L1, KLDivergence
from keras_sae.types import Config, RegularizerLike, Shape, Tensor
from keras_sae.utils.serialization import register


@register
class ActivityPenalty(Sparsity):
    """Return the code unchanged, and add a regularizer's penalty to the loss.

    `loss += coefficient * regularizer(h) / batch`

    `SparseDense` creates this layer if its `sparsity` is a regularizer. It can also
    penalize the output of any other layer. Callbacks can adjust the penalty.

    Args:
        regularizer: A `keras.regularizers.Regularizer` whose value is a sum over the
            batch, as for Keras's activity regularizers.
        bounds: Lowest and highest activation. A KL divergence needs values in (0, 1)
            and gets `(h - low) / (high - low)`. Other penalties get `h` itself.
        **kwargs: Arguments of `keras.layers.Layer`.

    Input and output shape:
        `(batch, ..., units)`.

    Example:

    >>> import numpy as np
    >>> from keras_sae import layers, regularizers
    >>> penalty = layers.ActivityPenalty(regularizers.L1(0.5))
    >>> code = penalty(np.array([[1.0, -2.0], [0.0, 3.0]], "float32"))
    >>> float(penalty.losses[0])
    1.5
    """

    has_penalty = True

    def __init__(
        self,
        regularizer: RegularizerLike,
        bounds: tuple[float, float] = (0.0, 1.0),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.regularizer = keras.regularizers.get(regularizer)
        self.bounds = (float(bounds[0]), float(bounds[1]))
        self.supports_masking = True
        if isinstance(self.regularizer, (L1, KLDivergence)):
            self.activation = self.regularizer.activation
        self.scale_dependent = not isinstance(self.regularizer, KLDivergence)

    def build(self, input_shape: Shape) -> None:
        """Create the coefficient and, for a KL divergence with momentum, the mean."""
        super().build(input_shape)
        self.running_mean: keras.Variable = None
        if isinstance(self.regularizer, KLDivergence) and self.regularizer.momentum:
            target = self.regularizer.target
            self.running_mean = layer_state("running_mean", input_shape[1:], target)

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        """Return `inputs` and add the penalty to the loss."""
        code = ops.cast(inputs, "float32")
        if isinstance(self.regularizer, KLDivergence):
            low, high = self.bounds
            code = (code - low) / (high - low)
        batch = ops.shape(code)[0]
        if self.running_mean is None:
            value = self.regularizer(code)
            self.add_penalty(
                ops.cast(value, "float32") / ops.cast(batch, "float32"), inputs
            )
            return inputs
        mean = ops.mean(code, axis=0)
        if training and self.trainable:
            momentum = self.regularizer.momentum
            old = ops.convert_to_tensor(self.running_mean)
            average = momentum * old + (1 - momentum) * ops.stop_gradient(mean)
            # A replica may receive an empty batch at the end of an epoch.
            average = ops.where(batch > 0, average, old)
            self.running_mean.assign(average)
            # The value of the running mean, with the gradient of the batch mean.
            mean = mean + ops.stop_gradient(average - mean)
        self.add_penalty(self.regularizer.penalty(mean), inputs)
        return inputs

    def get_config(self) -> Config:
        """Return the constructor's arguments."""
        return {
            **super().get_config(),
            "regularizer": keras.regularizers.serialize(self.regularizer),
            "bounds": list(self.bounds),
        }
