"""Tests of the callback `SparsityWarmup`."""

import keras
import numpy as np
import pytest
from helpers import to_numpy

from keras_sae import callbacks, layers, models

X = np.random.default_rng(0).random((64, 12), dtype="float32")


def fit(sparsity, epochs, warmup):
    """Train with a learning rate of 0, and return the model and its history."""
    model = models.shallow((12,), 8, sparsity, centering=False)
    model.compile(keras.optimizers.SGD(0.0))
    warmup = callbacks.SparsityWarmup(warmup)
    return model, model.fit(X, epochs=epochs, verbose=0, callbacks=[warmup]).history


def test_coefficient_rises_linearly_and_multiplies_the_penalty():
    model, logs = fit("l1", epochs=5, warmup=3)
    expected = [0.25, 0.5, 0.75, 1.0, 1.0]
    np.testing.assert_allclose(logs["sparsity_scale"], expected)
    # The code does not change, so the penalty follows the coefficient.
    full = 1e-4 * np.abs(model.encode(X)).sum(axis=1).mean()
    np.testing.assert_allclose(
        logs["sparsity_loss"], full * np.array(expected), rtol=1e-4
    )
    assert to_numpy(model.sparse_layers[0].sparsity.coefficient) == 1.0


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
