"""Measure how much the table of `keras-sae compare` depends on data and processor.

    python benchmarks/compare_spread.py splits
    python benchmarks/compare_spread.py "oneDNN, 2 threads"

The first command trains all models of the table on five of seven splits of
`fashion_mini`, with another random seed for each split. Every split has 6,000 training
and 1,000 test images, and no image is in two test sets. Models are compared with the
pixels of the same images. With any other name, the script computes the table of
`keras-sae compare` once, with seed 0, and stores it under this name. Set threads and
oneDNN by environment variables: `TF_ENABLE_ONEDNN_OPTS=0 TF_NUM_INTRAOP_THREADS=1`. The
results of all commands are written to `results/compare_spread.json`. With
`--directory`, an interrupted command can be resumed.
"""

import argparse
import os
from pathlib import Path

import numpy as np
import pandas as pd
import render
from _timing import RESULTS, machine, record
from sklearn.model_selection import StratifiedKFold

from keras_sae import datasets, evaluation
from keras_sae.cli import presets

METRICS = ["explained_variance", "l0", "effective_l0", "dead_fraction"]
COLUMNS = ["model", "seed", *METRICS, "probe_accuracy"]
EPOCHS = 10  # the default of `keras-sae compare`, like the settings in `main`


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--directory", type=Path)
    options = parser.parse_args()
    train, test = datasets.load_data("fashion_mini")
    preset = presets.families(
        train[0].shape[1:], 64, EPOCHS, 1e-3, 1e-2, 0.05, learning_rate=3e-3
    )
    pairs = [(train, test)]
    if options.name == "splits":
        x, y = (np.concatenate(parts) for parts in zip(train, test, strict=True))
        folds = StratifiedKFold(7, shuffle=True, random_state=0).split(x, y)
        pairs = [((x[a], y[a]), (x[b], y[b])) for a, b in folds][: options.splits]
    variables = ("TF_ENABLE_ONEDNN_OPTS", "TF_NUM_INTRAOP_THREADS")
    environment = {name: os.environ.get(name) for name in variables}
    tables, before = [], {**machine(), "environment": environment}
    for seed, (train, test) in enumerate(pairs):
        folder = options.directory and options.directory / f"{options.name}-{seed}"
        table = evaluation.compare(
            preset.builders,
            train,
            test,
            EPOCHS,
            seeds=(seed,),
            batch_size=64,
            prepare=preset.prepare,
            fine_tuning=0,
            directory=folder,
        )
        print(table[COLUMNS].round(3).to_string(), flush=True)
        tables.append(table[COLUMNS])
    rows = pd.concat(tables).to_dict("records")
    file = RESULTS / "compare_spread.json"
    results = render.read("compare_spread") if file.exists() else {}
    record(
        "compare_spread", {**results, options.name: {"machine": before, "rows": rows}}
    )
    render.main()


if __name__ == "__main__":
    main()
