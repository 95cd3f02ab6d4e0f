"""What makes a step's first call cheaper."""

import contextlib
from typing import Any


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
