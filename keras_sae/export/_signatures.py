"""What an artifact answers: its signatures, a family a table."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
from keras import ops

from keras_sae import models

Outputs = dict[str, Any]


@dataclass(frozen=True)
class Signature:
    """A function from one named input to named outputs.

    Args:
        function: From a tensor of shape `(batch, *shape)` to a dict of tensors.
        shape: Shape of one sample of the input.
        input: Name of the input.
        dtype: Type of the input.
        samples: Whether the input is what the model was trained on.
    """

    function: Callable[[Any], Outputs]
    shape: tuple[int, ...]
    input: str = "x"
    dtype: str = "float32"
    samples: bool = True


@functools.singledispatch
def signatures(model: Any, top_k: int) -> dict[str, Signature]:
    """Returns the signatures of a model by their names, the default one first.

    Args:
        model: A model of this package.
        top_k: How many units `top_features` names; at most the width of the code.
    """
    del top_k
    raise ValueError(
        "`model` must be a model that `keras_sae.models` makes, an `Autoencoder` or a "
        f"`Classifier`: their parts are what the signatures serve. Received: "
        f"model={model!r}. For another Keras model use its own `export`."
    )


@signatures.register
def _autoencoder(model: models.Autoencoder, top_k: int) -> dict[str, Signature]:
    def reconstruct(x: Any) -> Outputs:
        code = model.encoder(x, training=False)
        return {"reconstruction": model.decoder(code, training=False)}

    def decode(code: Any) -> Outputs:
        return {"reconstruction": model.decoder(code, training=False)}

    def anomaly_score(x: Any) -> Outputs:
        rebuilt = ops.cast(reconstruct(x)["reconstruction"], "float32")
        squares = ops.square(ops.subtract(x, rebuilt))
        return {"score": ops.sum(squares, axis=tuple(range(1, len(x.shape))))}

    shape = model.sample_shape
    width = tuple(model.decoder.input_shape[1:])
    return {
        "reconstruct": Signature(reconstruct, shape),
        **_codes(model.encoder, top_k),
        "decode": Signature(decode, width, "code", samples=False),
        "anomaly_score": Signature(anomaly_score, shape),
    }


@signatures.register
def _variational(
    model: models.VariationalAutoencoder, top_k: int
) -> dict[str, Signature]:
    parameters, sampling = model.posterior_layers()

    def encode(x: Any) -> Outputs:
        mean, log_variance = sampling.split(parameters(x, training=False))
        return {"mean": mean, "log_variance": log_variance}

    def sample(seed: Any) -> Outputs:
        codes = draw(seed, model.decoder.input_shape[-1])
        return {"sample": model.decoder(codes, training=False)}

    return {
        **_autoencoder(model, top_k),
        "encode": Signature(encode, model.sample_shape),
        "sample": Signature(sample, (), "seed", "int32", samples=False),
    }


@signatures.register
def _classifier(model: models.Classifier, top_k: int) -> dict[str, Signature]:
    def classify(x: Any) -> Outputs:
        probabilities = model(x, training=False)
        label = ops.argmax(probabilities, axis=-1)
        return {"probabilities": probabilities, "label": label}

    shape = tuple(model.encoder.input_shape[1:])
    return {
        "classify": Signature(classify, shape),
        **_codes(model.encoder, top_k),
    }


def _codes(encoder: keras.Model, top_k: int) -> dict[str, Signature]:
    """What every model with an encoder answers."""

    def encode(x: Any) -> Outputs:
        return {"code": encoder(x, training=False)}

    def top_features(x: Any) -> Outputs:
        values, indices = ops.top_k(encode(x)["code"], most_features(encoder, top_k))
        return {"indices": indices, "values": values}

    shape = tuple(encoder.input_shape[1:])
    return {
        "encode": Signature(encode, shape),
        "top_features": Signature(top_features, shape),
    }


def most_features(encoder: keras.Model, top_k: int) -> int:
    """Returns `top_k`, or the width of the code where that is less."""
    return min(top_k, encoder.output_shape[-1])


def draw(seeds: Any, width: int) -> Any:
    """Draws one standard normal code for each seed, the same one every time.

    Args:
        seeds: int32 tensor of shape `(batch,)`.
        width: Width of the code.

    Returns:
        float32 tensor of shape `(batch, width)`.
    """
    import tensorflow as tf

    return tf.map_fn(
        lambda seed: tf.random.stateless_normal((width,), tf.stack([seed, 0])),
        seeds,
        fn_output_signature=tf.TensorSpec((width,), tf.float32),
    )
