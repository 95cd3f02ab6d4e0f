"""Levels of models with a mirrored dense decoder."""

import keras
import numpy as np
import pytest
from helpers import to_numpy, uniform_data

from keras_sae import layers, models
from keras_sae.models.levels import chain_layers

D = 6


DENSE = {
    "deep": lambda: models.deep((D,), (5, 4, 3), "l1"),
    "tied": lambda: models.deep((2, 3, 1), (5, 4), "l1", tied=True),
    "normalized": lambda: models.deep((D,), (5, 4), "l1", batch_normalization=True),
    "noisy": lambda: models.deep((D,), (5, 4), corruption=layers.MaskingNoise(0.2)),
    "unit-norm": lambda: models.deep((D,), (5, 4), layers.TopK(2), unit_norm=True),
    "stacked": lambda: models.stacked((D,), (5, 4), "l1", scaling=True),
}


def apply(chain, x):
    for layer in chain:
        x = layer(x)
    return x


@pytest.mark.parametrize("make", DENSE.values(), ids=DENSE)
def test_levels_compose_to_the_model(make, tmp_path):
    model = make()
    model.save(tmp_path / "model.keras")
    copies = [keras.saving.load_model(tmp_path / "model.keras")]
    copies.append(keras.models.clone_model(model))
    for again in (model, *copies):
        code = x = uniform_data(again)
        widths = []
        for level in again.levels:
            code = apply(level.encode, code)
            widths.append(code.shape[-1])
        np.testing.assert_allclose(
            to_numpy(code), to_numpy(again.encoder(x)), rtol=1e-6
        )
        assert widths == [layer.units for layer in again.sparse_layers]
        for level in again.levels[::-1]:
            code = apply(level.decode, code)
        np.testing.assert_allclose(to_numpy(code), to_numpy(again(x)), rtol=1e-5)


def test_shallow_model_has_one_level():
    [level] = models.shallow((2, 3), 4, tied=True).levels
    [_] = models.shallow((2, 3), 4, layers.TopK(2)).levels  # a kernel stored by rows
    assert [layer.name for layer in level.encode] == ["flatten", "center", "code"]
    assert [layer.name for layer in level.decode] == ["output", "reshape"]


def test_plain_keras_models_have_levels():
    encoder = keras.Sequential(
        [keras.Input((D,)), keras.layers.Dense(5, "relu"), keras.layers.Dense(4)]
    )
    decoder = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(5, "relu"), keras.layers.Dense(D)]
    )
    assert len(models.Autoencoder(encoder, decoder).levels) == 2


def lopsided():
    encoder = models.deep((D,), (5, 4)).encoder
    return models.Autoencoder(encoder, models.shallow((D,), 4).decoder)


def doubled():
    """The decoder contains an operation that is not a layer."""
    code = keras.Input((4,))
    output = keras.layers.Dense(D)(keras.ops.multiply(code, 2.0))
    encoder = models.shallow((D,), 4).encoder
    return models.Autoencoder(encoder, keras.Model(code, output))


@pytest.mark.parametrize(
    "make",
    [
        lambda: models.convolutional((5, 7, 2), (4, 3)),
        lambda: models.variational((D,), (5, 4), 3),
        lopsided,
        doubled,
    ],
    ids=["convolutional", "variational", "lopsided", "doubled"],
)
def test_levels_are_refused_without_a_mirrored_dense_decoder(make):
    model = make()
    with pytest.raises(ValueError, match=r"`levels`.*mirror.*stacked") as error:
        _ = model.levels
    assert f"model={model.name!r}" in str(error.value)


def test_branches_are_not_a_chain():
    code = keras.Input((4,))
    parts = [keras.layers.Dense(D)(code) for _ in range(2)]
    assert chain_layers(keras.Model(code, keras.layers.Add()(parts))) is None
    chain = keras.Model(code, keras.layers.ReLU()(parts[0]))
    assert [type(layer).__name__ for layer in chain_layers(chain)] == ["Dense", "ReLU"]
