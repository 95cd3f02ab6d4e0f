"""Base class for layers, and a function that creates their state variables."""

import keras

from keras_sae.types import Shape


class ShapePreservingLayer(keras.layers.Layer):
    """Base class for layers whose outputs have the same shape as their inputs."""

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Return `input_shape`."""
        return input_shape


def layer_state(name: str, shape: Shape = (), initial: float = 0.0) -> keras.Variable:
    """Return a non-trainable float32 variable.

    A layer can assign a new value in a forward pass. Under `tf.distribute`, each
    replica has its own copy of the variable, and reading it outside a step returns the
    mean of the copies. An assignment does not synchronize the copies, because
    synchronization in a forward pass would mix up the losses of the replicas.
    """
    return keras.Variable(
        keras.initializers.Constant(initial),
        shape=shape,
        dtype="float32",
        trainable=False,
        autocast=False,
        aggregation="mean",
        synchronization="on_read",
        name=name,
    )
