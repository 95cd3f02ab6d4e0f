"""One artifact per family of models, example requests, and the answers of Keras."""

import functools
import tempfile
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_sae import export, layers, models
from keras_sae.regularizers import L1, KLDivergence

SHAPE, TOP = (8, 8, 1), 3


def _shallow(*args: Any, **kwargs: Any):
    return lambda: models.shallow(SHAPE, 6, *args, **kwargs)


def _keras_penalties() -> models.Autoencoder:
    """An autoencoder of Keras's own layers, with both of Keras's activity penalties."""
    x = inputs = keras.Input(SHAPE)
    x = keras.layers.Dense(6, "relu", activity_regularizer="l1")(
        keras.layers.Flatten()(x)
    )
    encoder = keras.Model(inputs, keras.layers.ActivityRegularization(0.1)(x))
    code = keras.Input((6,))
    decoded = keras.layers.Reshape(SHAPE)(keras.layers.Dense(64)(code))
    return models.Autoencoder(encoder, keras.Model(code, decoded))


FAMILIES = {
    "l1": _shallow(L1(0.1), corruption=layers.MaskingNoise(0.5)),
    "kl_tied": _shallow(KLDivergence(0.1, momentum=0.9), tied=True),
    "top_k": _shallow(layers.TopK(2)),
    "batch_top_k": _shallow(layers.BatchTopK(2)),
    "jump_relu": _shallow(layers.JumpReLU(0.1)),
    "gated": _shallow(layers.Gated(0.1), scaling=True),
    "matryoshka": _shallow(layers.Matryoshka(layers.BatchTopK(2), widths=(3, 6))),
    "deep": lambda: models.deep(SHAPE, (9, 5), "l1", tied=True),
    "convolutional": lambda: models.convolutional(SHAPE, (3, 4, 5), "l1", tied=True),
    "variational": lambda: models.variational(SHAPE, (9,), 4, centering=True),
    "classifier": lambda: models.classifier(models.shallow(SHAPE, 6, "l1"), 3),
    "keras_penalties": _keras_penalties,
}
# Families whose artifact has signatures for images.
WITH_IMAGES = ("convolutional", "variational", "classifier")
METRICS = {"explained_variance": 0.5, "probe_accuracy": float("nan")}


def make(family: str) -> Any:
    """Return a model whose weights all differ from their initial values."""
    model, rng = FAMILIES[family](), np.random.default_rng(1)
    for weight in model.weights:
        if weight.dtype == "float32":
            noise = rng.normal(scale=0.3, size=weight.shape)
            weight.assign(np.asarray(weight) + noise)
    return model


@functools.cache
def exported(family: str) -> tuple[Any, Path]:
    """Return a model and version 1 of its artifact, shared by all tests."""
    model = make(family)
    path = export.export_saved_model(
        model,
        Path(_folder().name) / family,
        top_k=TOP,
        images=family in WITH_IMAGES,
        metrics=METRICS,
    )
    return model, path


@functools.cache
def _folder() -> tempfile.TemporaryDirectory:
    return tempfile.TemporaryDirectory(ignore_cleanup_errors=True)


@functools.cache
def load(path: Path) -> Any:
    """Return the artifact at `path`, as TensorFlow loads it."""
    import tensorflow as tf

    return tf.saved_model.load(str(path))


def ask(path: Path, signature: str, inputs: dict[str, Any]) -> dict[str, np.ndarray]:
    """Return the outputs of a signature of the artifact at `path`."""
    import tensorflow as tf

    kinds = {"image_bytes": "string"}  # an empty array of objects has no type
    tensors = {key: tf.constant(value, kinds.get(key)) for key, value in inputs.items()}
    outputs = load(path).signatures[signature](**tensors)
    return {key: value.numpy() for key, value in outputs.items()}


def question(signature: str, model: Any, samples: int, seed: int = 0) -> dict:
    """Return random inputs for a signature, by the name of its input."""
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (samples, *SHAPE), "uint8")
    kinds = {
        "uint8": lambda: {"image": image},
        "png": lambda: {"image_bytes": png_files(image)},
        "sample": lambda: {"seed": rng.integers(0, 99, samples, "int32")},
        "decode": lambda: {
            "code": rng.random((samples, model.decoder.input_shape[-1]), "float32")
        },
    }
    kind = signature.rpartition("_")[2]
    return kinds.get(kind, lambda: {"x": rng.random((samples, *SHAPE), "float32")})()


def png_files(images: np.ndarray) -> np.ndarray:
    """Return PNG files, as bytes in an array of objects."""
    import tensorflow as tf

    return np.array([tf.io.encode_png(one).numpy() for one in images], object)


def _pixels(inputs: dict) -> Any:
    """Return the samples of a request, with values between 0 and 1."""
    import tensorflow as tf

    if "image_bytes" in inputs:
        images = [tf.io.decode_png(file).numpy() for file in inputs["image_bytes"]]
        return np.asarray(images, "float32") / 255
    return inputs["image"] / np.float32(255) if "image" in inputs else inputs["x"]


def _encoder(model: Any) -> keras.Model:
    return model.get_layer("encoder") if is_classifier(model) else model.encoder


def is_classifier(model: Any) -> bool:
    return not isinstance(model, models.Autoencoder)


def _top(model: Any, x: np.ndarray) -> dict:
    code = _encoder(model).predict_on_batch(x)
    # A full sort: another algorithm than the top-k under test.
    return {"values": np.sort(code, axis=1)[:, ::-1][:, :TOP], "code": code}


def _reconstruct(model: Any, x: np.ndarray) -> dict:
    return {"reconstruction": model.predict_on_batch(x)}


def _score(model: Any, x: np.ndarray) -> dict:
    gap = (x - model.predict_on_batch(x)).astype("float64")
    return {"score": np.einsum("nhwc,nhwc->n", gap, gap)}


def _classify(model: Any, x: np.ndarray) -> dict:
    probabilities = model.predict_on_batch(x)
    return {"probabilities": probabilities, "label": probabilities.argmax(axis=1)}


def _encode(model: Any, x: np.ndarray) -> dict:
    if isinstance(model, models.VariationalAutoencoder):
        return dict(zip(("mean", "log_variance"), model.posterior(x), strict=True))
    return {"code": _encoder(model).predict_on_batch(x)}


_ANSWERS = {
    "reconstruct": _reconstruct,
    "encode": _encode,
    "top_features": _top,
    "anomaly_score": _score,
    "classify": _classify,
}


def answer(signature: str, model: Any, inputs: dict) -> dict:
    """Return what Keras answers to the inputs of a signature."""
    import tensorflow as tf

    if "code" in inputs:
        return {"reconstruction": model.decode(inputs["code"])}
    if "seed" in inputs:
        width = (model.decoder.input_shape[-1],)
        codes = [tf.random.stateless_normal(width, [s, 0]) for s in inputs["seed"]]
        return {"sample": model.decode(np.stack(codes))}
    if signature == "serve":
        return {"output_0": model.predict_on_batch(inputs["x"])}
    base = signature.removesuffix("_uint8").removesuffix("_png")
    if base == "serving_default":
        base = "classify" if is_classifier(model) else "reconstruct"
    return _ANSWERS[base](model, _pixels(inputs))


def assert_equal(got: dict, expected: dict, tolerance: float = 1e-5) -> None:
    """Compare outputs by name, shape, type and value."""
    code = expected.get("code") if "values" in expected else None
    if code is not None:
        assert set(got) == {"indices", "values"}
        assert got["indices"].dtype == np.int32
        picked = np.take_along_axis(code, got["indices"], axis=1)
        np.testing.assert_allclose(picked, expected["values"], atol=tolerance)
        got, expected = {"values": got["values"]}, {"values": expected["values"]}
    assert set(got) == set(expected)
    for name, value in got.items():
        assert value.dtype == (np.int32 if name == "label" else np.float32)
        assert value.shape == expected[name].shape
        np.testing.assert_allclose(
            value, expected[name], rtol=tolerance, atol=tolerance, err_msg=name
        )
