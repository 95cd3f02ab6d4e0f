"""Export to ONNX and LiteRT by Keras, each run in its own runtime."""

import keras
import numpy as np
import pytest
from helpers import tensorflow_only
from serving import artifacts

from keras_sae import activations, layers, models

# Keras converts to both formats through TensorFlow.
pytestmark = [tensorflow_only, pytest.mark.slow]

FAMILIES = ["l1", "top_k", "kl_tied", "convolutional", "variational", "classifier"]
# Operations of penalties, noise and divergences.
TRAINING = {"abs", "log", "exp", "expm1", "randomuniform", "randomnormal"}


def _x(samples: int) -> np.ndarray:
    return np.random.default_rng(0).random((samples, *artifacts.SHAPE), "float32")


def _assert_close(got, expected) -> None:
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


# tf2onnx uses a removed name of NumPy; Keras repairs this after the import.
@pytest.mark.filterwarnings("ignore:In the future `np.object`:FutureWarning")
@pytest.mark.parametrize("family", FAMILIES)
def test_onnx_model_gives_the_predictions_of_keras(family, tmp_path):
    onnx = pytest.importorskip("onnx", reason="needs keras-sae[onnx]")
    pytest.importorskip("tf2onnx", reason="needs keras-sae[onnx]")
    runtime = pytest.importorskip("onnxruntime", reason="needs keras-sae[onnx]")
    model, path = artifacts.make(family), str(tmp_path / "model.onnx")
    if family == "classifier":
        model.predict_on_batch(_x(1))  # Keras exports only a model that was called.
    model.export(path, format="onnx", verbose=False)
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert [given.name for given in session.get_inputs()] == ["x"]
    for samples in (1, 5):
        x = _x(samples)
        _assert_close(session.run(None, {"x": x})[0], model.predict_on_batch(x))
    nodes = {node.op_type.lower() for node in onnx.load(path).graph.node}
    assert not nodes & TRAINING


@pytest.mark.parametrize("family", FAMILIES)
def test_litert_model_gives_the_predictions_of_keras(family, tmp_path):
    runtime = pytest.importorskip(
        "ai_edge_litert.interpreter", reason="needs keras-sae[litert]"
    )
    model, path = artifacts.make(family), str(tmp_path / "model.tflite")
    model.export(path, format="litert", verbose=False)
    interpreter = runtime.Interpreter(model_path=path)
    [given], [output] = (
        interpreter.get_input_details(),
        interpreter.get_output_details(),
    )
    for samples in (1, 5):
        x = _x(samples)
        interpreter.resize_tensor_input(given["index"], x.shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(given["index"], x)
        interpreter.invoke()
        got = interpreter.get_tensor(output["index"])
        _assert_close(got, model.predict_on_batch(x))


def test_litert_splice_gives_the_predictions_of_keras(tmp_path):
    runtime = pytest.importorskip(
        "ai_edge_litert.interpreter", reason="needs keras-sae[litert]"
    )
    hidden = keras.layers.Dense(6, "relu", name="hidden")
    model = keras.Sequential([keras.Input((5,)), hidden, keras.layers.Dense(3)])
    autoencoder = models.shallow((6,), 9, layers.TopK(2))
    spliced = activations.splice(model, "hidden", autoencoder)
    path = str(tmp_path / "model.tflite")
    spliced.export(path, format="litert", verbose=False)
    interpreter = runtime.Interpreter(model_path=path)
    given, output = interpreter.get_input_details()[0], interpreter.get_output_details()
    x = np.random.default_rng(0).random((4, 5), "float32")
    interpreter.resize_tensor_input(given["index"], x.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(given["index"], x)
    interpreter.invoke()
    got = interpreter.get_tensor(output[0]["index"])
    _assert_close(got, spliced.predict_on_batch(x))


def test_export_to_another_format_leaves_the_model_unchanged(tmp_path):
    pytest.importorskip("ai_edge_litert", reason="needs keras-sae[litert]")
    model = artifacts.make("l1")
    model.export(str(tmp_path / "model.tflite"), format="litert", verbose=False)
    assert model.losses == []


def test_unknown_format_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="Unrecognized format=onx"):
        artifacts.make("l1").export(tmp_path / "model", format="onx")
