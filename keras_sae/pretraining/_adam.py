"""Adam as the levels are trained with it: one operation a weight on TensorFlow."""

from typing import Any

import keras
from keras import ops

from keras_sae.utils.serialization import register


@register
class FusedAdam(keras.optimizers.Adam):
    """`keras.optimizers.Adam` whose update TensorFlow makes in one operation.

    `m <- m + (1 - beta_1) (g - m)`, `v <- v + (1 - beta_2) (g^2 - v)`,
    `w <- w - rate sqrt(1 - beta_2^t) / (1 - beta_1^t) m / (sqrt(v) + epsilon)`

    Keras writes this as a dozen operations, and each goes through all of the
    weights. State, arguments and what is logged are Keras's; weights differ by
    rounding alone. On other backends, with `amsgrad` and for sparse gradients the
    update is Keras's own.

    Args:
        *args: Those of `keras.optimizers.Adam`.
        **kwargs: The same.

    Reference:
        Kingma & Ba, "Adam: A method for stochastic optimization", 2015, in the
        order of operations at the end of its section 2.

    Example:

    >>> import numpy as np
    >>> import keras
    >>> from keras_sae.pretraining._adam import FusedAdam
    >>> weight, adam = keras.Variable(np.ones(2, "float32")), FusedAdam(0.1)
    >>> gradient = keras.ops.convert_to_tensor(np.array([2.0, -3.0], "float32"))
    >>> adam.apply([gradient], [weight])
    >>> [f"{value:.4f}" for value in keras.ops.convert_to_numpy(weight)]
    ['0.9000', '1.1000']
    """

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Moves one variable."""
        if self.amsgrad or not _is_dense_on_tensorflow(gradient):
            super().update_step(gradient, variable, learning_rate)
            return
        import tensorflow as tf

        def number(value: Any) -> Any:
            return ops.cast(value, variable.dtype)

        index = self._get_variable_index(variable)
        step = number(self.iterations + 1)
        tf.raw_ops.ResourceApplyAdam(
            var=_handle(variable),
            m=_handle(self._momentums[index]),
            v=_handle(self._velocities[index]),
            beta1_power=ops.power(number(self.beta_1), step),
            beta2_power=ops.power(number(self.beta_2), step),
            lr=number(learning_rate),
            beta1=number(self.beta_1),
            beta2=number(self.beta_2),
            epsilon=number(self.epsilon),
            grad=number(gradient),
        )


def fused(optimizer: keras.optimizers.Optimizer) -> keras.optimizers.Optimizer:
    """Returns a fresh Adam as a `FusedAdam`; any other optimizer as it is."""
    if type(optimizer) is not keras.optimizers.Adam:
        return optimizer
    return FusedAdam.from_config(optimizer.get_config())


def _is_dense_on_tensorflow(gradient: Any) -> bool:
    if keras.config.backend() != "tensorflow":
        return False
    import tensorflow as tf

    return isinstance(gradient, tf.Tensor)  # which `tf.IndexedSlices` is not


def _handle(variable: Any) -> Any:
    """What TensorFlow knows a variable by; Keras's variables hold TensorFlow's."""
    is_keras = isinstance(variable, keras.Variable)
    return (variable.value if is_keras else variable).handle
