"""Tests of the callback `SparsityWarmup`."""

import warnings

import keras
import numpy as np
import pytest
from helpers import to_numpy

from keras_sae import callbacks, layers, metrics, models, regularizers

X = np.random.default_rng(0).random((64, 12), dtype="float32")


def fit(sparsity, epochs, warmup):
    """Train with a learning rate of 0, and return the model and its history."""
    model = models.shallow((12,), 8, sparsity, centering=False)
    model.compile(keras.optimizers.SGD(0.0))
    warmup = callbacks.SparsityWarmup(warmup)
    return model, model.fit(X, epochs=epochs, verbose=0, callbacks=[warmup]).history


def penalty(model) -> float:
    """Return the L1 penalty of a model with the default factor, without a callback."""
    return 1e-4 * np.abs(model.encode(X)).sum(axis=1).mean()


def test_coefficient_rises_linearly_and_multiplies_the_penalty():
    model, logs = fit("l1", epochs=5, warmup=3)
    expected = [0.25, 0.5, 0.75, 1.0, 1.0]
    np.testing.assert_allclose(logs["sparsity_scale"], expected)
    # The code does not change, so the penalty follows the coefficient.
    np.testing.assert_allclose(
        logs["sparsity_loss"], penalty(model) * np.array(expected), rtol=1e-4
    )
    assert to_numpy(model.sparse_layers[0].sparsity.coefficient) == 1.0


def test_validation_has_the_full_penalty():
    model = models.shallow((12,), 8, "l1", centering=False)
    model.compile(keras.optimizers.SGD(0.0))
    logs = model.fit(
        X,
        epochs=3,
        verbose=0,
        validation_data=(X,),
        callbacks=[callbacks.SparsityWarmup(2)],
    ).history
    np.testing.assert_allclose(logs["sparsity_scale"], [1 / 3, 2 / 3, 1])
    np.testing.assert_allclose(logs["val_sparsity_loss"], penalty(model), rtol=1e-4)
    np.testing.assert_allclose(logs["val_loss"], logs["val_loss"][0], rtol=1e-5)
    assert logs["loss"][0] < logs["loss"][1] < logs["loss"][2]


def test_validation_has_the_final_k():
    model = models.shallow((12,), 8, layers.TopK(2, initial_k=8, auxiliary=None))
    model.compile(keras.optimizers.SGD(0.0))
    warmup = callbacks.SparsityWarmup(1)
    logs = model.fit(
        X, epochs=2, verbose=0, validation_data=(X,), callbacks=[warmup]
    ).history
    assert logs["val_l0"][0] <= 2
    np.testing.assert_allclose(logs["val_l0"], metrics.l0(model.encode(X)))
    assert logs["l0"][0] > 2


def test_early_stopping_on_val_loss_passes_the_warmup():
    """With a rising penalty, the validation loss would rise in every epoch."""
    keras.utils.set_random_seed(0)
    model = models.shallow((12,), 8, regularizers.L1(0.3))
    model.compile(keras.optimizers.Adam(3e-3))
    stop = keras.callbacks.EarlyStopping("val_loss", patience=1)
    steer = [callbacks.SparsityWarmup(6), stop]
    logs = model.fit(
        X, epochs=8, verbose=0, validation_data=(X,), callbacks=steer
    ).history
    assert len(logs["loss"]) == 8


def test_a_fit_that_ends_in_the_warmup_is_warned_of():
    with warnings.catch_warnings(record=True) as caught:  # also those of backends
        warnings.simplefilter("always")
        model, _ = fit("l1", epochs=3, warmup=10)
    [message] = [str(w.message) for w in caught if "warm-up" in str(w.message)]
    assert "coefficient of the last epoch was only 0.27" in message
    assert "Received: SparsityWarmup(epochs=10), and 3 epochs" in message
    # The model itself has the full penalty, also when it is saved.
    loss = model.evaluate(X, verbose=0, return_dict=True)["sparsity_loss"]
    assert loss == pytest.approx(penalty(model), rel=1e-4)


@pytest.mark.filterwarnings("ignore:Training ended during the warm-up")
def test_epochs_are_counted_over_fits_of_one_model():
    warmup = callbacks.SparsityWarmup(3)
    for _ in range(2):  # the second model starts again
        model, scales = models.shallow((12,), 8, "l1"), []
        model.compile("sgd")
        for _ in range(5):
            logs = model.fit(X, verbose=0, callbacks=[warmup]).history
            scales += logs["sparsity_scale"]
        np.testing.assert_allclose(scales, [0.25, 0.5, 0.75, 1, 1])


def test_a_resumed_fit_continues_the_warmup():
    model = models.shallow((12,), 8, "l1")
    model.compile("sgd")
    warmup = callbacks.SparsityWarmup(3)
    logs = model.fit(X, epochs=4, initial_epoch=2, verbose=0, callbacks=[warmup])
    np.testing.assert_allclose(logs.history["sparsity_scale"], [0.75, 1])


@pytest.mark.parametrize(
    "sparsity", [None, layers.TopK(3), layers.Matryoshka(layers.TopK(3))]
)
def test_models_without_a_penalty_are_refused(sparsity):
    with pytest.raises(ValueError, match="needs a model with a sparsity penalty"):
        fit(sparsity, epochs=1, warmup=1)


@pytest.mark.parametrize("epochs", [0, -1, 1.5, True])
def test_epochs_must_be_a_positive_integer(epochs):
    with pytest.raises(ValueError, match="`epochs` must be a positive integer"):
        callbacks.SparsityWarmup(epochs)
