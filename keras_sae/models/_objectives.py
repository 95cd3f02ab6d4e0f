"""The losses of a sparsity that needs the decoder a second time."""

from typing import Any

import keras
from keras import ops

from keras_sae.layers import _forward


def add_terms(
    model: Any, forward: _forward.Forward, x: Any, reconstruction: Any, training: Any
) -> None:
    """Adds to the loss what the sparsity of the model's code asks for.

    A sparsity layer may have a method `terms(step)` that returns scalars by name.
    AuxK, the second reconstruction of a gate and the prefixes of a nested code are
    all made of it; a penalty on the code alone is added by its layer itself.

    Args:
        model: An `Autoencoder` inside a training or test step.
        forward: What the layers told of the pass that gave `reconstruction`.
        x: The input.
        reconstruction: Of `x`.
        training: As in `call`.
    """
    for made in forward.codes[-1:]:
        terms = getattr(made.layer.sparse, "terms", None)
        if terms is None:
            continue
        step = _forward.Step(
            x=x,
            pre=made.pre,
            code=made.code,
            reconstruction=reconstruction,
            decode=lambda code: model.decoder(code, training=training),
            decode_frozen=lambda code: _frozen(model.decoder, code),
            data_loss=model._compile_loss,
            silent=made.layer.silent,
        )
        for name, value in terms(step).items():
            _forward.add(model, name, value)


def _frozen(decoder: keras.Model, code: Any) -> Any:
    """The reconstruction of `code`, with no gradient to the decoder's weights."""
    fixed = [ops.stop_gradient(v) for v in decoder.trainable_variables]
    others = [ops.convert_to_tensor(v) for v in decoder.non_trainable_variables]
    return decoder.stateless_call(fixed, others, code, training=False)[0]
