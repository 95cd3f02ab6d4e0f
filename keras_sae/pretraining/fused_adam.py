"""Adam with one TensorFlow operation per weight, which speeds up `greedy`."""

from typing import Any

import keras
from keras import ops

from keras_sae.types import Tensor
from keras_sae.utils.serialization import register


@register
class FusedAdam(keras.optimizers.Adam):
    """`keras.optimizers.Adam` that updates each weight in one TensorFlow operation.

    Keras computes the update in a dozen operations, each of which reads all weights.
    Arguments, variables and results are the same, except for rounding errors in the
    weights. Keras's own update is used on other backends, with `amsgrad=True`, and for
    sparse gradients.

    Reference:
        Kingma & Ba, [Adam: A method for stochastic optimization](
        https://arxiv.org/abs/1412.6980), 2015, end of section 2.
    """

    def update_step(
        self, gradient: Tensor, variable: Any, learning_rate: Tensor
    ) -> None:
        """Update one variable."""
        fused = keras.config.backend() == "tensorflow" and not self.amsgrad
        if fused:
            import tensorflow as tf

            fused = isinstance(gradient, tf.Tensor)  # not `tf.IndexedSlices`
        if not fused:
            super().update_step(gradient, variable, learning_rate)
            return
        index = self._get_variable_index(variable)
        states = variable, self._momentums[index], self._velocities[index]
        # Inside a distribution strategy, `variable` is already a TensorFlow variable.
        weight, momentum, velocity = (
            (x.value if isinstance(x, keras.Variable) else x).handle for x in states
        )
        step = ops.cast(self.iterations + 1, variable.dtype)
        beta_1 = ops.cast(self.beta_1, variable.dtype)
        beta_2 = ops.cast(self.beta_2, variable.dtype)
        tf.raw_ops.ResourceApplyAdam(
            var=weight,
            m=momentum,
            v=velocity,
            beta1_power=ops.power(beta_1, step),
            beta2_power=ops.power(beta_2, step),
            lr=ops.cast(learning_rate, variable.dtype),
            beta1=beta_1,
            beta2=beta_2,
            epsilon=ops.cast(self.epsilon, variable.dtype),
            grad=ops.cast(gradient, variable.dtype),
        )
