"""Compare a served model with Keras and with the model's two matrix products.

    python benchmarks/serving_speed.py [--rounds 100]

A 784-1024-784 model with the default options (ReLU, L1, centering) serves the signature
`reconstruct`. The C++ program of `tests/serving` loads models as TensorFlow Serving
does. It alternates between the exported model and a graph of the two matrix products,
request by request. `predict` and `predict_on_batch` alternate in this process. The
results are written to `results/serving_speed.json` and rendered into `docs/speed.md`.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import numpy as np
import render
import tensorflow as tf
from _timing import in_turn, machine, record
from serving.build import build_loader
from serving.messages import write_requests

from keras_sae import models

UNITS, DIMENSION, BATCHES = 1024, 784, (1, 64, 1024)
OURS, BARE = "artifact, C++", "matrix products, C++"


def batch(samples: int) -> np.ndarray:
    return np.random.default_rng(samples).random((samples, DIMENSION), "float32")


def write_products(path: Path) -> None:
    """Write a SavedModel that computes `x W V` with the widths of the model."""
    rng, graph = np.random.default_rng(0), tf.Module()
    graph.encoder = tf.Variable(rng.random((DIMENSION, UNITS), "float32"))
    graph.decoder = tf.Variable(rng.random((UNITS, DIMENSION), "float32"))

    @tf.function(input_signature=[tf.TensorSpec((None, DIMENSION), name="x")])
    def products(x: tf.Tensor) -> dict:
        return {"reconstruction": x @ graph.encoder @ graph.decoder}

    graph.products = products
    tf.saved_model.save(graph, str(path), signatures={"reconstruct": products})


def served(model: models.Autoencoder, rounds: int) -> dict[str, dict[int, list]]:
    """Return the seconds per request in the C++ program, by side and batch size."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        requests = write_requests(
            folder / "requests", [("reconstruct", {"x": batch(n)}) for n in BATCHES]
        )
        model.export(folder / "ours")
        write_products(folder / "bare")
        command = [str(build_loader(folder)), str(rounds)]
        for side in ("ours", "bare"):
            command += [str(folder / side), str(requests), str(folder / "answers")]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    seconds: dict[str, dict[int, list]] = {
        side: {n: [] for n in BATCHES} for side in (OURS, BARE)
    }
    for line in done.stdout.splitlines():
        side, request, taken = line.split()
        seconds[(OURS, BARE)[int(side)]][BATCHES[int(request)]].append(float(taken))
    # The first runs optimize the graphs and allocate memory.
    return {side: {n: s[2:] for n, s in of.items()} for side, of in seconds.items()}


def in_python(model: models.Autoencoder, rounds: int) -> dict[str, dict[int, list]]:
    """Return the seconds per call of `predict` and of `predict_on_batch`."""

    def predict(x: np.ndarray) -> Callable[[], np.ndarray]:
        return lambda: model.predict(x, batch_size=len(x), verbose=0)

    def on_batch(x: np.ndarray) -> Callable[[], np.ndarray]:
        return lambda: model.predict_on_batch(x)

    ways = {"predict_on_batch": on_batch, "predict": predict}
    sides = {(w, n): make(batch(n)) for w, make in ways.items() for n in BATCHES}
    seconds = in_turn(sides, rounds)
    return {way: {n: seconds[way, n] for n in BATCHES} for way in ways}


def ratios(seconds: dict[str, dict[int, list]]) -> dict[int, float]:
    """Return the median ratio of the exported model's seconds to the products'."""
    return {
        n: statistics.median(
            ours / bare
            for ours, bare in zip(seconds[OURS][n], seconds[BARE][n], strict=True)
        )
        for n in BATCHES
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=100)
    rounds = parser.parse_args().rounds
    shape = machine()
    model = models.shallow((DIMENSION,), UNITS, "l1")
    seconds = {**served(model, rounds + 2), **in_python(model, max(3, rounds // 5))}
    result = {
        "rounds": rounds,
        "machine": shape,
        "ratios": ratios(seconds),
        "seconds": seconds,
    }
    record("serving_speed", result)
    render.main()


if __name__ == "__main__":
    main()
