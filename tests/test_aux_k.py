"""Tests of `AuxK`, the auxiliary loss that revives dead units."""

import keras
import numpy as np
import pytest
from helpers import matrix, shallow_weights, top_k, weights_of

from keras_sae import layers, metrics, models

UNITS = 24
DEAD = np.arange(UNITS) % 2 == 0
# Decoded sparsely, and densely because 9 rows per sample are many of 24.
SPARSE, DENSE = 1, 9
paths = pytest.mark.parametrize("k_aux", [SPARSE, DENSE], ids=["sparse", "dense"])


def make(auxiliary, optimizer="sgd", compile_with=None, **options) -> keras.Model:
    """Return a compiled `TopK` model in which every other unit has been inactive."""
    keras.utils.set_random_seed(0)
    sparsity = layers.TopK(5, auxiliary=auxiliary)
    model = models.shallow((12,), UNITS, sparsity, centering=False, **options)
    model.compile(optimizer, **(compile_with or {}))
    model.sparse_layers[0].steps_since_active.assign(np.where(DEAD, 10.0, 9.0))
    return model


@pytest.mark.parametrize("k_aux", [SPARSE, DENSE, None])
def test_dead_units_reconstruct_the_residual(rng, k_aux):
    x = rng.normal(size=(20, 12)).astype("float32")
    model = make(layers.AuxK(k_aux, factor=0.5, dead_after=10))
    W, b, A, c = shallow_weights(model)
    pre = x @ W + b
    residual = x - top_k(np.maximum(pre, 0), 5) @ A - c
    answer = top_k(np.where(DEAD, pre, -np.inf), k_aux or 6) @ A
    error = ((residual - answer) ** 2).mean() / residual.var(axis=0).mean()
    found = model.test_on_batch(x, return_dict=True)["auxiliary_loss"]
    assert found == pytest.approx(0.5 * error, rel=1e-5)
    model.reset_metrics()
    model.sparse_layers[0].steps_since_active.assign(np.full(UNITS, 9.0))
    assert model.test_on_batch(x, return_dict=True)["auxiliary_loss"] == 0


def test_active_units_are_not_trained_by_the_auxiliary_loss(rng):
    x = rng.normal(size=(20, 12)).astype("float32")

    def active_kernel(factor):
        aux = layers.AuxK(3, factor=factor, dead_after=10)
        model = make(aux, keras.optimizers.SGD(0.1), unit_norm=False)
        model.sparse_layers[0].bias.assign(np.where(DEAD, -9.0, 0.0))
        model.train_on_batch(x)
        return matrix(model.sparse_layers[0])[:, ~DEAD]

    np.testing.assert_allclose(active_kernel(5.0), active_kernel(0.0), atol=1e-6)


@paths
def test_loss_is_zero_for_a_batch_of_one_sample(rng, k_aux):
    """The residual of one sample has no variance."""
    x = rng.normal(size=(1, 12)).astype("float32")

    def after_one_step(auxiliary):
        model = make(auxiliary)
        logs = model.train_on_batch(x, return_dict=True)
        return logs["loss"], weights_of(model)

    loss, weights = after_one_step(layers.AuxK(k_aux, factor=0.5, dead_after=10))
    expected_loss, expected = after_one_step(None)
    assert loss == pytest.approx(expected_loss, rel=1e-6)
    for one, other in zip(weights, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("distance", [0.0, 1e-6])
def test_loss_is_zero_for_equal_samples(rng, distance):
    """The variance of such a residual consists of rounding errors."""
    aux = layers.AuxK(SPARSE, dead_after=10)
    model = make(aux, compile_with={"run_eagerly": True})
    for copies in (2, 3, 32):
        x = np.repeat(rng.normal(size=(1, 12)), copies, axis=0)
        x = (x + distance * rng.normal(size=x.shape)).astype("float32")
        assert model.test_on_batch(x, return_dict=True)["auxiliary_loss"] == 0


def test_dead_units_become_active():
    x = np.random.default_rng(0).normal(size=(512, 12)).astype("float32")

    def dead_fraction(auxiliary):
        keras.utils.set_random_seed(0)
        model = models.shallow((12,), 64, layers.TopK(2, auxiliary=auxiliary))
        model.sparse_layers[0].bias.assign(np.repeat([-3.0, 0.0], 32))
        model.compile(keras.optimizers.Adam(0.03))
        model.fit(x, epochs=20, batch_size=64, verbose=0)
        return metrics.dead_fraction(model.encode(x))

    assert dead_fraction(None) > 0.4
    assert dead_fraction(layers.AuxK(dead_after=10)) < 0.2


def test_k_aux_must_be_positive():
    with pytest.raises(ValueError, match="k_aux=0"):
        layers.AuxK(k_aux=0)
