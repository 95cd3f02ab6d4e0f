"""The command line with a user's own files, from a table to an exported model."""

import json

import keras
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from commands import refuse, succeed
from helpers import tensorflow_only
from PIL import Image

from keras_sae import layers, models
from keras_sae.cli import loading

# Parsing and printing do not depend on the backend.
pytestmark = tensorflow_only
SMALL = ["--epochs", "1", "--units", "4"]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Work in a new folder with a small table and a model of its columns."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def table(folder):
    """Write a table with two classes and a column of text, and return it."""
    rng = np.random.default_rng(0)
    table = pd.DataFrame(rng.random((40, 3)), columns=["height", "width", "depth"])
    table["kind"] = ["rose", "lily"] * 20
    table["note"] = "x"
    table.to_csv(folder / "flowers.csv", index=False)
    return table


@pytest.fixture
def model(folder):
    """Save an untrained model that takes two columns of the table."""
    model = models.shallow((2,), 8, "l1")
    model.columns, model.label = ["depth", "height"], "kind"
    model.save(folder / "model.keras")
    return model


def test_path_of_a_data_scientist(table, folder):
    shown = succeed(
        "train", "--data", "flowers.csv", "--label", "kind", "--sparsity", "top_k",
        "--columns", "depth,height", *SMALL, "--k", 1, "--report", "--output", "run",
    ).output  # fmt: skip
    found, split, *_ = shown.splitlines()
    values = table[["depth", "height"]].to_numpy()
    assert found == (
        f"flowers.csv: 40 rows, 2 columns (depth, height), float32 from "
        f"{values.min():g} to {values.max():g}, 2 classes, "
        "0 missing or infinite values."
    )
    assert split == "Training on 32 rows, testing on 8."
    assert "PCA" not in shown
    assert (folder / "run" / "report.html").exists()

    # New data have other columns, another order, and no label.
    new = table[["note", "height", "depth"]][:10]
    new.to_csv("new.csv", index=False)
    shown = succeed("encode", "run/shallow-seed0.keras", "new.csv").output
    assert 'scipy.sparse.load_npz("codes.npz")' in shown
    codes = scipy.sparse.load_npz("codes.npz")
    trained = keras.saving.load_model("run/shallow-seed0.keras")
    x = new[["depth", "height"]].to_numpy("float32")
    np.testing.assert_allclose(codes.toarray(), trained.encode(x), rtol=1e-6)
    assert ((codes.toarray() != 0).sum(axis=1) <= 1).all()

    succeed("score", "run/shallow-seed0.keras", "flowers.csv", "--output", "scores.csv")
    x = table[["depth", "height"]].to_numpy("float32")
    errors = ((x - trained.predict(x, verbose=0)) ** 2).sum(axis=1)
    scores = pd.read_csv("scores.csv")
    np.testing.assert_allclose(scores["anomaly_score"], errors, rtol=1e-5)

    succeed(
        "export", "run/shallow-seed0.keras", "--data", "flowers.csv",
        "--output", "serving/flowers",
    )  # fmt: skip
    metadata = json.loads(
        (folder / "serving/flowers/1/assets.extra/metadata.json").read_text()
    )
    [row] = json.loads((folder / "run/metrics.json").read_text())
    # The same rows are held out.
    assert metadata["metrics"]["reconstruction"] == pytest.approx(row["reconstruction"])


@pytest.mark.slow
def test_path_of_an_operator_with_images(folder):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (30, 6, 6, 1)).astype("uint8")
    for number, image in enumerate(pixels):
        path = folder / "images" / "ab"[number % 2] / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[..., 0]).save(path)
    np.save("images.npy", pixels)

    shown = succeed("train", "--data", "images", *SMALL, "--output", "run").output
    assert "samples of shape (6, 6, 1), float32 from 0 to 1, 2 classes" in shown
    shown = succeed("train", "--data", "images.npy", *SMALL, "--output", "run").output
    assert "data was 'images' and is now 'images.npy'" in shown
    assert "uint8 from 0 to 255, no labels" in shown
    assert "divided by 255" in shown
    model = keras.saving.load_model("run-2/shallow-seed0.keras")
    assert model.input_range[1] <= 1

    shown = succeed(
        "encode", "run-2/shallow-seed0.keras", "images.npy", "--output", "a/codes.npy"
    ).output
    assert "divided by 255" in shown
    codes = model.encode(pixels.astype("float32") / 255)
    np.testing.assert_allclose(np.load("a/codes.npy"), codes, rtol=1e-5, atol=1e-6)
    succeed("score", "run-2/shallow-seed0.keras", "images", "--output", "m.json")
    metrics = json.loads((folder / "m.json").read_text())
    x = pixels.astype("float32") / 255
    error = ((x - model.predict(x, verbose=0)) ** 2).mean()
    assert metrics["reconstruction"] == pytest.approx(error, rel=1e-4)

    # The same path with other content is another run.
    np.save("images.npy", pixels[:20])
    shown = succeed("train", "--data", "images.npy", *SMALL, "--output", "run-2").output
    assert "data_modified was" in shown
    assert (folder / "run-2-2").exists()


@pytest.mark.parametrize(
    ("limits", "dtype", "largest", "notice"),
    [
        ((0.0, 0.9), "uint8", 200 / 255, "values are divided by 255"),
        ((0.0, 0.9), "int64", 200 / 255, "values are divided by 255"),
        ((0.0, 0.9), "float32", 200 / 255, "values are divided by 255"),
        (
            (0.0, 255.0),
            "uint8",
            200,
            "values are not scaled, because the model was trained on",
        ),
        (
            (-1.0, 1.0),
            "uint8",
            200,
            "values are not scaled, because the model was trained on",
        ),
        (
            None,
            "uint8",
            200,
            "values are not scaled, because the range of the model's training data is",
        ),
    ],
)
def test_images_are_divided_if_the_model_was_trained_on_such_values(
    limits, dtype, largest, notice, folder
):
    np.save("x.npy", np.full((4, 2, 2, 1), 200, dtype))
    model = models.shallow((2, 2, 1), 3, "l1")
    if limits is not None:
        values = np.tile(np.array(limits, "float32"), (8, 2)).reshape(8, 2, 2, 1)
        linear = {"output_activation": "linear"}
        model = models.shallow((2, 2, 1), 3, "l1", **linear)
        model.compile()
        model.fit(values, verbose=0)
    model.save("model.keras")
    shown = succeed("encode", "model.keras", "x.npy", "--output", "codes.npy").output
    x = np.full((4, 2, 2, 1), largest, "float32")
    np.testing.assert_allclose(np.load("codes.npy"), model.encode(x), rtol=1e-5)
    assert f"8-bit images. The {notice}" in shown


def test_score_encodes_the_data_once_and_sparsely(folder, monkeypatch):
    model = models.shallow((6,), 8, layers.TopK(2))
    model.save("model.keras")
    x = np.random.default_rng(0).random((20, 6), dtype="float32")
    np.save("x.npy", x)
    calls, encode = [], models.Autoencoder.encode

    def counting(self, data, *args, **kwargs):
        if np.array_equal(data, x):  # not the noise of the copying score
            calls.append(kwargs)
        return encode(self, data, *args, **kwargs)

    monkeypatch.setattr(models.Autoencoder, "encode", counting)
    succeed("score", "model.keras", "x.npy", "--output", "scores.csv")
    assert calls == [{"sparse": True}]
    scores = pd.read_csv("scores.csv")
    codes = encode(model, x)
    assert list(scores["active_units"]) == [np.count_nonzero(row) for row in codes]
    errors = ((x - model.decode(codes)) ** 2).sum(axis=1)
    np.testing.assert_allclose(scores["anomaly_score"], errors, rtol=1e-5)


@pytest.mark.parametrize(
    "command",
    [("score", "model.keras", "x.npy"), ("export", "model.keras", "--data", "x.npy")],
)
def test_metrics_of_a_transcoder_are_refused(command, folder):
    models.transcoder((6,), (6,), 8, "l1").save("model.keras")
    np.save("x.npy", np.random.default_rng(0).random((20, 6), dtype="float32"))
    result = refuse("Transcoder", *command, "--output", "out.json")
    message = " ".join(result.stderr.split())
    assert "reconstruct its input" in message or "require an autoencoder" in message
    succeed("encode", "model.keras", "x.npy")


@pytest.mark.parametrize("command", ["train", "tune", "compare", "export"])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--dataset", "digits", "--data", "flowers.csv"],
            "Received: --dataset digits --data flowers.csv. Remove one",
        ),
        (["--dataset", "digits", "--validation", 0.3], "--validation 0.3 without"),
        (["--validation", 0.2], "--validation 0.2 without --data"),
    ],
)
def test_options_without_effect_are_refused(command, options, message, table, model):
    arguments = ["model.keras"] if command == "export" else []
    refuse(message, command, *arguments, *options, "--output", "out")


def test_dense_codes_are_stored_as_an_array(folder):
    models.shallow((3,), 5, "kl").save("model.keras")
    np.save("x.npy", np.random.default_rng(0).random((6, 3)))
    shown = succeed("encode", "model.keras", "x.npy").output
    assert 'numpy.load("codes.npz")["codes"]' in shown
    model = keras.saving.load_model("model.keras")
    expected = model.encode(np.load("x.npy").astype("float32"))
    np.testing.assert_allclose(np.load("codes.npz")["codes"], expected, rtol=1e-6)


def test_labels_of_an_array_file_are_not_encoded(folder):
    model = models.shallow((3,), 5, "l1")
    model.label = "kind"
    model.save("model.keras")
    x = np.random.default_rng(0).random((6, 3))
    np.savez("x.npz", features=x, kind=[0, 1] * 3)
    succeed("encode", "model.keras", "x.npz", "--output", "codes.npy")
    np.testing.assert_allclose(np.load("codes.npy"), model.encode(x), rtol=1e-5)


def test_each_class_is_split_and_keeps_a_row_for_training(folder):
    y = np.array([0] * 20 + [1] * 10 + [2])
    np.savez("x.npz", x=np.arange(62.0).reshape(31, 2), y=y)
    splits = loading.load_splits("", "x.npz", validation=0.3)
    assert np.bincount(splits.test[1]).tolist() == [6, 3]
    assert np.bincount(splits.train[1]).tolist() == [14, 7, 1]
    rows = np.concatenate([splits.train[0], splits.test[0]])[:, 0]
    assert sorted(rows) == list(np.arange(0, 62.0, 2))


def test_columns_of_very_different_scales_are_reported(folder, capsys):
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"age": rng.normal(size=50), "income": rng.normal(size=50)})
    table["constant"] = 1
    for factor, is_reported in ((1, False), (1e4, True)):
        table.assign(income=table["income"] * factor).to_csv("x.csv", index=False)
        loading.read("x.csv")
        assert ("differ in scale" in capsys.readouterr().out) == is_reported


each_command = pytest.mark.parametrize("command", ["train", "tune", "compare"])


@each_command
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "kind,age\nrose,1\nlily,2\n",
            "Text columns cannot be encoded: kind. Pass the label column as --label",
        ),
        (
            "height,age\n1,2\n,3\n4,\n,6\n",
            "Received: 3 missing or infinite values (2 in 'height', 1 in 'age'). Rep",
        ),
        (
            "height,age\n1,2\n",
            "too few rows to hold any out. Received: 1 rows and --validation 0.2",
        ),
        (
            {"a": (4, 4), "b": (5, 4)},
            "All images must have the same size. Received: 4x4 (a.png), 5x4 (b.png)",
        ),
        ({}, "The folder contains no images"),
        (None, "There is no such file or folder. Received: 'x.csv'"),
    ],
    ids=["text", "missing values", "one row", "sizes", "empty folder", "no file"],
)
def test_bad_data_end_in_one_message(command, content, message, folder):
    path = folder / "x.csv"
    if isinstance(content, str):
        path.write_text(content)
    elif content is not None:
        path.mkdir()
        for name, size in content.items():
            Image.new("L", size).save(path / f"{name}.png")
    result = refuse(message, command, "--data", "x.csv", "--output", "out")
    assert "Did you mean" not in result.output
    assert not (folder / "out").exists()


@each_command
def test_unknown_label_ends_in_one_message(command, table, folder):
    options = ["--data", "flowers.csv", "--label", "class", "--output", "out"]
    message = "Unknown column: 'class'. Known: depth, height, kind, note, width."
    result = refuse(message, command, *options)
    assert "Did you mean" not in result.output
    assert not (folder / "out").exists()


@each_command
def test_data_that_do_not_fit_into_memory(command, table, folder, monkeypatch):
    free = type("memory", (), {"available": 10})
    monkeypatch.setattr("psutil.virtual_memory", lambda: free)
    options = ["--data", "flowers.csv", "--output", "out"]
    result = refuse("does not fit into memory", command, *options)
    assert "Did you mean" not in result.output
    assert not (folder / "out").exists()


@pytest.mark.parametrize("command", ["encode", "score"])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["model.keras", "no.csv"], "There is no such file or folder"),
        (["no.keras", "flowers.csv"], "no.keras"),
        (["model.keras", "other.csv"], "trained on. Missing: depth. Received"),
        (["model.keras", "x.npy"], "takes samples of shape (2,). Received: x.npy with"),
        (["model.keras", "flowers.csv", "--columns", "age"], "Unknown column: 'age'"),
        (
            ["model.keras", "flowers.csv", "--columns", "height"],
            "samples of shape (1,). Pass samples of the shape",
        ),
        (
            ["model.keras", "flowers.csv", "--output", "x.txt"],
            "Unknown extension of --output: '.txt'",
        ),
        (["plain.keras", "flowers.csv"], "MODEL must be an autoencoder"),
    ],
)
def test_model_and_data_that_do_not_match(command, arguments, message, table, model):
    keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]).save("plain.keras")
    table[["height", "width"]].to_csv("other.csv", index=False)
    np.save("x.npy", np.ones((4, 3)))
    refuse(message, command, *arguments)


def test_export_refuses_data_of_another_shape(table, model, folder):
    np.save("x.npy", np.random.default_rng(0).random((8, 3)))
    model.columns = None
    model.save("model.keras")
    message = "The model takes samples of shape (2,)"
    refuse(message, "export", "model.keras", "--data", "x.npy")
