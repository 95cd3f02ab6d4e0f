"""Centre and scale of the data, set by `adapt`."""

from functools import partial

import keras
import numpy as np
import pytest
from helpers import (
    assert_same_weights,
    tensorflow_only,
    to_numpy,
    uniform_data,
    weights_of,
)

from keras_sae import layers, models

D, IMAGE = 6, (5, 7, 2)


SCALED = {
    "deep": partial(models.deep, (D,), (5, 4)),
    "variational": partial(models.variational, (D,), 5, 2, centering=True),
    "convolutional": partial(models.convolutional, IMAGE, (4, 3), centering=True),
}


@pytest.mark.parametrize("make", SCALED.values(), ids=SCALED)
def test_scaling_equals_training_on_scaled_data(make):
    x = 50 * uniform_data(make())
    # Centred by the mean of each value, or of each channel of an image.
    axes = tuple(range(x.ndim - 1))
    rms = np.sqrt(((x - x.mean(axis=axes)) ** 2).mean())

    def reconstruct(data, **kwargs):
        keras.utils.set_random_seed(0)
        model = make(**kwargs)
        model.adapt(data)
        return model.predict(data, verbose=0)

    by_hand = reconstruct(x / rms) * rms
    np.testing.assert_allclose(
        reconstruct(x, scaling=True), by_hand, rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("make", SCALED.values(), ids=SCALED)
def test_training_continues_the_mean_of_adapt(make):
    model = make()
    x = 3 + uniform_data(model, 2000)
    model.adapt(x)
    model.compile("sgd", jit_compile=False)
    model.train_on_batch(x[:20] + 1)
    # A hundredth of the samples, one further up.
    expected = x.mean(axis=tuple(range(x.ndim - 1))) + 1 / 101
    center = to_numpy(model.encoder.get_layer("center").mean)
    np.testing.assert_allclose(center, expected, atol=0.01)


@pytest.mark.parametrize("make", SCALED.values(), ids=SCALED)
def test_scaling_is_refused_for_bounded_outputs(make):
    with pytest.raises(ValueError, match=r"`scaling`.*'tanh' with values.*'linear'"):
        make(scaling=True, output_activation="tanh")


def test_output_bias_is_unchanged_in_front_of_another_activation():
    code = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(3)])
    code.build((None, 4, 4, 1))
    up = [keras.layers.Dense(16), keras.layers.Reshape((4, 4, 1))]
    last = [keras.layers.Conv2D(1, 3, padding="same"), keras.layers.ReLU()]
    decoder = keras.Sequential([keras.Input((3,)), *up, *last])
    model = models.Autoencoder(code, decoder)
    model.adapt(uniform_data(model))
    np.testing.assert_array_equal(to_numpy(last[0].bias), 0)


def test_adapt_sets_the_mean_if_the_decoder_has_no_bias(rng):
    x = rng.normal(3, 1, size=(9, 2, 3)).astype("float32")
    chain = [keras.Input((2, 3)), keras.layers.Flatten(), layers.Centering()]
    encoder = keras.Sequential([*chain, layers.SparseDense(6)])
    decoder = keras.Sequential([keras.Input((6,)), keras.layers.Reshape((2, 3))])
    model = models.Autoencoder(encoder, decoder)
    model.adapt(x)
    mean = to_numpy(encoder.layers[1].mean)
    np.testing.assert_allclose(mean, x.reshape(9, 6).mean(axis=0), rtol=1e-5)


@pytest.mark.parametrize("location", ["mean", "geometric_median"])
def test_fit_continues_a_mean_and_keeps_a_median(rng, location):
    """The mean of more data is their mean; of a median nothing can go on."""
    x = rng.normal(size=(64, 3)).astype("float32") ** 2
    model = models.shallow((3,), 4)
    model.compile(keras.optimizers.SGD(0.0), jit_compile=False)
    model.adapt(x, location)
    before = to_numpy(model.encoder.get_layer("center").mean)
    model.fit(x + 1, epochs=1, batch_size=16, verbose=0)
    after = to_numpy(model.encoder.get_layer("center").mean)
    expected = x.mean(axis=0) + 0.5 if location == "mean" else before
    np.testing.assert_allclose(after, expected, rtol=1e-5)
    again = keras.models.clone_model(model)
    again.set_weights(model.get_weights())
    np.testing.assert_allclose(again.encode(x), model.encode(x), rtol=1e-5)


@tensorflow_only
def test_adapt_accepts_finite_datasets_with_labels(rng):
    import tensorflow as tf

    x = rng.uniform(size=(20, D)).astype("float32")
    model, other = (models.shallow((D,), 4, scaling=True) for _ in range(2))
    data = tf.data.Dataset.from_tensor_slices((x, np.arange(20))).batch(8)
    model.adapt(data)
    other.adapt(x)
    for name in ("center", "scale"):
        for weight, expected in zip(
            model.encoder.get_layer(name).weights,
            other.encoder.get_layer(name).weights,
            strict=True,
        ):
            np.testing.assert_allclose(to_numpy(weight), to_numpy(expected), rtol=1e-6)
    with pytest.raises(ValueError, match="never ends"):
        model.adapt(data.repeat())


def test_adapt_refuses_constant_data(rng):
    x = rng.uniform(size=(20, D)).astype("float32")
    model = models.shallow((D,), 4, scaling=True)
    before = weights_of(model)
    with pytest.raises(ValueError, match="must vary"):
        model.adapt(np.ones_like(x))
    assert_same_weights(before, weights_of(model))
