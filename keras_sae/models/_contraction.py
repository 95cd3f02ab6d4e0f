"""The contractive penalty: how far a code moves when its input does.

For a chain of layers `h_l = f_l(h_{l-1} W_l + b_l)` the Jacobian of the last by the
input is `W_1 diag(f_1') W_2 diag(f_2') ...`, a matrix a sample. It is made from the
code's end, a layer at a time, from what one forward pass has left of each.
"""

from typing import Any

import keras
from keras import ops

from keras_sae.layers import MaskingNoise, SaltAndPepperNoise, Sampling, Scaling
from keras_sae.models import _graph, _pullbacks, _slopes

# The derivative is by what these leave of the input.
_DAMAGING = (
    keras.layers.Dropout,
    keras.layers.GaussianDropout,
    MaskingNoise,
    SaltAndPepperNoise,
)


class Contraction:
    """The code of an encoder, and with it the norm of its Jacobian.

    Args:
        encoder: Model from `(batch, *input_shape)` to `(batch, units)`.

    Raises:
        ValueError: The Jacobian of a layer is not known.
    """

    def __init__(self, encoder: keras.Model) -> None:
        code = encoder.outputs[0]
        path = _path(code)
        behind = [i for i, (layer, _, _) in enumerate(path) if hasattr(layer, "kernel")]
        self._first = behind[0] if behind else len(path)
        for place, (layer, below, _) in enumerate(path):
            before = place < self._first
            problem = (_outside if before else _pullbacks.problem)(layer, below.shape)
            if problem:
                raise _unknown(problem)
        if not behind or len(code.shape) != 2:
            raise _unknown("no dense or convolutional layer, or a code of no vectors")
        self._layers = [layer for layer, _, _ in path]
        # All that the layers make in one pass: a corruption draws once.
        tensors = [above for _, _, above in path]
        self._model = keras.Model(encoder.inputs[0], [code, *tensors])

    def __call__(self, x: Any, training: bool | None = None) -> tuple[Any, Any]:
        """Returns the code, and the mean over the batch of `|d code / dx|_F^2`.

        Args:
            x: Inputs of shape `(batch, *input_shape)`.
            training: Whether corruption and noise take part.

        Returns:
            A tensor of shape `(batch, units)` and a float32 scalar. The derivative is
            by what a corruption layer leaves of `x`, and of a posterior's mean.
        """
        code, *made = self._model(x, training=training)
        made = [ops.cast(x, self._model.inputs[0].dtype), *made]
        steps = list(zip(self._layers, made[:-1], made[1:], strict=True))
        jacobian = None
        for layer, below, above in reversed(steps[self._first + 1 :]):
            pull = _pullbacks.pullback(layer)
            jacobian = pull(layer, below, above, jacobian)
        norm = _pullbacks.squared_norm(*steps[self._first], jacobian)
        for layer in self._layers:
            if isinstance(layer, Scaling):
                norm = norm * ops.square(layer.factor())
        return code, norm


def _outside(layer: Any, _: Any) -> str | None:
    """What keeps a layer from standing before the first kernel, or None.

    Whatever it does must leave the norm of a derivative as it is, or scale it.
    """
    if isinstance(layer, (*_pullbacks.PASSIVE, *_DAMAGING)):
        return None
    return f"the layer {layer.name!r}, a {type(layer).__name__}, before any kernel"


def _path(code: Any) -> list[tuple[Any, Any, Any]]:
    """The layers from the input to the code, each with its input and its output."""
    path: list[tuple[Any, Any, Any]] = []
    tensor = code
    while True:
        layer, inputs = _graph.made_by(tensor)
        if not inputs:
            return path[::-1]
        mean = _graph.mean(inputs[0]) if isinstance(layer, Sampling) else None
        if mean is not None:
            tensor = mean
            continue
        if len(inputs) > 1:
            raise _unknown(f"the layer {layer.name!r} of {len(inputs)} inputs")
        path.append((layer, inputs[0], tensor))
        tensor = inputs[0]


def _unknown(problem: str) -> ValueError:
    return ValueError(
        "`contractive` needs the Jacobian of the code: dense layers, convolutions of "
        "stride 1 with pooling, soft or no sparsity, and activations among "
        f"{_slopes.known()}. Received: an encoder with {problem}. Choose another, or "
        "contractive=0."
    )
