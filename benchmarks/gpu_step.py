"""Measure the parts of a k-sparse training step, and whole steps, on a GPU.

    python benchmarks/gpu_step.py [--units 12288] [--dim 768] [--batches 4096 16384]

The parts are the selection of the `k` largest units, and the gradient of the dictionary
from the selected units. Each part is computed in several ways on JAX and on PyTorch, in
float32 and in bfloat16. The whole steps are those of `model.fit` with `TopK` on JAX and
on PyTorch, and of the training loops of SAELens and sparsify, in samples per second. In
these loops, the data is already on the GPU. Compare each side at its best batch size.
PyTorch may use TF32, as JAX does by default. Every side runs in its own process. The
results are written to `results/gpu_step.json`. Without a GPU, the script measures the
CPU.
"""

import argparse
import functools
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from _step_sides import saelens, sparsify
from _timing import machine, record

ROUNDS, SELECTED, LIMIT = 10, (16, 32, 64), 150
PACKAGES = ["sae-lens", "eai-sparsify"]
Sizes = dict[str, int]


def median(run: Callable[[], Any], wait: Callable[[Any], Any]) -> float:
    """Return the median milliseconds of a call, including the wait for its result."""
    wait(run())  # compile
    times = []
    for _ in range(ROUNDS):
        begin = time.perf_counter()
        wait(run())
        times.append(time.perf_counter() - begin)
    return 1000 * statistics.median(times)


def parts_jax(units: int, dim: int, batch: int) -> dict[str, float]:
    """Return the median milliseconds of each part of a step on JAX."""
    os.environ["KERAS_BACKEND"] = "jax"
    import jax
    import jax.numpy as jnp

    from keras_sae.ops.top_k import top_k

    def bisect(values: jax.Array, k: int) -> jax.Array:
        """Return a threshold per row that about `k` values exceed."""

        def halve(_: int, bounds: tuple) -> tuple:
            low, high = bounds
            middle = (low + high) / 2
            enough = (values > middle[:, None]).sum(axis=1) >= k
            return jnp.where(enough, middle, low), jnp.where(enough, high, middle)

        bounds = values.min(axis=1), values.max(axis=1)
        return jax.lax.fori_loop(0, 24, halve, bounds)[0]

    def scatter(values: jax.Array, indices: jax.Array, rows: jax.Array) -> jax.Array:
        entries = values[..., None] * rows[:, None]
        total = jnp.zeros((units, dim), rows.dtype)
        return total.at[indices.reshape(-1)].add(entries.reshape(-1, dim))

    def segments(values: jax.Array, indices: jax.Array, rows: jax.Array) -> jax.Array:
        flat = indices.reshape(-1)
        order = jnp.argsort(flat)
        entries = values.reshape(-1)[order][:, None] * rows[order // values.shape[1]]
        return jax.ops.segment_sum(
            entries, flat[order], num_segments=units, indices_are_sorted=True
        )

    def dense(values: jax.Array, indices: jax.Array, rows: jax.Array) -> jax.Array:
        code = jnp.zeros((len(rows), units), rows.dtype)
        code = code.at[jnp.arange(len(rows))[:, None], indices].set(values)
        return code.T @ rows

    key, wait, found = jax.random.key(0), jax.block_until_ready, {}
    for dtype in ("float32", "bfloat16"):
        activations = jax.random.normal(key, (batch, units), dtype)
        rows = jax.random.normal(key, (batch, dim), dtype)
        for k in SELECTED:
            ways = {
                "lax.top_k": jax.lax.top_k,
                "two stages": top_k,
                "threshold alone, by bisection": bisect,
            }
            for name, select in ways.items():
                run = jax.jit(select, static_argnums=1)
                call = functools.partial(run, activations, k)
                found[f"{dtype}, k = {k}, {name}"] = median(call, wait)
            values, indices = jax.lax.top_k(activations, k)
            for name, gradient in {
                "scatter-add": scatter, "sorted segments": segments, "dense": dense
            }.items():  # fmt: skip
                call = functools.partial(jax.jit(gradient), values, indices, rows)
                found[f"{dtype}, k = {k}, gradient by {name}"] = median(call, wait)
    return found


def parts_torch(units: int, dim: int, batch: int) -> dict[str, float]:
    """Return the median milliseconds of each part of a step on PyTorch."""
    import torch
    from _step_sides import torch_device

    device = torch_device()

    def wait(_: Any) -> None:
        if device == "cuda":
            torch.cuda.synchronize()

    def scatter(values: Any, indices: Any, rows: Any) -> Any:
        entries = (values[..., None] * rows[:, None]).reshape(-1, dim)
        total = torch.zeros(units, dim, device=device, dtype=rows.dtype)
        return total.index_add_(0, indices.reshape(-1), entries)

    def dense(values: Any, indices: Any, rows: Any) -> Any:
        code = torch.zeros(len(rows), units, device=device, dtype=rows.dtype)
        return code.scatter_(1, indices, values).T @ rows

    found = {}
    for dtype in (torch.float32, torch.bfloat16):
        activations = torch.randn(batch, units, device=device, dtype=dtype)
        rows = torch.randn(batch, dim, device=device, dtype=dtype)
        name = str(dtype).removeprefix("torch.")
        for k in SELECTED:
            call = functools.partial(torch.topk, activations, k)
            found[f"{name}, k = {k}, torch.topk"] = median(call, wait)
            values, indices = torch.topk(activations, k)
            for way, gradient in {"scatter-add": scatter, "dense": dense}.items():
                call = functools.partial(gradient, values, indices, rows)
                found[f"{name}, k = {k}, gradient by {way}"] = median(call, wait)
    return found


def ours(backend: str, policy: str) -> Callable[..., dict[str, float]]:
    """Return a function that measures `model.fit` on a backend."""

    def measure(units: int, dim: int, batch: int) -> dict[str, float]:
        os.environ["KERAS_BACKEND"] = backend
        import keras
        from _step_sides import torch_device

        from keras_sae import layers, models

        torch_device()  # allows TF32
        keras.config.set_dtype_policy(policy)
        model = models.shallow((dim,), units, layers.TopK(32))
        model.compile(keras.optimizers.Adam(1e-4))
        size = (ROUNDS * batch, dim)
        x = np.random.default_rng(0).normal(size=size).astype("float32")
        fit = {"batch_size": batch, "verbose": 0}
        milliseconds = median(lambda: model.fit(x, **fit), lambda _: None)
        return {"samples_a_second": 1000 * len(x) / milliseconds}

    return measure


def theirs(make: Callable) -> Callable[..., dict[str, float]]:
    """Return a function that measures a training loop in PyTorch."""

    def measure(units: int, dim: int, batch: int) -> dict[str, float]:
        import torch
        from _step_sides import torch_device

        step = make(units, dim, 32)
        x = torch.randn(batch, dim, device=torch_device())

        def run() -> None:
            for _ in range(ROUNDS):
                step(x)
            if torch_device() == "cuda":
                torch.cuda.synchronize()

        milliseconds = median(run, lambda _: None)
        return {"samples_a_second": 1000 * ROUNDS * batch / milliseconds}

    return measure


PARTS = {"parts, JAX": parts_jax, "parts, PyTorch": parts_torch}
STEPS = {
    "TopK, JAX": ours("jax", "float32"),
    "TopK, JAX, bfloat16": ours("jax", "mixed_bfloat16"),
    "TopK, PyTorch": ours("torch", "float32"),
    "TopK, SAELens": theirs(saelens("topk")),
    "TopK, sparsify": theirs(sparsify),
}


def run_side(name: str, sizes: Sizes) -> dict[str, float] | None:
    """Measure a side in its own process. Return None if it fails or is too slow."""
    command = [sys.executable, __file__, "--side", name, "--batches"]
    command += [str(sizes["batch"]), "--units", str(sizes["units"])]
    command += ["--dim", str(sizes["dim"])]
    try:
        done = subprocess.run(command, capture_output=True, timeout=LIMIT, check=True)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        print(f"{name}, batch {sizes['batch']}: {type(error).__name__}", flush=True)
        print(str(error.stderr)[-300:], flush=True)
        return None
    return json.loads(done.stdout.splitlines()[-1])


def gpu() -> str | None:
    """Return the name of the GPU, if there is one."""
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        return subprocess.run(
            command, capture_output=True, text=True, check=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--units", type=int, default=12288)
    parser.add_argument("--dim", type=int, default=768)
    parser.add_argument("--batches", type=int, nargs="+", default=[4096, 16384])
    parser.add_argument("--side", help="measure only this side, and print JSON")
    options = parser.parse_args()
    sizes = {"units": options.units, "dim": options.dim}
    if options.side:
        found = {**PARTS, **STEPS}[options.side](**sizes, batch=options.batches[0])
        print(json.dumps(found))
        return
    results: dict[str, Any] = {"gpu": gpu(), "sizes": sizes, "steps": {}}
    results["machine"] = machine(PACKAGES)
    for name in PARTS:
        results[name] = run_side(name, {**sizes, "batch": options.batches[0]})
        print(name, json.dumps(results[name], indent=1), flush=True)
    for name in STEPS:
        for batch in options.batches:
            found = run_side(name, {**sizes, "batch": batch})
            results["steps"].setdefault(name, {})[str(batch)] = found
            print(name, batch, found, flush=True)
    record("gpu_step", results)


if __name__ == "__main__":
    main()
