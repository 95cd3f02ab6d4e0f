"""A chief and two workers over loopback: killed, resumed, and to the end."""

import fcntl
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import keras
import pandas as pd
import pytest
import tuning_script

from keras_sae import tuning
from keras_sae.tuning import workers

SCRIPT = Path(tuning_script.__file__)


@pytest.fixture(autouse=True)
def _paths(monkeypatch):
    root = SCRIPT.parents[1]
    monkeypatch.setenv("PYTHONPATH", str(root))
    monkeypatch.setenv("KERAS_BACKEND", keras.backend.backend())
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")


def notes(folder):
    return {path: json.loads(path.read_text()) for path in folder.glob("process-*")}


def wait_for_the_dead(folder):
    """Returns once the processes that left notes have gone, and with them the notes."""
    for path in notes(folder):
        with path.open() as note:
            fcntl.flock(note, fcntl.LOCK_EX)
        path.unlink()


def test_a_search_is_killed_resumed_and_loses_a_worker_and_no_trial(tmp_path):
    (tmp_path / "kill-launcher").touch()
    command = [sys.executable, str(SCRIPT), str(tmp_path)]
    first = subprocess.run(command, timeout=240)
    assert first.returncode == -signal.SIGKILL
    wait_for_the_dead(tmp_path)  # chief and workers do not outlive their launcher
    before = tuning_script.completed(tmp_path)
    assert 2 <= len(before) < tuning_script.TRIALS

    (tmp_path / "kill-worker").touch()
    tuner = tuning_script.search(tmp_path, command=command)
    assert not (tmp_path / "kill-worker").exists()
    table = tuning.trials(tuner)
    assert list(table["status"]) == ["COMPLETED"] * tuning_script.TRIALS
    after = tuning_script.completed(tmp_path)
    for name, record in before.items():
        assert after[name] == record
    # The worker that was killed came back, and each kept to its share of the cores.
    seen = list(notes(tmp_path).values())
    lives = Counter(note["name"] for note in seen)
    assert lives.keys() == {"chief", "worker-0", "worker-1"}
    assert lives["chief"] == 1
    assert lives["worker-0"] + lives["worker-1"] == 3
    shares = workers.shares(sorted(os.sched_getaffinity(0)), 2)
    expected = {f"worker-{n}": cores for n, cores in enumerate(shares)}
    for note in seen:
        assert note["cores"] == expected.get(note["name"], note["cores"])
    # The settings that were tried are those of a search in one process.
    alone = tuning_script.search(tmp_path / "alone", workers=1)
    pd.testing.assert_frame_equal(table, tuning.trials(alone), rtol=1e-4)
    # A finished search starts no process.
    again = tuning_script.search(tmp_path, command=["no such command"])
    assert tuning.trials(again).equals(table)


@pytest.mark.parametrize(
    ("cores", "count", "expected"),
    [
        ([0, 1], 2, [[0], [1]]),
        ([3, 5, 6, 7], 2, [[3, 5], [6, 7]]),
        ([0, 1, 2], 2, [[0], [1, 2]]),
        ([4], 3, [[4], [4], [4]]),
        ([0, 1], 1, [[0, 1]]),
    ],
)
def test_cores_are_shared(cores, count, expected):
    assert workers.shares(cores, count) == expected


def test_a_worker_that_fails_ends_the_search(capfd):
    program = "import os, sys, time\n"
    program += "if os.environ['KERASTUNER_TUNER_ID'] == 'chief': time.sleep(60)\n"
    program += "sys.exit('out of luck')"
    with pytest.raises(RuntimeError, match=r"worker-0 of the search failed"):
        tuning.launch_workers([sys.executable, "-c", program], workers=1)
    assert "out of luck" in capfd.readouterr().err


def test_a_worker_that_is_killed_too_often_ends_the_search(tmp_path):
    program = "import os, signal, time\n"
    program += "if os.environ['KERASTUNER_TUNER_ID'] == 'chief': time.sleep(60)\n"
    program += f"open({str(tmp_path / 'lives')!r}, 'a').write('x')\n"
    program += "os.kill(os.getpid(), signal.SIGKILL)"
    with pytest.raises(RuntimeError, match=r"worker-0 .* was killed by signal 9"):
        tuning.launch_workers([sys.executable, "-c", program], workers=1, restarts=2)
    assert (tmp_path / "lives").read_text() == "xxx"


def test_workers_must_be_a_positive_integer():
    with pytest.raises(ValueError, match=r"Received: workers=0"):
        tuning.launch_workers(["true"], workers=0)


def test_a_notebook_has_no_command_to_run_again(monkeypatch):
    monkeypatch.delattr(sys.modules["__main__"], "__file__", raising=False)
    with pytest.raises(ValueError, match=r"command=\[sys.executable, 'tune.py'\]"):
        workers.this_command()
