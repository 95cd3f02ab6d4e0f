"""A sparsity layer that applies a regularizer to the code."""

from typing import Any

import keras
from keras import ops

from keras_sae.layers import forward_pass
from keras_sae.layers.base import layer_state
from keras_sae.layers.sparsity import Sparsity
from keras_sae.ops.statistics import expand_weight, weighted_mean
from keras_sae.regularizers import L1, KLDivergence
from keras_sae.types import Config, RegularizerLike, Shape, Tensor
from keras_sae.utils.serialization import register


@register
class ActivityPenalty(Sparsity):
    """Add a regularizer's penalty to the loss, and return the code unchanged.

    `loss += coefficient * regularizer(h) / batch`

    `SparseDense` creates this layer if its `sparsity` is a regularizer. The layer can
    also penalize the output of any other layer. Callbacks such as
    `keras_sae.callbacks.SparsityWarmup` change `coefficient`, which is initially 1.

    With sample weights `w`, an L1 penalty is `factor * sum_ij(w_i |h_ij|) / batch`, and
    a KL divergence uses the weighted mean of the activations. Other regularizers do not
    support weights: the codes of samples with weight 0 are replaced by zeros, and all
    other samples count equally.

    Args:
        regularizer: A `keras.regularizers.Regularizer` whose value is a sum over the
            batch, as Keras expects of an activity regularizer.
        bounds: Lowest and highest activation. A KL divergence requires values in
            (0, 1), so it receives `(h - low) / (high - low)`. Other penalties receive
            `h` itself.
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
        """Create the coefficient, and the running mean of a KL divergence."""
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
        batch = ops.cast(ops.shape(code)[0], "float32")
        weight = forward_pass.sample_weight()
        if not isinstance(self.regularizer, KLDivergence):
            if weight is not None:
                scale = weight if isinstance(self.regularizer, L1) else weight > 0
                code = code * expand_weight(ops.cast(scale, "float32"), code)
            value = ops.cast(self.regularizer(code), "float32")
            self.add_penalty(value / batch, inputs)
            return inputs
        mean = weighted_mean(code, weight)
        momentum = self.regularizer.momentum
        if momentum is not None and training and self.trainable:
            old = ops.copy(self.running_mean)

            def assign(means: Tensor, rows: Tensor) -> None:
                new = momentum * old + (1 - momentum) * weighted_mean(means, rows)
                # A batch may be empty, or all its weights may be 0.
                self.running_mean.assign(ops.where(ops.sum(rows) > 0, new, old))

            rows = batch if weight is None else ops.sum(weight)
            forward_pass.update(assign, ops.stop_gradient(mean), rows)
            # Use the value of the running mean, but the gradient of the batch mean.
            mean = mean + ops.stop_gradient(self.running_mean - mean)
        self.add_penalty(self.regularizer.penalty(mean), inputs)
        return inputs

    def get_config(self) -> Config:
        """Return the constructor's arguments."""
        return {
            **super().get_config(),
            "regularizer": keras.regularizers.serialize(self.regularizer),
            "bounds": list(self.bounds),
        }
