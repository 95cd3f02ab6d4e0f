"""Classifiers on the code of an autoencoder."""

import pickle

import keras
import numpy as np
import pytest
from helpers import assert_same_weights, to_numpy, weights_of

from keras_sae import layers, models
from keras_sae.regularizers import L1, KLDivergence

FEATURES, CLASSES = 6, 3
NOISE = layers.MaskingNoise(0.5)
LOSS = "sparse_categorical_crossentropy"
AUTOENCODERS = {
    "l1": lambda: models.deep((FEATURES,), (5, 4), [L1(0.1), "kl"]),
    "running-mean": lambda: models.shallow(
        (FEATURES,), 4, KLDivergence(0.1, momentum=0.5), corruption=NOISE
    ),
    "batch-top-k": lambda: models.shallow((FEATURES,), 4, layers.BatchTopK(2)),
    "jump-relu": lambda: models.shallow((FEATURES,), 4, layers.JumpReLU(0.1)),
    "gated": lambda: models.shallow((FEATURES,), 4, "gated"),
    "matryoshka": lambda: models.shallow(
        (FEATURES,), 4, layers.Matryoshka(layers.JumpReLU(0.1), (2, 4))
    ),
    "normalized": lambda: models.deep((FEATURES,), (5, 4), batch_normalization=True),
    "variational": lambda: models.variational((FEATURES,), 5, 3, sparsity="l1"),
    "convolutional": lambda: models.convolutional((2, 3, 1), (4, 3), ["l1", "l1"]),
}


@pytest.fixture
def x(rng):
    return rng.uniform(size=(8, FEATURES)).astype("float32")


@pytest.fixture
def y():
    return np.arange(8) % CLASSES


def compiled(model, optimizer="adam"):
    model.compile(optimizer, LOSS, metrics=["accuracy"], jit_compile=False)
    return model


def copies_of(model, folder):
    model.save(folder / "model.keras")
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    loaded = keras.saving.load_model(folder / "model.keras")
    return [loaded, clone, pickle.loads(pickle.dumps(model))]


# What it computes.


@pytest.mark.parametrize("family", AUTOENCODERS)
def test_loss_is_the_cross_entropy_of_the_code_at_inference(family, x, y, tmp_path):
    autoencoder = AUTOENCODERS[family]()
    x = x.reshape(8, *autoencoder.sample_shape)
    model = models.classifier(autoencoder, CLASSES)
    np.testing.assert_allclose(
        to_numpy(model.get_layer("encoder")(x)), autoencoder.encode(x), rtol=1e-6
    )
    for again in (model, *copies_of(model, tmp_path)):
        p = to_numpy(again(x, training=True))
        assert not again.losses
        np.testing.assert_allclose(p, to_numpy(model(x)), rtol=1e-5)
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-6)
    expected = -np.log(p[np.arange(8), y]).mean()
    compiled(model, keras.optimizers.SGD(0.0))
    for step in (model.test_on_batch, model.train_on_batch):
        model.reset_metrics()
        logs = step(x, y, return_dict=True)
        assert logs["loss"] == pytest.approx(expected, rel=1e-5)
        assert logs["accuracy"] == pytest.approx((p.argmax(axis=1) == y).mean())


def test_weight_decay_of_the_encoder_stays(x, y):
    decay = keras.regularizers.L2(0.1)
    autoencoder = models.shallow((FEATURES,), 4, kernel_regularizer=decay)
    model = compiled(models.classifier(autoencoder, CLASSES))
    p = to_numpy(model(x))[np.arange(8), y]
    expected = 0.1 * (to_numpy(autoencoder.sparse_layers[0].kernel) ** 2).sum()
    loss = model.evaluate(x, y, verbose=0, return_dict=True)["loss"]
    assert loss + np.log(p).mean() == pytest.approx(expected, rel=1e-4)


def test_it_is_a_functional_model_with_named_layers():
    model = models.classifier(AUTOENCODERS["l1"](), CLASSES, name="digits")
    assert isinstance(model, keras.Model)
    assert [layer.name for layer in model.layers] == ["x", "encoder", "probabilities"]
    assert model.name == "digits"
    assert model.output_shape == (None, CLASSES)


# Training.


def test_training_leaves_the_autoencoder_unchanged(x, y):
    autoencoder = AUTOENCODERS["l1"]()
    autoencoder.compile("adam", jit_compile=False)
    autoencoder.train_on_batch(x)
    before = weights_of(autoencoder)
    model = compiled(models.classifier(autoencoder, CLASSES))
    encoder = model.get_layer("encoder")
    assert_same_weights(weights_of(encoder), weights_of(autoencoder.encoder))
    model.fit(x, y, validation_data=(x, y), verbose=0)
    assert_same_weights(before, weights_of(autoencoder))
    moved = zip(weights_of(encoder), weights_of(autoencoder.encoder), strict=True)
    assert any(not np.array_equal(a, b) for a, b in moved)


@pytest.mark.parametrize("family", ["running-mean", "normalized", "batch-top-k"])
def test_fit_leaves_the_statistics_of_the_encoder_unchanged(family, x, y):
    model = compiled(models.classifier(AUTOENCODERS[family](), CLASSES))
    encoder = model.get_layer("encoder")
    before = [to_numpy(v) for v in encoder.non_trainable_variables]
    model.train_on_batch(x, y)
    for old, new in zip(before, encoder.non_trainable_variables, strict=True):
        np.testing.assert_array_equal(old, to_numpy(new))


def test_a_frozen_encoder_does_not_change(x, y, tmp_path):
    model = models.classifier(AUTOENCODERS["l1"](), CLASSES, trainable_encoder=False)
    compiled(model, keras.optimizers.Adam(0.1))
    encoder, probabilities = model.layers[1:]
    before, kernel = weights_of(encoder), to_numpy(probabilities.kernel)
    model.train_on_batch(x, y)
    assert_same_weights(before, weights_of(encoder))
    assert not np.array_equal(kernel, to_numpy(probabilities.kernel))
    for again in (model, *copies_of(model, tmp_path)):
        assert len(again.trainable_weights) == 2
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert len(loaded.optimizer.variables) == len(model.optimizer.variables)
    loaded.train_on_batch(x, y)


def test_a_frozen_encoder_can_be_fine_tuned_later(x, y, tmp_path):
    model = models.classifier(AUTOENCODERS["l1"](), CLASSES, trainable_encoder=False)
    model.get_layer("encoder").trainable = True
    before = weights_of(model.get_layer("encoder"))
    compiled(model).train_on_batch(x, y)
    assert any(
        not np.array_equal(a, b)
        for a, b in zip(before, weights_of(model.get_layer("encoder")), strict=True)
    )
    for again in copies_of(model, tmp_path):
        assert len(again.trainable_weights) == len(model.trainable_weights) == 6


def test_a_layer_frozen_in_the_autoencoder_stays_frozen():
    autoencoder = AUTOENCODERS["l1"]()
    autoencoder.encoder.get_layer("code").trainable = False
    model = models.classifier(autoencoder, CLASSES)
    assert len(model.trainable_weights) == 4


def test_it_learns_labels(rng):
    y = np.arange(96) % CLASSES
    x = rng.normal(size=(96, FEATURES)) / 4 + 2 * np.eye(FEATURES)[y]
    model = models.classifier(models.deep((FEATURES,), (8, 8)), CLASSES)
    compiled(model, keras.optimizers.Adam(0.02))
    model.fit(x, y, epochs=15, batch_size=16, verbose=0)
    assert (model.predict(x, verbose=0).argmax(axis=1) == y).mean() > 0.9


# Bad input.


@pytest.mark.parametrize("count", [0, 1, -2, 2.5, True, "3"])
def test_number_of_classes_must_be_at_least_two(count):
    with pytest.raises(ValueError, match=r"`num_classes`") as error:
        models.classifier(models.shallow((FEATURES,), 4), count)
    assert repr(count) in str(error.value)


def test_other_objects_than_autoencoders_are_refused():
    with pytest.raises(ValueError, match=r"`autoencoder`.*Received"):
        models.classifier("deep", 3)


def test_a_scaling_autoencoder_must_be_adapted_first():
    with pytest.raises(ValueError, match=r"`adapt\(\)`"):
        models.classifier(models.shallow((FEATURES,), 4, scaling=True), CLASSES)
