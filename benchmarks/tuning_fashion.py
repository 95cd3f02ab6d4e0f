"""Search sparsity settings for Fashion-MNIST, and draw the Pareto front.

    TFDS_DATA_DIR=... python benchmarks/tuning_fashion.py [--trials 36] [--epochs 10]

Trials with random settings of L1, KL and TopK train for a few epochs on a part of the
training set. The best model within the limit on the effective L0 is trained again on
this part, and evaluated on the whole test set. The results are written to
`results/tuning_fashion.json`, with a page (`.md`) and a picture (`.png`). The backend
is JAX unless `KERAS_BACKEND` is set. With `--directory`, the search can be resumed.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "jax")

import render
from _timing import RESULTS, machine, record

from keras_sae import datasets, evaluation, plots, tuning

SHAPE, SAMPLES, VALIDATION, MAX_L0 = (28, 28, 1), 10_000, 2_000, 28
SPACE = {
    "sparsity": ["l1", "kl", "top_k"],
    "units": (128, 512),
    "batch_size": (128, 256),
    "learning_rate": (5e-4, 5e-3),
}
FRONT = ["sparsity", "units", "tied", "learning_rate", "batch_size"]


def run(options: argparse.Namespace, folder: Path) -> dict:
    (x, y), test = datasets.load_data("fashion_mnist")
    train, validation = (x[:SAMPLES], y[:SAMPLES]), x[SAMPLES : SAMPLES + VALIDATION]
    space = tuning.SparsityHyperModel("shallow", SHAPE, **SPACE)
    begin, shape = time.perf_counter(), machine()
    tuner = tuning.search(
        space,
        train[0],
        validation,
        options.trials,
        options.epochs,
        max_l0=MAX_L0,
        directory=folder / "search",
    )
    seconds = time.perf_counter() - begin
    table = tuning.trials(tuner)
    table = table[table["status"] == "COMPLETED"]
    table = table.assign(model=table["model"] + ", " + table["sparsity"])
    plots.pareto(table).savefig(RESULTS / "tuning_fashion.png")
    model = tuning.best_model(tuner, train[0], folder / "best.keras", verbose=0)
    (best,) = tuner.oracle.get_best_trials(1)
    return {
        "settings": {
            "trials": options.trials,
            "epochs": options.epochs,
            "samples": SAMPLES,
            "validation": VALIDATION,
            "max_l0": MAX_L0,
            "seed": 0,
        },
        "machine": shape,
        "seconds": seconds,
        "best": best.hyperparameters.values,
        "test": evaluation.evaluate(model, *test, train=train),
        "front": json.loads(tuning.pareto_front(tuner).to_json(orient="records")),
        "trials": json.loads(table.to_json(orient="records")),
    }


def weights(row: dict) -> str:
    """Return the hyperparameters of the sparsity in a row of the table."""
    kind = f"{row['sparsity']}_"
    own = {k.removeprefix(kind): v for k, v in row.items() if k.startswith(kind)}
    return ", ".join(f"{k} {v:.3g}" for k, v in own.items() if v is not None)


def page(result: dict) -> str:
    settings, test = result["settings"], result["test"]
    lines = [
        "# A search on Fashion-MNIST",
        "",
        f"{settings['trials']} random trials of shallow models with L1, KL or TopK",
        f"were trained for {settings['epochs']} epochs on the first "
        f"{settings['samples']:,} images of the training set.",
        f"They were validated on the next {settings['validation']:,} images.",
        f"The search took {result['seconds'] / 60:.0f} minutes. With so few epochs and "
        "samples, the results rank the settings,",
        "but are not the best that each setting can reach.",
        render.machine("tuning_fashion"),
        "`benchmarks/tuning_fashion.py` writes this page. All trials are in",
        "`benchmarks/results/tuning_fashion.json`.",
        "",
        "![Squared error and effective L0 of all trials](tuning_fashion.png)",
        "",
        "The table is sorted by the effective L0 instead of the L0, because the codes",
        "of KL are never exactly zero.",
        "",
        "## Pareto front",
        "",
        "| effective L0 | L0 | squared error per value | explained variance | sparsity "
        "| units | tied | learning rate | batch |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in result["front"]:
        cells = [
            f"{row['effective_l0']:.1f}",
            f"{row['l0']:.1f}",
            f"{row['reconstruction']:.5f}",
            f"{row['explained_variance']:.3f}",
            f"{row['sparsity']}, {weights(row)}",
            f"{row['units']:.0f}",
            "yes" if row["tied"] else "no",
            f"{row['learning_rate']:.4f}",
            f"{row['batch_size']:.0f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    best = {k: round(v, 6) if isinstance(v, float) else v
            for k, v in result["best"].items()}  # fmt: skip
    lines += [
        "",
        f"## Best model with an effective L0 of at most {settings['max_l0']}",
        "",
        "Settings: " + ", ".join(f"{k} {v}" for k, v in best.items()) + ".",
        "",
        f"It was trained again on the {settings['samples']:,} images. Its metrics on "
        "the whole test set:",
        "",
        "| metric | value |",
        "|---|---|",
        *(f"| {name} | {value:.4g} |" for name, value in test.items()),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=36)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--directory", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        result = run(options, options.directory or Path(temporary))
    record("tuning_fashion", result)
    (RESULTS / "tuning_fashion.md").write_text(page(result))


if __name__ == "__main__":
    main()
