"""Files of a user, read back by NumPy, the standard library and Pillow."""

import csv
import re

import numpy as np
import psutil
import pytest
from helpers import tensorflow_only
from PIL import Image

from keras_sae import datasets

pytestmark = tensorflow_only  # No array depends on the backend.


@pytest.fixture
def table(tmp_path):
    """Write a table with labels of text, and return its path and its rows."""
    rows = [(1.5, 10, "b"), (2.5, 20, "a"), (-3.0, 30, "c"), (0.25, 40, "a")]
    path = tmp_path / "table.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("height", "age", "kind"), *rows])
    return path, rows


@pytest.fixture
def write_images(tmp_path):
    def write(names, size=(6, 4), mode="L", folder="images"):
        pixels = {}
        for seed, name in enumerate(names):
            shape = size[::-1] if mode == "L" else (*size[::-1], 3)
            values = np.random.default_rng(seed).integers(0, 256, shape).astype("uint8")
            path = tmp_path / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(values).save(path)
            pixels[name] = values
        return tmp_path / folder, pixels

    return write


# Arrays.


@pytest.mark.parametrize("as_text", [False, True])
def test_npy_is_memory_mapped_as_it_is_stored(tmp_path, rng, as_text):
    x = rng.integers(0, 256, (5, 4, 4, 1)).astype("uint8")
    path = tmp_path / "x.npy"
    np.save(path, x)

    found, y = datasets.load_data(str(path) if as_text else path)

    assert isinstance(found, np.memmap)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, x)
    assert y is None


def test_npz_has_data_and_labels(tmp_path, rng):
    x, y = rng.normal(size=(4, 3)), np.array(["b", "a", "b", "c"])
    np.savez(tmp_path / "both.npz", x=x, y=y)
    np.savez(tmp_path / "single.npz", features=x)
    np.savez(tmp_path / "named.npz", features=x, kind=y)

    for name, label, labels in (
        ("both", None, [1, 0, 1, 2]),
        ("single", None, None),
        ("named", "kind", [1, 0, 1, 2]),
    ):
        found, numbers = datasets.load_data(tmp_path / f"{name}.npz", label=label)
        np.testing.assert_array_equal(found, x)
        assert (None if numbers is None else numbers.tolist()) == labels


# Tables.


def test_csv_is_unscaled_and_labels_are_numbered_in_sorted_order(table):
    path, rows = table

    x, y = datasets.load_data(path, label="kind")

    assert x.dtype == np.float32
    assert x.tolist() == [[row[0], row[1]] for row in rows]
    assert y.dtype == np.int64
    assert y.tolist() == [1, 0, 2, 0]


def test_columns_are_chosen_in_their_order(table):
    path, rows = table

    x, y = datasets.load_data(path, columns=["age", "height"])

    assert x.tolist() == [[row[1], row[0]] for row in rows]
    assert y is None


def test_parquet_equals_csv(table, tmp_path):
    import pandas as pd

    path, _ = table
    pd.read_csv(path).to_parquet(tmp_path / "table.parquet")

    for options in ({"label": "kind"}, {"columns": ["age"], "label": "kind"}):
        expected = datasets.load_data(path, **options)
        found = datasets.load_data(tmp_path / "table.parquet", **options)
        for ours, theirs in zip(found, expected, strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_missing_values_are_nan_and_integer_labels_stay(tmp_path):
    path = tmp_path / "holes.csv"
    path.write_text("a,b,class\n1,,7\n,2,3\n")

    x, y = datasets.load_data(path, label="class")

    np.testing.assert_array_equal(x, [[1, np.nan], [np.nan, 2]])
    assert y.tolist() == [7, 3]


# Images.


def test_subfolders_are_classes_in_sorted_order(write_images):
    names = ["shoe/1.png", "shoe/2.png", "bag/9.png"]
    folder, pixels = write_images(names)

    x, y = datasets.load_data(folder)

    assert x.shape == (3, 4, 6, 1)
    assert x.dtype == np.float32
    assert y.tolist() == [0, 1, 1]
    expected = np.stack([pixels[name] for name in sorted(names)])[..., None] / 255
    np.testing.assert_allclose(x, expected, atol=1e-7)


def test_images_without_subfolders_have_no_labels(write_images):
    folder, pixels = write_images(["2.png", "1.png"], mode="RGB")

    x, y = datasets.load_data(folder)

    assert x.shape == (2, 4, 6, 3)
    np.testing.assert_allclose(x[0], pixels["1.png"] / 255, atol=1e-7)
    assert y is None


# Bad input.


def test_missing_paths_are_no_datasets(tmp_path):
    for name in (tmp_path / "none.npy", str(tmp_path / "none"), "no/such/file.csv"):
        with pytest.raises(ValueError, match="no such file") as error:
            datasets.load_data(name)
        assert "Did you mean" not in str(error.value)


def test_wrong_columns_name_the_nearest(table):
    path, _ = table
    for options in ({"label": "kinds"}, {"columns": ["heigth"], "label": "kind"}):
        with pytest.raises(ValueError, match=r"Unknown column.*Did you mean"):
            datasets.load_data(path, **options)


def test_columns_of_text_need_a_label(table):
    with pytest.raises(ValueError, match=r"columns cannot be encoded: kind.*`label`"):
        datasets.load_data(table[0])


@pytest.mark.parametrize(
    ("text", "label", "message"),
    [
        ("a,k\n1,x\n2,\n", "k", "1 of 2 labels missing"),
        ("a,k\n1,0.5\n2,1.5\n", "k", "fractions such as 0.5"),
        ("k\nx\ny\n", "k", "2 rows and 0 columns"),
        ("a,b\n", None, "0 rows and 2 columns"),
        ("", None, "cannot be read"),
    ],
)
def test_unusable_tables_are_errors(tmp_path, text, label, message):
    path = tmp_path / "table.csv"
    path.write_text(text)

    with pytest.raises(ValueError, match=message):
        datasets.load_data(path, label=label)


def test_images_of_different_sizes_are_an_error(write_images):
    write_images(["a/1.png"])
    folder, _ = write_images(["a/2.png"], size=(5, 5))

    with pytest.raises(ValueError, match=r"same size.*6x4 \(1\.png\), 5x5 \(2\.png\)"):
        datasets.load_data(folder)


def test_folders_that_are_no_dataset_are_errors(write_images, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="contains no images"):
        datasets.load_data(tmp_path / "empty")
    write_images(["1.png"])
    folder, _ = write_images(["a/2.png"])
    with pytest.raises(ValueError, match="both images and subfolders"):
        datasets.load_data(folder)
    (folder / "1.png").write_bytes(b"no image")
    (folder / "a" / "2.png").unlink()
    with pytest.raises(ValueError, match=r"not an image: .*1\.png"):
        datasets.load_data(folder)


@pytest.mark.parametrize("name", ["x.npy", "x.npz"])
def test_damaged_arrays_are_named(name, tmp_path):
    path = tmp_path / name
    np.savez(path, x=np.ones((9, 2))) if name == "x.npz" else np.save(path, np.ones(9))
    for content in (path.read_bytes()[:-4], path.read_bytes()[:20], b""):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=rf"Received: .*{re.escape(str(path))}"):
            datasets.load_data(path)


def test_options_of_tfds_are_refused_with_a_path(tmp_path):
    with pytest.raises(ValueError, match="apply only to TFDS datasets"):
        datasets.load_data(tmp_path / "x.npy", data_dir=tmp_path)


def test_arrays_that_are_no_dataset_are_errors(tmp_path):
    np.save(tmp_path / "flat.npy", np.ones(3))
    np.savez(tmp_path / "two.npz", a=np.ones((2, 2)), b=np.ones((2, 2)))
    np.savez(tmp_path / "short.npz", x=np.ones((2, 2)), y=np.ones(3))
    (tmp_path / "data.txt").touch()
    for name, options, message in (
        ("flat.npy", {}, r"shape \(3,\)"),
        ("flat.npy", {"label": "y"}, r"applies only to tables.*label='y'"),
        ("two.npz", {}, "arrays a, b"),
        ("two.npz", {"label": "c"}, "Unknown array"),
        ("short.npz", {}, "2 and 3"),
        ("data.txt", {}, r"ends in \.npy"),
    ):
        with pytest.raises(ValueError, match=message):
            datasets.load_data(tmp_path / name, **options)
    with pytest.raises(ValueError, match=r"apply only to files.*label='y'"):
        datasets.load_data("digits", label="y")


def test_table_larger_than_the_memory_is_refused(table, monkeypatch):
    memory = type("Memory", (), {"available": 10})
    monkeypatch.setattr(psutil, "virtual_memory", memory)

    with pytest.raises(ValueError, match=r"not fit into memory.*`\.npy`"):
        datasets.load_data(table[0], label="kind")
