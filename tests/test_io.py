"""Files that survive kills and damage."""

import contextlib
import os
import zipfile

import keras
import pytest
from helpers import assert_same_weights, weights_of

from keras_sae import models
from keras_sae.utils import io

# Contents that a damaged file may have.
DAMAGED = {"empty": b"", "half": None, "garbage": b"\xff\xfe\x00!", "a list": b"[]"}
damaged = pytest.mark.parametrize("kind", [*DAMAGED, "a folder", "deep"])


def damage(path, kind):
    """Replace a file by a damaged one."""
    content = path.read_bytes()
    if kind == "a folder":
        path.unlink()
        path.mkdir()
    elif kind == "deep":
        path.write_bytes(b"[" * 100_000)
    elif kind == "half":
        path.write_bytes(content[: len(content) // 2])
    else:
        path.write_bytes(DAMAGED[kind])


@damaged
def test_a_damaged_settings_file_is_named(tmp_path, kind):
    io.write_json(tmp_path / "settings.json", {"seed": 0, "epochs": 2})
    damage(tmp_path / "settings.json", kind)
    with pytest.raises(ValueError, match=r"Received: .*settings\.json.*cannot be read"):
        io.RunDirectory(tmp_path, {"seed": 0, "epochs": 2})


@pytest.mark.parametrize("value", [None, "3", 3.0])
def test_a_value_of_another_type_is_named(tmp_path, value):
    io.write_json(tmp_path / "a.json", {"epochs": value})
    with pytest.raises(ValueError, match="expected 'epochs' of type int"):
        io.read_json(tmp_path / "a.json", epochs=int)


def model_of(units=4):
    return models.shallow((6,), units, "l1", corruption=keras.layers.Dropout(0.5))


def test_variables_and_their_record_are_read_as_they_were_saved(tmp_path):
    one, other, path = model_of(), model_of(), tmp_path / "a.npz"
    io.save_state(path, one, {"epochs": [0, 1]})
    assert io.load_state(path, other) == {"epochs": [0, 1]}
    assert_same_weights(weights_of(one), weights_of(other))
    states = [v for v in io.state_variables(one) if "seed" in v.path]
    assert len(states) == 1  # the random state of the corruption
    assert [path] == list(tmp_path.iterdir())


@damaged
def test_damaged_variables_are_set_aside_and_none_is_loaded(tmp_path, kind):
    model, path = model_of(), tmp_path / "a.npz"
    assert io.load_state(path, model) is None  # there is no file
    io.save_state(path, model, {})
    damage(path, kind)
    before = weights_of(model)
    with pytest.warns(UserWarning, match="renamed to 'a.npz.unused-1'"):
        assert io.load_state(path, model) is None
    assert_same_weights(before, weights_of(model))
    assert [p.name for p in tmp_path.iterdir()] == ["a.npz.unused-1"]


def test_every_flipped_bit_of_variables_is_noticed(tmp_path, rng):
    """Bits that no reader uses, such as those of the time, may flip."""
    model, path = model_of(), tmp_path / "a.npz"
    io.save_state(path, model, {"epochs": [1]})
    content, before = path.read_bytes(), weights_of(model)
    for bit in rng.integers(8 * len(content), size=100):
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        with contextlib.suppress(UserWarning):  # warnings are errors in the tests
            assert io.load_state(path, model) == {"epochs": [1]}
        assert_same_weights(before, weights_of(model))


def test_variables_of_another_model_are_set_aside(tmp_path):
    io.save_state(tmp_path / "a.npz", model_of(5), {})
    model = model_of(4)
    with pytest.warns(UserWarning, match="the variables of another model"):
        assert io.load_state(tmp_path / "a.npz", model) is None


@damaged
def test_a_damaged_keras_file_is_named_before_keras_reads_it(tmp_path, kind):
    path = tmp_path / "model.keras"
    model_of().save(path)
    damage(path, kind)
    with pytest.raises(ValueError, match=r"Received: .*model\.keras.*cannot be read"):
        io.load_model(path)


def test_a_damaged_part_of_a_keras_file_is_named(tmp_path):
    model_of().save(tmp_path / "model.keras")
    with zipfile.ZipFile(tmp_path / "model.keras") as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    for name in parts.keys() - {"metadata.json"}:  # Keras does not read this one
        with zipfile.ZipFile(tmp_path / "other.keras", "w") as archive:
            for part, content in parts.items():
                archive.writestr(part, content[:40] if part == name else content)
        with pytest.raises(ValueError, match=r"Received: .*other\.keras"):
            io.load_model(tmp_path / "other.keras")


def test_unfinished_files_of_ended_processes_are_deleted(tmp_path):
    mine = f"{io.UNFINISHED}{os.getpid()}-a"
    reused = f"{io.UNFINISHED}{os.getpid()}-c"
    for name in (f"{io.UNFINISHED}a", f"{io.UNFINISHED}99999999-b", mine, reused):
        (tmp_path / name).mkdir()
        (tmp_path / name / "part").write_text("part")
    os.utime(tmp_path / reused, (0, 0))  # written before this process started
    io.clear_unfinished(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [mine]


def test_an_error_while_writing_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with contextlib.suppress(OSError), io.atomic_write(path) as temporary:
        temporary.write_text("new")
        raise OSError("full")
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]
    assert path.read_text() == "old"
