"""Measure the seconds per epoch of a 784-1024-784 model.

    python benchmarks/fit_speed.py [--samples 60000] [--rounds 5]

The model has ReLU units and an L1 penalty. Adam trains it with batches of 256. The
sides are keras_sae, plain Keras, two PyTorch loops, and the matrix products of a step
alone. A process has one Keras backend, so the script starts itself once for TensorFlow
and once for JAX. In each process, all sides take turns. The estimate of `effective_l0`,
which `fit` logs for a code that is never exactly zero, is measured in its own compiled
loop, because its share of a step is smaller than the noise.
"""

import argparse
import json
import os
import subprocess
import sys

import numpy as np
import render
from _timing import in_turn, machine, medians, record

UNITS, DIMENSION, BATCH, FACTOR = 1024, 784, 256, 1e-4


def data(samples: int) -> np.ndarray:
    return np.random.default_rng(0).random((samples, DIMENSION), dtype="float32")


def keras_sides(x: np.ndarray) -> dict:
    import keras

    import keras_sae

    def plain() -> keras.Model:
        inputs = keras.Input((DIMENSION,))
        code = keras.layers.Dense(
            UNITS, "relu", activity_regularizer=keras.regularizers.L1(FACTOR)
        )(inputs)
        model = keras.Model(inputs, keras.layers.Dense(DIMENSION)(code))
        model.compile("adam", "mse")
        return model

    def ours(**options: bool) -> keras.Model:
        model = keras_sae.models.shallow(
            (DIMENSION,), UNITS, keras_sae.regularizers.L1(FACTOR), **options
        )
        model.compile("adam")
        return model

    def epoch(model: keras.Model, *targets: np.ndarray):
        return lambda: model.fit(x, *targets, batch_size=BATCH, verbose=0)

    # Plain Keras has neither centering nor unit norms. "Same graph" turns both off.
    same = ours(centering=False, unit_norm=False)
    return {
        "plain Keras": epoch(plain(), x),
        "keras_sae, same graph": epoch(same),
        "keras_sae, defaults": epoch(ours()),
    }


def estimate_sides(x: np.ndarray) -> dict:
    """Return an epoch of a KL model, and the estimates of an epoch alone."""
    import keras

    import keras_sae
    from keras_sae.models.losses import row_lengths

    model = keras_sae.models.shallow((DIMENSION,), UNITS, "kl")
    model.compile("adam")
    model.fit(x[:BATCH], batch_size=BATCH, verbose=0)
    metric, lengths = model.effective_l0, row_lengths(model.decoder)
    code, steps = model.encode(x[:BATCH]), -(-len(x) // BATCH)

    def update(_: int, variables: tuple) -> tuple:
        values = metric.stateless_update_state(list(variables), code, lengths)
        return tuple(values)

    def estimates() -> tuple:
        values = tuple(keras.ops.zeros(v.shape, v.dtype) for v in metric.variables)
        return keras.ops.fori_loop(0, steps, update, values)

    if keras.backend.backend() == "jax":
        import jax

        compiled = jax.jit(estimates)
    else:
        import tensorflow as tf

        compiled = tf.function(estimates)
    return {
        "keras_sae, KL": lambda: model.fit(x, batch_size=BATCH, verbose=0),
        "estimates of effective_l0": lambda: np.asarray(compiled()[0]),
    }


def torch_sides(x: np.ndarray) -> dict:
    import torch

    torch.manual_seed(0)
    rows = torch.from_numpy(x)

    def model_and_optimizer(fused: bool):
        encoder, decoder = (
            torch.nn.Linear(DIMENSION, UNITS),
            torch.nn.Linear(UNITS, DIMENSION),
        )
        parameters = [*encoder.parameters(), *decoder.parameters()]
        return encoder, decoder, torch.optim.Adam(parameters, fused=fused or None)

    def step(encoder, decoder, optimizer, batch) -> None:
        code = torch.relu(encoder(batch))
        loss = torch.nn.functional.mse_loss(decoder(code), batch)
        loss = loss + FACTOR * code.abs().sum() / len(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    tutorial = model_and_optimizer(fused=False)
    loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(rows), batch_size=BATCH, shuffle=True
    )

    def as_in_tutorials() -> None:
        for (batch,) in loader:
            step(*tutorial, batch)

    best = model_and_optimizer(fused=True)

    def best_loop() -> None:
        order = torch.randperm(len(rows))
        for begin in range(0, len(rows), BATCH):
            step(*best, rows[order[begin : begin + BATCH]])

    return {"PyTorch, DataLoader": as_in_tutorials, "PyTorch, best": best_loop}


def products(x: np.ndarray):
    """Return a function that computes the five matrix products of every step.

    Two products compute the forward pass, two the gradients of the weights, and one the
    gradient of the code. The input needs no gradient.
    """
    import torch

    batch = torch.from_numpy(x[:BATCH])
    encoder, decoder = torch.randn(DIMENSION, UNITS), torch.randn(UNITS, DIMENSION)
    steps = -(-len(x) // BATCH)

    def run() -> None:
        for _ in range(steps):
            code = batch @ encoder
            reconstruction = code @ decoder
            reconstruction.T @ code  # the decoder's gradient
            upstream = reconstruction @ decoder.T
            batch.T @ upstream  # the encoder's gradient

    return run


def one_process(samples: int, rounds: int) -> dict[str, list]:
    x = data(samples)
    sides = {**keras_sides(x), **estimate_sides(x), **torch_sides(x)}
    return in_turn({**sides, "matrix products": products(x)}, rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=60_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        print(json.dumps(one_process(options.samples, options.rounds)))
        return
    shape, seconds = machine(), {}
    for backend in ("tensorflow", "jax"):
        variables = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
        command = [sys.executable, __file__, "--inside"]
        command += ["--samples", str(options.samples), "--rounds", str(options.rounds)]
        done = subprocess.run(
            command,
            env={**variables, "KERAS_BACKEND": backend},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        seconds[backend] = json.loads(done.stdout.splitlines()[-1])
    result = {
        "settings": {**vars(options), "batch": BATCH, "units": UNITS},
        "machine": shape,
        "seconds": seconds,
        "ratios": {name: ratios(medians(times)) for name, times in seconds.items()},
    }
    record("fit_speed", result)
    render.main()
    print(table(result))


def ratios(seconds: dict[str, float]) -> dict[str, float]:
    """Return the ratios of seconds in one process. `ours` is the side "same graph"."""
    ours, default = seconds["keras_sae, same graph"], seconds["keras_sae, defaults"]
    return {
        "ours / plain Keras": ours / seconds["plain Keras"],
        "defaults / plain Keras": default / seconds["plain Keras"],
        "ours / best PyTorch": ours / seconds["PyTorch, best"],
        "ours / PyTorch, DataLoader": ours / seconds["PyTorch, DataLoader"],
        "products / ours": seconds["matrix products"] / ours,
        "estimates / KL": seconds["estimates of effective_l0"]
        / seconds["keras_sae, KL"],
    }


def table(result: dict) -> str:
    """Return the result as Markdown."""
    lines = ["| backend | side | s per epoch |", "|---|---|---|"]
    for backend, seconds in result["seconds"].items():
        for name, value in medians(seconds).items():
            lines.append(f"| {backend} | {name} | {value:.2f} |")
    lines += ["", "| backend | ratio | value |", "|---|---|---|"]
    for backend, values in result["ratios"].items():
        lines += [f"| {backend} | {n} | {v:.3f} |" for n, v in values.items()]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
