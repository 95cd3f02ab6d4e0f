"""Questions to the graph of a functional model."""

from typing import Any

import keras


def made_by(tensor: Any) -> tuple[Any, list[Any]]:
    """Returns the layer that made a symbolic tensor, and what it made it of."""
    history = tensor._keras_history
    node = history.operation._inbound_nodes[history.node_index]
    return history.operation, list(node.input_tensors)


def mean(parameters: Any) -> Any:
    """Returns the tensor that is the first half of a posterior's parameters, or None.

    Args:
        parameters: Symbolic tensor of means and logarithms of variances, side by side.
    """
    layer, inputs = made_by(parameters)
    if not isinstance(layer, keras.layers.Concatenate) or len(inputs) != 2:
        return None
    beside = layer.axis in (-1, len(parameters.shape) - 1)
    half = 2 * inputs[0].shape[-1] == parameters.shape[-1]
    return inputs[0] if beside and half else None
