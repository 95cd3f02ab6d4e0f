"""Tests of `activations.steer`."""

import keras
import numpy as np
import pytest
from activation_models import CASES, HUB, plain, sequential

from keras_sae import activations, layers, models


@pytest.mark.parametrize("error", [True, False])
def test_steered_model_equals_the_splice(error):
    model, x = sequential(), CASES["sequential"].inputs()
    autoencoder = models.shallow((6,), 9, layers.TopK(3))
    edit = activations.clamp({2: 5.0})
    before = model.predict_on_batch(x)
    with activations.steer(model, "hidden", autoencoder, edit, error):
        found = model.predict_on_batch(x)
    spliced = activations.splice(model, "hidden", autoencoder, edit, error)
    np.testing.assert_allclose(found, spliced.predict_on_batch(x), rtol=1e-5)
    assert not np.allclose(found, before)
    np.testing.assert_array_equal(model.predict_on_batch(x), before)


def test_layer_that_is_not_called_is_a_warning():
    autoencoder = models.shallow((6,), 9, "l1")
    edit = activations.ablate([1])
    with (
        pytest.warns(UserWarning, match="Nothing was steered.*'hidden'"),
        activations.steer(sequential(), "hidden", autoencoder, edit),
    ):
        pass


def test_bad_arguments_are_errors():
    for width, edit in ((7, activations.ablate([1])), (6, activations.ablate([9]))):
        autoencoder = models.shallow((width,), 9, "l1")
        with (
            pytest.raises(ValueError, match=r"layer's width|unit 9"),
            activations.steer(sequential(), "hidden", autoencoder, edit),
        ):
            pass


@pytest.mark.slow
def test_generate_of_keras_hub_is_steered():
    keras.utils.set_random_seed(0)
    model = HUB.make()
    model.compile(sampler="greedy")
    autoencoder = models.shallow((8,), 20, layers.TopK(4))
    prompt, length = np.array([[3, 5, 2], [9, 1, 4]], "int32"), 9

    def generate():
        tokens = np.pad(prompt, ((0, 0), (0, length - 3)))
        inputs = {"token_ids": tokens, "padding_mask": (tokens != 0).astype("int32")}
        outputs = model.generate(inputs, stop_token_ids=None)
        return plain(outputs["token_ids"])

    def greedy(lm):
        """Return the likeliest tokens by whole forward passes without a cache."""
        tokens = prompt
        while tokens.shape[1] < length:
            inputs = {"token_ids": tokens, "padding_mask": np.ones_like(tokens)}
            logits = plain(lm(inputs))
            tokens = np.append(tokens, logits[:, -1:].argmax(axis=-1), axis=1)
        return tokens

    before, function = generate(), model.generate_function
    np.testing.assert_array_equal(before, greedy(model))
    found = []
    for unit in (2, 7):
        edit = activations.clamp({unit: 50.0})
        with activations.steer(model, HUB.layer, autoencoder, edit):
            found.append(generate())
        spliced = activations.splice(model, HUB.layer, autoencoder, edit, error=True)
        np.testing.assert_array_equal(found[-1], greedy(spliced))
    assert not np.array_equal(*found)
    assert model.generate_function is function
    np.testing.assert_array_equal(generate(), before)


# Tensors of PyTorch lack the `copy` argument of NumPy 2.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.slow
def test_backbone_that_keras_hub_bypasses_is_a_warning():
    model = HUB.make()
    model.compile(sampler="greedy")
    autoencoder = models.shallow((8,), 20, layers.TopK(4))
    edit = activations.clamp({2: 50.0})
    tokens = np.array([[5, 3, 0, 0]], "int32")
    inputs = {"token_ids": tokens, "padding_mask": (tokens != 0).astype("int32")}
    with (
        pytest.warns(UserWarning, match="not the backbone itself"),
        activations.steer(model, "backbone", autoencoder, edit),
    ):
        model.generate(inputs, stop_token_ids=None)
