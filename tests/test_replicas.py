"""A model on two replicas of TensorFlow is the model on one."""

import json
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from helpers import tensorflow_only

_PROGRAM = """
import contextlib, json
import keras
import numpy as np
import tensorflow as tf
from keras_sae import layers, models
from keras_sae.regularizers import L1, KLDivergence

# Two devices made of one processor, before its first use.
halves = [tf.config.LogicalDeviceConfiguration()] * 2
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, halves)
two = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
half = np.random.default_rng(0).random((16, 6), dtype="float32")
x = np.concatenate([half, half])  # a batch whose halves are alike

SPARSITIES = {
    "none": None,
    "l1": L1(1.0),
    "kl": KLDivergence(0.3, 1.0),
    "kl, averaged": KLDivergence(0.3, 1.0, momentum=0.5),
    "top_k": layers.TopK(3),
    "batch_top_k": layers.BatchTopK(3),
    "jump_relu": layers.JumpReLU(0.5, bandwidth=0.5),
    "gated": layers.Gated(1.0),
    "matryoshka": layers.Matryoshka(layers.TopK(4, auxiliary=None), (2, 4)),
}


MODELS = {
    name: lambda sparsity=sparsity: models.shallow((6,), 8, sparsity)
    for name, sparsity in SPARSITIES.items()
}
MODELS["contractive"] = lambda: models.shallow(
    (6,), 8, activation="sigmoid", contractive=1.0
)


def trained(make, strategy, samples):
    keras.utils.set_random_seed(0)
    with strategy.scope() if strategy else contextlib.nullcontext():
        model = make()
        model.compile(keras.optimizers.SGD(0.1))
        options = {"batch_size": 32, "epochs": 2, "verbose": 0, "shuffle": False}
        logs = model.fit(np.resize(x, (samples, 6)), **options).history
    return {
        "weights": [np.ravel(w).tolist() for w in model.get_weights()],
        "logs": logs,
    }


found = {
    name: [trained(make, s, 32) for s in (None, two)] for name, make in MODELS.items()
}
# The last batch is of one sample: the second replica has none.
MODELS["variational"] = lambda: models.variational((6,), 8, 2)
odd = {name: trained(make, two, 33) for name, make in MODELS.items()}
print(json.dumps([found, odd]))
"""


@tensorflow_only
def test_two_replicas_are_one():
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(_PROGRAM)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found, odd = json.loads(done.stdout.splitlines()[-1])
    for name, (one, both) in found.items():
        for a, b in zip(one["weights"], both["weights"], strict=True):
            # A count of samples is each replica's own.
            close = np.allclose(a, b, atol=1e-5) or np.allclose(np.divide(a, 2), b)
            assert close, name
        for key, values in one["logs"].items():
            assert values == pytest.approx(both["logs"][key], rel=1e-4), (name, key)
    for name, result in odd.items():
        assert all(np.isfinite(w).all() for w in result["weights"]), name
        assert all(np.isfinite(v).all() for v in result["logs"].values()), name
