"""A search that tests run as a chief and workers: `python tuning_script.py FOLDER`.

The files `kill-launcher` and `kill-worker` in the folder order accidents, each once.
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

TRIALS, EPOCHS = 5, 2


class Accidents(keras.callbacks.Callback):
    """Kills processes in the middle of a trial, as the folder's files order."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def on_epoch_end(self, epoch, logs=None):
        if len(completed(self.folder)) >= 2:
            self.order("kill-launcher", os.getppid())
        # Any worker: one that starts late may find that no trial is left for it.
        if os.environ.get("KERASTUNER_TUNER_ID", "").startswith("worker"):
            self.order("kill-worker", os.getpid())

    def order(self, name: str, victim: int) -> None:
        try:
            (self.folder / name).unlink()
        except FileNotFoundError:
            return
        os.kill(victim, signal.SIGKILL)


def completed(folder: Path) -> dict[str, dict]:
    """The record of every completed trial, by its id."""
    paths = folder.glob("search-*/trial_*/trial.json")
    records = [json.loads(path.read_text()) for path in paths]
    return {r["trial_id"]: r for r in records if r["status"] == "COMPLETED"}


def alive(folder: Path):
    """Leaves a note of this process, locked for as long as it lives."""
    note = (folder / f"process-{os.getpid()}").open("w")
    cores = sorted(os.sched_getaffinity(0))
    json.dump({"name": os.environ.get("KERASTUNER_TUNER_ID"), "cores": cores}, note)
    note.flush()
    fcntl.flock(note, fcntl.LOCK_EX)
    return note


def search(folder: Path, workers: int = 2, **kwargs):
    x = np.random.default_rng(0).random((24, 6), dtype="float32")
    space = tuning.SparsityHyperModel("shallow", (6,), sparsity="l1", units=(4, 8))
    return tuning.search(
        space,
        x,
        x,
        TRIALS,
        EPOCHS,
        max_l0=8,
        directory=folder,
        workers=workers,
        progress=False,
        callbacks=[Accidents(folder)],
        **kwargs,
    )


if __name__ == "__main__":
    place = Path(sys.argv[1])
    held = alive(place)
    search(place)
