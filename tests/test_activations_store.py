"""Tests of recorded activations: order, resuming, parts, and use in training."""

import itertools
import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from activation_models import CASES, functional, sequential, transformer
from contracts import each
from helpers import BACKEND

from keras_sae import activations, layers, models
from keras_sae.activations import writer


def rows_of(model, layer, x) -> np.ndarray:
    outputs = activations.capture(model, layer, x)
    return outputs.reshape(-1, outputs.shape[-1])


def assert_same_rows(found, expected, tolerance=1e-3) -> None:
    """Both hold the same rows in any order."""
    assert found.shape == expected.shape
    np.testing.assert_allclose(
        np.sort(found, axis=0), np.sort(expected, axis=0), atol=tolerance
    )
    sums = [
        np.sort(array @ np.arange(1, array.shape[1] + 1)) for array in (found, expected)
    ]
    np.testing.assert_allclose(*sums, atol=30 * tolerance)


def contents(folder) -> dict[str, bytes]:
    """Return the files of a store, without what a killed process left behind."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and ".unfinished-" not in str(path)
    }


@pytest.fixture
def recorded(tmp_path):
    """A store of 400 rows in several files, with its model and inputs."""
    model, x = sequential(), CASES["sequential"].inputs(400)
    store = activations.record(model, "hidden", x, tmp_path / "a", file_bytes=1000)
    return model, x, store


@pytest.mark.parametrize("content", [b"", b'{"parts"', b"\xff", b"[]", b"{}"])
@pytest.mark.parametrize("name", ["settings.json", "progress.json"])
def test_a_damaged_state_is_named(name, content, recorded):
    model, x, store = recorded
    folder = store._files[0][0].parent
    file = min(folder.rglob(name), key=lambda path: len(path.parts))
    file.write_bytes(content)
    with pytest.raises(ValueError, match=f"{name}.*cannot be read"):
        activations.ActivationStore(folder)
    with pytest.raises(ValueError, match=name if name[0] == "p" else "settings"):
        activations.record(model, "hidden", x, folder, file_bytes=1000)


# What is recorded.


@each(CASES)
def test_every_row_is_recorded_with_its_origin(case, tmp_path):
    model, x = case.make(), case.inputs(20)
    store = activations.record(model, case.layer, x, tmp_path, dtype="float32")
    outputs = activations.capture(model, case.layer, x)
    assert store.shape == (outputs.size // case.width, case.width)
    assert len(store) == store.shape[0]
    origin = store.origin(np.arange(len(store)))
    assert len({tuple(row) for row in origin}) == len(store)
    np.testing.assert_allclose(store.array(), outputs[tuple(origin.T)], atol=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_dtype_on_disk(dtype, tmp_path):
    import ml_dtypes

    model, x = sequential(), CASES["sequential"].inputs(50)
    store = activations.record(model, "hidden", x, tmp_path, dtype)
    origin = store.origin(np.arange(50))[:, 0]
    exact = rows_of(model, "hidden", x)[origin]
    rounded = exact.astype(getattr(ml_dtypes, dtype) if dtype[0] == "b" else dtype)
    tolerance = {"float16": 1e-3, "bfloat16": 8e-3, "float32": 1e-6}[dtype]
    np.testing.assert_allclose(store.array(), exact, rtol=tolerance, atol=1e-6)
    if BACKEND != "jax":
        np.testing.assert_array_equal(store.array(), rounded.astype("float32"))
    files = list(tmp_path.rglob("rows-*.npy"))
    width = 4 if dtype == "float32" else 2
    assert sum(file.stat().st_size - 128 for file in files) == 50 * 6 * width


def test_mean_and_rms(recorded):
    model, x, store = recorded
    rows = rows_of(model, "hidden", x).astype("float64")
    np.testing.assert_allclose(store.mean, rows.mean(axis=0), rtol=1e-5)
    assert store.rms == pytest.approx(np.sqrt((rows**2).mean()), rel=1e-6)


def test_masked_rows_are_left_out(tmp_path):
    model, x = transformer(), CASES["block"].inputs(20)
    store = activations.record(model, "block_1", x, tmp_path / "mask", keep="mask")
    assert len(store) == np.sum(x != 0)
    sample, place = store.origin(np.arange(len(store))).T
    assert (x[sample, place] != 0).all()
    embedding = activations.record(model, "embedding", x, tmp_path / "e", keep="mask")
    assert len(embedding) == len(store)


def test_tokens_are_left_out_by_id(tmp_path):
    model, x = transformer(), CASES["block"].inputs(20)
    store = activations.record(model, "block_1", x, tmp_path, keep=np.array([0, 3]))
    assert len(store) == np.sum((x != 0) & (x != 3))
    sample, place = store.origin(np.arange(len(store))).T
    assert not np.isin(x[sample, place], [0, 3]).any()


def test_rows_are_kept_by_a_function(tmp_path):
    model, x = transformer(), CASES["block"].inputs(20)

    def first_place(inputs):
        return np.arange(inputs.shape[1]) * np.ones((len(inputs), 1)) == 0

    store = activations.record(model, "block_1", x, tmp_path / "a", keep=first_place)
    assert store.origin(np.arange(20))[:, 1].tolist() == [0] * 20
    store = activations.record(
        model, "block_1", x, tmp_path / "b", keep=lambda inputs: inputs[:, 0] > 5
    )
    assert len(store) == 7 * np.sum(x[:, 0] > 5)


def test_first_batch_without_a_kept_row(tmp_path):
    model, x = sequential(), CASES["sequential"].inputs(400)
    x[:, 0] = np.arange(400) >= 32
    store = activations.record(model, "hidden", x, tmp_path, keep=lambda x: x[:, 0])
    assert sorted(store.origin(np.arange(368))[:, 0]) == list(range(32, 400))
    assert len(list(tmp_path.rglob("rows-*.npy"))) > 1


def test_number_of_files_is_limited(tmp_path):
    model, x = sequential(), CASES["sequential"].inputs(4000)
    activations.record(model, "hidden", x, tmp_path, file_bytes=50, batch_size=1000)
    assert len(list(tmp_path.rglob("rows-*.npy"))) == 256


def test_sequences_of_different_lengths(tmp_path):
    model = transformer()
    data = [np.ones((2, 3), "int32"), np.full((1, 5), 2, "int32")]
    store = activations.record(model, "block_0", iter(data), tmp_path)
    assert len(store) == 2 * 3 + 5
    origin = store.origin(np.arange(11))
    assert sorted(origin[origin[:, 0] == 2][:, 1]) == [0, 1, 2, 3, 4]


def test_pair_of_layers(tmp_path):
    model, x = sequential(), CASES["sequential"].inputs(50)
    store = activations.record(model, ("hidden", "head"), x, tmp_path, "float32")
    assert store.shape == (50, 6)
    assert store.target_shape == (50, 3)
    assert store.layers == ["hidden", "head"]
    pairs = list(store.dataset(16, shuffle=False).as_numpy_iterator())
    found = [np.concatenate(part) for part in zip(*pairs, strict=True)]
    both = activations.capture(model, ["hidden", "head"], x)
    origin = store.origin(np.arange(50))[:, 0]
    np.testing.assert_allclose(found[0], both["hidden"][origin], atol=1e-6)
    np.testing.assert_allclose(found[1], both["head"][origin], atol=1e-6)


# Order.


def runs(values: np.ndarray) -> float:
    """Return the z-score of the runs test for the order of values."""
    above = values > np.median(values)
    n, m = above.sum(), (~above).sum()
    count = 1 + np.sum(above[1:] != above[:-1])
    mean = 2 * n * m / (n + m) + 1
    variance = (mean - 1) * (mean - 2) / (n + m - 1)
    return (count - mean) / np.sqrt(variance)


def test_order_on_disk_is_random(recorded):
    store = recorded[2]
    samples = store.origin(np.arange(len(store)))[:, 0]
    assert abs(runs(samples)) < 3
    correlation = np.corrcoef(samples, np.arange(len(samples)))[0, 1]
    assert abs(correlation) < 3 / np.sqrt(len(samples))
    assert runs(np.arange(400)) < -10


def test_epochs_have_different_random_orders(tmp_path):
    x = np.arange(3000, dtype="float32").reshape(1500, 2)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Identity(name="copy")])
    store = activations.record(
        model, "copy", x, tmp_path, "float32", file_bytes=1500, batch_size=100
    )
    data = store.dataset(64, seed=1)
    epochs = [np.concatenate(list(data.as_numpy_iterator()))[:, 0] for _ in range(2)]
    assert not np.array_equal(*epochs)
    for epoch in epochs:
        assert abs(runs(epoch)) < 3
        np.testing.assert_array_equal(np.sort(epoch), x[:, 0])
    again = np.concatenate(list(store.dataset(64, seed=1).as_numpy_iterator()))[:, 0]
    np.testing.assert_array_equal(again, epochs[0])


def test_dataset_has_known_length_and_shapes(recorded):
    store = recorded[2]
    data = store.dataset(150)
    assert len(data) == 3
    assert data.element_spec.shape.as_list() == [None, 6]
    assert [len(batch) for batch in data.as_numpy_iterator()] == [150, 150, 100]


def test_dataset_in_order_equals_the_array(recorded):
    store = recorded[2]
    batches = list(store.dataset(64, shuffle=False).as_numpy_iterator())
    np.testing.assert_array_equal(np.concatenate(batches), store.array())
    np.testing.assert_array_equal(store.array(77), store.array()[:77])
    np.testing.assert_array_equal(np.asarray(store), store.array())
    assert store.array(1000).shape == (400, 6)
    for begin, end in ((0, 1), (33, 300), (390, 500), (50, 50), (60, 50), (400, 401)):
        np.testing.assert_array_equal(store[begin:end], store.array()[begin:end])
    with pytest.raises(ValueError, match=r"range of rows.*store\[:1000\]"):
        store[::2]


# Resuming.


class Killed(BaseException):
    """Stands for a kill: nothing after it runs but the closing of files."""


def record_killed(monkeypatch, event: int, *args, **kwargs) -> bool:
    """Record, and stop at the given write, rename or removal of a file."""
    count = itertools.count(1)  # threads count, too

    def count_calls(function):
        def counted(*a, **k):
            if next(count) >= event:  # in every thread
                raise Killed
            return function(*a, **k)

        return counted

    with monkeypatch.context() as patch:
        patch.setattr(writer, "_CHECKPOINT_SECONDS", 0.0)
        patch.setattr(writer, "_write", count_calls(writer._write))
        patch.setattr(writer, "write_json", count_calls(writer.write_json))
        patch.setattr(writer.np, "save", count_calls(np.save))
        patch.setattr(writer.os, "unlink", count_calls(os.unlink))
        try:
            activations.record(*args, **kwargs)
        except Killed:
            return True
    return False


@pytest.mark.parametrize("event", [1, 2, 4, 9, 17, 26, 33, 38, 43, 47])
def test_killed_recording_is_resumed(event, tmp_path, monkeypatch):
    model, x = sequential(), CASES["sequential"].inputs(100)
    options = {"file_bytes": 300, "batch_size": 20}
    whole = activations.record(model, "hidden", x, tmp_path / "whole", **options)
    arguments = (model, "hidden", x, tmp_path / "killed")
    assert record_killed(monkeypatch, event, *arguments, **options)
    with pytest.raises(ValueError, match="must be complete"):
        activations.ActivationStore(tmp_path / "killed")
    resumed = activations.record(*arguments, **options)
    assert contents(tmp_path / "whole") == contents(tmp_path / "killed")
    assert len(resumed) == len(whole) == 100


def test_recording_killed_again_and_again_is_resumed(tmp_path, monkeypatch):
    model, x = sequential(), CASES["sequential"].inputs(100)
    options = {"file_bytes": 300, "batch_size": 20}
    activations.record(model, "hidden", x, tmp_path / "whole", **options)
    arguments = (model, "hidden", x, tmp_path / "killed")
    kills = 0
    while record_killed(monkeypatch, 11, *arguments, **options):
        kills += 1
    assert kills > 3
    assert contents(tmp_path / "whole") == contents(tmp_path / "killed")


_KILL = """
import itertools, os, sys
import numpy as np, keras
from keras_sae import activations
from keras_sae.activations import writer

event, folder = int(sys.argv[1]), sys.argv[2]
count = itertools.count(1)
writer._CHECKPOINT_SECONDS = 0.0

def counted(function):
    def call(*args, **kwargs):
        if next(count) == event:
            os._exit(9)
        return function(*args, **kwargs)
    return call

writer._write = counted(writer._write)
os.replace = counted(os.replace)
os.unlink = counted(os.unlink)
model = keras.Sequential([keras.Input((2,)), keras.layers.Identity(name="copy")])
x = np.arange(200, dtype="float32").reshape(100, 2)
activations.record(model, "copy", x, folder, "float32", batch_size=20, file_bytes=200)
"""


@pytest.mark.slow
@pytest.mark.parametrize("event", [2, 4, 7, 12, 18, 24, 29, 33, 37, 40])
def test_killed_process_is_resumed(event, tmp_path):
    environment = {**os.environ, "KERAS_BACKEND": BACKEND}
    codes = [
        subprocess.run(
            [sys.executable, "-c", _KILL, number, str(tmp_path / "store")],
            env=environment,
            capture_output=True,
        ).returncode
        for number in (str(event), "0")
    ]
    assert codes == [9, 0]
    store = activations.ActivationStore(tmp_path / "store")
    x = np.arange(200, dtype="float32").reshape(100, 2)
    origin = store.origin(np.arange(100))[:, 0]
    assert sorted(origin) == list(range(100))
    np.testing.assert_array_equal(store.array(), x[origin])


def test_finished_recording_is_read_again(recorded, tmp_path, monkeypatch):
    model, x, store = recorded
    before = contents(tmp_path / "a")
    monkeypatch.setattr(activations.rows.RowReader, "read", None)
    again = activations.record(model, "hidden", x, tmp_path / "a", file_bytes=1000)
    assert contents(tmp_path / "a") == before
    np.testing.assert_array_equal(again.array(), store.array())


def test_full_disk_is_an_error_that_can_be_resumed(tmp_path, monkeypatch):
    model, x = sequential(), CASES["sequential"].inputs(100)
    arguments = (model, "hidden", x, tmp_path / "a")
    with monkeypatch.context() as patch:

        def full(file, data):
            file.write(data[:10])
            raise OSError(28, "No space left on device")

        patch.setattr(writer, "_write", full)
        with pytest.raises(OSError, match=r"No space left.*To resume"):
            activations.record(*arguments)
    activations.record(*arguments)
    activations.record(model, "hidden", x, tmp_path / "b")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_other_errors_of_files_are_passed_on(tmp_path):
    def read():
        yield np.ones((2, 5))
        raise FileNotFoundError(2, "No such file", "x.npy")

    with pytest.raises(FileNotFoundError, match=r"x\.npy"):
        activations.record(sequential(), "hidden", read(), tmp_path)


def test_shortened_file_of_a_killed_recording_is_an_error(tmp_path, monkeypatch):
    arguments = (sequential(), "hidden", CASES["sequential"].inputs(100), tmp_path)
    assert record_killed(monkeypatch, 9, *arguments, batch_size=20)
    file = next(tmp_path.rglob("rows-00000.raw"))
    os.truncate(file, 20)
    for _ in range(2):
        with pytest.raises(ValueError, match=r"rows-00000.raw.*20 bytes instead of"):
            activations.record(*arguments, batch_size=20)


# Parts.


def test_parts_are_read_together(tmp_path):
    model, x = sequential(), CASES["sequential"].inputs(90)
    halves = [(x[:50], 0), (x[50:], 50)]
    for index, (half, first) in enumerate(halves):
        store = activations.record(
            model, "hidden", half, tmp_path, part=(index, 2), first_sample=first
        )
        assert len(store) == (len(half) if index == 0 else 90)
    outputs = rows_of(model, "hidden", x)
    origin = store.origin(np.arange(90))[:, 0]
    assert sorted(origin) == list(range(90))
    np.testing.assert_allclose(store.array(), outputs[origin], rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(store.mean, outputs.mean(axis=0), rtol=1e-5)
    own = activations.ActivationStore(tmp_path, part=1)
    assert sorted(own.origin(np.arange(40))[:, 0]) == list(range(50, 90))


_PART = """
import sys
import numpy as np, keras
from keras_sae import activations

part, folder = int(sys.argv[1]), sys.argv[2]
model = keras.Sequential([keras.Input((2,)), keras.layers.Identity(name="copy")])
x = np.arange(600, dtype="float32").reshape(300, 2)[100 * part : 100 * part + 100]
activations.record(
    model, "copy", x, folder, "float32", part=(part, 3), first_sample=100 * part
)
"""


@pytest.mark.slow
def test_processes_record_parts_into_one_folder_at_once(tmp_path):
    folder = str(tmp_path / "store")
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _PART, str(part), folder],
            env={**os.environ, "KERAS_BACKEND": BACKEND},
            stderr=subprocess.PIPE,
        )
        for part in range(3)
    ]
    errors = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], errors
    store = activations.ActivationStore(folder)
    x = np.arange(600, dtype="float32").reshape(300, 2)
    origin = store.origin(np.arange(300))[:, 0]
    assert sorted(origin) == list(range(300))
    np.testing.assert_array_equal(store.array(), x[origin])


def test_incomplete_parts_are_an_error(tmp_path):
    model, x = sequential(), CASES["sequential"].inputs(20)
    activations.record(model, "hidden", x, tmp_path, part=(1, 3))
    with pytest.raises(ValueError, match=r"parts \[0, 2\] are incomplete"):
        activations.ActivationStore(tmp_path)
    with pytest.raises(ValueError, match="parts was 3 and is now 2"):
        activations.record(model, "hidden", x, tmp_path, part=(0, 2))


# Use in training.


def test_autoencoder_is_adapted_and_trained(recorded):
    _, _, store = recorded
    autoencoder = models.shallow((6,), 12, layers.TopK(3), scaling=True)
    autoencoder.adapt(store)
    center = autoencoder.encoder.get_layer("center")
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(center.mean), store.mean, rtol=1e-3, atol=1e-4
    )
    autoencoder.compile(keras.optimizers.Adam(0.01))
    history = autoencoder.fit(store.dataset(100), epochs=5, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]


@pytest.mark.parametrize("buffer_size", [10, 100, 10_000])
def test_stream_has_every_row_once_per_epoch(buffer_size):
    model, x = functional(), CASES["functional"].inputs(30)
    expected = rows_of(model, "conv", x)
    data = activations.stream(
        model, "conv", x, 50, buffer_size=buffer_size, samples_per_batch=4
    )
    epochs = [np.concatenate(list(data.as_numpy_iterator())) for _ in range(2)]
    for epoch in epochs:
        assert_same_rows(epoch, expected, 1e-6)
    assert not np.array_equal(*epochs)


@pytest.mark.parametrize("buffer_size", [10, 70])
def test_only_the_last_batch_of_a_stream_is_smaller(buffer_size):
    model, x = functional(), CASES["functional"].inputs(10)
    data = activations.stream(
        model, "conv", x, 50, buffer_size=buffer_size, samples_per_batch=1
    )
    sizes = [len(batch) for batch in data.as_numpy_iterator()]
    assert sizes == [50, 50, 50, 10]


def test_stream_of_a_generator_is_an_error():
    x = CASES["sequential"].inputs(10)
    with pytest.raises(ValueError, match="Received: an iterator"):
        activations.stream(sequential(), "hidden", (x for _ in range(3)))


def test_model_is_trained_on_a_stream():
    model, x = sequential(), CASES["sequential"].inputs(200)
    data = activations.stream(model, ("hidden", "hidden"), x, 64)
    autoencoder = models.shallow((6,), 12, layers.TopK(3))
    autoencoder.compile("adam")
    history = autoencoder.fit(data, epochs=2, verbose=0).history
    assert len(history["loss"]) == 2


# Errors.


def large(model):
    model.get_layer("hidden").kernel.assign(np.full((5, 6), 1e5))


BAD = {
    "model": (lambda m, x: large(m), {}, "model was"),
    "layer": (None, {"layer": "head"}, "layers was"),
    "dtype": (None, {"dtype": "float32"}, "dtype was 'float16'"),
    "seed": (None, {"seed": 3}, "seed was 0"),
    "data": (None, {"x": 1}, "a recording of other data"),
    "less-data": (None, {"x": slice(0, 300)}, "a recording of other data"),
}


@each(BAD)
def test_other_recording_in_the_same_folder_is_an_error(case, recorded, tmp_path):
    change, options, message = case
    model, x, _ = recorded
    if change:
        change(model, x)
    other = options.pop("x", None) if "x" in options else None
    x = x if other is None else x[other] if isinstance(other, slice) else x + 1
    layer = options.pop("layer", "hidden")
    with pytest.raises(ValueError, match=message):
        activations.record(
            model, layer, x, tmp_path / "a", **{"file_bytes": 1000, **options}
        )


def test_more_data_in_the_same_folder_is_an_error(recorded, tmp_path):
    model, x, _ = recorded
    with pytest.raises(ValueError, match="a recording of other data"):
        activations.record(
            model, "hidden", np.concatenate([x, x]), tmp_path / "a", file_bytes=1000
        )


def test_value_beyond_float16_is_an_error(tmp_path):
    model, x = sequential(), np.ones((10, 5), "float32")
    large(model)
    with pytest.raises(ValueError, match=r"finite in float16.*dtype='bfloat16'"):
        activations.record(model, "hidden", x, tmp_path / "a")
    store = activations.record(model, "hidden", x, tmp_path / "b", "bfloat16")
    np.testing.assert_allclose(store.array(), 5e5, rtol=1e-2)
    model.get_layer("head").bias.assign(np.full(3, np.nan))
    with pytest.raises(ValueError, match="finite in float32"):
        activations.record(model, "head", x, tmp_path / "c", "float32")


def test_error_in_the_writing_thread_is_raised(tmp_path, monkeypatch):
    monkeypatch.setattr(writer, "_CHECKPOINT_SECONDS", 0.0)
    read = []

    def data():
        for number in range(10):
            read.append(number)
            yield np.full((4, 5), 1e30 if number == 2 else 1.0)

    with pytest.raises(ValueError, match="finite in float16"):
        activations.record(sequential(), "hidden", data(), tmp_path)
    assert len(read) == 4  # the batch before the error was reported is the last


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "int8"}, "Unknown dtype"),
        ({"part": (2, 2)}, "0 <= i < n"),
        ({"keep": "all"}, "`keep` must be None"),
        ({"keep": "mask"}, "no Keras mask"),
        ({"keep": [0]}, "a single integer input"),
        ({"keep": lambda x: np.ones(3)}, "one boolean per row"),
        ({"keep": lambda x: np.zeros(len(x))}, "keep some rows"),
    ],
)
def test_bad_argument_is_an_error(options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        activations.record(sequential(), "hidden", np.ones((4, 5)), tmp_path, **options)


def test_bad_layers_are_an_error(tmp_path):
    x = CASES["functional"].inputs()
    with pytest.raises(ValueError, match="a pair of layers"):
        activations.record(functional(), ("conv", "hidden", "head"), x, tmp_path)
    with pytest.raises(ValueError, match="differ only in width"):
        activations.record(functional(), ("conv", "hidden"), x, tmp_path)


def test_folder_of_something_else_is_an_error(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    x = np.ones((4, 5))
    with pytest.raises(ValueError, match="which contains other files"):
        activations.record(sequential(), "hidden", x, tmp_path)
    with pytest.raises(ValueError, match="has written"):
        activations.ActivationStore(tmp_path)


def test_row_that_does_not_exist_is_an_error(recorded):
    for row in (-1, 400):
        with pytest.raises(ValueError, match="between 0 and 399"):
            recorded[2].origin([0, row])


def test_settings_are_readable(recorded, tmp_path):
    settings = json.loads((tmp_path / "a" / "settings.json").read_text())
    assert settings["layers"] == ["hidden"]
    assert settings["model"] == recorded[2].fingerprint
