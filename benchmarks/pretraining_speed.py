"""Compare pretraining of a 784-1000-500-250-30 model with handwritten loops.

    python benchmarks/pretraining_speed.py [--samples 60000] [--epochs 3] [--rounds 5]
    python benchmarks/pretraining_speed.py --small
    python benchmarks/pretraining_speed.py --epochs 10 --backends jax --kinds greedy
    python benchmarks/pretraining_speed.py --backends tensorflow --at-once 32

Greedy pretraining is compared with the same loop in plain Keras and in PyTorch. The
PyTorch loop is measured with Adam's defaults and with `fused=True`, which updates all
weights in one kernel. An RBM of 784 by 1000 units, trained by CD-1, is compared with
that of scikit-learn. Every run starts from new weights and includes building and
compiling. The script starts itself once per Keras backend. In each process, all sides
take turns. `--at-once` sets `steps_per_execution` of keras_sae and of plain Keras. The
script keeps the recorded results of other backends, numbers of epochs and kinds.
"""

import argparse
import json
import os
import subprocess
import sys

import numpy as np
from _timing import RESULTS, in_turn, machine, medians, record

DIMENSION, BATCH = 784, 256
SIZES = (1000, 500, 250, 30)
SMALL = {"samples": 2_000, "epochs": 1, "rounds": 3}
BACKENDS, KINDS = ["tensorflow", "jax"], ["greedy", "RBM"]


def data(samples: int) -> np.ndarray:
    return np.random.default_rng(0).random((samples, DIMENSION), dtype="float32")


def activations(level: int) -> tuple[str, str]:
    """Return the activations of a level's code and output: ReLU except at the ends."""
    code = "linear" if level == len(SIZES) - 1 else "relu"
    return code, "relu" if level else "linear"


def keras_sides(x: np.ndarray, epochs: int, at_once: int) -> dict:
    import keras

    from keras_sae import models, pretraining

    def ours() -> None:
        model = models.deep(
            (DIMENSION,), SIZES, code_activation="linear", centering=False
        )
        model.compile("adam", steps_per_execution=at_once)
        pretraining.greedy(model, x, epochs, BATCH, verbose=0)

    def by_hand() -> None:
        code = x
        for level, units in enumerate(SIZES):
            below, above = keras.Input((code.shape[1],)), activations(level)
            hidden = keras.layers.Dense(units, above[0])(below)
            output = keras.layers.Dense(code.shape[1], above[1])(hidden)
            model = keras.Model(below, output)
            model.compile("adam", "mse", steps_per_execution=at_once)
            model.fit(code, code, batch_size=BATCH, epochs=epochs, verbose=0)
            if level + 1 < len(SIZES):
                encoder = keras.Model(below, hidden)
                code = encoder.predict(code, batch_size=BATCH, verbose=0)

    return {"greedy, keras_sae": ours, "greedy, plain Keras": by_hand}


def torch_side(x: np.ndarray, epochs: int, **adam):
    import torch

    torch.manual_seed(0)
    rows = torch.from_numpy(x)
    functions = {"relu": torch.relu, "linear": lambda z: z}

    def train(code, level: int, units: int):
        up = torch.nn.Linear(code.shape[1], units)
        down = torch.nn.Linear(units, code.shape[1])
        encode, decode = (functions[name] for name in activations(level))
        parameters = [*up.parameters(), *down.parameters()]
        optimizer = torch.optim.Adam(parameters, **adam)
        for _ in range(epochs):
            order = torch.randperm(len(code))
            for begin in range(0, len(code), BATCH):
                batch = code[order[begin : begin + BATCH]]
                output = decode(down(encode(up(batch))))
                loss = torch.nn.functional.mse_loss(output, batch)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        with torch.no_grad():
            return encode(up(code))

    def by_hand() -> None:
        code = rows
        for level, units in enumerate(SIZES):
            code = train(code, level, units)

    return by_hand


def rbm_sides(x: np.ndarray, epochs: int, at_once: int) -> dict:
    from sklearn.neural_network import BernoulliRBM

    from keras_sae import models, pretraining

    def ours() -> None:
        model = models.shallow(
            (DIMENSION,),
            SIZES[0],
            activation="sigmoid",
            output_activation="sigmoid",
            centering=False,
        )
        model.compile("adam", steps_per_execution=at_once)
        pretraining.boltzmann(model, x, epochs, BATCH, verbose=0)

    def theirs() -> None:
        BernoulliRBM(
            SIZES[0], learning_rate=0.1, batch_size=BATCH, n_iter=epochs, random_state=0
        ).fit(x)

    return {"RBM, keras_sae": ours, "RBM, scikit-learn": theirs}


def one_process(
    samples: int, epochs: int, rounds: int, at_once: int, kinds: list[str]
) -> dict:
    x = data(samples)
    sides = keras_sides(x, epochs, at_once)
    sides["greedy, PyTorch"] = torch_side(x, epochs)
    sides["greedy, PyTorch with fused Adam"] = torch_side(x, epochs, fused=True)
    sides |= rbm_sides(x, epochs, at_once)
    wanted = {name: side for name, side in sides.items() if kind(name) in kinds}
    return in_turn(wanted, rounds)


def kind(side: str) -> str:
    return side.split(",")[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=60_000)
    parser.add_argument("--epochs", type=int, default=3, help="epochs per level")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--at-once", type=int, default=1, help="steps per execution")
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, default=BACKENDS)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument(
        "--small", action="store_true", help=f"use {SMALL} and record nothing"
    )
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.small:
        vars(options).update(SMALL)
    settings = {name: vars(options)[name] for name in [*SMALL, "at_once"]}
    if options.inside:
        print(json.dumps(one_process(**settings, kinds=options.kinds)))
        return
    shape = machine()
    path = RESULTS / "pretraining_speed.json"
    task = {"samples": options.samples, "batch": BATCH, "sizes": [DIMENSION, *SIZES]}
    kept = json.loads(path.read_text()) if path.exists() and not options.small else {}
    if kept.get("settings") != task:
        kept = {"machine": {}, "seconds": {}}
    runs, machines = kept["seconds"], kept["machine"]
    for backend in options.backends:
        name = f"{backend}, {options.epochs} epochs"
        if options.at_once > 1:
            name += f", {options.at_once} steps at once"
        runs.setdefault(name, {}).update(inside(backend, settings, options.kinds))
        machines[name] = shape
    result = {
        "settings": task,
        "machine": machines,
        "seconds": runs,
        "ratios": {name: ratios(medians(times)) for name, times in runs.items()},
    }
    if not options.small:
        record("pretraining_speed", result)
    print(table(result))


def inside(backend: str, settings: dict[str, int], kinds: list[str]) -> dict[str, list]:
    """Return the seconds of all sides, measured in a process with this backend."""
    command = [sys.executable, __file__, "--inside", "--kinds", *kinds]
    for name, value in settings.items():
        command += [f"--{name.replace('_', '-')}", str(value)]
    done = subprocess.run(
        command,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": backend},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def ratios(seconds: dict[str, float]) -> dict[str, float]:
    """Return the time of keras_sae divided by that of each other side."""
    return {
        f"{kind(name)}: ours /{name.split(',')[1]}": seconds[f"{kind(name)}, keras_sae"]
        / value
        for name, value in seconds.items()
        if not name.endswith("keras_sae")
    }


def table(result: dict) -> str:
    """Return the result as Markdown."""
    lines = ["| backend | side | s |", "|---|---|---|"]
    for backend, seconds in result["seconds"].items():
        for name, value in medians(seconds).items():
            lines.append(f"| {backend} | {name} | {value:.2f} |")
    lines += ["", "| backend | ratio | value |", "|---|---|---|"]
    for backend, values in result["ratios"].items():
        lines += [f"| {backend} | {n} | {v:.3f} |" for n, v in values.items()]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
