"""Tests of `JumpReLU` against its published values and gradients."""

import keras
import numpy as np
import pytest
from helpers import gradient, to_numpy, total
from keras import ops

from keras_sae import layers, models


def test_values_above_the_threshold_pass_and_l0_is_penalized(rng):
    z = rng.normal(size=(50, 8)).astype("float32")
    for target, penalty in [(None, lambda l0: l0), (2.0, lambda l0: (l0 / 2 - 1) ** 2)]:
        layer = layers.JumpReLU(0.7, target, threshold=0.5)
        code = to_numpy(layer(z))
        np.testing.assert_allclose(code, np.where(z > 0.5, z, 0), rtol=1e-6)
        l0 = (z > 0.5).sum(axis=1).mean()
        assert total(layer.losses) == pytest.approx(0.7 * penalty(l0), rel=1e-5)


def published_gradients(z, threshold, bandwidth, upstream):
    """Return the gradients of the code by z, of the code by threshold, and of L0."""
    window = (np.abs(z - threshold) < bandwidth / 2).astype("float64")
    by_z = upstream * (z > threshold)
    code = (-(threshold / bandwidth) * window * upstream).sum(axis=0)
    l0 = (-(1 / bandwidth) * window).sum(axis=0) / len(z)
    return by_z, code, l0


@pytest.mark.parametrize("target", [None, 3.0])
def test_gradients_are_the_published_ones(rng, target):
    z = rng.normal(size=(50, 8)).astype("float32")
    upstream = rng.normal(size=(50, 8)).astype("float32")
    threshold = rng.uniform(0.2, 0.8, size=8).astype("float32")
    layer = layers.JumpReLU(0.7, target, bandwidth=0.4)
    layer.build((None, 8))
    by_z, of_code, of_l0 = published_gradients(z, threshold, 0.4, upstream)
    l0 = (z > threshold).sum(axis=1).mean()
    factor = 0.7 if target is None else 0.7 * 2 * (l0 / target - 1) / target
    weights = ops.convert_to_tensor(upstream)

    def code_and_penalty(threshold):
        code, _, losses = layer.stateless_call(
            [threshold], layer.non_trainable_variables, z, return_losses=True
        )
        return ops.sum(code * weights), losses[0]

    for index, expected in enumerate([of_code, factor * of_l0]):
        found = gradient(lambda t, i=index: code_and_penalty(t)[i], threshold)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    layer.threshold.assign(threshold)
    found = gradient(lambda x: ops.sum(layer(x) * weights), z)
    np.testing.assert_allclose(found, by_z, rtol=1e-6)


def test_thresholds_stay_non_negative(rng):
    """Below zero, the layer would let negative pre-activations through."""
    x = rng.normal(size=(64, 12)).astype("float32")
    sparsity = layers.JumpReLU(0.0, threshold=1e-2, bandwidth=2.0)
    model = models.shallow((12,), 24, sparsity)
    model.compile(keras.optimizers.SGD(100.0))
    model.train_on_batch(x)
    threshold = to_numpy(model.sparse_layers[0].sparsity.threshold)
    assert threshold.min() == 0 < threshold.max()


def test_target_l0_is_reached():
    x = np.random.default_rng(0).normal(size=(512, 12)).astype("float32")
    sparsity = layers.JumpReLU(10.0, target_l0=4, threshold=0.1, bandwidth=0.2)
    model = models.shallow((12,), 24, sparsity)
    model.compile(keras.optimizers.Adam(0.01))
    history = model.fit(x, epochs=40, batch_size=64, verbose=0).history
    assert history["l0"][0] > 5
    assert history["l0"][-1] == pytest.approx(4, rel=0.1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"threshold": float("nan")}, "threshold=nan"),
        ({"threshold": -1}, "threshold=-1"),
        ({"bandwidth": 0}, "bandwidth=0"),
        ({"target_l0": 0}, "target_l0=0"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        layers.JumpReLU(**arguments)
