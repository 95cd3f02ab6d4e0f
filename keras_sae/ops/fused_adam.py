"""Adam with one TensorFlow operation per weight."""

from typing import Any

import keras
from keras import ops

from keras_sae.types import Tensor


def fuse(optimizer: keras.optimizers.Optimizer | None) -> None:
    """Make an Adam optimizer update each weight in one TensorFlow operation.

    Keras computes the update in a dozen operations, each of which reads all weights.
    The optimizer's class, variables and config do not change, and the updated weights
    differ only by rounding errors. Keras's own update is used for other optimizers, on
    other backends, with `amsgrad=True`, and for sparse gradients.

    Args:
        optimizer: The optimizer of a compiled model, changed in place.

    Reference:
        Kingma & Ba, [Adam: A method for stochastic optimization](
        https://arxiv.org/abs/1412.6980), 2015, end of section 2.
    """
    keras_update = keras.optimizers.Adam.update_step
    if (
        keras.config.backend() != "tensorflow"
        or not isinstance(optimizer, keras.optimizers.Adam)  # or AdamW
        or type(optimizer).update_step is not keras_update
        or optimizer.amsgrad
    ):
        return
    import tensorflow as tf

    def update_step(gradient: Tensor, variable: Any, learning_rate: Tensor) -> None:
        if isinstance(gradient, tf.IndexedSlices):
            keras_update(optimizer, gradient, variable, learning_rate)
            return
        index = optimizer._get_variable_index(variable)
        states = variable, optimizer._momentums[index], optimizer._velocities[index]
        # Inside a distribution strategy, `variable` is already a TensorFlow variable.
        weight, momentum, velocity = (
            (x.value if isinstance(x, keras.Variable) else x).handle for x in states
        )
        step = ops.cast(optimizer.iterations + 1, variable.dtype)
        beta_1 = ops.cast(optimizer.beta_1, variable.dtype)
        beta_2 = ops.cast(optimizer.beta_2, variable.dtype)
        tf.raw_ops.ResourceApplyAdam(
            var=weight,
            m=momentum,
            v=velocity,
            beta1_power=ops.power(beta_1, step),
            beta2_power=ops.power(beta_2, step),
            lr=ops.cast(learning_rate, variable.dtype),
            beta1=beta_1,
            beta2=beta_2,
            epsilon=ops.cast(optimizer.epsilon, variable.dtype),
            grad=ops.cast(gradient, variable.dtype),
        )

    optimizer.update_step = update_step
