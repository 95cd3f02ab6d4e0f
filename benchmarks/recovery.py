"""Measure the recovery of known features in three tasks at matched L0.

    python benchmarks/recovery.py [TASK ...] [--seeds 3] [--saelens]

The model has as many units as there are features, and `k` is the true L0, rounded.
Features and samples come from `datasets.superposition`, with new features for each
random seed. With `--saelens`, which needs the extra `bench`, they come from SAELens's
`FeatureDictionary` and `ActivationGenerator` with seed 0, and the random seed affects
only the weights. The batch size and the learning rates are those of SAELens.
`render.py` contains the results of SAELens 6.54 for the same tasks, on its own features
with seed 0. The results are written to `results/recovery.json` and rendered into
`docs/recovery.md`. The backend is JAX unless `KERAS_BACKEND` is set.
"""

import argparse
import json
import os
import time
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "jax")

import keras
import numpy as np
import render
from _timing import RESULTS, machine, record

from keras_sae import callbacks, datasets, layers, metrics, models

BATCH = 1024
PARTS = 40  # k decreases in the first half, and the learning rate in the last fifth
BETA_2 = 0.99  # recovers more features in few steps than 0.999
METRIC_SAMPLES = 50_000


@dataclass(frozen=True)
class Task:
    features: int
    dimension: int
    firing: float | np.ndarray
    std: float
    samples: int
    rate: float
    initial_k: int | None = None
    options: dict = field(default_factory=dict)  # arguments of the model
    apart: dict = field(default_factory=dict)  # more arguments for SAELens's features


TASKS = {
    "16 in 32": Task(16, 32, 0.25, 0.0, 10_000_000, 3e-4),
    "64 in 32": Task(
        64,
        32,
        0.05,
        0.1,
        4_000_000,
        1e-3,
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
    ),
}
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
    """Return the learning rate of a part: constant, but falling in the last fifth."""
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tasks", nargs="*", help=f"one or more of {', '.join(TASKS)}")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--saelens", action="store_true", help="use the features and samples of SAELens"
    )
    options = parser.parse_args()
    kept = RESULTS / "recovery.json"
    part, before = "saelens" if options.saelens else "tasks", machine()
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
            results.setdefault("machine", {})[part] = before
            results.setdefault("settings", {}).setdefault(part, {})[name] = {
                "rate": task.rate,
                "beta_2": BETA_2,
                "initial_k": task.initial_k,
                **task.options,
            }
            record("recovery", results)
            render.main()


if __name__ == "__main__":
    main()
