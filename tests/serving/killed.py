"""Exports that are killed: `python killed.py FOLDER POINTS`.

One process imports the packages and forks a child per export, so that the imports
happen once. The first child runs to its end and is timed. The others are killed at
points spread evenly over that time. Times are processor times: on a busy machine, wall
time would say nothing about the progress of a child. Child `n` exports to `FOLDER/n`.
"""

import os
import signal
import sys

import tensorflow_serving.apis.prediction_log_pb2  # noqa: F401

from keras_sae import export, models


def _export(folder: str) -> None:
    model = models.shallow((8, 8, 1), 16, "l1")
    export.export_saved_model(model, folder)


def _seconds(folder: str, killed_after: float | None = None) -> float:
    """Export in a child, and return the seconds of processor time that it took."""
    pid = os.fork()
    if pid == 0:
        if killed_after is not None:
            signal.signal(signal.SIGPROF, signal.SIG_DFL)  # ends the process
            signal.setitimer(signal.ITIMER_PROF, killed_after)
        _export(folder)
        os._exit(0)
    _, status, used = os.wait4(pid, 0)
    killed = killed_after is not None and os.WTERMSIG(status) == signal.SIGPROF
    assert killed or status == 0
    return used.ru_utime + used.ru_stime


def main(folder: str, points: int) -> None:
    taken = _seconds(f"{folder}/0")
    for n in range(1, points + 1):
        _seconds(f"{folder}/{n}", taken * (n - 0.5) / points)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
