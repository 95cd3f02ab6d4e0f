"""Tests of `models.transcoder`, and of splicing one between two layers."""

import keras
import numpy as np
import pytest
from activation_models import CASES, functional, plain, sequential
from contracts import each
from helpers import to_numpy

from keras_sae import activations, layers, models

MODELS = {
    "l1": lambda **kw: models.transcoder((6,), (4,), 12, "l1", **kw),
    "top-k": lambda **kw: models.transcoder((6,), (4,), 12, layers.TopK(3), **kw),
    "skip": lambda **kw: models.transcoder((6,), (4,), 12, layers.TopK(3), skip=True),
    "gated-skip": lambda **kw: models.transcoder((6,), (4,), 12, "gated", skip=True),
    "jump-relu": lambda **kw: models.transcoder((6,), (4,), 12, "jump_relu", **kw),
    "images": lambda **kw: models.transcoder((2, 3), (4, 1), 12, "l1", skip=True),
}


def data(model, samples: int = 64) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(samples, 6)).astype("float32")
    y = np.abs(x[:, :4]) + x[:, 2:]
    shape = model.decoder.output_shape[1:]
    return x.reshape(-1, *model.sample_shape), y.reshape(-1, *shape)


@each(MODELS)
def test_targets_are_learned(case):
    model = case()
    x, y = data(model)
    model.adapt(x, y=y)
    model.compile(keras.optimizers.Adam(0.02))
    history = model.fit(x, y, epochs=8, verbose=0).history
    assert history["reconstruction_loss"][-1] < 0.9 * history["reconstruction_loss"][0]
    found = model.predict(x, verbose=0)
    assert found.shape == y.shape
    logs = model.evaluate(x, y, verbose=0, return_dict=True)
    assert logs["reconstruction_loss"] == pytest.approx(
        np.mean((found - y) ** 2), rel=1e-4
    )


@each(MODELS)
def test_model_is_saved_and_loaded(case, tmp_path):
    model = case()
    x, _ = data(model)
    if model.has_skip:
        kernel = np.random.default_rng(0).normal(size=model.skip.kernel.shape)
        model.skip.kernel.assign(kernel)
    model.save(tmp_path / "a.keras")
    loaded = keras.saving.load_model(tmp_path / "a.keras")
    np.testing.assert_allclose(plain(loaded(x)), plain(model(x)), rtol=1e-6)


def test_parts_may_be_plain_keras_models():
    encoder = keras.Sequential([keras.Input((6,)), keras.layers.Dense(12, "relu")])
    decoder = keras.Sequential([keras.Input((12,)), keras.layers.Dense(4)])
    model = models.Transcoder(encoder, decoder)
    x, y = data(model)
    model.compile("adam")
    loss = model.evaluate(x, y, verbose=0, return_dict=True)["loss"]
    assert model.fit(x, y, epochs=2, verbose=0).history["loss"][-1] < loss


def test_output_is_the_decoded_code_and_the_skip():
    model = MODELS["skip"]()
    x, _ = data(model)
    kernel = np.random.default_rng(0).normal(size=(6, 4))
    model.skip.kernel.assign(kernel)
    expected = model.decode(model.encode(x)) + x @ kernel
    np.testing.assert_allclose(plain(model(x)), expected, rtol=1e-4, atol=1e-5)


def test_auxiliary_losses_see_the_rest_beside_the_skip():
    """The residual that dead units learn is that of the whole output."""

    def auxiliary(skip: bool, y: np.ndarray, kernel: np.ndarray) -> float:
        keras.utils.set_random_seed(3)
        auxk = layers.AuxK(k_aux=4, factor=1.0, dead_after=1)
        sparsity = layers.TopK(2, auxiliary=auxk)
        model = models.transcoder((6,), (4,), 12, sparsity, skip=skip)
        model.encoder.get_layer("code").steps_since_active.assign(np.full(12, 99))
        if skip:
            model.skip.kernel.assign(kernel)
        model.compile("adam")
        return model.evaluate(x, y, verbose=0, return_dict=True)["auxiliary_loss"]

    x, y = data(MODELS["l1"]())
    kernel = np.random.default_rng(0).normal(size=(6, 4)).astype("float32")
    expected = auxiliary(False, y - x @ kernel, kernel)
    assert auxiliary(True, y, kernel) == pytest.approx(expected, rel=1e-4)
    assert expected > 0


def test_adapt_sets_the_centers():
    model = MODELS["top-k"]()
    x, y = data(model)
    model.adapt(x, y=y)
    center, bias = model.encoder.get_layer("center"), model.decoder.get_layer("output")
    np.testing.assert_allclose(to_numpy(center.mean), x.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(to_numpy(bias.bias), y.mean(axis=0), atol=1e-6)


# Between two layers.


def test_splice_replaces_what_lies_between():
    model, x = sequential(), CASES["sequential"].inputs()
    transcoder = models.transcoder((6,), (3,), 12, layers.TopK(3), skip=True)
    transcoder.skip.kernel.assign(np.random.default_rng(0).normal(size=(6, 3)))
    spliced = activations.splice(model, ("hidden", "head"), transcoder)
    hidden = activations.capture(model, "hidden", x)
    np.testing.assert_allclose(
        spliced.predict_on_batch(x), plain(transcoder(hidden)), rtol=1e-4, atol=1e-5
    )
    same = activations.splice(model, ("hidden", "head"), transcoder, error=True)
    np.testing.assert_array_equal(plain(same(x)), plain(model(x)))


def test_splice_of_a_transcoder_is_saved(tmp_path):
    model, x = sequential(), CASES["sequential"].inputs()
    transcoder = models.transcoder((6,), (3,), 12, "l1")
    edit = activations.ablate([2])
    spliced = activations.splice(model, ("hidden", "head"), transcoder, edit)
    spliced.save(tmp_path / "a.keras")
    loaded = keras.saving.load_model(tmp_path / "a.keras")
    np.testing.assert_allclose(plain(loaded(x)), plain(spliced(x)), rtol=1e-5)


def test_transcoder_is_trained_on_a_store(tmp_path):
    model, x = sequential(), CASES["sequential"].inputs(200)
    store = activations.record(model, ("hidden", "head"), x, tmp_path)
    transcoder = models.transcoder((6,), (3,), 12, layers.TopK(3))
    transcoder.adapt(store.dataset(50))
    transcoder.compile(keras.optimizers.Adam(0.02))
    history = transcoder.fit(store.dataset(50), epochs=5, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]


# Errors.


def test_missing_targets_are_an_error():
    model = MODELS["l1"]()
    model.compile("adam")
    x, _ = data(model)
    for y in (None, np.zeros((64, 6), "float32")):
        with pytest.raises(ValueError, match="needs targets with the shape"):
            model.fit(x, y, verbose=0)


def test_wrong_targets_are_named():
    model = MODELS["l1"]()
    x, y = data(model)
    with pytest.raises(ValueError, match=r"`y` must have shape.*\(64, 6\)"):
        model.adapt(x, y=x)
    y[0, 0] = np.inf
    model.compile("adam")
    with pytest.raises(ValueError, match="`y` must be finite"):
        model.fit(x, y, verbose=0)
    with pytest.raises(ValueError, match="`output_shape` must contain"):
        models.transcoder((6,), (0,), 12)


def test_auxiliary_losses_without_targets_are_an_error():
    model = MODELS["gated-skip"]()
    x = data(model)[0]
    with pytest.raises(ValueError, match="auxiliary losses of a transcoder need"):
        model(x, training=True)
    assert model(x).shape == (64, 4)
    assert MODELS["l1"]()(x, training=True).shape == (64, 4)


def test_wrong_pairs_are_errors():
    transcoder = models.transcoder((6,), (3,), 12, "l1")
    model = sequential()
    with pytest.raises(ValueError, match="a pair of layers for a transcoder"):
        activations.splice(model, "hidden", transcoder)
    with pytest.raises(ValueError, match="one layer for an autoencoder"):
        activations.splice(model, ("hidden", "head"), models.shallow((6,), 4))
    with pytest.raises(ValueError, match="layer's width"):
        activations.splice(model, ("head", "hidden"), transcoder)
    with pytest.raises(ValueError, match="differ only in width"):
        activations.splice(
            functional(), ("conv", "head"), models.transcoder((4,), (3,), 5)
        )
    backwards = activations.SplicedModel(
        model, models.transcoder((3,), (6,), 5), [1, 0]
    )
    with pytest.raises(ValueError, match="must be called after the first"):
        backwards(CASES["sequential"].inputs())
