"""An empty batch is answered with an empty result, by convolutions too."""

from dataclasses import replace
from typing import Any

from keras_sae.export._signatures import Outputs, Signature


def convolves(model: Any) -> bool:
    """Whether a part of the model has convolutions: kernels of more than two axes."""
    parts = (model.encoder, getattr(model, "decoder", model.encoder))
    weights = [weight for part in parts for weight in part.weights]
    return any(len(weight.shape) > 2 for weight in weights)


def never_empty(signature: Signature) -> Signature:
    """Returns a signature whose function always sees a sample.

    TensorFlow's fused convolutions fail on an empty batch. It is given one sample of
    zeros, which is cut off again; other batches pass through without a copy.
    """

    def function(value: Any) -> Outputs:
        import tensorflow as tf

        samples = tf.shape(value)[0]
        missing = [[0, tf.maximum(1 - samples, 0)], *[[0, 0]] * len(signature.shape)]
        outputs = signature.function(tf.pad(value, missing))
        return {name: output[:samples] for name, output in outputs.items()}

    return replace(signature, function=function)
