"""Kills and full disks, after which a repeated call must give the undisturbed results.

Each disturbed process is forked from a process that has already imported everything,
which saves time.
"""

import multiprocessing
import random
import resource
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest
from helpers import tensorflow_only
from typer.testing import CliRunner

from keras_sae import cli, evaluation, layers, models, pretraining, tuning

pytestmark = [pytest.mark.slow, tensorflow_only]


def _data(samples: int = 64) -> np.ndarray:
    return np.random.default_rng(0).random((samples, 12), dtype="float32")


def greedy(folder: Path) -> Any:
    keras.utils.set_random_seed(0)
    model = models.stacked((12,), (32, 16, 8), "l1")
    pretraining.greedy(model, _data(), 3, 16, directory=folder, verbose=0)
    return [weight.tolist() for weight in model.get_weights()]


def boltzmann(folder: Path) -> Any:
    keras.utils.set_random_seed(0)
    names = ("activation", "code_activation", "output_activation")
    model = models.deep((12,), (32, 8), **dict.fromkeys(names, "sigmoid"))
    pretraining.boltzmann(model, _data(), 3, 16, directory=folder, verbose=0)
    return [weight.tolist() for weight in model.get_weights()]


def compare(folder: Path) -> Any:
    builders = {
        "L1": lambda: models.shallow((12,), 8, "l1"),
        "TopK": lambda: models.shallow((12,), 8, layers.TopK(2)),
    }
    x = _data(), np.arange(64) % 2
    table = evaluation.compare(builders, x, x, 2, (0, 1), directory=folder)
    return table.drop(columns="seconds").fillna(-1).to_dict("records")


def tune(folder: Path) -> Any:
    space = tuning.SparsityHyperModel("shallow", (12,), sparsity="l1", units=[4, 8])
    x = _data()
    tuner = tuning.search(
        space, x, x[:9], 4, 2, max_l0=12, directory=folder, progress=False
    )
    return tuning.trials(tuner).fillna(-1).to_dict("records")


def train(folder: Path) -> Any:
    options = ["--epochs", "2", "--units", "8", "--output", str(folder)]
    result = CliRunner().invoke(cli.app.app, ["train", *options])
    if result.exit_code:
        raise RuntimeError(result.output)
    table = pd.read_csv(folder / "table.csv").drop(columns="seconds")
    return table.fillna(-1).to_dict("records")


CALLS: dict[str, Callable[[Path], Any]] = {
    call.__name__: call for call in (greedy, boltzmann, compare, tune, train)
}


def _child(name: str, folder: Path, largest_file: int | None, pipe: Any) -> None:
    """Send `"ready"`, make a call, and send its result or error."""
    if largest_file is not None:  # larger writes fail, as on a full disk
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
    pipe.send("ready")
    try:
        pipe.send(CALLS[name](folder))
    except Exception as error:
        pipe.send(RuntimeError(repr(error)))  # some errors cannot be pickled


@pytest.fixture(scope="module")
def context():
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["keras_sae.cli", "keras_sae.tuning", __name__])
    return context


def _call(
    context: Any,
    name: str,
    folder: Path,
    seconds: float | None = None,
    largest_file: int | None = None,
) -> tuple[Any, float]:
    """Return a call's result, or None if it was killed, and its duration."""
    ours, theirs = context.Pipe()
    process = context.Process(target=_child, args=(name, folder, largest_file, theirs))
    process.start()
    theirs.close()
    assert ours.recv() == "ready"
    begin = time.monotonic()
    result = None
    try:
        if ours.poll(seconds):
            result = ours.recv()
    except EOFError:
        process.join()
        raise AssertionError(f"exit status {process.exitcode}") from None
    finally:
        process.kill()
        process.join()
    return result, time.monotonic() - begin


def _assert_equal(found: Any, expected: Any) -> None:
    assert not isinstance(found, Exception), found
    if isinstance(expected, list):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            _assert_equal(one, other)
    elif isinstance(expected, dict):
        assert found.keys() == expected.keys()
        _assert_equal(list(found.values()), list(expected.values()))
    elif isinstance(expected, str):
        assert found == expected
    else:
        assert found == pytest.approx(expected, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("name", CALLS)
def test_kills_lose_only_what_was_in_progress(
    name, context, tmp_path, record_property, pytestconfig
):
    kills = max(1, pytestconfig.getoption("--campaign-cases") // 50)
    expected, duration = _call(context, name, tmp_path / "undisturbed")
    _assert_equal(expected, expected)
    rng, killed, finished = random.Random(name), 0, 0
    while killed < kills:
        folder = tmp_path / "run"
        result = None
        while result is None:
            seconds = rng.uniform(0, duration) if rng.random() < 0.7 else None
            result, _ = _call(context, name, folder, seconds)
            killed += result is None
        _assert_equal(result, expected)
        assert not list(folder.rglob(".unfinished-*"))
        assert not list(folder.rglob("*.unused-*"))
        shutil.rmtree(folder)
        finished += 1
    record_property("counts", f"{name}: {killed} kills, {finished} equal results")


@pytest.mark.parametrize("name", CALLS)
def test_a_full_disk_can_be_resumed(
    name, context, tmp_path, record_property, pytestconfig
):
    cases = max(1, pytestconfig.getoption("--campaign-cases") // 50)
    expected, _ = _call(context, name, tmp_path / "undisturbed")
    files = (tmp_path / "undisturbed").rglob("*")
    sizes = sorted({f.stat().st_size for f in files if f.is_file()})
    rng, failures = random.Random(name), 0
    for _ in range(cases):
        folder = tmp_path / "run"
        limit = int(rng.uniform(0, sizes[-1]))
        failure, _ = _call(context, name, folder, largest_file=limit)
        failures += isinstance(failure, Exception)
        result, _ = _call(context, name, folder)
        _assert_equal(result, expected)
        assert not list(folder.rglob(".unfinished-*"))
        shutil.rmtree(folder)
    counts = f"{name}: {cases} full disks, {failures} failed calls, all resumed"
    record_property("counts", counts)
    assert failures
