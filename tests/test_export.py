"""SavedModels: their signatures, their answers, and exports that fail."""

import json
import resource
from collections import Counter
from contextlib import contextmanager

import keras
import numpy as np
import pytest
from helpers import BACKEND, tensorflow_only
from serving import artifacts

from keras_sae import export, layers, models
from keras_sae.export import saved_model, serving_assets, verification
from keras_sae.export.signatures import Signature, model_signatures


@pytest.fixture(scope="module")
def variational():
    """A variational model and its artifact, with signatures for images."""
    return artifacts.exported("variational")


# Signatures and files


@tensorflow_only
def test_signatures_have_named_inputs_a_free_batch_and_plain_types(variational):
    _, path = variational
    artifact = artifacts.load(path)
    wanted = {
        "serving_default": ("x", "float32", {"reconstruction"}),
        "reconstruct": ("x", "float32", {"reconstruction"}),
        "encode": ("x", "float32", {"mean", "log_variance"}),
        "decode": ("code", "float32", {"reconstruction"}),
        "top_features": ("x", "float32", {"indices", "values"}),
        "anomaly_score": ("x", "float32", {"score"}),
        "sample": ("seed", "int32", {"sample"}),
        "serve": ("x", "float32", {"output_0"}),
    }
    for name in ("reconstruct", "encode", "top_features", "anomaly_score"):
        wanted[f"{name}_uint8"] = ("image", "uint8", wanted[name][2])
        wanted[f"{name}_png"] = ("image_bytes", "string", wanted[name][2])
    assert set(artifact.signatures) == set(wanted)
    for name, (given, dtype, outputs) in wanted.items():
        signature = artifact.signatures[name]
        [spec] = signature.structured_input_signature[1].values()
        assert (spec.name, spec.dtype.name) == (given, dtype)
        assert spec.shape[0] is None
        assert set(signature.structured_outputs) == outputs
        for key, output in signature.structured_outputs.items():
            assert output.dtype.name == ("int32" if key == "indices" else "float32")


@tensorflow_only
def test_metadata_and_server_config_describe_the_artifact(variational):
    from google.protobuf import text_format
    from tensorflow_serving.config import model_server_config_pb2

    model, path = variational
    metadata = json.loads((path / "assets.extra" / "metadata.json").read_text())
    assert metadata["versions"]["keras"] == keras.__version__
    assert metadata["input_shape"] == [8, 8, 1]
    assert metadata["input_range"] is None  # this model was not trained
    assert metadata["code_width"] == model.encoder.output_shape[-1]
    assert metadata["metrics"] == {**artifacts.METRICS, "probe_accuracy": None}
    names = set(artifacts.load(path).signatures)
    assert {*metadata["signatures"], "serving_default"} == names
    config = text_format.Parse(
        (path.parent / "models.config").read_text(),
        model_server_config_pb2.ModelServerConfig(),
    )
    [entry] = config.model_config_list.config
    assert (entry.name, entry.base_path) == ("variational", "/models/variational")
    assert {p.name for p in path.parent.iterdir()} == {"1", "models.config"}


# What a server executes


def executed(path, signature: str, inputs: dict[str, np.ndarray]) -> Counter:
    """Count the operations that TensorFlow executes for a request, by type.

    They are those of the optimized graph of a session, as in TensorFlow Serving.
    """
    import tensorflow as tf

    v1 = tf.compat.v1
    v1.logging.set_verbosity(v1.logging.ERROR)
    metadata, options = v1.RunMetadata(), v1.RunOptions(output_partition_graphs=True)
    with v1.Session(graph=tf.Graph()) as session:
        graph = v1.saved_model.load(session, ["serve"], str(path))
        found = graph.signature_def[signature]
        feed = {found.inputs[name].name: value for name, value in inputs.items()}
        outputs = [output.name for output in found.outputs.values()]
        session.run(outputs, feed, options=options, run_metadata=metadata)
    return Counter(node.op for g in metadata.partition_graphs for node in g.node)


# Penalties sum or average over units, and are made of these; counts are assigned.
TRAINING = ("Sum", "Mean", "Log", "Square", "Expm1", "Tanh", "Assign", "Random")
SERVED = ["l1", "kl_tied", "batch_top_k", "jump_relu", "gated", "matryoshka"]
SERVED += ["deep", "variational", "keras_penalties"]
KERNELS = {"deep": (2, 4), "variational": (2, 4)}  # of the encoder, and of the model


@tensorflow_only
@pytest.mark.parametrize("family", SERVED)
@pytest.mark.parametrize("signature", ["encode", "reconstruct"])
def test_server_computes_the_layers_once_and_no_penalty(signature, family):
    model, path = artifacts.exported(family)
    question = artifacts.question(signature, model, 2)
    found = executed(path, signature, question)
    assert not [op for op in found for part in TRAINING if part in op]
    encoder, both = KERNELS.get(family, (1, 2))
    products = sum(count for op, count in found.items() if "MatMul" in op)
    assert products == (both if signature == "reconstruct" else encoder)


# Answers


@tensorflow_only
@pytest.mark.parametrize("samples", [0, 5])
@pytest.mark.parametrize("family", artifacts.FAMILIES)
def test_artifact_answers_as_keras(family, samples):
    """The C++ loader of TensorFlow Serving does the same in test_serving.py."""
    model, path = artifacts.exported(family)
    for signature in artifacts.load(path).signatures:
        inputs = artifacts.question(signature, model, samples)
        got = artifacts.ask(path, signature, inputs)
        if samples:
            artifacts.assert_equal(got, artifacts.answer(signature, model, inputs))
        else:
            assert all(len(value) == 0 for value in got.values()), signature


@tensorflow_only
def test_equal_seeds_draw_equal_samples(variational):
    _, path = variational
    seeds = np.array([1, 2, 1], "int32")
    first = artifacts.ask(path, "sample", {"seed": seeds})["sample"]
    second = artifacts.ask(path, "sample", {"seed": seeds[::-1].copy()})["sample"]
    np.testing.assert_allclose(first, second[::-1], atol=1e-6)
    np.testing.assert_allclose(first[0], first[2], atol=1e-6)
    assert np.abs(first[0] - first[1]).max() > 1e-3


@tensorflow_only
def test_nan_in_one_sample_does_not_affect_the_others(variational):
    model, path = variational
    x = artifacts.question("encode", model, 3)["x"]
    clean = artifacts.ask(path, "anomaly_score", {"x": x})["score"]
    x[1, 0, 0, 0] = np.nan
    score = artifacts.ask(path, "anomaly_score", {"x": x})["score"]
    assert np.isnan(score).tolist() == [False, True, False]
    np.testing.assert_allclose(score[[0, 2]], clean[[0, 2]], rtol=1e-5)


@tensorflow_only
def test_model_is_unchanged_and_trains_on(tmp_path):
    model = models.shallow((6,), 4, "l1")
    model.compile("adam")
    x = np.random.default_rng(0).random((8, 6), "float32")
    model.fit(x, verbose=0)
    before = model.get_weights()
    model.export(tmp_path / "artifact")
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert all(isinstance(float(loss), float) for loss in model.losses)
    model.fit(x, verbose=0)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16", "bfloat16"])
def test_half_precision_model_answers_as_its_weights_in_float32(policy, tmp_path):
    """In half precision, a `TopK` would choose other units than in another runtime."""
    keras.config.set_dtype_policy(policy)
    model = models.shallow((12,), 40, layers.TopK(8))
    model.compile("adam")
    model.export(tmp_path / "artifact")
    keras.config.set_dtype_policy("float32")
    reference = models.shallow((12,), 40, layers.TopK(8))
    reference.set_weights(model.get_weights())
    x = np.random.default_rng(0).random((500, 12), "float32")
    got = artifacts.ask(tmp_path / "artifact", "encode", {"x": x})["code"]
    expected = reference.encode(x)
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got > 0, expected > 0)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
    assert model.dtype_policy.name == policy


@tensorflow_only
def test_images_are_scaled_to_the_input_range(tmp_path):
    model, path = models.shallow((4, 4, 3), 5, "l1"), tmp_path / "artifact"
    model.export(path, images=True, input_range=(-1, 1), top_k=9)
    image = np.random.default_rng(0).integers(0, 256, (3, 4, 4, 3), "uint8")
    expected = model.encode(image.astype("float32") / 127.5 - 1)
    files = artifacts.png_files(image)
    for signature, inputs in {
        "encode_uint8": {"image": image},
        "encode_png": {"image_bytes": files},
    }.items():
        got = artifacts.ask(path, signature, inputs)["code"]
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)
    # `top_k` exceeds the number of units, so all of them are returned.
    got = artifacts.ask(path, "top_features_uint8", {"image": image})
    assert np.sort(got["indices"]).tolist() == [[0, 1, 2, 3, 4]] * 3


@tensorflow_only
@pytest.mark.parametrize("family", ["top_k", "variational", "classifier"])
def test_keras_loads_an_artifact_as_a_layer(family):
    model, path = artifacts.exported(family)
    inputs = keras.Input(artifacts.SHAPE)
    loaded = keras.Model(inputs, keras.layers.TFSMLayer(str(path))(inputs))
    x = artifacts.question("reconstruct", model, 3)["x"]
    expected = model.predict_on_batch(x)
    np.testing.assert_allclose(loaded(x), expected, rtol=1e-5, atol=1e-5)


@tensorflow_only
def test_tensorflow_loads_an_artifact_without_warnings(tmp_path, monkeypatch):
    import tensorflow as tf
    from absl import logging

    # The decoder of selected units has a custom gradient, which no artifact holds.
    model = models.shallow((8,), 12, sparsity=layers.TopK(4))
    path = export.export_saved_model(model, tmp_path)
    monkeypatch.setattr(logging, "warning", pytest.fail)
    tf.saved_model.load(str(path))


@tensorflow_only
def test_code_with_axes_has_the_top_features_of_each_position(tmp_path):
    inputs, codes = keras.Input((5, 12)), keras.Input((5, 9))
    model = models.Autoencoder(
        keras.Model(inputs, layers.SparseDense(9, sparsity=layers.TopK(4))(inputs)),
        keras.Model(codes, keras.layers.Dense(12)(codes)),
    )
    model.export(tmp_path / "artifact", top_k=2)
    x = np.random.default_rng(0).normal(size=(3, 5, 12)).astype("float32")
    code = model.encode(x)
    assert code.shape == (3, 5, 9)
    got = artifacts.ask(tmp_path / "artifact", "top_features", {"x": x})
    order = np.argsort(-code, axis=-1)[..., :2]
    np.testing.assert_array_equal(got["indices"], order)
    np.testing.assert_allclose(
        got["values"], np.sort(code)[..., ::-1][..., :2], rtol=1e-5
    )
    score = artifacts.ask(tmp_path / "artifact", "anomaly_score", {"x": x})["score"]
    gap = x - model.predict(x, verbose=0)
    np.testing.assert_allclose(score, np.einsum("nij,nij->n", gap, gap), rtol=1e-4)


# Preprocessing and ranges


def with_preprocessing(*layers_in_front, decoder=()):
    """Return a trained model's parts behind other layers, and the trained model."""
    model, inputs = models.shallow((6,), 4, "l1"), keras.Input((6,))
    x, codes = inputs, keras.Input((4,))
    for layer in layers_in_front:
        x = layer(x)
    outputs = model.decoder(codes)
    for layer in decoder:
        outputs = layer(outputs)
    parts = keras.Model(inputs, model.encoder(x)), keras.Model(codes, outputs)
    return models.Autoencoder(*parts), model


MEAN, VARIANCE = np.arange(6.0) + 50, np.arange(1.0, 7) * 9
NORMALIZE = {"axis": -1, "mean": MEAN, "variance": VARIANCE}


@tensorflow_only
@pytest.mark.parametrize(
    ("make", "scaled"),
    [
        (lambda: [keras.layers.Normalization(**NORMALIZE)], True),
        (
            lambda: [
                keras.Sequential(
                    [keras.Input((6,)), keras.layers.Normalization(**NORMALIZE)]
                )
            ],
            True,
        ),
        (lambda: [keras.layers.Rescaling(1 / 8), keras.layers.Rescaling(2, -1)], False),
    ],
    ids=["normalization", "nested", "rescaling"],
)
def test_anomaly_score_compares_with_the_preprocessed_input(make, scaled, tmp_path):
    whole, model = with_preprocessing(*make())
    whole.export(tmp_path / "artifact")
    x = (MEAN + np.random.default_rng(0).normal(size=(5, 6)) * 9).astype("float32")
    z = (x - MEAN) / np.sqrt(VARIANCE) if scaled else x / 4 - 1
    z = z.astype("float32")
    expected = np.square(z - model.predict(z, verbose=0)).sum(axis=1)
    got = artifacts.ask(tmp_path / "artifact", "anomaly_score", {"x": x})["score"]
    np.testing.assert_allclose(got, expected, rtol=1e-4)


@tensorflow_only
@pytest.mark.parametrize("is_fitted", [False, True])
def test_anomaly_score_compares_with_the_input_that_was_the_target(is_fitted, tmp_path):
    """The decoder restores the scale, or the model was trained as a whole."""
    normalization = keras.layers.Normalization(**NORMALIZE)
    if is_fitted:
        whole, _ = with_preprocessing(normalization)
        whole.compile("adam")
        whole.fit(MEAN + np.zeros((8, 6)), verbose=0)
    else:
        inverse = keras.layers.Normalization(**NORMALIZE, invert=True)
        whole, _ = with_preprocessing(normalization, decoder=[inverse])
    whole.export(tmp_path / "artifact")
    x = (MEAN + np.random.default_rng(0).normal(size=(5, 6))).astype("float32")
    expected = np.square(x - whole.predict(x, verbose=0)).sum(axis=1)
    got = artifacts.ask(tmp_path / "artifact", "anomaly_score", {"x": x})["score"]
    np.testing.assert_allclose(got, expected, rtol=1e-3)


def test_metadata_has_the_range_that_was_seen_in_training(tmp_path):
    model = models.shallow((4, 4, 1), 4)
    model.compile("adam")
    x = np.random.default_rng(0).normal(size=(9, 4, 4, 1)).astype("float32")
    model.fit(x, verbose=0)
    model.export(tmp_path / "a")
    model.export(tmp_path / "b", images=True, input_range=(-4, 4))
    for name, expected in {"a": [x.min(), x.max()], "b": [-4.0, 4.0]}.items():
        file = tmp_path / name / "assets.extra" / "metadata.json"
        seen = json.loads(file.read_text())["input_range"]
        np.testing.assert_allclose(seen, expected, rtol=1e-6)
    with pytest.raises(ValueError, match="was trained on values from -"):
        model.export(tmp_path / "c", images=True)


def test_every_backend_writes_an_artifact_that_tensorflow_runs(tmp_path):
    model = models.deep((8,), (6, 4), layers.TopK(2), tied=True)
    path = export.export_saved_model(model, tmp_path / "sae", 7)
    assert path == tmp_path / "sae" / "7"
    x = np.random.default_rng(0).random((5, 8), "float32")
    got = artifacts.ask(path, "serving_default", {"x": x})
    expected = model.predict(x, verbose=0)
    np.testing.assert_allclose(got["reconstruction"], expected, rtol=1e-5, atol=1e-5)


# Models of other kinds


@tensorflow_only
def test_any_keras_model_has_a_default_signature(tmp_path):
    inputs = keras.Input((6,), dtype="int32")
    embedded = keras.layers.Embedding(9, 2)(inputs)
    model = keras.Model(inputs, [embedded, keras.layers.Flatten()(embedded)])
    path = export.export_saved_model(model, tmp_path / "plain")
    assert set(artifacts.load(path).signatures) == {"serving_default", "serve"}
    x = np.arange(6, dtype="int32")[None]
    got = artifacts.ask(path, "serving_default", {"x": x})
    layer = keras.layers.TFSMLayer(str(path))
    for n, expected in enumerate(model.predict(x, verbose=0)):
        np.testing.assert_allclose(got[f"output_{n}"], expected)
        np.testing.assert_allclose(layer(x)[f"output_{n}"], expected)


def test_a_dict_of_outputs_keeps_its_names():
    inputs = keras.Input((6,))
    model = keras.Model(inputs, {"a": keras.layers.Dense(2)(inputs)})
    [signature] = model_signatures(model, 1).values()
    assert set(signature.function(np.ones((1, 6), "float32"))) == {"a"}


@keras.saving.register_keras_serializable("tests")
class Doubling(keras.Model):
    """A model that defines its own signatures."""

    def call(self, inputs):
        return 2 * inputs

    def serving_signatures(self, top_k):
        return {"double": Signature(lambda x: {"twice": 2 * x}, (top_k,), "number")}


@tensorflow_only
def test_a_model_may_define_its_own_signatures(tmp_path):
    model = Doubling()
    model.build((None, 2))
    path = export.export_saved_model(model, tmp_path / "own", top_k=2)
    x = np.ones((3, 2), "float32")
    for name in ("double", "serving_default"):
        got = artifacts.ask(path, name, {"number": x})
        np.testing.assert_array_equal(got["twice"], 2 * x)


# Versions, and exports that fail


@pytest.fixture
def _writes_one_empty_file(monkeypatch):
    """Skip what is slow in an export, on every backend."""

    def write(_, folder):
        folder.mkdir()
        (folder / "saved_model.pb").write_text("")

    monkeypatch.setattr(saved_model, "build_artifact", write)
    monkeypatch.setattr(saved_model, "_build_in_process", write)


@pytest.mark.usefixtures("_writes_one_empty_file")
def test_versions_count_up_and_are_never_overwritten(tmp_path):
    model = models.shallow((6,), 4)
    sae = tmp_path / "sae"
    numbers = [export.export_saved_model(model, sae).name for _ in range(2)]
    assert numbers == ["1", "2"]
    assert export.export_saved_model(model, sae, 9).name == "9"
    assert export.export_saved_model(model, sae).name == "10"
    (sae / "9" / "saved_model.pb").write_text("precious")
    with pytest.raises(ValueError, match="never overwritten"):
        export.export_saved_model(model, sae, 9)
    assert (sae / "9" / "saved_model.pb").read_text() == "precious"


def test_a_version_that_another_process_writes_meanwhile_is_kept(tmp_path, monkeypatch):
    def write(_, folder):
        folder.mkdir()
        (tmp_path / "sae" / "1").mkdir()
        (tmp_path / "sae" / "1" / "theirs").write_text("")

    monkeypatch.setattr(saved_model, "build_artifact", write)
    monkeypatch.setattr(saved_model, "_build_in_process", write)
    with pytest.raises(ValueError, match="never overwritten"):
        export.export_saved_model(models.shallow((6,), 4), tmp_path / "sae")
    assert [p.name for p in (tmp_path / "sae" / "1").iterdir()] == ["theirs"]


@pytest.mark.usefixtures("_writes_one_empty_file")
def test_server_config_has_the_given_name_and_is_not_overwritten(tmp_path):
    model = models.shallow((6,), 4)
    export.export_saved_model(model, tmp_path, name="edges")
    assert 'name: "edges"' in (tmp_path / "models.config").read_text()
    (tmp_path / "models.config").write_text("edited")
    export.export_saved_model(model, tmp_path)
    assert (tmp_path / "models.config").read_text() == "edited"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"version": 0}, "`version` must be a positive integer"),
        ({"version": "1"}, "`version` must be a positive integer"),
        ({"version": True}, "`version` must be a positive integer"),
        ({"top_k": 0}, "`top_k` must be a positive integer"),
        ({"images": True}, "needs samples of shape"),
        ({"input_range": (1, 0)}, "two finite numbers"),
        ({"input_range": (0, np.inf)}, "two finite numbers"),
        ({"input_range": 255}, "two finite numbers"),
    ],
)
def test_invalid_options_are_refused(options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        export.export_saved_model(models.shallow((6,), 4), tmp_path / "sae", **options)
    assert not (tmp_path / "sae" / "1").exists()


@pytest.mark.parametrize(
    "make",
    [
        lambda: None,
        lambda: "model.keras",
        lambda: keras.Sequential([keras.layers.Dense(2)]),
        keras.Model,
        lambda: keras.Model(two := [keras.Input((2,)), keras.Input((2,))], two),
    ],
    ids=["none", "path", "not built", "no functional model", "two inputs"],
)
def test_a_model_without_signatures_is_refused(make, tmp_path):
    with pytest.raises(ValueError, match="a functional or sequential Keras model"):
        export.export_saved_model(make(), tmp_path / "sae")
    assert not (tmp_path / "sae").exists()


def test_a_model_that_outputs_nan_is_refused(tmp_path):
    model = models.shallow((6,), 4)
    model.decoder.weights[0].assign(np.full((4, 6), np.nan))
    with pytest.raises(ValueError, match="outputs NaN: training diverged"):
        export.export_saved_model(model, tmp_path / "sae")
    assert list((tmp_path / "sae").iterdir()) == []


@pytest.mark.parametrize("inside", [False, True])
def test_a_file_in_place_of_the_folder_is_refused(inside, tmp_path):
    (tmp_path / "file").write_text("")
    path = tmp_path / "file" / "sae" if inside else tmp_path / "file"
    with pytest.raises(ValueError, match="`path` must be a writable folder"):
        export.export_saved_model(models.shallow((6,), 4), path)


def test_model_export_refuses_a_folder_with_files(tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(ValueError, match="never overwritten"):
        models.shallow((6,), 4).export(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_model_export_refuses_an_input_signature(tmp_path):
    model = models.shallow((6,), 4)
    with pytest.raises(TypeError, match="input_signature"):
        model.export(tmp_path / "a", input_signature=[None])


@pytest.mark.parametrize("fails", [True, False])
def test_another_format_is_written_whole_or_not_at_all(fails, tmp_path, monkeypatch):
    def write(_, path, format, verbose):
        for file in (path, path.replace(".xml", ".bin")):
            with open(file, "w") as stream:
                stream.write(format)
        if fails:
            raise OSError("No space left on device")

    monkeypatch.setattr(keras.Model, "export", write)
    (tmp_path / "model.xml").write_text("before")
    model = models.shallow((6,), 4)
    if fails:
        with pytest.raises(OSError, match="No space"):
            model.export(tmp_path / "model.xml", "openvino")
    else:
        model.export(tmp_path / "model.xml", "openvino")
    found = {p.name: p.read_text() for p in tmp_path.iterdir()}
    written = {"model.xml": "openvino", "model.bin": "openvino"}
    assert found == ({"model.xml": "before"} if fails else written)


@pytest.mark.skipif(BACKEND != "torch", reason="PyTorch has its own converter")
@pytest.mark.filterwarnings("ignore")  # those of the converter
@pytest.mark.parametrize(
    "sparsity", [layers.TopK(2), layers.Matryoshka(layers.TopK(2), (4, 9))]
)
def test_onnx_of_selected_units_from_pytorch(sparsity, tmp_path):
    pytest.importorskip("onnx", reason="needs keras-sae[onnx]")
    runtime = pytest.importorskip("onnxruntime", reason="needs keras-sae[onnx]")
    model, path = models.shallow((6,), 9, sparsity), str(tmp_path / "model.onnx")
    model.export(path, format="onnx")
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    x = np.random.default_rng(0).random((5, 6), "float32")
    got = session.run(None, {"x": x})[0]
    np.testing.assert_allclose(got, model.predict(x, verbose=0), rtol=1e-4, atol=1e-5)


@contextmanager
def no_file_longer_than(size: int):
    """Make longer writes fail, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@tensorflow_only
@pytest.mark.parametrize("size", [0, 10_000, 200_000, 1_000_000])
def test_a_full_disk_leaves_nothing_behind(size, tmp_path):
    model = models.shallow((600,), 400)  # 1.9 MB of weights
    with no_file_longer_than(size), pytest.raises(OSError, match="written"):
        export.export_saved_model(model, tmp_path / "sae")
    assert list((tmp_path / "sae").iterdir()) == []


@tensorflow_only
def test_a_disk_that_fills_up_while_tensorflow_writes_leaves_nothing_behind(
    tmp_path, monkeypatch
):
    build_artifact = saved_model.build_artifact

    def build(source, folder):
        with no_file_longer_than(1_000_000):
            build_artifact(source, folder)

    monkeypatch.setattr(saved_model, "build_artifact", build)
    with pytest.raises(OSError, match="No partial artifact remains"):
        export.export_saved_model(models.shallow((600,), 400), tmp_path / "sae")
    assert list((tmp_path / "sae").iterdir()) == []


@tensorflow_only
@pytest.mark.parametrize("output", ["encode/code", "top_features/indices"])
def test_an_artifact_that_differs_from_keras_is_not_published(
    output, tmp_path, monkeypatch
):
    example_answers = verification.example_answers

    def wrong(*args):
        expected = example_answers(*args)
        if output == "encode/code":
            expected[output] = expected[output] * 1.001
        else:
            expected[output] = expected[output][:, ::-1]
        return expected

    monkeypatch.setattr(verification, "example_answers", wrong)
    with pytest.raises(RuntimeError, match="differs from the Keras model"):
        export.export_saved_model(models.shallow((6,), 4), tmp_path / "sae")
    assert list((tmp_path / "sae").iterdir()) == []


@pytest.mark.usefixtures("_writes_one_empty_file")
def test_warmup_without_the_messages_of_serving(tmp_path, monkeypatch):
    monkeypatch.setattr(serving_assets, "find_spec", lambda _: None)
    with pytest.warns(UserWarning, match=r"keras-sae\[serving\]"):
        assert not serving_assets.check_warmup(None)
    model = models.shallow((6,), 4)
    with pytest.raises(ValueError, match="tensorflow-serving-api is not installed"):
        export.export_saved_model(model, tmp_path / "sae", warmup=True)
    export.export_saved_model(model, tmp_path / "sae", warmup=False)


@pytest.mark.skipif(BACKEND == "tensorflow", reason="there is no separate process")
def test_a_separate_process_that_fails_reports_its_error(tmp_path, monkeypatch):
    monkeypatch.setattr(saved_model, "_MODEL", "elsewhere.keras")
    with pytest.raises(RuntimeError, match=r"model\.keras"):
        export.export_saved_model(models.shallow((6,), 4), tmp_path / "sae")
    assert list((tmp_path / "sae").iterdir()) == []
