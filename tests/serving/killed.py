"""Exports that are killed: `python killed.py FOLDER POINTS`.

One process imports all that is needed, and makes a child for each export, so that
each costs an export and no start. The first child is left alone, and its time
measured; the others are killed one after another, at points spread evenly over that
time. Each has a folder of its own, `FOLDER/<number>`.
"""

import os
import signal
import sys
import time
from collections.abc import Callable

import tensorflow_serving.apis.prediction_log_pb2  # noqa: F401

from keras_sae import export, models


def _export(folder: str) -> None:
    model = models.shallow((8, 8, 1), 16, "l1")
    export.export_saved_model(model, folder)


def _child(run: Callable[[], None]) -> int:
    pid = os.fork()
    if pid == 0:
        run()
        os._exit(0)
    return pid


def main(folder: str, points: int) -> None:
    begin = time.perf_counter()
    _, status = os.waitpid(_child(lambda: _export(f"{folder}/0")), 0)
    taken = time.perf_counter() - begin
    assert status == 0
    for n in range(1, points + 1):
        pid = _child(lambda n=n: _export(f"{folder}/{n}"))
        time.sleep(taken * (n - 0.5) / points)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
