"""Measure the time of eight trials of at least 20 s with one worker and with two.

    python benchmarks/tuning_workers.py [--trials 8] [--seconds 20 | --epochs N]

One worker has one core, and two workers have two. The time is measured from the start
of the first trial to the end of the last, so starting processes and loading data do not
count. All trials have the same settings, so both sides do the same work. The script
first chooses the number of epochs, on one core. The backend is JAX unless
`KERAS_BACKEND` is set.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "jax")

SIDES = {"one worker, one core": (1, 1), "two workers, two cores": (2, 2)}
SAMPLES, DIMENSION, UNITS = 4000, 784, 256


def search(folder: Path, epochs: int, trials: int, note: Path) -> None:
    """Run the search, in the chief or in a worker, with equally long trials."""
    import keras
    import numpy as np

    from keras_sae import tuning

    class Clock(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):  # noqa: ARG002
            self.begin = time.time()

        def on_train_end(self, logs=None):  # noqa: ARG002
            with note.open("a") as file:  # a short line is appended atomically
                file.write(json.dumps([self.begin, time.time()]) + "\n")

    x = np.random.default_rng(0).random((SAMPLES, DIMENSION), dtype="float32")
    space = tuning.SparsityHyperModel(
        "shallow",
        (DIMENSION,),
        sparsity="l1",
        units=UNITS,
        tied=False,
        batch_size=256,
        learning_rate=1e-3,
    )
    tuning.search(
        space,
        x,
        x[:500],
        trials,
        epochs,
        objective="reconstruction",
        directory=folder,
        callbacks=[Clock()],
        progress=False,
    )


def run(workers: int, cores: int, epochs: int, trials: int) -> dict:
    """Run one side, in a process that has only the cores of that side."""
    with tempfile.TemporaryDirectory() as place:
        note, words = Path(place) / "clock", [str(epochs), str(trials), str(workers)]
        subprocess.run(
            [sys.executable, __file__, "--side", place, *words],
            preexec_fn=lambda: os.sched_setaffinity(
                0, sorted(os.sched_getaffinity(0))[:cores]
            ),
            check=True,
        )
        times = [json.loads(line) for line in note.read_text().splitlines()]
    begin, end = min(b for b, _ in times), max(e for _, e in times)
    each = [round(e - b, 1) for b, e in times]
    return {"trials": len(times), "seconds": end - begin, "each": each}


def side(place: Path, epochs: int, trials: int, workers: int) -> None:
    """Start the chief and the workers of one side."""
    from keras_sae import tuning

    words = [str(place), str(epochs), str(trials)]
    tuning.launch_workers([sys.executable, __file__, "--member", *words], workers)


def epochs_for(seconds: float) -> int:
    """Return the number of epochs that take a little over `seconds` on one core."""
    short, long = (run(1, 1, epochs, 1)["seconds"] for epochs in (20, 60))
    each = (long - short) / 40
    return max(20, int((1.15 * seconds - (short - 20 * each)) / each) + 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument(
        "--epochs", type=int, help="number of epochs, instead of measuring it"
    )
    parser.add_argument("--side", nargs=4, help=argparse.SUPPRESS)
    parser.add_argument("--member", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.member:
        place, epochs, trials = options.member
        folder = Path(place) / "search"
        search(folder, int(epochs), int(trials), Path(place) / "clock")
    elif options.side:
        place, *numbers = options.side
        side(Path(place), *map(int, numbers))
    else:
        compare(options.trials, options.epochs or epochs_for(options.seconds))


def compare(trials: int, epochs: int) -> None:
    from _timing import machine, record

    shape = machine()
    print(f"{epochs} epochs per trial", flush=True)
    sides = {}
    for name, (workers, cores) in SIDES.items():
        sides[name] = run(workers, cores, epochs, trials)
        print(name, sides[name], flush=True)
    one, two = (one["seconds"] for one in sides.values())
    settings = {"trials": trials, "epochs": epochs, "samples": SAMPLES}
    settings |= {"dimension": DIMENSION, "units": UNITS, "batch": 256}
    result = {"settings": settings, "machine": shape, "sides": sides}
    record("tuning_workers", {**result, "faster": one / two})
    print(f"Two workers are {one / two:.2f} times as fast as one.")


if __name__ == "__main__":
    main()
