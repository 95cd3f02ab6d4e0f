"""Tests of training on two replicas with `tf.distribute`."""

import json
import subprocess
import sys

import numpy as np
import pytest
from helpers import tensorflow_only

_PROGRAM = """
import contextlib, json, sys, warnings
import keras
import numpy as np
import tensorflow as tf
import keras_sae
from keras_sae import layers, models
from keras_sae.regularizers import L1, KLDivergence

# One processor becomes two devices, before its first use.
halves = [tf.config.LogicalDeviceConfiguration()] * 2
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, halves)
two_replicas = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
half = np.random.default_rng(0).random((16, 6), dtype="float32")
x = np.concatenate([half, half])  # Each replica gets the same samples.

nested = layers.Matryoshka(layers.BatchTopK(4), (2, 4))
SPARSITIES = {
    "none": None,
    "l1": L1(1.0),
    "kl": KLDivergence(0.3, 1.0),
    "kl-momentum": KLDivergence(0.3, 1.0, momentum=0.5),
    "top_k": layers.TopK(3),
    "batch_top_k": layers.BatchTopK(3),
    "jump_relu": layers.JumpReLU(0.5, bandwidth=0.5),
    "gated": layers.Gated(1.0),
    "matryoshka": layers.Matryoshka(layers.TopK(4, auxiliary=None), (2, 4)),
}


def make(name):
    if name == "deep":
        sparsities = [SPARSITIES["kl-momentum"], nested]
        # The forward pass subtracts the moving mean that its replica has seen.
        options = {"activation": "auto", "centering": False}
        return models.deep((6,), (8, 8), sparsities, **options)
    if name == "centered":
        return models.deep((6,), (8, 8), L1(1.0))
    if name == "contractive":
        return models.shallow((6,), 8, activation="sigmoid", contractive=1.0)
    if name == "variational":
        return models.variational((6,), 8, 2)
    return models.shallow((6,), 8, SPARSITIES[name])


def train(name, strategy, samples):
    keras.utils.set_random_seed(0)
    with strategy.scope() if strategy else contextlib.nullcontext():
        model = make(name)
        model.compile(keras.optimizers.SGD(0.1))
        options = {"batch_size": 32, "epochs": 2, "verbose": 0, "shuffle": False}
        logs = model.fit(np.resize(x, (samples, 6)), **options).history
    return {
        "weights": [np.ravel(w).tolist() for w in model.get_weights()],
        "logs": logs,
    }


def train_on_different_samples(strategy):
    # Returns all weights and logs. None may depend on the number of replicas.
    found = {}
    rng = np.random.default_rng(1)
    samples = rng.random((40, 6), dtype="float32")
    weight = rng.random(40, dtype="float32").round()
    for name in ("l1", "top_k", "kl-momentum", "jump_relu"):
        # A divergence is that of the mean over the batch of each replica.
        rate, logs = (0.0, ["explained_variance"]) if "kl" in name else (0.1, None)
        # Keras passes the mean of the replicas' logs to `SparsityTarget`.
        weights = weight if name in ("top_k", "kl-momentum") else None
        keras.utils.set_random_seed(0)
        with strategy.scope():
            scaling = name == "jump_relu"
            model = models.shallow((6,), 8, SPARSITIES[name], scaling=scaling)
            model.compile(keras.optimizers.SGD(rate))
        steer = []
        if scaling:
            model.adapt(samples[:16])
            steer = [keras_sae.callbacks.SparsityTarget(l0=3)]
        options = {"batch_size": 16, "verbose": 0, "shuffle": False}
        with warnings.catch_warnings(record=True):  # The target is not reached.
            fit = model.fit(samples, sample_weight=weights, callbacks=steer, **options)
        for key in logs or fit.history:
            found[f"{name} {key}"] = fit.history[key]
        for n, value in enumerate(model.get_weights()):
            found[f"{name} {model.weights[n].path}"] = np.ravel(value).tolist()
    return found


results = {}
for name in sys.argv[1:]:
    if name == "different":
        one_device = tf.distribute.OneDeviceStrategy("CPU:0")
        for key, strategy in {"one": one_device, "two": two_replicas}.items():
            results.setdefault(name, {})[key] = train_on_different_samples(strategy)
        continue
    results[name] = {"uneven": train(name, two_replicas, 33)}
    # Draws of a variational model and moving centers differ between replicas.
    if name not in ("variational", "centered"):
        results[name]["one"] = train(name, None, 32)
        results[name]["two"] = train(name, two_replicas, 32)
print(json.dumps(results))
"""

# Different samples per replica, and one model with a penalty, a running mean, a
# threshold and auxiliary losses.
QUICK = ["different", "deep"]
OTHERS = [
    "variational",
    "centered",
    "none",
    "l1",
    "kl",
    "kl-momentum",
    "top_k",
    "batch_top_k",
    "jump_relu",
]
OTHERS += ["gated", "matryoshka", "contractive"]


@tensorflow_only
@pytest.mark.parametrize(
    "names",
    [QUICK, pytest.param(OTHERS, marks=pytest.mark.slow)],
    ids=["quick", "others"],
)
def test_two_replicas_train_like_one(names):
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, *names], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    results = json.loads(done.stdout.splitlines()[-1])
    assert list(results) == names
    for name, result in results.items():
        if name == "different":
            for key, value in result["one"].items():
                np.testing.assert_allclose(
                    value, result["two"][key], rtol=1e-4, atol=1e-6, err_msg=key
                )
            continue
        # The last batch has one sample, so the second replica gets none.
        uneven = result["uneven"]
        assert all(np.isfinite(w).all() for w in uneven["weights"]), name
        assert all(np.isfinite(v).all() for v in uneven["logs"].values()), name
        if "one" not in result:
            continue
        one, two = result["one"], result["two"]
        for a, b in zip(one["weights"], two["weights"], strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5, err_msg=name)
        for key, values in one["logs"].items():
            assert values == pytest.approx(two["logs"][key], rel=1e-4), (name, key)
