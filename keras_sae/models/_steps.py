"""What makes the first step of a fit cheaper, and those that follow."""

import contextlib
from typing import Any

import keras

# TensorFlow's loop comes back to Python after every call, for a millisecond or two. On
# JAX Keras makes the calls all the same; on PyTorch it has one step a call.
_AT_ONCE = {"tensorflow": 32}


def build_optimizer(model: Any) -> None:
    """Makes the variables of a model's optimizer before the first step would.

    TensorFlow traces a function again whose first trace has made variables: the trace
    of a training step is most of what a short fit costs.

    Args:
        model: A compiled model, or one that is not compiled, which stays as it is.
    """
    optimizer = getattr(model, "optimizer", None)
    if optimizer is None or optimizer.built:
        return
    strategy = getattr(model, "distribute_strategy", None)
    with strategy.scope() if strategy else contextlib.nullcontext():
        optimizer.build(model.trainable_variables)


def steps_at_once(model: Any) -> int:
    """Returns how many steps a call of the backend takes where nobody looks between.

    Weights and logs do not depend on it: a value for `steps_per_execution`.

    Args:
        model: A compiled model.
    """
    if replicas(model) > 1:
        return 1  # Keras's loop over several steps fails on the data of replicas
    return _AT_ONCE.get(keras.config.backend(), 1)


def replicas(model: Any) -> int:
    """Returns over how many replicas of a model Keras spreads a batch."""
    strategy = getattr(model, "distribute_strategy", None)
    return strategy.num_replicas_in_sync if strategy else 1
