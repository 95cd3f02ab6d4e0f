"""The Pareto search of Fashion-MNIST: reconstruction against active units.

    TFDS_DATA_DIR=... python benchmarks/tuning_fashion.py [--trials 36] [--epochs 10]

Random settings of L1, KL and TopK, few epochs, on a part of the training set; the
best under the limit is trained on the same part and measured on the whole test set.
Writes `results/tuning_fashion.json`, `docs/pictures/pareto_fashion.png` and
`docs/tuning_fashion.md`. JAX unless `KERAS_BACKEND` says otherwise. With
`--directory` it can be interrupted.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "jax")

from _timing import machine, record

from keras_sae import datasets, evaluation, plots, tuning

DOCS = Path(__file__).parents[1] / "docs"
SHAPE, SAMPLES, HELD_OUT, MAX_L0 = (28, 28, 1), 10_000, 2_000, 28
SPACE = {
    "sparsity": ["l1", "kl", "top_k"],
    "units": (128, 512),
    "batch_size": (128, 256),
    "learning_rate": (5e-4, 5e-3),
}
FRONT = ["sparsity", "units", "tied", "learning_rate", "batch_size"]


def run(options: argparse.Namespace, folder: Path) -> dict:
    (x, y), test = datasets.load_data("fashion_mnist")
    train, held = (x[:SAMPLES], y[:SAMPLES]), x[SAMPLES : SAMPLES + HELD_OUT]
    space = tuning.SparsityHyperModel("shallow", SHAPE, **SPACE)
    begin, shape = time.perf_counter(), machine()
    tuner = tuning.search(
        space,
        train[0],
        held,
        options.trials,
        options.epochs,
        max_l0=MAX_L0,
        directory=folder / "search",
    )
    seconds = time.perf_counter() - begin
    table = tuning.trials(tuner)
    table = table[table["status"] == "COMPLETED"]
    table = table.assign(model=table["model"] + ", " + table["sparsity"])
    (DOCS / "pictures").mkdir(parents=True, exist_ok=True)
    plots.pareto(table).savefig(DOCS / "pictures" / "pareto_fashion.png")
    model = tuning.best_model(tuner, train[0], folder / "best.keras", verbose=0)
    (best,) = tuner.oracle.get_best_trials(1)
    return {
        "settings": {
            "trials": options.trials,
            "epochs": options.epochs,
            "samples": SAMPLES,
            "held_out": HELD_OUT,
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
    """What was drawn for the row's kind of sparsity."""
    kind = f"{row['sparsity']}_"
    own = {k.removeprefix(kind): v for k, v in row.items() if k.startswith(kind)}
    return ", ".join(f"{k} {v:.3g}" for k, v in own.items() if v is not None)


def page(result: dict) -> str:
    settings, test = result["settings"], result["test"]
    lines = [
        "# The Pareto search of Fashion-MNIST",
        "",
        f"{settings['trials']} random trials of shallow models with L1, KL or TopK,",
        f"{settings['epochs']} epochs each on the first {settings['samples']:,} images "
        f"of the training set, compared on",
        f"the next {settings['held_out']:,}, in {result['seconds'] / 60:.0f} minutes. "
        "Few epochs on a part of the data: the figures",
        "rank settings, they are not the best that the settings can do. Made by",
        "`benchmarks/tuning_fashion.py`, which also writes",
        "`benchmarks/results/tuning_fashion.json` with all trials.",
        "",
        "![Squared error and active units of all trials](pictures/pareto_fashion.png)",
        "",
        "L0 is the mean number of active units a sample, of KL the mean sum of the",
        "activations (~), since a sigmoid is never exactly zero. The two are not the",
        "same quantity: many units that are slightly on have a small sum, and a count",
        "has none of them off.",
        "",
        "## The front",
        "",
        "| L0 | squared error a value | explained variance | sparsity | units | tied "
        "| rate | batch |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in result["front"]:
        cells = [
            f"{'~' if row['expected'] else ''}{row['l0']:.1f}",
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
        f"## The best with at most {settings['max_l0']} active units",
        "",
        "Settings: " + ", ".join(f"{k} {v}" for k, v in best.items()) + ".",
        "",
        f"Trained again on the {settings['samples']:,} images, on the whole test set:",
        "",
        "| figure | value |",
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
    (DOCS / "tuning_fashion.md").write_text(page(result))


if __name__ == "__main__":
    main()
