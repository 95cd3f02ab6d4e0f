"""What Keras answers, and whether a finished artifact answers the same."""

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_sae import models
from keras_sae.export._images import Range, scale
from keras_sae.export._signatures import Signature, draw, most_features

Arrays = dict[str, np.ndarray]

SAMPLES = 3

# Largest difference, relative to the largest value, at which answers are the same.
_FINE, _COARSE = 1e-5, 3e-2
_EXACT = {"float32", "float64"}

# Units of equal value may stand in any order: what counts is their values.
_SEEN_AS: dict[str, Callable[[np.ndarray, Arrays], np.ndarray]] = {
    "indices": lambda got, arrays: np.take_along_axis(arrays["code"], got, axis=-1)
}


def known(model: Any, shape: tuple[int, ...], input_range: Range, top_k: int) -> Arrays:
    """Returns random inputs, and what Keras makes of them on the user's backend.

    Args:
        model: The model that is exported.
        shape: Shape of one sample.
        input_range: Range of its values.
        top_k: As for the signatures.

    Returns:
        Arrays under the names that inputs and outputs have in the signatures.
    """
    image = np.random.default_rng(0).integers(0, 256, (SAMPLES, *shape), "uint8")
    x = np.asarray(scale(image.astype("float32"), input_range), "float32")
    arrays = {"image": image, "x": x, **answers(model, x)}
    order = np.argsort(-arrays["code"], axis=-1, kind="stable")
    order = order[:, : most_features(model.encoder, top_k)]
    arrays["indices"] = order.astype("int32")
    arrays["values"] = np.take_along_axis(arrays["code"], order, axis=-1)
    wrong = [name for name, value in arrays.items() if not np.isfinite(value).all()]
    if wrong:
        raise ValueError(
            "`model` must give finite numbers. Received: a model that gives NaN or "
            f"infinity for its {', '.join(wrong)}. Its weights went astray in "
            "training: train it again, with a smaller learning rate."
        )
    return arrays


@functools.singledispatch
def answers(model: Any, x: np.ndarray) -> Arrays:
    """Returns what the parts of a model make of `x`, by the names of the outputs."""
    del x
    raise TypeError(f"No answers are known for a {type(model).__name__}.")


@answers.register
def _autoencoder(model: models.Autoencoder, x: np.ndarray) -> Arrays:
    code = model.encoder(x, training=False)
    rebuilt = _numpy(model.decoder(code, training=False))
    score = np.square(x - rebuilt).reshape(len(x), -1).sum(axis=1)
    return {"code": _numpy(code), "reconstruction": rebuilt, "score": score}


@answers.register
def _variational(model: models.VariationalAutoencoder, x: np.ndarray) -> Arrays:
    mean, log_variance = model.posterior(x)
    both = {"mean": mean, "log_variance": log_variance}
    return {**_autoencoder(model, x), **both}


@answers.register
def _classifier(model: models.Classifier, x: np.ndarray) -> Arrays:
    probabilities = _numpy(model(x, training=False))
    return {
        "code": _numpy(model.encoder(x, training=False)),
        "probabilities": probabilities,
        "label": probabilities.argmax(axis=-1).astype("int32"),
    }


def drawn(model: Any, seeds: np.ndarray) -> Arrays:
    """Returns what `sample` has to answer: the drawn codes, decoded by Keras."""
    codes = draw(seeds, model.decoder.input_shape[-1])
    return {"seed": seeds, "sample": _numpy(model.decoder(codes, training=False))}


def verify(
    folder: Path, served: Mapping[str, Signature], arrays: Arrays, most: float
) -> None:
    """Raises if an artifact answers otherwise than Keras.

    Args:
        folder: Where the artifact is.
        served: The signatures it should have.
        arrays: What `known` returned.
        most: What `tolerance` returned.
    """
    import tensorflow as tf

    artifact = tf.saved_model.load(str(folder))
    for name, signature in served.items():
        given = tf.constant(arrays[signature.input], signature.dtype)
        outputs = artifact.signatures[name](**{signature.input: given})
        for output, tensor in outputs.items():
            error = _difference(output, tensor.numpy(), arrays)
            if not error <= most:
                raise RuntimeError(
                    f"The artifact is not the model: {output!r} of the signature "
                    f"{name!r} differs from Keras's by {error:.2g} of its largest "
                    "value. Nothing was exported."
                )


def _difference(output: str, got: np.ndarray, arrays: Arrays) -> float:
    expected = arrays[output]
    if got.shape != expected.shape:
        return float("inf")
    seen = _SEEN_AS.get(output)
    if seen is not None:
        got, expected = seen(got, arrays), seen(expected, arrays)
    gap = np.abs(got.astype("float64") - expected).max(initial=0.0)
    return float(gap / max(1.0, np.abs(expected).max(initial=0.0)))


def tolerance(model: keras.Model) -> float:
    """Returns how far, of their largest value, the answers may lie from the model's.

    Coarse where a layer computes in half precision, and on an accelerator, whose
    products of float32 have as few digits.
    """
    one = keras.ops.ones((1, 1))
    device = str(keras.ops.matmul(one, one).device)
    kinds = {
        layer.compute_dtype
        for part in (model.encoder, getattr(model, "decoder", model.encoder))
        for layer in part.layers
        if not isinstance(layer, keras.layers.InputLayer)
    }
    exact = kinds <= _EXACT and "cpu" in device.lower()
    return _FINE if exact else _COARSE


def _numpy(tensor: Any) -> np.ndarray:
    """As float32: NumPy has no bfloat16."""
    return np.asarray(keras.ops.convert_to_numpy(keras.ops.cast(tensor, "float32")))
