"""Train on four devices and on one; print what differs as JSON.

With arguments `process_id port`, the devices belong to two processes.
"""

import json
import os
import re
import sys

processes = 2 if sys.argv[1:] else 1
os.environ["KERAS_BACKEND"] = "jax"
os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={4 // processes}"

import jax  # noqa: E402
import keras  # noqa: E402
import numpy as np  # noqa: E402

from keras_sae import distribution, layers, models, regularizers  # noqa: E402

DIMENSION, UNITS, BATCH = 12, 64, 40
SPARSITIES = {
    "l1": regularizers.L1(1e-3),
    "kl": regularizers.KLDivergence(0.1, 1e-2, momentum=0.9),
    "top_k": layers.TopK(4, auxiliary=layers.AuxK(2, dead_after=1)),
    "annealed": layers.TopK(4, initial_k=8),
    "batch_top_k": layers.BatchTopK(4),
    "jump_re_lu": layers.JumpReLU(1e-3, target_l0=4),
    "gated": layers.Gated(1e-3),
    "lifetime": layers.LifetimeSparsity(0.1),
    "matryoshka": layers.Matryoshka(layers.BatchTopK(4), widths=(16, 64)),
}
X = np.random.default_rng(0).normal(size=(160, DIMENSION)).astype("float32")


def train(sparsity):
    """Return a trained model, and its logs."""
    keras.utils.set_random_seed(0)
    model = models.shallow((DIMENSION,), UNITS, sparsity)
    model.compile(keras.optimizers.Adam(0.01))
    fit = model.fit(X, epochs=2, batch_size=BATCH, shuffle=False, verbose=0)
    return model, fit.history


def whole(variable):
    """Return the value of a variable whose parts may belong to other processes."""
    if processes == 1:
        return np.asarray(variable.value)
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.process_allgather(variable.value, tiled=True))


def gathered(model):
    """Return the shapes of all tensors that a compiled step gathers from devices."""
    state = model._get_jax_state(
        trainable_variables=True,
        non_trainable_variables=True,
        optimizer_variables=True,
        metrics_variables=True,
    )
    step = jax.jit(model.train_step).lower(state, (X[:BATCH], X[:BATCH]))
    found = re.findall(r"= (.*?) all-gather", step.compile().as_text())
    shapes = re.findall(r"\[([\d,]+)\]", " ".join(found))
    return sorted({tuple(map(int, shape.split(","))) for shape in shapes})


def main():
    if processes == 2:
        process, port = map(int, sys.argv[1:])
        keras.distribution.initialize(f"localhost:{port}", 2, process)
    result = {}
    for name, sparsity in SPARSITIES.items():
        if processes == 2 and name not in ("top_k", "batch_top_k"):
            continue
        alone, logs = train(sparsity)
        result[name] = {"devices": {}}
        # All sparsities share the code of Keras that divides batches as well. With two
        # processes, a batch that is divided would consist of the samples of both.
        divides_batches = name == "batch_top_k" and processes == 1
        meshes = [(1, 4), (2, 2)] if divides_batches else [(1, 4)]
        for shape in meshes:
            mesh = keras.distribution.DeviceMesh(shape, ("batch", "model"))
            parallel = keras.distribution.ModelParallel(
                layout_map=distribution.layout_map(mesh),
                batch_dim_name="batch",
                auto_shard_dataset=False,  # Every process passes all samples.
            )
            with parallel.scope():
                model, other = train(sparsity)
                pairs = zip(alone.variables, model.variables, strict=True)
                differences = [
                    float(np.abs(np.asarray(a.value) - whole(b)).max())
                    for a, b in pairs
                    if np.isfinite(np.asarray(a.value)).all()
                ]
                variables = [*model.variables, *model.optimizer.variables]
                result[name]["devices"][str(shape)] = {
                    "weights": max(differences),
                    "logs": max(
                        float(np.abs(np.subtract(logs[key], other[key])).max())
                        for key in logs
                    ),
                    "shares": {
                        v.path: v.value.addressable_shards[0].data.nbytes
                        / (v.value.size * v.value.dtype.itemsize)
                        for v in variables
                        if UNITS in v.shape
                    },
                    "gathered": gathered(model) if processes == 1 else [],
                }
    print(json.dumps(result))


main()
