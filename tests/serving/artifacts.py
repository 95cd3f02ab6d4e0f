"""Models to serve, what they are asked, and what Keras answers."""

from typing import Any

import numpy as np

from keras_sae import layers, models
from keras_sae.regularizers import L1, KLDivergence

SHAPE, TOP = (8, 8, 1), 3


def _shallow(*args: Any, **kwargs: Any):
    return lambda: models.shallow(SHAPE, 6, *args, **kwargs)


FAMILIES = {
    "l1": _shallow(L1(0.1), corruption=layers.MaskingNoise(0.5)),
    "kl_tied": _shallow(KLDivergence(0.1, momentum=0.9), tied=True),
    "top_k": _shallow(layers.TopK(2)),
    "batch_top_k": _shallow(layers.BatchTopK(2)),
    "jump_relu": _shallow(layers.JumpReLU(0.1)),
    "gated": _shallow(layers.Gated(0.1)),
    "matryoshka": _shallow(layers.Matryoshka(layers.BatchTopK(2), widths=(3, 6))),
    "contractive": _shallow(activation="sigmoid", contractive=0.1),
    "deep": lambda: models.deep(SHAPE, (9, 5), "l1", tied=True),
    "stacked": lambda: models.stacked(SHAPE, (9, 5), "kl"),
    "convolutional": lambda: models.convolutional(SHAPE, (3, 4, 5), "l1"),
    "convolutional_tied": lambda: models.convolutional(
        SHAPE, (3, 4, 5), "l1", tied=True
    ),
    "variational": lambda: models.variational(SHAPE, (9,), 4, centering=True),
    "classifier": lambda: models.classifier(models.shallow(SHAPE, 6, "l1"), 3),
}


# Pictures come in the same way whatever the model: one of each kind of default.
WITH_IMAGES = ("l1", "convolutional", "classifier")


def make(family: str) -> Any:
    """The model, with weights that are all different from their first values."""
    model, rng = FAMILIES[family](), np.random.default_rng(1)
    for weight in model.weights:
        if weight.dtype == "float32":
            noise = rng.normal(scale=0.3, size=weight.shape)
            weight.assign(np.asarray(weight) + noise)
    return model


def question(signature: str, model: Any, samples: int, seed: int = 0) -> dict:
    """Random inputs for a signature, with the name that the table gives them."""
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
    """The images as files, bytes in an array of objects."""
    import tensorflow as tf

    return np.array([tf.io.encode_png(one).numpy() for one in images], object)


def pixels(inputs: dict) -> Any:
    """What a request for samples is to the model: values between 0 and 1."""
    import tensorflow as tf

    if "image_bytes" in inputs:
        images = [tf.io.decode_png(file).numpy() for file in inputs["image_bytes"]]
        return np.asarray(images, "float32") / 255
    return inputs["image"] / np.float32(255) if "image" in inputs else inputs["x"]


def _top(model: Any, x: np.ndarray) -> dict:
    code = _code(model, x)
    # Sorted another way than with a top-k: all of it, and from the end.
    return {"values": np.sort(code, axis=1)[:, ::-1][:, :TOP], "code": code}


def _code(model: Any, x: np.ndarray) -> np.ndarray:
    return model.encoder.predict_on_batch(x)


def _reconstruct(model: Any, x: np.ndarray) -> dict:
    return {"reconstruction": model.predict_on_batch(x)}


def _score(model: Any, x: np.ndarray) -> dict:
    gap = (x - model.predict_on_batch(x)).astype("float64")
    return {"score": np.einsum("nhwc,nhwc->n", gap, gap)}


def _classify(model: Any, x: np.ndarray) -> dict:
    probabilities = model.predict_on_batch(x)
    return {"probabilities": probabilities, "label": probabilities.argmax(axis=1)}


def _encode(model: Any, x: np.ndarray) -> dict:
    if hasattr(model, "posterior"):
        return dict(zip(("mean", "log_variance"), model.posterior(x), strict=True))
    return {"code": _code(model, x)}


_ANSWERS = {
    "serving_default": lambda model, x: _default(model)(model, x),
    "reconstruct": _reconstruct,
    "encode": _encode,
    "top_features": _top,
    "anomaly_score": _score,
    "classify": _classify,
}


def _default(model: Any):
    return _classify if hasattr(model, "num_classes") else _reconstruct


def answer(signature: str, model: Any, inputs: dict) -> dict:
    """What Keras makes of the inputs of a signature."""
    import tensorflow as tf

    if "code" in inputs:
        return {"reconstruction": model.decode(inputs["code"])}
    if "seed" in inputs:
        width = (model.decoder.input_shape[-1],)
        codes = [tf.random.stateless_normal(width, [s, 0]) for s in inputs["seed"]]
        return {"sample": model.decode(np.stack(codes))}
    base = signature.removesuffix("_uint8").removesuffix("_png")
    return _ANSWERS[base](model, pixels(inputs))


def assert_equal(got: dict, expected: dict, tolerance: float = 1e-5) -> None:
    """Outputs are the expected ones, by name, shape, type and number."""
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
