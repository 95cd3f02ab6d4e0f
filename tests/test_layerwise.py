"""Resuming of pretraining: only the level in progress is trained again."""

import json
import shutil
import signal
import subprocess
import sys
import warnings

import keras
import numpy as np
import pytest
from helpers import BACKEND, assert_same_weights, to_numpy, weights_of

from keras_sae import models, pretraining


def _stack(**kwargs):
    names = ("activation", "code_activation", "output_activation")
    return models.stacked((6,), (5, 4), **dict.fromkeys(names, "sigmoid"), **kwargs)


def _data(rng, samples=32):
    return rng.random((samples, 6), dtype="float32")


class _Recorder(keras.callbacks.Callback):
    """Record which models are trained, and for which epochs."""

    def __init__(self):
        super().__init__()
        self.models, self.epochs = [], []

    def on_train_begin(self, logs=None):
        self.models.append(self.model)
        self.epochs.append([])

    def on_epoch_end(self, epoch, logs=None):
        self.epochs[-1].append(epoch)


class _InterruptedError(Exception):
    pass


class _Interrupt(_Recorder):
    """Interrupt a level before an epoch."""

    def __init__(self, level, epoch):
        super().__init__()
        self.at = (level, epoch)

    def on_epoch_begin(self, epoch, logs=None):
        if (len(self.models) - 1, epoch) == self.at:
            raise _InterruptedError


def _resumable(**kwargs):
    keras.utils.set_random_seed(0)
    x = _data(np.random.default_rng(0))
    model = _stack()

    def pretrain(**more):
        settings = {"optimizer": "adam", "verbose": 0, **kwargs, **more}
        return pretraining.greedy(model, x, 3, batch_size=32, **settings)

    return model, pretrain


def test_resuming_loses_only_the_level_in_progress(tmp_path):
    uninterrupted, pretrain = _resumable()
    expected = pretrain()
    folder = tmp_path / "run"
    model, pretrain = _resumable(directory=folder)
    with pytest.raises(_InterruptedError):
        pretrain(callbacks=[_Interrupt(1, 2)])
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["level-0.npz", "level-1-initial.npz", "settings.json"]
    weights = [*model.encoder.weights, *model.decoder.weights]
    for weight in weights:  # another process starts from other weights
        weight.assign(to_numpy(weight) * 0 + 0.3)
    recorder = _Recorder()
    histories = pretrain(callbacks=[recorder])
    assert recorder.epochs == [[0, 1, 2]]
    for a, b in zip(weights_of(uninterrupted), weights_of(model), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    for one, other in zip(expected, histories, strict=True):
        assert other.epoch == one.epoch == [0, 1, 2]
        losses = one.history["loss"]
        np.testing.assert_allclose(other.history["loss"], losses, rtol=1e-5)
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["level-0.npz", "level-1.npz", "settings.json"]


def _run(script, *arguments):
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


_KILLED = """
import os, signal, sys
import keras
import numpy as np
from keras_sae import models, pretraining


class Kill(keras.callbacks.Callback):
    levels = 0

    def on_train_begin(self, logs=None):
        self.levels += 1

    def on_epoch_begin(self, epoch, logs=None):
        if (self.levels, epoch) == (2, 1):
            os.kill(os.getpid(), signal.SIGKILL)


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 4

    def __getitem__(self, i):
        return (np.random.default_rng(i).random((16, 6), dtype="float32"),)


def pretrain(directory, callbacks):
    keras.utils.set_random_seed(0)
    model = models.stacked((6,), (5, 4))
    pretraining.greedy(
        model, Batches(), 3, 16, directory=directory, callbacks=callbacks, verbose=0
    )
    return model.get_weights()


if sys.argv[2] == "first":
    pretrain(sys.argv[1], [Kill()])
resumed, uninterrupted = pretrain(sys.argv[1], []), pretrain(None, [])
print(all(np.allclose(a, b, atol=1e-6) for a, b in zip(resumed, uninterrupted)))
"""


@pytest.mark.slow
def test_a_killed_process_resumes_to_the_same_result(tmp_path):
    assert _run(_KILLED, tmp_path / "run", "first").returncode == -signal.SIGKILL
    names = sorted(path.name for path in (tmp_path / "run").iterdir())
    assert names == ["level-0.npz", "level-1-initial.npz", "settings.json"]
    done = _run(_KILLED, tmp_path / "run", "second")
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == ["True"]


def test_a_finished_call_loads_its_result(tmp_path):
    model, pretrain = _resumable(directory=tmp_path / "run")
    first = pretrain()
    before, recorder = weights_of(model), _Recorder()
    again = pretrain(callbacks=[recorder])
    assert recorder.epochs == []
    assert_same_weights(before, weights_of(model))
    assert [h.history for h in again] == [h.history for h in first]
    settings = json.loads((tmp_path / "run" / "settings.json").read_text())
    assert settings["method"] == "greedy"
    assert settings["epochs"] == [3, 3]
    assert settings["optimizer"][0]["config"]["learning_rate"] == pytest.approx(1e-3)


@pytest.mark.parametrize("policy", ["float64", "bfloat16"])
def test_finished_levels_keep_their_precision(tmp_path, policy):
    if policy == "float64" and BACKEND == "jax":
        pytest.skip("JAX has no float64 by default")
    keras.config.set_dtype_policy(policy)
    model, pretrain = _resumable(directory=tmp_path / "run")
    pretrain()
    before = weights_of(model)
    for weight in (*model.encoder.weights, *model.decoder.weights):
        weight.assign(np.zeros(weight.shape))
    pretrain()
    assert_same_weights(before, weights_of(model))


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    _, pretrain = _resumable(directory=folder)
    pretrain()
    return folder


@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04 cut off", b"no archive"])
@pytest.mark.parametrize("level", [0, 1])
def test_a_damaged_or_missing_level_is_trained_again(
    finished_run, tmp_path, level, content
):
    run = shutil.copytree(finished_run, tmp_path / "run")
    file = run / f"level-{level}.npz"
    file.unlink() if content is None else file.write_bytes(content)
    model, pretrain = _resumable(directory=run)
    recorder = _Recorder()
    with warnings.catch_warnings(record=True, action="always") as caught:
        pretrain(callbacks=[recorder])
    # The levels above were trained on codes of the missing one.
    assert len(recorder.epochs) == 2 - level
    aside = sorted(path.name for path in run.glob("*.unused-1"))
    later = [f"level-{i}.npz.unused-1" for i in range(level + (content is None), 2)]
    assert aside == later
    assert sum("cannot be used" in str(w.message) for w in caught) == len(later)
    uninterrupted, pretrain = _resumable()
    pretrain()
    for a, b in zip(weights_of(uninterrupted), weights_of(model), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_unfinished_files_of_a_killed_process_are_deleted(finished_run, tmp_path):
    run = shutil.copytree(finished_run, tmp_path / "run")
    (run / ".unfinished-99999999-a").mkdir()
    _, pretrain = _resumable(directory=run)
    pretrain()
    assert not list(run.glob(".unfinished-*"))


def test_a_directory_of_other_settings_is_an_error(finished_run):
    x = _data(np.random.default_rng(0))
    arguments = {"model": _stack(), "x": x, "epochs": 3, "batch_size": 32, "verbose": 0}
    changes = {
        "model": _stack(sparsity="l1"),
        "x": x[::-1],
        "optimizer": "sgd",
        "loss": "mae",
        "validation_data": (x, x),
    }
    for name, value in changes.items():
        setting = "data" if name == "x" else name
        with pytest.raises(ValueError, match=f"{setting} was"):
            pretraining.greedy(**{**arguments, name: value}, directory=finished_run)


def test_a_memmap_is_recognized_by_its_values(rng, tmp_path):
    def pretrain(values):
        values.tofile(tmp_path / "x.bin")
        x = np.memmap(tmp_path / "x.bin", "float32", "r", shape=values.shape)
        folder = {"directory": tmp_path / "run", "verbose": 0}
        return pretraining.greedy(_stack(), x, 1, 16, **folder)

    values = _data(rng)
    first = pretrain(values)
    assert [h.history for h in pretrain(values)] == [h.history for h in first]
    with pytest.raises(ValueError, match="data was"):
        pretrain(values / 2)


def test_a_directory_with_other_files_is_an_error(tmp_path):
    (tmp_path / "letter.txt").write_text("dear")
    for folder in (tmp_path, tmp_path / "letter.txt"):
        _, pretrain = _resumable(directory=folder)
        with pytest.raises(ValueError, match=r"`directory`.*Received"):
            pretrain()


@pytest.mark.parametrize("method", [pretraining.greedy, pretraining.boltzmann])
def test_refused_data_leave_no_directory(rng, tmp_path, method):
    x, options = _data(rng), {"directory": tmp_path / "run", "verbose": 0}
    for given in ({"x": x * 3}, {"x": x, "validation_data": x * 3}):
        with pytest.raises(ValueError, match=r"Received"):
            method(_stack(), epochs=1, batch_size=16, **given, **options)
        assert not (tmp_path / "run").exists()


def test_a_diverging_level_is_an_error_and_not_saved(tmp_path):
    x = _data(np.random.default_rng(0))
    model = models.deep((6,), (5, 3), activation="linear")
    sgd = keras.optimizers.SGD(1e20)
    settings = {"directory": tmp_path / "run", "verbose": 0, "optimizer": sgd}
    with pytest.raises(ValueError, match="Level 0 diverged"):
        pretraining.greedy(model, x, 9, 16, **settings)
    assert not (tmp_path / "run" / "level-0.npz").exists()
