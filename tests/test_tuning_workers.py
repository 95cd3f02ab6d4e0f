"""Chief and workers: killed, restarted, resumed, and ended with their launcher."""

import fcntl
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
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
def _environment(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(SCRIPT.parents[1]))
    monkeypatch.setenv("KERAS_BACKEND", keras.backend.backend())
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


def notes(folder):
    return {path: json.loads(path.read_text()) for path in folder.glob("process-*")}


def wait_until_dead(folder):
    """Return when the processes that left notes have ended; remove their notes."""
    for path in notes(folder):
        with path.open() as note:
            fcntl.flock(note, fcntl.LOCK_EX)
        path.unlink()


@pytest.mark.slow
def test_a_search_survives_the_kill_of_its_launcher_and_of_a_worker(tmp_path):
    command = [sys.executable, str(SCRIPT), str(tmp_path)]
    (tmp_path / "kill-launcher").touch()
    first = subprocess.run(command, timeout=240)
    assert first.returncode == -signal.SIGKILL
    wait_until_dead(tmp_path)  # chief and workers do not outlive their launcher
    before = tuning_script.completed(tmp_path)
    assert 2 <= len(before) < tuning_script.TRIALS

    (tmp_path / "kill-worker").touch()
    tuner = tuning_script.search(tmp_path, workers=2, command=command)
    assert not (tmp_path / "kill-worker").exists()
    table = tuning.trials(tuner)
    assert list(table["status"]) == ["COMPLETED"] * tuning_script.TRIALS
    after = tuning_script.completed(tmp_path)
    assert {name: after[name] for name in before} == before
    # The killed worker was restarted, and the workers divided the cores.
    seen = list(notes(tmp_path).values())
    starts = Counter(note["KERASTUNER_TUNER_ID"] for note in seen)
    assert starts["chief"] == 1
    assert starts["worker-0"] + starts["worker-1"] == 3
    threads = str(max(1, os.cpu_count() // 2))
    assert {note["OMP_NUM_THREADS"] for note in seen} == {threads}
    # One process tries the same hyperparameters.
    alone = tuning_script.search(tmp_path / "alone")
    pd.testing.assert_frame_equal(table, tuning.trials(alone), rtol=1e-4)
    # A finished search starts no process.
    again = tuning_script.search(tmp_path, workers=2, command=["no such command"])
    assert tuning.trials(again).equals(table)


def test_a_failing_worker_ends_the_search(capfd):
    program = "import os, sys, time\n"
    program += "if os.environ['KERASTUNER_TUNER_ID'] == 'chief': time.sleep(60)\n"
    program += "sys.exit('out of luck')"
    with pytest.raises(RuntimeError, match=r"search process 'worker-0' failed"):
        tuning.launch_workers([sys.executable, "-c", program], workers=1)
    assert "out of luck" in capfd.readouterr().err


def test_a_killed_worker_is_restarted_a_limited_number_of_times(tmp_path):
    program = "import os, signal, time\n"
    program += "if os.environ['KERASTUNER_TUNER_ID'] == 'chief': time.sleep(60)\n"
    program += f"open({str(tmp_path / 'starts')!r}, 'a').write('x')\n"
    program += "os.kill(os.getpid(), signal.SIGKILL)"
    with pytest.raises(RuntimeError, match=r"'worker-0' was killed by signal 9"):
        tuning.launch_workers([sys.executable, "-c", program], workers=1, restarts=2)
    assert (tmp_path / "starts").read_text() == "xxx"


@pytest.mark.skipif(not shutil.which("setpriv"), reason="needs setpriv of Linux")
def test_processes_end_when_their_launcher_is_killed():
    # One write per line, because both processes write to the same pipe.
    child = "import sys, time; sys.stderr.write('on\\n'); time.sleep(3600)"
    program = "import sys; from keras_sae import tuning\n"
    program += f"tuning.launch_workers([sys.executable, '-c', {child!r}], workers=1)"
    with subprocess.Popen(
        [sys.executable, "-c", program], stderr=subprocess.PIPE, text=True
    ) as launcher:
        limit = threading.Timer(100, launcher.kill)
        limit.start()
        lines = iter(launcher.stderr.readline, "")
        started = itertools.islice((x for x in lines if x == "on\n"), 2)
        assert len(list(started)) == 2
        limit.cancel()
        launcher.kill()
        # The pipe is closed when its heirs, the chief and the worker, are gone as well.
        launcher.communicate(timeout=100)


def test_workers_must_be_a_positive_integer():
    with pytest.raises(ValueError, match=r"Received: workers=0"):
        tuning.launch_workers(["true"], workers=0)


def test_a_notebook_has_no_command_to_run_again(monkeypatch):
    monkeypatch.delattr(sys.modules["__main__"], "__file__", raising=False)
    with pytest.raises(ValueError, match=r"command=\[sys.executable, 'tune.py'\]"):
        workers.this_command()
