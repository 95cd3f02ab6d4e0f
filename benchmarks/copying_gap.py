"""Measure how much an L1 penalty of 1e-4 reduces copying on Fashion-MNIST.

    TFDS_DATA_DIR=... python benchmarks/copying_gap.py [--epochs 10]

Shallow models with 784 units, one per pixel, and with 1,024 units are trained with and
without the penalty. The models "plain Keras" have neither centering nor unit norms,
like two `Dense` layers. The backend is JAX unless `KERAS_BACKEND` is set.
"""

import argparse
import os

os.environ.setdefault("KERAS_BACKEND", "jax")

import keras
import pandas as pd
import render
from _timing import machine, record

from keras_sae import datasets, evaluation, models, regularizers

SHAPE = (28, 28, 1)
FACTOR = 1e-4
PLAIN = {"centering": False, "unit_norm": False}
COLUMNS = ["explained_variance", "copying", "copying_gap", "l0", "dead_fraction"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=10)
    options = parser.parse_args()
    (x, _), (test, _) = datasets.load_data("fashion_mnist")
    rows, before = [], machine()
    for units in (784, 1024):
        for name, sparsity, settings in (
            ("no penalty", None, {}),
            ("L1", regularizers.L1(FACTOR), {}),
            ("plain Keras, no penalty", None, PLAIN),
            ("plain Keras, L1", regularizers.L1(FACTOR), PLAIN),
        ):
            keras.utils.set_random_seed(0)
            model = models.shallow(SHAPE, units, sparsity, **settings)
            model.compile("adam")
            model.fit(x, epochs=options.epochs, batch_size=256, verbose=0)
            result = evaluation.evaluate(model, test)
            rows.append({"units": units, "model": name, **result})
            shown = {column: round(result[column], 3) for column in COLUMNS}
            print(units, name, shown, flush=True)
    table = pd.DataFrame(rows)
    settings = {"epochs": options.epochs, "batch": 256, "factor": FACTOR, "seed": 0}
    record(
        "copying_gap",
        {
            "settings": settings,
            "machine": before,
            "rows": table.to_dict("records"),
        },
    )
    render.main()


if __name__ == "__main__":
    main()
