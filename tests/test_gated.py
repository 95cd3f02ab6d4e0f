"""Tests of `Gated` and of its reconstruction from the gate."""

import keras
import numpy as np
import pytest
from helpers import shallow_weights, to_numpy

from keras_sae import layers, models


def make(sparsity) -> keras.Model:
    return models.shallow((12,), 24, sparsity, centering=False)


def test_gate_selects_units_and_magnitude_sets_their_values(rng):
    z = rng.normal(size=(50, 8)).astype("float32")
    layer = layers.Gated(0.7)
    layer.build((None, 8))
    gain, bias = rng.normal(size=(2, 8)).astype("float32")
    layer.log_gain.assign(gain)
    layer.bias.assign(bias)
    expected = (z > 0) * np.maximum(z * np.exp(gain) + bias, 0)
    np.testing.assert_allclose(to_numpy(layer(z)), expected, rtol=1e-5, atol=1e-6)
    penalty = 0.7 * np.maximum(z, 0).sum(axis=1).mean()
    assert float(layer.losses[0]) == pytest.approx(penalty, rel=1e-5)


def test_auxiliary_loss_is_the_error_of_the_reconstruction_from_the_gate(rng):
    x, y = rng.normal(size=(2, 20, 12)).astype("float32")
    model = make(layers.Gated(0.0))
    model.compile("sgd")
    W, b, A, c = shallow_weights(model)
    reconstruction = np.maximum(x @ W + b, 0) @ A + c
    for arguments, target in [((x,), x), ((x, y), y)]:
        logs = model.test_on_batch(*arguments, return_dict=True)
        model.reset_metrics()
        expected = ((target - reconstruction) ** 2).mean()
        assert logs["auxiliary_loss"] == pytest.approx(expected, rel=1e-5)


def test_reconstruction_from_the_gate_does_not_train_the_decoder(rng):
    """The decoder takes the step of the plain reconstruction loss."""
    x = rng.normal(size=(20, 12)).astype("float32")
    model = make(layers.Gated(0.0))
    model.compile(keras.optimizers.SGD(1.0))
    W, b, A, c = shallow_weights(model)
    code = np.maximum(x @ W + b, 0)
    error = code @ A + c - x
    model.train_on_batch(x)
    _, _, new_kernel, new_bias = shallow_weights(model)
    expected = c - 2 * error.mean(axis=0) / 12
    np.testing.assert_allclose(new_bias, expected, rtol=1e-4, atol=1e-6)
    slope = code.T @ error * 2 / error.size
    slope -= (slope * A).sum(axis=1, keepdims=True) * A  # along the unit sphere
    expected = A - slope
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(new_kernel, expected, rtol=1e-4, atol=1e-5)


def test_factor_must_be_finite():
    with pytest.raises(ValueError, match="factor=inf"):
        layers.Gated(float("inf"))
