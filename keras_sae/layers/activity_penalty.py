"""The layer that holds a soft penalty and what a regularizer cannot hold."""

from typing import Any

import keras
from keras import ops

from keras_sae.layers._state import state
from keras_sae.layers._weighted import Weighted
from keras_sae.regularizers import KLDivergence
from keras_sae.utils.serialization import register


@register
class ActivityPenalty(Weighted):
    """Passes a code on unchanged and adds a regularizer's penalty to the loss.

    `loss += scale * regularizer(h) / batch`

    `scale` is a variable, 1 at the start: callbacks steer the penalty by it.
    `SparseDense` makes this layer when its `sparsity` is a regularizer.

    Args:
        regularizer: A `keras.regularizers.Regularizer`, whose value is a sum
            over the batch, as Keras has it for activity regularizers.
        bounds: `(low, high)` of the activations. A divergence needs (0, 1) and
            gets `(h - low) / (high - low)`; other penalties take `h` itself.
        **kwargs: Those of `keras.layers.Layer`.

    Input shape:
        `(batch, ..., units)`.

    Output shape:
        The same.

    Example:

    >>> import numpy as np
    >>> from keras_sae import layers, regularizers
    >>> penalty = layers.ActivityPenalty(regularizers.L1(0.5))
    >>> code = penalty(np.array([[1.0, -2.0], [0.0, 3.0]], "float32"))
    >>> float(penalty.losses[0])
    1.5
    """

    def __init__(
        self,
        regularizer: Any,
        bounds: tuple[float, float] = (0.0, 1.0),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.regularizer = keras.regularizers.get(regularizer)
        self.bounds = tuple(bounds)
        self.supports_masking = True

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Makes the scale and, for a divergence with momentum, the running mean."""
        super().build(input_shape)
        self.running_mean: Any = None
        if self._averages:
            self.running_mean = state(
                "running_mean", tuple(input_shape[1:]), self.regularizer.target
            )

    @property
    def _averages(self) -> bool:
        return (
            isinstance(self.regularizer, KLDivergence)
            and self.regularizer.momentum is not None
        )

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Returns `inputs`; adds the penalty to the loss."""
        code = ops.cast(inputs, "float32")
        if isinstance(self.regularizer, KLDivergence):
            low, high = self.bounds
            code = (code - low) / (high - low)
        if self._averages:
            value = self.regularizer.penalty(self._average(code, training))
        else:
            batch = ops.cast(ops.shape(code)[0], "float32")
            value = ops.cast(self.regularizer(code), "float32") / batch
        self.add_term(value)
        return inputs

    def _average(self, code: Any, training: bool | None) -> Any:
        """The running mean, with the gradient of the batch's own mean."""
        mean, old = ops.mean(code, axis=0), ops.convert_to_tensor(self.running_mean)
        if not (training and self.trainable):
            return mean
        momentum = self.regularizer.momentum
        average = momentum * old + (1 - momentum) * ops.stop_gradient(mean)
        # The last batch of an epoch may leave a replica without a sample.
        average = ops.where(ops.shape(code)[0] > 0, average, old)
        self.running_mean.assign(average)
        return mean + ops.stop_gradient(average - mean)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """Returns `input_shape`."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {
            **super().get_config(),
            "regularizer": keras.regularizers.serialize(self.regularizer),
            "bounds": list(self.bounds),
        }
