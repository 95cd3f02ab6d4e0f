"""Define the sides of `step_speed.py`, and run one of them.

    python _step_sides.py SIDE UNITS DIM BATCH K

Each line of the standard input is a number of steps. The process runs these steps and
prints the seconds. At the end of the input, it prints its peak memory in MiB.
"""

import os
import resource
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np

Step = Callable[[np.ndarray], None]


def _ours(
    backend: str,
    sparsity: str,
    optimizer: str = "Adam",
    dead: float = 0.0,
    onednn: bool = True,
    sparse: bool = False,
) -> Callable[..., Step]:
    def make(units: int, dim: int, k: int) -> Step:
        os.environ["KERAS_BACKEND"] = backend
        os.environ["TF_ENABLE_ONEDNN_OPTS"] = str(int(onednn))
        import keras

        from keras_sae import layers, models

        kinds = {
            "top_k": lambda: layers.TopK(k),
            "annealed": lambda: layers.TopK(k, initial_k=4 * k),  # with the final k
            "batch_top_k": lambda: layers.BatchTopK(k),
            "jump_relu": lambda: layers.JumpReLU(target_l0=k),
            "gated": lambda: layers.Gated(1e-3),
            "matryoshka": lambda: layers.Matryoshka(
                layers.BatchTopK(k), (units // 4, units // 2, units)
            ),
        }
        model = models.shallow((dim,), units, kinds[sparsity]())
        model.compile(getattr(keras.optimizers, optimizer)(1e-4))
        is_dead = np.arange(units) < dead * units
        if is_dead.any():  # the bias keeps these units dead in all steps
            code = model.sparse_layers[0]
            code.bias.assign(np.where(is_dead, -1e3, 0.0))
            code.steps_since_active.assign(np.where(is_dead, 1e3, 0.0))
        if sparse:  # with this bias, about `k` units per sample are active
            quantile = statistics.NormalDist().inv_cdf(1 - k / units)
            model.sparse_layers[0].bias.assign(np.full(units, -quantile))
        return lambda x: model.train_on_batch(x)

    return make


def _plain_keras(backend: str) -> Callable[..., Step]:
    def make(units: int, dim: int, k: int) -> Step:
        del k
        os.environ["KERAS_BACKEND"] = backend
        import keras

        model = keras.Sequential(
            [
                keras.Input((dim,)),
                keras.layers.Dense(units, "relu"),
                keras.layers.Dense(dim),
            ]
        )
        model.compile(keras.optimizers.Adam(1e-4), "mse")
        return lambda x: model.train_on_batch(x, x)

    return make


def _product(units: int, dim: int, k: int) -> Step:
    del k
    import jax

    kernel = jax.random.normal(jax.random.key(0), (dim, units))
    multiply = jax.jit(lambda x, kernel: x @ kernel)
    return lambda x: multiply(x, kernel).block_until_ready()


def torch_device() -> str:
    """Return "cuda" if PyTorch has a GPU, else "cpu". Allow TF32, as JAX does."""
    import torch

    if not torch.cuda.is_available():
        return "cpu"
    torch.set_float32_matmul_precision("high")
    return "cuda"


def saelens(architecture: str) -> Callable[..., Step]:
    def make(units: int, dim: int, k: int) -> Step:
        import sae_lens.saes as saes
        import torch
        from sae_lens.saes.sae import TrainStepInput

        device = torch_device()
        common = {"d_in": dim, "d_sae": units, "device": device}
        widths = [units // 4, units // 2, units]
        kinds = {
            "topk": lambda: saes.TopKTrainingSAE(
                saes.TopKTrainingSAEConfig(k=k, **common)
            ),
            "batchtopk": lambda: saes.BatchTopKTrainingSAE(
                saes.BatchTopKTrainingSAEConfig(k=k, **common)
            ),
            "jumprelu": lambda: saes.JumpReLUTrainingSAE(
                saes.JumpReLUTrainingSAEConfig(**common)
            ),
            "gated": lambda: saes.GatedTrainingSAE(
                saes.GatedTrainingSAEConfig(**common)
            ),
            "matryoshka": lambda: saes.MatryoshkaBatchTopKTrainingSAE(
                saes.MatryoshkaBatchTopKTrainingSAEConfig(
                    k=k, matryoshka_widths=widths, **common
                )
            ),
        }
        sae = kinds[architecture]()
        sae.train()
        optimizer = torch.optim.Adam(sae.parameters(), lr=1e-4)
        dead = torch.zeros(units, dtype=torch.bool, device=device)
        coefficients = {"l0": 1.0, "l1": 1.0}

        def step(x: np.ndarray) -> None:
            batch = torch.as_tensor(x, device=device)
            given = TrainStepInput(batch, coefficients, dead, 0, False)
            output = sae.training_forward_pass(given)
            output.loss.backward()
            torch.nn.utils.clip_grad_norm_(sae.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()

        return step

    return make


def sparsify(units: int, dim: int, k: int) -> Step:
    import torch

    device = torch_device()
    if device == "cpu":  # sparsify's Triton kernels need a GPU
        os.environ["SPARSIFY_DISABLE_TRITON"] = "1"
    from sparsify import SparseCoder, SparseCoderConfig

    coder = SparseCoder(dim, SparseCoderConfig(num_latents=units, k=k), device)
    optimizer = torch.optim.Adam(coder.parameters(), lr=1e-4)

    def step(x: np.ndarray) -> None:
        coder.set_decoder_norm_to_unit_norm()
        output = coder(torch.as_tensor(x, device=device))
        output.fvu.backward()
        coder.remove_gradient_parallel_to_decoder_directions()
        optimizer.step()
        optimizer.zero_grad()

    return step


def _dictionary_learning(units: int, dim: int, k: int) -> Step:
    import torch
    from dictionary_learning.trainers.top_k import TopKTrainer

    trainer = TopKTrainer(
        steps=10_000, activation_dim=dim, dict_size=units, k=k, layer=0, lm_name=""
    )
    taken = iter(range(1, 10_000))  # step 0 computes a geometric median
    return lambda x: trainer.update(next(taken), torch.from_numpy(x))


SIDES: dict[str, Callable[..., Step]] = {
    "encoder product": _product,
    "TopK, JAX": _ours("jax", "top_k"),
    "TopK, JAX, SGD": _ours("jax", "top_k", "SGD"),
    "TopK, JAX, 2% of the units dead": _ours("jax", "top_k", dead=0.02),
    "TopK, TensorFlow": _ours("tensorflow", "top_k"),
    "TopK, TensorFlow, no oneDNN": _ours("tensorflow", "top_k", onednn=False),
    "TopK, annealed k, TensorFlow": _ours("tensorflow", "annealed"),
    "TopK, SAELens": saelens("topk"),
    "TopK, sparsify": sparsify,
    "TopK, dictionary_learning": _dictionary_learning,
    "BatchTopK, JAX": _ours("jax", "batch_top_k"),
    "BatchTopK, TensorFlow": _ours("tensorflow", "batch_top_k"),
    "Matryoshka, TensorFlow": _ours("tensorflow", "matryoshka"),
    "JumpReLU, few active units, TensorFlow": _ours(
        "tensorflow", "jump_relu", sparse=True
    ),
    "Gated, few active units, TensorFlow": _ours("tensorflow", "gated", sparse=True),
    "BatchTopK, SAELens": saelens("batchtopk"),
    "JumpReLU, JAX": _ours("jax", "jump_relu"),
    "JumpReLU, SAELens": saelens("jumprelu"),
    "Gated, JAX": _ours("jax", "gated"),
    "Gated, SAELens": saelens("gated"),
    "Matryoshka, JAX": _ours("jax", "matryoshka"),
    "Matryoshka, SAELens": saelens("matryoshka"),
    "dense, plain Keras, JAX": _plain_keras("jax"),
}


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # send the output of libraries to stderr
    side, (units, dim, batch, k) = sys.argv[1], map(int, sys.argv[2:])
    step = SIDES[side](units, dim, k)
    x = np.random.default_rng(0).normal(size=(batch, dim)).astype("float32")
    for line in sys.stdin:
        begin = time.perf_counter()
        for _ in range(int(line)):
            step(x)
        print(time.perf_counter() - begin, file=answers, flush=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(peak, file=answers, flush=True)


if __name__ == "__main__":
    main()
