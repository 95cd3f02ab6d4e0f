"""A search that tests run as chief and workers: `python tuning_script.py FOLDER`.

A file `kill-launcher` or `kill-worker` in the folder makes the next trial kill that
process, once.
"""

import fcntl
import json
import os
import signal
import sys
from pathlib import Path

import keras
import numpy as np

from keras_sae import tuning

TRIALS = 5


class Accidents(keras.callbacks.Callback):
    """Kill a process in the middle of a trial, as the files in the folder say."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def on_epoch_end(self, epoch, logs=None):
        if len(completed(self.folder)) >= 2:
            self.kill("launcher", os.getppid())
        # Any worker: one that starts late may find no trial left.
        if os.environ.get("KERASTUNER_TUNER_ID", "").startswith("worker"):
            self.kill("worker", os.getpid())

    def kill(self, name: str, process: int) -> None:
        try:
            (self.folder / f"kill-{name}").unlink()
        except FileNotFoundError:
            return
        os.kill(process, signal.SIGKILL)


def completed(folder: Path) -> dict[str, dict]:
    """Return the state of every completed trial by its id."""
    state = folder / "search" / "state.json"
    trials = json.loads(state.read_text())["trials"] if state.exists() else []
    return {t["trial_id"]: t for t in trials if t["status"] == "COMPLETED"}


def write_note(folder: Path):
    """Write a note of this process, which stays locked while the process lives."""
    note = (folder / f"process-{os.getpid()}").open("w")
    names = ("KERASTUNER_TUNER_ID", "OMP_NUM_THREADS")
    json.dump({name: os.environ.get(name) for name in names}, note)
    note.flush()
    fcntl.flock(note, fcntl.LOCK_EX)
    return note


def search(folder: Path, **kwargs):
    x = np.random.default_rng(0).random((24, 6), dtype="float32")
    space = tuning.SparsityHyperModel("shallow", (6,), sparsity="l1", units=(4, 8))
    return tuning.search(
        space,
        x,
        x,
        TRIALS,
        epochs=1,
        max_l0=8,
        directory=folder / "search",
        progress=False,
        callbacks=[Accidents(folder)],
        **kwargs,
    )


if __name__ == "__main__":
    place = Path(sys.argv[1])
    held = write_note(place)
    search(place, workers=2)
