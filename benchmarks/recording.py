"""Measure the speed of recording activations, and the memory of a pass over a store.

    python benchmarks/recording.py [--rounds 9] [--rows 1000000]

Three layers are recorded: a hidden layer of a classifier, the positions of a
convolution, and a block of a language model. Each recording is compared with `predict`
of a model that ends at the layer. Both sides build and compile their model in every
round. Then a store of `--rows` rows of 576 values is recorded and read once. The memory
of each step is the largest increase of `RssAnon`, which excludes cached pages of the
files. The results are written to `results/recording.json` and rendered into
`docs/speed.md`.
"""

import argparse
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import keras
import numpy as np
import render
from _timing import in_turn, machine, medians, record
from keras import layers

from keras_sae import activations

WIDTH, BATCH = 576, 32


def classifier() -> tuple[keras.Model, np.ndarray]:
    x = inputs = keras.Input((28, 28, 1))
    for n, filters in enumerate((32, 64)):
        x = layers.Conv2D(filters, 3, activation="relu", name=f"conv_{n}")(x)
        x = layers.MaxPooling2D()(x)
    x = layers.Dense(128, "relu", name="hidden")(layers.Flatten()(x))
    model = keras.Model(inputs, layers.Dense(10, "softmax")(x))
    rng = np.random.default_rng(0)
    return model, rng.random((20_000, 28, 28, 1), dtype="float32")


def language_model() -> tuple[keras.Model, np.ndarray]:
    inputs = keras.Input((128,), dtype="int32")
    x = layers.Embedding(10_000, WIDTH)(inputs)
    for n in range(4):
        y = layers.LayerNormalization()(x)
        y = layers.MultiHeadAttention(9, 64)(y, y, use_causal_mask=True)
        x = layers.Add()([x, y])
        y = layers.Dense(1536, "silu")(layers.LayerNormalization()(x))
        x = layers.Add(name=f"block_{n}")([x, layers.Dense(WIDTH)(y)])
    model = keras.Model(inputs, layers.Dense(10_000)(x))
    rng = np.random.default_rng(0)
    return model, rng.integers(0, 10_000, (64, 128)).astype("int32")


# Model, layer, and fraction of the data that is recorded.
CASES = {
    "hidden layer of a classifier": (classifier, "hidden", 1.0),
    "positions of a convolution": (classifier, "conv_1", 0.25),
    "block of a language model": (language_model, "block_3", 1.0),
}


def speed(name: str, rounds: int) -> dict:
    """Return the seconds of both sides, and their ratio."""
    make, layer, share = CASES[name]
    model, x = make()
    x = x[: int(share * len(x))]
    output = model.get_layer(layer).output
    with tempfile.TemporaryDirectory() as folder:

        def predict() -> None:
            keras.Model(model.input, output).predict(x, BATCH, verbose=0)

        def write() -> None:
            # Many old files would have to be written to the disk meanwhile.
            shutil.rmtree(folder)
            activations.record(model, layer, x, folder, batch_size=BATCH)

        seconds = in_turn({"predict": predict, "record": write}, rounds)
    middle = medians(seconds)
    return {
        "rows": int(len(x) * np.prod(output.shape[1:-1])),
        "width": output.shape[-1],
        "seconds": seconds,
        "ratio": middle["predict"] / middle["record"],
    }


def anonymous_mib() -> float:
    """Return the memory of this process in MiB, without cached pages of files."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(x.split()[1]) for x in lines if x.startswith("RssAnon")) / 1024


@contextmanager
def growth(result: dict, name: str) -> Iterator[None]:
    """Set `result[name]` to the largest increase of memory during the block."""
    before, peak, done = anonymous_mib(), [0.0], threading.Event()

    def watch() -> None:
        while not done.wait(0.01):
            peak[0] = max(peak[0], anonymous_mib())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        result[name] = peak[0] - before


def memory(rows: int) -> dict:
    """Return the memory needed to record rows, and to read them once."""
    model = keras.Sequential([keras.Input((WIDTH,)), layers.Identity(name="copy")])
    result: dict = {"rows": rows, "width": WIDTH}

    def batches() -> Iterator[np.ndarray]:
        rng = np.random.default_rng(0)
        for start in range(0, rows, 4096):
            yield rng.random((min(4096, rows - start), WIDTH), dtype="float32")

    with tempfile.TemporaryDirectory() as folder:
        with growth(result, "record_mib"):
            store = activations.record(model, "copy", batches(), folder)
        files = Path(folder).rglob("*.npy")
        result["files_mib"] = sum(file.stat().st_size for file in files) / 2**20
        with growth(result, "pass_mib"):
            count = sum(len(batch) for batch in store.dataset(1024))
    assert count == rows
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--rows", type=int, default=1_000_000)
    options = parser.parse_args()
    shape = machine()
    result = {
        "settings": {**vars(options), "batch": BATCH},
        "backend": keras.backend.backend(),
        "machine": shape,
        "memory": memory(options.rows),
        "speed": {name: speed(name, options.rounds) for name in CASES},
    }
    record("recording", result)
    render.main()
    for name, side in result["speed"].items():
        print(f"{name}: {side['rows']:,} rows, ratio {side['ratio']:.2f}")
    print({name: round(value) for name, value in result["memory"].items()})


if __name__ == "__main__":
    main()
