"""Centring and scaling folded into the weights: the same answers, fewer operations."""

import keras
import numpy as np
import pytest
from helpers import to_numpy

from keras_sae import layers, models
from keras_sae.models._folding import folded

FOLDED = {
    "centred": (lambda: models.shallow((3, 4), 10, "l1"), set()),
    "scaled": (lambda: models.shallow((3, 4), 10, "gated", scaling=True), set()),
    "top_k": (
        lambda: models.shallow((3, 4), 10, layers.TopK(3), scaling=True),
        set(),
    ),
    "tied": (
        lambda: models.shallow((3, 4), 10, layers.TopK(3), scaling=True, tied=True),
        {"center", "scale", "unscale"},
    ),
    "deep": (lambda: models.deep((3, 4), (8, 5), "l1", centering=True), set()),
    "deep scaled": (lambda: models.deep((3, 4), (8, 5), "l1", scaling=True), set()),
    "no bias": (lambda: models.shallow((3, 4), 10, "l1", use_bias=False), {"center"}),
    "softplus output": (
        lambda: models.shallow(
            (3, 4), 10, "gated", scaling=True, output_activation="softplus"
        ),
        {"unscale"},
    ),
    "nothing": (lambda: models.shallow((3, 4), 10, "l1", centering=False), set()),
    "variational": (
        lambda: models.variational((3, 4), (8,), 2, centering=True, scaling=True),
        set(),
    ),
    "variational-l1": (
        lambda: models.variational(
            (3, 4), (8,), 2, sparsity="l1", centering=True, scaling=True
        ),
        {"center", "scale"},
    ),
    "convolutional": (
        lambda: models.convolutional(
            (8, 8, 1), (4, 5), "l1", centering=True, scaling=True
        ),
        {"center", "scale", "unscale"},
    ),
}


@pytest.mark.parametrize("name", FOLDED)
def test_a_folded_model_answers_the_same(name, rng):
    make, kept = FOLDED[name]
    model = make()
    x = rng.normal(3.0, 5.0, size=(50, *model.sample_shape)).astype("float32")
    model.adapt(x)
    before = model.encode(x), to_numpy(model(x))
    tied = [x for x in model.decoder.layers if isinstance(x, layers.TiedDense)]
    model = folded(model)
    np.testing.assert_allclose(model.encode(x), before[0], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(to_numpy(model(x)), before[1], rtol=1e-3, atol=1e-3)
    both = [*model.encoder.layers, *model.decoder.layers]
    kinds = (layers.Centering, layers.Scaling)
    assert {x.name for x in both if isinstance(x, kinds)} == kept
    if tied:
        assert tied[0].kernel is model.encoder.get_layer("code").kernel


def test_a_branching_encoder_is_left_alone(rng):
    inputs = keras.Input((4,))
    centred = layers.Centering()(inputs)
    outputs = keras.layers.Dense(3)(centred) + keras.layers.Dense(3)(inputs)
    encoder = keras.Model(inputs, outputs)
    decoder = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4)])
    model = models.Autoencoder(encoder, decoder)
    assert folded(model) is model


def test_adapt_of_a_decoder_without_a_kernel(rng):
    """There is no bias to set; the centre is learned all the same."""
    x = rng.normal(3, 1, size=(9, 2, 3)).astype("float32")
    chain = [keras.Input((2, 3)), keras.layers.Flatten(), layers.Centering()]
    encoder = keras.Sequential([*chain, layers.SparseDense(6)])
    decoder = keras.Sequential([keras.Input((6,)), keras.layers.Reshape((2, 3))])
    model = models.Autoencoder(encoder, decoder)
    model.adapt(x)
    mean = to_numpy(encoder.layers[1].mean)
    np.testing.assert_allclose(mean, x.reshape(9, 6).mean(axis=0), rtol=1e-5)
