"""Tests of `TiedDense` and of tying layers again after loading."""

import warnings

import keras
import numpy as np
import pytest
from helpers import sigmoid, to_numpy

from keras_sae import layers, models


@pytest.fixture
def x(rng):
    return rng.normal(size=(7, 12)).astype("float32")


@pytest.fixture
def source():
    layer = layers.SparseDense(5, name="source")
    layer.build((None, 12))
    return layer


@pytest.mark.parametrize(
    ("name", "activation"), [(None, lambda z: z), ("sigmoid", sigmoid)]
)
def test_tied_dense_multiplies_by_the_transposed_kernel(source, rng, name, activation):
    code = rng.normal(size=(3, 5)).astype("float32")
    layer = layers.TiedDense(source, name, bias_initializer="normal")
    outputs = to_numpy(layer(code))
    kernel, bias = to_numpy(source.kernel), to_numpy(layer.bias)
    np.testing.assert_allclose(
        outputs, activation(code @ kernel.T + bias), rtol=1e-5, atol=1e-6
    )


def test_tied_dense_follows_changes_of_the_kernel(source):
    layer = layers.TiedDense(source, use_bias=False)
    code = np.eye(5, dtype="float32")
    source.kernel.assign(2 * to_numpy(source.kernel))
    np.testing.assert_allclose(to_numpy(layer(code)), to_numpy(source.kernel).T)


def test_tied_dense_can_share_the_kernel_of_a_keras_dense():
    source = keras.layers.Dense(5)
    source.build((None, 12))
    layer = layers.TiedDense(source)
    layer(np.eye(5, dtype="float32"))
    assert layer.kernel is source.kernel


@pytest.mark.parametrize(
    "layer", [layers.SparseDense(5), keras.layers.Flatten()], ids=["unbuilt", "none"]
)
def test_layers_without_a_built_kernel_are_refused(layer):
    with pytest.raises(ValueError, match="`tied_to` must be a built layer"):
        layers.TiedDense(layer)


def test_transposed_kernels_are_refused():
    source = layers.SparseDense(4, transposed_kernel=True)
    source.build((None, 4))
    with pytest.raises(ValueError, match="Create it with transposed_kernel=False"):
        layers.TiedDense(source)


def test_inputs_must_have_the_width_of_the_code(source):
    with pytest.raises(ValueError, match=r"must have 5 features.*\(3, 4\)"):
        layers.TiedDense(source)(np.ones((3, 4), "float32"))


def test_a_name_requires_output_dim():
    with pytest.raises(ValueError, match=r"`output_dim`.*positive integer"):
        layers.TiedDense("code")


# Loading.


def test_tying_finds_layers_by_name(source):
    config = layers.TiedDense(source).get_config()
    with layers.tying([source]):
        layer = layers.TiedDense.from_config(config)
        layer.build((None, 5))
    assert layer.kernel is source.kernel


def test_tying_can_be_nested_and_ends_with_its_block(source):
    other = layers.SparseDense(5, name="other")
    other.build((None, 12))
    config = layers.TiedDense(other).get_config()
    with layers.tying([other]), layers.tying([source]):
        layer = layers.TiedDense.from_config(config)
        layer.build((None, 5))
    assert layer.kernel is other.kernel
    with pytest.warns(UserWarning, match="loaded without the layer 'other'"):
        layers.TiedDense.from_config(config).build((None, 5))


def test_loading_a_plain_keras_model_warns_and_keeps_the_values(x, tmp_path):
    inputs = keras.Input((12,))
    code = layers.SparseDense(5, name="code")
    hidden = code(inputs)
    model = keras.Model(inputs, layers.TiedDense(code, name="output")(hidden))
    model.save(tmp_path / "model.keras")
    # `pytest.warns` would raise the warnings of other packages again.
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loaded = keras.saving.load_model(tmp_path / "model.keras")
    messages = [str(warning.message) for warning in caught]
    assert any("loaded without the layer 'code'" in message for message in messages)
    np.testing.assert_allclose(to_numpy(loaded(x)), to_numpy(model(x)), rtol=1e-6)


def test_loading_an_autoencoder_ties_without_a_warning(tmp_path):
    models.shallow((12,), 5, tied=True).save(tmp_path / "model.keras")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*loaded without the layer")
        loaded = keras.saving.load_model(tmp_path / "model.keras")
    output = loaded.get_layer("decoder").get_layer("output")
    assert output.kernel is loaded.sparse_layers[0].kernel
