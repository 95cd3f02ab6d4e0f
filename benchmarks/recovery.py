"""Measure how well known features are recovered: three tasks at matched L0.

    python benchmarks/recovery.py [TASK ...] [--seeds 3] [--saelens]

Each task has as many units as features, and `k` is the true L0, rounded. Features and
samples come from `datasets.superposition`, with new features per random seed. With
`--saelens` (extra `bench`) they come as arrays from SAELens's `FeatureDictionary` and
`ActivationGenerator`, seed 0, and the random seed affects the weights only. Batch size
and learning rates are those of SAELens. The results of SAELens 6.54 in the table are
not measured here: SAELens gave them on its own features (seed 0) of the same tasks.
Results go to `results/recovery.json` and are rendered into `docs/recovery.md`. The
backend is JAX unless `KERAS_BACKEND` is set.
"""

import argparse
import json
import os
import statistics
import time
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "jax")

import keras
import numpy as np
from _timing import RESULTS, machine, record

from keras_sae import callbacks, datasets, layers, metrics, models

PAGE = Path(__file__).parents[1] / "docs" / "recovery.md"
BATCH = 1024
PARTS = 40  # k is annealed in the first half, the learning rate in the last fifth
BETA_2 = 0.99  # with 0.999 fewer features are found in so few steps: see `NOTES`
METRIC_SAMPLES = 50_000


@dataclass(frozen=True)
class Task:
    features: int
    dimension: int
    firing: float | np.ndarray
    std: float
    samples: int
    rate: float
    saelens: str  # results of SAELens: TopK, BatchTopK, best other
    best: float  # goal for the better of TopK and BatchTopK
    batch: float  # goal for BatchTopK
    initial_k: int | None = None
    options: dict = field(default_factory=dict)  # arguments of the model
    apart: dict = field(default_factory=dict)  # further ones for SAELens's features


TASKS = {
    "16 in 32": Task(
        16, 32, 0.25, 0.0, 10_000_000, 3e-4, ".825, 1.000, 1.000", 0.9995, 0.9995
    ),
    "64 in 32": Task(
        64,
        32,
        0.05,
        0.1,
        4_000_000,
        1e-3,
        ".901, .842, .985",
        0.99,
        0.95,
        initial_k=12,
        options={"unit_norm": False},
        apart={"tied": True},
    ),
    "256 in 64, Zipf": Task(
        256,
        64,
        datasets.zipf(256),
        0.2,
        5_000_000,
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
    """Features, endless training batches, and samples for the metrics."""

    features: np.ndarray
    l0: float
    batches: Any
    x: np.ndarray
    activations: np.ndarray


def drawn(task: Task, seed: int) -> Data:
    """Return features and samples of `datasets.superposition`."""
    truth = datasets.superposition(
        task.features, task.dimension, task.firing, magnitude_std=task.std, seed=seed
    )
    batches = truth.dataset(task.samples, BATCH, seed=seed).repeat()
    judged = truth.sample(METRIC_SAMPLES, seed=seed)
    return Data(truth.features, truth.l0, batches, *judged)


def saelens(task: Task) -> Data:
    """Return features and samples of SAELens as arrays."""
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
    return Data(features, float(firing.sum()), batches, *draw(METRIC_SAMPLES))


def held(rate: float, part: int) -> float:
    """Return a constant learning rate that falls to an eighth over the last fifth."""
    return rate * min(1.0, 5 * (PARTS - part) / PARTS)


def run(task: Task, data: Data, method: type, seed: int) -> dict[str, float]:
    keras.utils.set_random_seed(seed)
    sparsity = method(round(data.l0), initial_k=task.initial_k)
    model = models.shallow((task.dimension,), task.features, sparsity, **task.options)
    model.compile(keras.optimizers.Adam(task.rate, beta_2=BETA_2))
    falling = [keras.callbacks.LearningRateScheduler(partial(held, task.rate))]
    if task.initial_k:
        falling.append(callbacks.SparsityWarmup(PARTS // 2))
    begin = time.perf_counter()
    model.fit(
        data.batches,
        epochs=PARTS,
        steps_per_epoch=task.samples // BATCH // PARTS,
        callbacks=falling,
        verbose=0,
    )
    seconds = time.perf_counter() - begin
    codes, dictionary = model.encode(data.x), model.dictionary()
    reconstruction = model.predict(data.x, verbose=0)
    pairs = metrics.matching(data.features, dictionary)
    return {
        "recovery": metrics.recovery_score(data.features, dictionary),
        "f1": metrics.f1(data.activations, codes, pairs),
        "uniqueness": metrics.uniqueness(data.features, dictionary),
        "shrinkage": metrics.shrinkage(data.x, reconstruction),
        "explained_variance": metrics.explained_variance(data.x, reconstruction),
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
Ours: `models.shallow(..., layers.BatchTopK(k))`, batch 1,024, samples and learning
rates as in the task: 3e-4, 1e-3 and 1e-3, which are SAELens's. Adam with `beta_2=0.99`;
the rate is held, and over the last fifth it falls in seven steps to an eighth. For 64
in 32 `unit_norm=False`, and `initial_k=12` with `callbacks.SparsityWarmup` over the
first half; on SAELens's features, which are orthogonalised (of 64 the largest |cos| is
.40 and the mean .10, of random ones .54 and .14), `tied=True` too. SAELens's figures
are for tasks of the same numbers and features of its own, as in the second table.

How the settings were chosen: by the recovery score itself. For 64 in 32 with seeds 3 to
5, on both kinds of data; but some settings were also run on the reported seeds 0 to 2
of SAELens's, as said below. For Zipf with seed 3 of SAELens's, where beta_2 of .99 and
.95 and both kinds of atoms differed by less than a hundredth. For 16 in 32 another
setting was run on all reported seeds first, as said below. SAELens's settings were not
searched for, so the comparison favours ours. The trials below are of one to three
seeds, and no command repeats them.

On the Zipf task no more than 2% of the units may be dead at the end; `dead` is the mean
of the seeds.

What was tried for 64 in 32, BatchTopK: means of seeds 3 to 5 on SAELens's features, and
behind a stroke on ours. What is lost is a pair of features with one atom between them,
whose other unit is dead or doubles a third.

| `k` from | beta_2 | atoms | rate | recovery |
|---|---|---|---|---|
| 3 | .999 | unit norm | cosine (seeds 0 to 2) | .929 |
| 3 | .999 | unit norm | held | .955 |
| 6 | .999 | unit norm | held | .963 |
| 12 | .999 | unit norm | held | .969 |
| 24 | .999 | unit norm | held (two seeds) | .931 |
| 3 | .99 | unit norm | held | .977 |
| 6 | .99 | unit norm | held | .972 |
| 12 | .99 | unit norm | cosine | .974 |
| 12 | .99 | unit norm | held | .993 / .973 |
| 12 | .95 | unit norm | held | .991 / .983 |
| 12 | .9 | unit norm | held | .990 |
| 12 | .99 | free | held | .995 / .994 |
| 12 | .95 | free | held | .996 / .983 |
| 12 | .99 | free, tied | held | .999 / .976 |
| 12 | .99 | unit norm, tied | held | .954 / .914 |
| 16 | .99 | free | held (two seeds, one) | .986 / .977 |

Untied and free on the seeds 0 to 2 of SAELens's: .988 (.983 to .995) at .99, .9995 at
.95: the seeds' scatter is as large as what is between these two.

On our features, annealed over the first third: .992 and .991 with free atoms (beta_2 of
.99 and .95), .963 and .979 at unit norm. From 12 with beta_2 = .999: no auxiliary loss
.935, `beta_1=0` .955, Gaussian noise on the input .976 (.1) and .960 (.3), an encoder
of its own start .965 (two seeds each). At the held rate, steered to the true L0 by
`callbacks.SparsityTarget`: `Gated` .955, an L1 penalty with atoms at unit norm .904. At
a rate of 5e-2, which is not the task's, with a cosine, on our features: `k` from 6
.997, from 3 .990; resampling of dead units (`callbacks.DeadUnits(resample=...)`, 40
times) beside the auxiliary loss .989, in its place .868. Also there, without annealing:
deadness after 10 steps .988, a weight of the auxiliary loss of 1/4 .969, a rate that
falls in steps .987, `JumpReLU(target_l0=3.2)`, which revives nothing, .891; rates of
1e-2, 2e-2 and 1e-1 .981, .975 and .983.

What was tried for the Zipf task: beta_2 of .99 and .95, atoms at unit norm or free,
between .984 and .990 on seed 3 of SAELens's; a cosine from 1e-3 with beta_2 = .999 .911
on seed 0. At 1e-2 with a cosine on our features BatchTopK .995, TopK .952, which is
more than at the task's rate; and there the published auxiliary loss, in which half as
many dead units as there are dimensions rebuild the residual together
(`layers.AuxK(k_aux=None)`), left many units dead and recovered less; four of them were
in between, and one was best, which is why `auxiliary="auto"` takes one. Together the
dead units learn a dense code of the residual, in which none is large enough to be
chosen; alone each learns a feature. A weight of 1 instead of 1/32 was worse, and so was
an L1 penalty steered to the same L0.

For 16 in 32 with `beta_2=0.95` and free atoms, seeds 0 to 2: BatchTopK 1.000 on
SAELens's features, .990 on ours (one seed .970), TopK .77 on both. `TopK` does better
with beta_2 = .999, a cosine and atoms at unit norm: .927 on SAELens's features at the
task's rate, where the setting of the table gives .781 and SAELens .825. Its code of a
sample has four units, and the sample often six features. Annealing did harm here: at a
rate of 1e-3 BatchTopK .962 on one seed of two.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tasks", nargs="*", help=f"among: {', '.join(TASKS)}")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--saelens", action="store_true", help="its features and samples"
    )
    options = parser.parse_args()
    kept = RESULTS / "recovery.json"
    part = "saelens" if options.saelens else "tasks"
    for name in options.tasks or TASKS:
        task = TASKS[name]
        arrays = saelens(task) if options.saelens else None
        if options.saelens:
            task = replace(task, options={**task.options, **task.apart})
        for method, kind in METHODS.items():
            runs = []
            for seed in range(options.seeds):
                runs.append(run(task, arrays or drawn(task, seed), kind, seed))
                print(name, method, seed, runs[-1], flush=True)
            results = json.loads(kept.read_text()) if kept.exists() else {"tasks": {}}
            results.setdefault(part, {}).setdefault(name, {})[method] = runs
            results.setdefault("machine", {})[part] = machine()
            results.setdefault("settings", {}).setdefault(part, {})[name] = {
                "rate": task.rate,
                "beta_2": BETA_2,
                "initial_k": task.initial_k,
                **task.options,
            }
            record("recovery", results)
            PAGE.write_text(page(results))


if __name__ == "__main__":
    main()
