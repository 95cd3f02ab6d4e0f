"""Signatures: the functions that a served model offers to its clients."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeAlias, runtime_checkable

import keras
from keras import ops

from keras_sae.types import Shape, Tensor

Outputs: TypeAlias = dict[str, Tensor]


@dataclass(frozen=True)
class Signature:
    """A function of an exported model with one named input and named outputs.

    Args:
        function: Function that maps a tensor of shape `(batch, *shape)` to a dict of
            tensors with the same batch axis. It must run on the model's Keras backend
            and on TensorFlow, so use `keras.ops` and Keras layers.
        shape: Shape of the input without the batch axis.
        input: Name of the input.
        dtype: Data type of the input.
        samples: Whether `images=True` also adds image versions of this signature.
        ranked: None, or an output `SIGNATURE/OUTPUT`. All integer outputs of this
            signature are then indices into it. Verification compares the values at the
            indices, because the order of equal values may differ.
    """

    function: Callable[[Tensor], Outputs]
    shape: Shape
    input: str = "x"
    dtype: str = "float32"
    samples: bool = True
    ranked: str | None = None


@runtime_checkable
class Servable(Protocol):
    """A model that returns its own signatures by name, with the default one first."""

    serving_signatures: Callable[[int], dict[str, Signature]]


def model_signatures(model: keras.Model, top_k: int) -> dict[str, Signature]:
    """Return the signatures of a model by name, with the default one first.

    A plain Keras model that is not a classifier has only `serving_default`. Its outputs
    are named `output_0`, `output_1` and so on. If the model returns a dict, its keys
    are the names.
    """
    if isinstance(model, Servable):
        return model.serving_signatures(top_k)
    built = isinstance(model, keras.Model) and model.built
    inputs = getattr(model, "inputs", None) if built else None
    if inputs is None or len(inputs) != 1:
        raise ValueError(
            "`model` must be a functional or sequential Keras model with one input. "
            f"Received: model={model!r}. Start a `keras.Sequential` with a "
            "`keras.Input`, or define `serving_signatures` in your own class."
        )
    layers = {layer.name: layer for layer in model.layers}
    encoder = layers.get("encoder")
    shape, dtype = tuple(inputs[0].shape[1:]), inputs[0].dtype
    is_classifier = isinstance(encoder, keras.Model) and "probabilities" in layers

    def serve(x: Tensor) -> Outputs:
        outputs = model(x, training=False)
        if isinstance(outputs, dict):
            return outputs
        outputs = outputs if isinstance(outputs, (list, tuple)) else [outputs]
        return {f"output_{n}": output for n, output in enumerate(outputs)}

    def classify(x: Tensor) -> Outputs:
        probabilities = model(x, training=False)
        return {"probabilities": probabilities, "label": ops.argmax(probabilities, -1)}

    if is_classifier:
        return {
            "classify": Signature(classify, shape, ranked="classify/probabilities"),
            **encoder_signatures(encoder, top_k),
            "serve": Signature(serve, shape, samples=False),
        }
    return {"serving_default": Signature(serve, shape, dtype=dtype)}


def autoencoder_signatures(
    encoder: keras.Model,
    decoder: keras.Model,
    top_k: int,
    preprocessing: Sequence[keras.layers.Layer] = (),
) -> dict[str, Signature]:
    """Return the signatures of an autoencoder by name, with the default one first.

    Args:
        encoder: Model from `(batch, *input_shape)` to `(batch, ..., units)`.
        decoder: Model from `(batch, ..., units)` to `(batch, *input_shape)`.
        top_k: Number of units that `top_features` returns.
        preprocessing: Preprocessing layers at the start of the encoder. The decoder
            reconstructs their output, so `anomaly_score` compares the reconstruction
            with that output instead of the input.
    """

    def decode(code: Tensor) -> Outputs:
        return {"reconstruction": decoder(code, training=False)}

    def anomaly_score(x: Tensor) -> Outputs:
        outputs = decode(encoder(x, training=False))
        for layer in preprocessing:
            x = layer(x)
        gap = ops.cast(x, "float32") - ops.cast(outputs["reconstruction"], "float32")
        return {"score": ops.sum(ops.square(gap), axis=tuple(range(1, len(x.shape))))}

    shape, width = tuple(encoder.input_shape[1:]), tuple(decoder.input_shape[1:])
    return {
        "reconstruct": Signature(lambda x: decode(encoder(x, training=False)), shape),
        **encoder_signatures(encoder, top_k),
        "decode": Signature(decode, width, "code", samples=False),
        "anomaly_score": Signature(anomaly_score, shape),
    }


def encoder_signatures(encoder: keras.Model, top_k: int) -> dict[str, Signature]:
    """Return the signatures `encode` and `top_features`.

    Args:
        encoder: Model from `(batch, *input_shape)` to `(batch, ..., units)`.
        top_k: Number of units that `top_features` returns, limited to the code's width.
    """
    shape, units = tuple(encoder.input_shape[1:]), encoder.output_shape[-1]

    def top_features(x: Tensor) -> Outputs:
        values, indices = ops.top_k(encoder(x, training=False), min(top_k, units))
        return {"indices": indices, "values": values}

    return {
        "encode": Signature(lambda x: {"code": encoder(x, training=False)}, shape),
        "top_features": Signature(top_features, shape, ranked="encode/code"),
    }


def standard_normal(seeds: Tensor, width: int) -> Tensor:
    """Draw one standard normal vector per seed. Equal seeds give equal vectors.

    TensorFlow draws the vectors on every backend, so that the artifact and the Keras
    model agree.

    Args:
        seeds: int32 tensor of shape `(batch,)`.
        width: Size of each vector.
    """
    import tensorflow as tf

    vectors = tf.map_fn(
        lambda seed: tf.random.stateless_normal((width,), tf.stack([seed, 0])),
        seeds if tf.is_tensor(seeds) else ops.convert_to_numpy(seeds),
        fn_output_signature=tf.TensorSpec((width,), tf.float32),
    )
    return ops.convert_to_tensor(vectors)


def accept_empty_batches(signature: Signature) -> Signature:
    """Return a signature that pads an empty batch with one all-zero sample.

    TensorFlow's fused convolutions fail on an empty batch.
    """

    def function(value: Tensor) -> Outputs:
        import tensorflow as tf

        samples = tf.shape(value)[0]
        missing = [[0, tf.maximum(1 - samples, 0)], *[[0, 0]] * len(signature.shape)]
        outputs = signature.function(tf.pad(value, missing))
        return {name: output[:samples] for name, output in outputs.items()}

    return replace(signature, function=function)


def image_signature(
    signature: Signature, kind: str, input_range: tuple[float, float]
) -> Signature:
    """Return a signature that takes images instead of samples.

    `kind` is `"uint8"` for arrays of bytes or `"png"` for PNG files. The bytes 0 and
    255 are mapped to the two ends of `input_range`.
    """
    import tensorflow as tf

    shape, (low, high) = signature.shape, input_range

    def function(images: Tensor) -> Outputs:
        if kind == "png":
            images = tf.map_fn(
                # An image of another size raises an error.
                lambda f: tf.ensure_shape(tf.io.decode_png(f, shape[-1]), shape),
                images,
                fn_output_signature=tf.TensorSpec(shape, tf.uint8),
            )
        return signature.function(
            ops.cast(images, "float32") / 255 * (high - low) + low
        )

    if kind == "png":
        return replace(
            signature, function=function, shape=(), input="image_bytes", dtype="string"
        )
    return replace(signature, function=function, input="image", dtype="uint8")
