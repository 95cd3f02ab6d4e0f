"""What layers of several files share."""

import keras

from keras_sae.types import Shape


class ShapePreservingLayer(keras.layers.Layer):
    """Base class of layers whose outputs have the shape of their inputs."""

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Return `input_shape`."""
        return input_shape


def layer_state(name: str, shape: Shape = (), initial: float = 0.0) -> keras.Variable:
    """Return a float32 variable that is not trained.

    A layer may assign it during a forward pass. Under `tf.distribute` each replica has
    its own copy, and reading it outside a step returns their mean. An assignment that
    synchronizes the replicas in a forward pass would swap losses between them.
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
