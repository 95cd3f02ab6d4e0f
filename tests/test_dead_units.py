"""Tests of the callback `DeadUnits`."""

import keras
import numpy as np
import pytest
from helpers import matrix, to_numpy

from keras_sae import callbacks, layers, models, regularizers

X = np.random.default_rng(0).random((64, 12), dtype="float32")


def make(sparsity="l1", optimizer=None, **kwargs) -> keras.Model:
    model = models.shallow((12,), 8, sparsity, **kwargs)
    model.compile(optimizer or keras.optimizers.SGD(0.01))
    return model


def kill(model, units) -> None:
    """Give `units` a bias that no sample can overcome."""
    bias = to_numpy(model.sparse_layers[-1].bias)
    bias[units] = -1e3
    model.sparse_layers[-1].bias.assign(bias)


def resample(model, units, x=X) -> np.ndarray:
    """Resample `units`, and return the dictionary."""
    callback = callbacks.DeadUnits(resample=x)
    callback.set_model(model)
    callback._restart(*callback._layers(), np.array(units))
    return to_numpy(model.decoder.get_layer("output").kernel)


# Reports.


def test_units_that_are_never_active_are_counted():
    model = make()
    kill(model, [1, 5])
    watch = callbacks.DeadUnits()
    logs = model.fit(X, epochs=2, batch_size=16, verbose=0, callbacks=[watch]).history
    active = (model.encode(X) != 0).any(axis=0)
    assert not active[[1, 5]].any()
    np.testing.assert_allclose(logs["dead_units"], [1 - active.mean()] * 2)


def test_window_counts_steps_over_epochs():
    model = make()
    kill(model, [2])
    watch = callbacks.DeadUnits(window=6)
    logs = model.fit(X, epochs=2, batch_size=16, verbose=0, callbacks=[watch]).history
    # An epoch has four steps: the unit was inactive for 4 steps, then for 8.
    assert logs["dead_units"][0] == 0
    assert logs["dead_units"][1] >= 1 / 8


@pytest.mark.parametrize("units", [(9, 4), (5, 7, 6)])
def test_units_of_the_code_are_counted_in_a_deep_model(units):
    model = models.deep((12,), units, "l1")
    model.compile(keras.optimizers.SGD(0.0))
    code = model.sparse_layers[-1]
    assert code.units == units[-1]
    kill(model, [0, 2])
    logs = model.fit(X, verbose=0, callbacks=[callbacks.DeadUnits()]).history
    dead = (model.encode(X) == 0).all(axis=0).mean()
    assert dead >= 2 / units[-1]
    assert logs["dead_units"][0] == pytest.approx(dead)


def test_a_sigmoid_code_has_no_dead_units():
    model = make(regularizers.KLDivergence(0.1))
    logs = model.fit(X, verbose=0, callbacks=[callbacks.DeadUnits()]).history
    assert logs["dead_units"] == [0.0]


def test_models_without_a_sparse_dense_are_refused():
    model = keras.Sequential([keras.Input((12,)), keras.layers.Dense(12)])
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="which has 0"):
        model.fit(X, X, verbose=0, callbacks=[callbacks.DeadUnits()])


# Resampling.


@pytest.mark.parametrize(
    "sparsity",
    ["l1", layers.TopK(3), layers.JumpReLU(1e-3, threshold=0.01), layers.Gated(1e-3)],
    ids=["l1", "top_k", "jump_relu", "gated"],
)
def test_resampled_units_become_active(sparsity):
    model = make(sparsity)
    kill(model, [0, 3])
    if isinstance(sparsity, layers.JumpReLU | layers.Gated):
        for variable, _ in model.sparse_layers[0].sparsity.per_unit_state():
            values = to_numpy(variable)
            values[[0, 3]] = 1e3 if isinstance(sparsity, layers.JumpReLU) else -1e3
            variable.assign(values)
    watch = callbacks.DeadUnits(resample=X)
    logs = model.fit(X, epochs=3, batch_size=16, verbose=0, callbacks=[watch]).history
    assert logs["dead_units"][0] >= 2 / 8
    assert logs["dead_units"][-1] < logs["dead_units"][0]
    assert (model.encode(X)[:, [0, 3]] != 0).any(axis=0).all()


def test_units_of_a_code_with_axes_are_resampled():
    inputs, codes = keras.Input((3, 4)), keras.Input((3, 8))
    code = layers.SparseDense(8, sparsity="l1", name="code")(inputs)
    decoder = keras.Model(codes, keras.layers.Dense(4, name="output")(codes))
    model = models.Autoencoder(keras.Model(inputs, code), decoder)
    model.compile(keras.optimizers.SGD(0.01))
    kill(model, [0, 3])
    x = X.reshape(-1, 3, 4)
    model.fit(x, epochs=3, verbose=0, callbacks=[callbacks.DeadUnits(resample=x)])
    assert (model.encode(x)[..., [0, 3]] != 0).any(axis=(0, 1)).all()


def test_units_are_resampled_between_fits_of_one_epoch():
    model = make()
    kill(model, [0, 3])
    watch = callbacks.DeadUnits(resample=X)
    for _ in range(3):
        model.fit(X, batch_size=16, verbose=0, callbacks=[watch])
    assert (model.encode(X)[:, [0, 3]] != 0).any(axis=0).all()


def test_a_resampled_unit_gets_its_initial_bias():
    model = make()
    code = model.sparse_layers[0]
    code.bias_initializer = keras.initializers.Constant(0.25)
    kill(model, [0, 3])
    resample(model, [0, 3])
    expected = [0.25, 0, 0, 0.25, 0, 0, 0, 0]
    np.testing.assert_array_equal(to_numpy(code.bias), expected)


def test_units_stay_as_they_are_without_a_residual():
    model = make()
    kill(model, [4])
    before = to_numpy(model.sparse_layers[0].kernel)
    resample(model, [4], model.predict(np.zeros_like(X[:4]), verbose=0))
    np.testing.assert_array_equal(to_numpy(model.sparse_layers[0].kernel), before)


def test_resampled_units_differ_from_each_other():
    model = make()
    dead = np.arange(1, 8)
    kill(model, dead)
    rows = resample(model, dead, X[:9])[dead]
    assert len(np.unique(rows.round(5), axis=0)) == len(dead)


def test_a_resampled_unit_gets_a_residual_at_unit_norm():
    model = make()
    kill(model, [4])
    residual = X - model.predict(X, verbose=0)
    row = resample(model, [4])[4]
    directions = residual / np.linalg.norm(residual, axis=1, keepdims=True)
    assert np.isclose(directions @ row, 1.0, atol=1e-5).any()
    # The encoder gets the same direction.
    encoder = matrix(model.sparse_layers[-1])[:, 4]
    assert row @ encoder == pytest.approx(np.linalg.norm(encoder), rel=1e-5)


@pytest.mark.parametrize("sparsity", ["l1", layers.TopK(3)], ids=["l1", "top_k"])
def test_resampling_resets_the_moments_of_the_optimizer(sparsity):
    model = make(sparsity, keras.optimizers.Adam(1e-2))
    model.fit(X, verbose=0)
    resample(model, [4])
    kernel = model.sparse_layers[-1].kernel
    moments = [
        to_numpy(v)
        for v in model.optimizer.variables
        if tuple(v.shape) == tuple(kernel.shape)
    ]
    if sparsity == "l1":
        moments = [m for m in moments if m.shape == (12, 8)]
    else:  # one row per unit, as in the decoder
        moments = [m.T for m in moments]
    assert len(moments) == (2 if sparsity == "l1" else 4)
    for moment in moments:
        assert not moment[:, 4].any()
        assert moment[:, 3].any()


def test_resampled_units_are_kept_with_averaged_weights():
    """At the end of a fit, Keras replaces the weights by their averages."""
    adam = keras.optimizers.Adam(1e-2, use_ema=True, ema_momentum=0.99)
    model = make(layers.TopK(2, auxiliary=None), adam)
    kill(model, [4])
    watch = callbacks.DeadUnits(resample=X)
    model.fit(X, epochs=3, batch_size=32, verbose=0, callbacks=[watch])
    rows = to_numpy(model.decoder.get_layer("output").kernel)
    # Means of moving unit vectors are a little shorter than 1.
    assert np.linalg.norm(rows, axis=1).min() > 0.9


def test_tied_models_cannot_be_resampled():
    model = make(tied=True)
    with pytest.raises(ValueError, match=r"DeadUnits\(resample=None\)"):
        model.fit(X, verbose=0, callbacks=[callbacks.DeadUnits(resample=X)])
