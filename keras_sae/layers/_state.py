"""What a layer learns of the data as they pass, beside its weights."""

from typing import Any

import keras


def state(name: str, shape: tuple[Any, ...] = (), initial: float = 0.0) -> Any:
    """Returns a variable that a layer may assign in the middle of a step.

    Under `tf.distribute` each replica has its own, and the mean of them is read
    outside of a step. An assignment that the replicas had to agree on would, in the
    forward pass, give one of them the loss of another.

    Args:
        name: Name of the variable.
        shape: Its shape.
        initial: Its value at the start.
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
