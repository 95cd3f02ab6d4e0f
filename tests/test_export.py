"""SavedModels: what is in them, what they answer, and how an export fails."""

import json
import resource
from contextlib import contextmanager
from dataclasses import replace

import keras
import numpy as np
import pytest
from helpers import BACKEND, tensorflow_only
from serving import artifacts

from keras_sae import export, layers, models

TOP = artifacts.TOP


def load(path):
    import tensorflow as tf

    return tf.saved_model.load(str(path))


def ask(artifact, signature, inputs):
    import tensorflow as tf

    tensors = {key: tf.constant(value) for key, value in inputs.items()}
    outputs = artifact.signatures[signature](**tensors)
    return {key: value.numpy() for key, value in outputs.items()}


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A model, the path of its artifact, and the artifact."""
    folder = tmp_path_factory.mktemp("export")
    model = artifacts.make("variational")
    figures = {"explained_variance": 0.5, "probe_accuracy": float("nan")}
    path = export.export_saved_model(
        model, folder / "sae", top_k=TOP, images=True, figures=figures
    )
    return model, path, load(path)


# What it holds


@tensorflow_only
def test_signatures_are_named_free_in_their_batch_and_float32(exported):
    _, _, artifact = exported
    wanted = {
        "serving_default": ("x", "float32", {"reconstruction"}),
        "reconstruct": ("x", "float32", {"reconstruction"}),
        "encode": ("x", "float32", {"mean", "log_variance"}),
        "decode": ("code", "float32", {"reconstruction"}),
        "top_features": ("x", "float32", {"indices", "values"}),
        "anomaly_score": ("x", "float32", {"score"}),
        "sample": ("seed", "int32", {"sample"}),
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
def test_drawing_again_gives_the_same_sample_and_another_seed_another(exported):
    _, _, artifact = exported
    seeds = np.array([1, 2, 1], "int32")
    first = ask(artifact, "sample", {"seed": seeds})["sample"]
    second = ask(artifact, "sample", {"seed": seeds[::-1].copy()})["sample"]
    np.testing.assert_allclose(first, second[::-1], atol=1e-6)
    np.testing.assert_allclose(first[0], first[2], atol=1e-6)
    assert np.abs(first[0] - first[1]).max() > 1e-3


@tensorflow_only
def test_a_sample_of_nan_is_answered_with_nan_and_spoils_no_other(exported):
    model, _, artifact = exported
    x = artifacts.question("encode", model, 3)["x"]
    clean = ask(artifact, "anomaly_score", {"x": x})["score"]
    x[1, 0, 0, 0] = np.nan
    score = ask(artifact, "anomaly_score", {"x": x})["score"]
    assert np.isnan(score).tolist() == [False, True, False]
    np.testing.assert_allclose(score[[0, 2]], clean[[0, 2]], rtol=1e-5)


@tensorflow_only
def test_the_files_beside_the_graph(exported):
    from google.protobuf import text_format
    from tensorflow_serving.config import model_server_config_pb2

    model, path, artifact = exported
    metadata = json.loads((path / "assets.extra" / "metadata.json").read_text())
    assert metadata["versions"]["keras"] == keras.__version__
    assert metadata["input_shape"] == [8, 8, 1]
    assert metadata["input_range"] == [0.0, 1.0]
    assert metadata["code_width"] == model.encoder.output_shape[-1]
    assert metadata["figures"] == {"explained_variance": 0.5, "probe_accuracy": None}
    assert {*metadata["signatures"], "serving_default"} == set(artifact.signatures)
    config = text_format.Parse(
        (path.parent / "models.config").read_text(),
        model_server_config_pb2.ModelServerConfig(),
    )
    [entry] = config.model_config_list.config
    assert (entry.name, entry.base_path) == ("sae", str(path.parent))
    assert {p.name for p in path.parent.iterdir()} == {"1", "models.config"}


def operations(path) -> dict[str, set[str]]:
    """The types of all nodes that each signature can reach, read from the file."""
    from tensorflow.core.protobuf import saved_model_pb2

    saved = saved_model_pb2.SavedModel.FromString(
        (path / "saved_model.pb").read_bytes()
    )
    [graph] = [g for g in saved.meta_graphs if "serve" in g.meta_info_def.tags]
    functions = {f.signature.name: f for f in graph.graph_def.library.function}
    nodes = {node.name: node for node in graph.graph_def.node}

    def called(node):
        for attribute in node.attr.values():
            names = [attribute.func.name, *(f.name for f in attribute.list.func)]
            yield from filter(None, names)

    def of_function(name, seen):
        if name not in seen:
            seen.add(name)
            for node in functions[name].node_def:
                yield node.op
                for other in called(node):
                    yield from of_function(other, seen)

    found = {}
    for name, signature in graph.signature_def.items():
        found[name] = set()
        for output in signature.outputs.values():
            node = nodes[output.name.partition(":")[0]]
            for function in called(node):
                found[name].update(of_function(function, set()))
    return found


# Of Keras's layers at inference; no logarithm, exponential or absolute value, of
# which the penalties are made, no mean, no random number, nothing that assigns.
DENSE = {"Placeholder", "EnsureShape", "Reshape", "Shape", "StridedSlice", "Pack"}
DENSE |= {"ReadVariableOp", "MatMul", "AddV2", "BiasAdd", "Sub", "Relu", "Cast"}
DENSE |= {"Identity", "Const", "NoOp", "StatefulPartitionedCall", "PartitionedCall"}
DENSE |= {"Transpose", "Sigmoid"}


@tensorflow_only
@pytest.mark.parametrize("family", ["l1", "kl_tied", "deep"])
def test_the_graph_holds_what_the_outputs_need_and_nothing_else(family, tmp_path):
    path = tmp_path / "artifact"
    artifacts.make(family).export(path)
    found = operations(path)
    for name in ("serving_default", "reconstruct", "encode", "decode"):
        assert found[name], name
        assert found[name] <= DENSE, name
    assert found["top_features"] <= DENSE | {"TopKV2"}
    assert found["anomaly_score"] <= DENSE | {"Square", "Sum"}


@tensorflow_only
@pytest.mark.parametrize("family", ["batch_top_k", "jump_relu", "gated", "matryoshka"])
def test_the_graph_of_a_hard_sparsity_has_no_penalty_and_keeps_no_count(
    family, tmp_path
):
    """Penalties sum over units; counts are assigned."""
    path = tmp_path / "artifact"
    artifacts.make(family).export(path)
    for name, ops in operations(path).items():
        if name in {"serving_default", "reconstruct", "encode", "top_features"}:
            assert "ReadVariableOp" in ops
            assert not ops & {"Sum", "Mean", "Tanh", "Square"}
            assert not any("Assign" in op or "Random" in op for op in ops)


@tensorflow_only
def test_only_sample_draws_random_numbers(exported):
    """And nothing of the divergence, which is made of expm1, is left."""
    _, path, _ = exported
    found = operations(path)
    random = {k for k, ops in found.items() if any("Random" in op for op in ops)}
    assert random == {"sample"}
    for ops in found.values():
        assert not any("Assign" in op or "Apply" in op for op in ops)
        assert "Expm1" not in ops


# What it answers: the rest of the families is in test_serving.py.


@tensorflow_only
def test_keras_own_penalties_are_left_out(tmp_path):
    x = inputs = keras.Input((6,), name="x")
    x = keras.layers.Dense(4, "relu", activity_regularizer="l1")(x)
    encoder = keras.Model(inputs, keras.layers.ActivityRegularization(0.1)(x))
    code = keras.Input((4,), name="code")
    model = models.Autoencoder(encoder, keras.Model(code, keras.layers.Dense(6)(code)))
    model.export(tmp_path / "artifact")
    assert operations(tmp_path / "artifact")["encode"] <= DENSE
    x = np.random.default_rng(0).random((2, 6), "float32")
    got = ask(load(tmp_path / "artifact"), "encode", {"x": x})
    np.testing.assert_allclose(got["code"], model.encode(x), rtol=1e-5, atol=1e-6)


@tensorflow_only
def test_the_model_is_as_before(tmp_path):
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


@tensorflow_only
def test_half_precision_answers_in_float32(tmp_path):
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = models.shallow((6,), 4, "l1")
    model.export(tmp_path / "artifact")
    x = np.random.default_rng(0).random((5, 6), "float32")
    got = ask(load(tmp_path / "artifact"), "reconstruct", {"x": x})
    assert got["reconstruction"].dtype == np.float32
    expected = np.asarray(model.predict(x, verbose=0), "float32")
    np.testing.assert_allclose(got["reconstruction"], expected, atol=2e-2)


@tensorflow_only
def test_images_are_scaled_to_the_range_of_the_data(tmp_path):
    model = models.shallow((4, 4, 3), 5, "l1")
    model.export(tmp_path / "artifact", images=True, input_range=(-1, 1))
    artifact = load(tmp_path / "artifact")
    image = np.random.default_rng(0).integers(0, 256, (3, 4, 4, 3), "uint8")
    expected = model.encode(image.astype("float32") / 127.5 - 1)
    pairs = {"uint8": ("image", image), "png": ("image_bytes", None)}
    pairs["png"] = ("image_bytes", artifacts.png_files(image))
    for kind, (name, value) in pairs.items():
        got = ask(artifact, f"encode_{kind}", {name: value})["code"]
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


@tensorflow_only
def test_more_features_than_units_are_all_of_them(tmp_path):
    model = models.shallow((6,), 4, "l1")
    model.export(tmp_path / "artifact", top_k=9)
    x = np.ones((2, 6), "float32")
    got = ask(load(tmp_path / "artifact"), "top_features", {"x": x})
    assert got["indices"].shape == (2, 4)
    assert np.sort(got["indices"]).tolist() == [[0, 1, 2, 3]] * 2


def test_the_users_backend_exports(tmp_path):
    """Under JAX and PyTorch too; TensorFlow runs what they have written."""
    import tensorflow as tf

    model = models.deep((8,), (6, 4), layers.TopK(2), tied=True)
    path = export.export_saved_model(model, tmp_path / "sae", 7)
    assert path == tmp_path / "sae" / "7"
    x = np.random.default_rng(0).random((5, 8), "float32")
    artifact = tf.saved_model.load(str(path))
    got = artifact.signatures["serving_default"](x=tf.constant(x))
    expected = model.predict(x, verbose=0)
    np.testing.assert_allclose(got["reconstruction"], expected, rtol=1e-5, atol=1e-5)


# Versions, and how an export fails


@pytest.fixture
def writes_only_a_file(monkeypatch):
    """An export that is quick on every backend, for what happens around it."""

    def write(source, folder):
        folder.mkdir()
        (folder / "saved_model.pb").write_text("")

    monkeypatch.setattr("keras_sae.export._processes.build", write)


@pytest.mark.usefixtures("writes_only_a_file")
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


@pytest.mark.usefixtures("writes_only_a_file")
def test_a_version_that_appears_meanwhile_is_kept(tmp_path, monkeypatch):
    def write(source, folder):
        folder.mkdir()
        (tmp_path / "sae" / "1").mkdir()
        (tmp_path / "sae" / "1" / "theirs").write_text("")

    monkeypatch.setattr("keras_sae.export._processes.build", write)
    with pytest.raises(ValueError, match="never overwritten"):
        export.export_saved_model(models.shallow((6,), 4), tmp_path / "sae")
    assert [p.name for p in (tmp_path / "sae" / "1").iterdir()] == ["theirs"]


@pytest.mark.usefixtures("writes_only_a_file")
def test_a_name_of_its_own_on_the_server(tmp_path):
    export.export_saved_model(models.shallow((6,), 4), tmp_path, name="edges")
    assert 'name: "edges"' in (tmp_path / "models.config").read_text()


@pytest.mark.usefixtures("writes_only_a_file")
def test_a_changed_server_config_is_kept(tmp_path):
    (tmp_path / "models.config").write_text("mine")
    export.export_saved_model(models.shallow((6,), 4), tmp_path)
    assert (tmp_path / "models.config").read_text() == "mine"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"version": 0}, "`version` must be a positive integer"),
        ({"version": -1}, "`version` must be a positive integer"),
        ({"version": "1"}, "`version` must be a positive integer"),
        ({"version": True}, "`version` must be a positive integer"),
        ({"top_k": 0}, "`top_k` must be a positive integer"),
        ({"images": True}, "signatures for images"),
        ({"input_range": (1, 0)}, "two finite numbers"),
        ({"input_range": (0, np.inf)}, "two finite numbers"),
        ({"input_range": 255}, "two finite numbers"),
    ],
)
def test_bad_options(options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        export.export_saved_model(models.shallow((6,), 4), tmp_path / "sae", **options)
    assert not (tmp_path / "sae" / "1").exists()


@pytest.mark.parametrize(
    "model", [None, keras.Sequential([keras.layers.Dense(2)]), "model.keras"]
)
def test_what_is_no_model_of_ours(model, tmp_path):
    """Among them one that was never built; ours are built when they are made."""
    with pytest.raises(ValueError, match=r"must be a model that `keras_sae\.models`"):
        export.export_saved_model(model, tmp_path / "sae")
    assert not (tmp_path / "sae").exists()


def test_a_model_that_gives_nan(tmp_path):
    model = models.shallow((6,), 4)
    model.decoder.weights[0].assign(np.full((4, 6), np.nan))
    with pytest.raises(ValueError, match="NaN or infinity for its reconstruction"):
        export.export_saved_model(model, tmp_path / "sae")
    assert list((tmp_path / "sae").iterdir()) == []


@pytest.mark.parametrize("inside", [False, True])
def test_a_folder_that_is_a_file_or_in_one(inside, tmp_path):
    (tmp_path / "file").write_text("")
    path = tmp_path / "file" / "sae" if inside else tmp_path / "file"
    with pytest.raises(ValueError, match="`path` must be a folder that can be written"):
        export.export_saved_model(models.shallow((6,), 4), path)


def test_export_to_where_something_is(tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(ValueError, match="never overwritten"):
        models.shallow((6,), 4).export(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_an_input_signature_is_refused(tmp_path):
    model = models.shallow((6,), 4)
    with pytest.raises(ValueError, match="Leave it out"):
        model.export(tmp_path / "a", input_signature=[None])


@contextmanager
def no_file_longer_than(size: int):
    """As on a disk with this much left."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@tensorflow_only
@pytest.mark.parametrize("size", [10_000, 60_000, 300_000, 1_000_000])
def test_a_disk_that_fills_up_leaves_nothing(size, tmp_path):
    """It does so in Python as the model is handed over, or in TensorFlow later."""
    model = models.shallow((600,), 400)  # 1.9 MB of weights
    with no_file_longer_than(size), pytest.raises(OSError, match="written"):
        export.export_saved_model(model, tmp_path / "sae")
    assert list((tmp_path / "sae").iterdir()) == []


@tensorflow_only
def test_a_disk_that_fills_up_in_tensorflow(tmp_path, monkeypatch):
    from keras_sae.export import _build

    def build(source, folder):
        with no_file_longer_than(1_000_000):
            _build.build(source, folder)

    monkeypatch.setattr("keras_sae.export._processes.build", build)
    with pytest.raises(OSError, match="Nothing was left"):
        export.export_saved_model(models.shallow((600,), 400), tmp_path / "sae")
    assert list((tmp_path / "sae").iterdir()) == []


@tensorflow_only
def test_an_artifact_that_differs_is_not_published(tmp_path, monkeypatch):
    from keras_sae.export import _graph

    save = _graph.save

    def another(served, folder):
        encode = served["encode"]
        off = lambda x: {"code": encode.function(x)["code"] * 1.001}  # noqa: E731
        save({**served, "encode": replace(encode, function=off)}, folder)

    monkeypatch.setattr(_graph, "save", another)
    with pytest.raises(RuntimeError, match="differs from Keras's"):
        export.export_saved_model(models.shallow((6,), 4), tmp_path / "sae")
    assert list((tmp_path / "sae").iterdir()) == []


@pytest.mark.usefixtures("writes_only_a_file")
def test_without_the_messages_of_serving_it_says_so(tmp_path, monkeypatch):
    from keras_sae.export import _extras

    monkeypatch.setattr(_extras, "find_spec", lambda name: None)
    with pytest.warns(UserWarning, match=r"keras-sae\[serving\]"):
        assert not _extras.can_warm_up(None)
    with pytest.raises(ValueError, match="without tensorflow-serving-api"):
        export.export_saved_model(models.shallow((6,), 4), tmp_path, warmup=True)
    export.export_saved_model(models.shallow((6,), 4), tmp_path / "sae", warmup=False)


@pytest.mark.skipif(BACKEND == "tensorflow", reason="there is no process of its own")
def test_a_process_that_fails_says_why(tmp_path, monkeypatch):
    monkeypatch.setattr("keras_sae.export._build.MODEL", "elsewhere.keras")
    with pytest.raises(RuntimeError, match=r"model\.keras"):
        export.export_saved_model(models.shallow((6,), 4), tmp_path / "sae")
    assert list((tmp_path / "sae").iterdir()) == []
