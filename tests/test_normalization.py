"""Tests of `Centering`, and of center and scale in a shallow model."""

import keras
import numpy as np
import pytest
from helpers import to_numpy

from keras_sae import datasets, layers, metrics, models


def test_centering_learns_the_mean_of_all_samples(rng):
    data = rng.normal(3.0, 2.0, size=(23, 4)).astype("float32")
    layer = layers.Centering()
    for start in range(0, 23, 5):  # The last batch has 3 samples.
        outputs = layer(data[start : start + 5], training=True)
    mean = data.astype("float64").mean(axis=0)
    np.testing.assert_allclose(to_numpy(layer.mean), mean, rtol=1e-5)
    np.testing.assert_allclose(to_numpy(outputs), data[20:] - mean, atol=1e-5)
    np.testing.assert_allclose(to_numpy(layer(data)), data - mean, atol=1e-5)


def test_centering_is_unchanged_at_inference(rng):
    x = rng.normal(size=(7, 12)).astype("float32")
    layer = layers.Centering()
    np.testing.assert_array_equal(to_numpy(layer(x)), x)
    np.testing.assert_array_equal(to_numpy(layer.mean), 0)


def test_centering_takes_the_mean_over_all_leading_axes(rng):
    data = rng.normal(3.0, 2.0, size=(6, 5, 4)).astype("float32")
    layer = layers.Centering()
    layer(data, training=True)
    expected = data.reshape(-1, 4).mean(axis=0)
    np.testing.assert_allclose(to_numpy(layer.mean), expected, rtol=1e-6)
    np.testing.assert_array_equal(to_numpy(layer.count), 30)


def test_centering_with_a_window_forgets_old_samples(rng):
    first, then = rng.normal(size=(2, 20, 3)).astype("float32")
    layer = layers.Centering(window=20)
    expected = 0.0
    for batch, share in ((first, 1.0), (then, 0.5), (then, 0.5)):
        layer(batch, training=True)
        expected += share * (batch.mean(axis=0) - expected)
    np.testing.assert_allclose(to_numpy(layer.mean), expected, rtol=1e-5)
    np.testing.assert_array_equal(to_numpy(layer.count), 20)


@pytest.mark.parametrize("window", [None, 50])
def test_an_infinite_count_keeps_the_mean_fixed(rng, window):
    layer = layers.Centering(window)
    layer.build((None, 3))
    layer.mean.assign([1.0, 2.0, 3.0])
    layer.count.assign([np.inf] * 3)
    for _ in range(2):
        layer(rng.normal(size=(40, 3)), training=True)
    assert to_numpy(layer.mean).tolist() == [1.0, 2.0, 3.0]


@pytest.mark.parametrize(
    ("factory", "units"), [(models.deep, (64, 32)), (models.convolutional, (8, 16, 32))]
)
def test_centering_in_front_of_the_code_keeps_units_alive(factory, units):
    (x, _), _ = datasets.load_data("digits")
    dead = []
    for centering in (True, False):
        keras.utils.set_random_seed(0)
        model = factory((8, 8, 1), units, centering=centering)
        model.compile(keras.optimizers.Adam(5e-3))
        model.fit(x, epochs=10, batch_size=64, verbose=0)
        dead.append(metrics.dead_fraction(to_numpy(model.encoder(x[:500]))))
    # With three seeds on three backends, no unit of the deep model dies, and in the
    # convolutional model at most a quarter as many as without centering.
    assert dead[0] < (0.05 if factory is models.deep else min(0.15, dead[1] / 3))
    assert dead[1] > 0.1


def test_adapt_gives_the_code_inputs_of_unit_size(rng):
    x = rng.normal(3.0, 0.02, size=(500, 12)).astype("float32")
    model = models.shallow((12,), 24, "jump_relu", scaling=True)
    model.adapt(x)
    code = model.encoder.get_layer("code")
    inputs = to_numpy(keras.Model(model.encoder.input, code.input)(x))
    np.testing.assert_allclose(inputs.mean(axis=0), 0, atol=1e-3)
    assert np.sqrt((inputs**2).mean()) == pytest.approx(1, rel=1e-3)
    # The reconstruction from an empty code is the mean, in the units of the data.
    empty = model.decode(np.zeros((1, 24), "float32"))
    np.testing.assert_allclose(empty[0], x.mean(axis=0), rtol=1e-5)


def test_scaling_a_model_equals_scaling_its_data(rng):
    x = rng.normal(size=(200, 12)).astype("float32") * 50
    rms = np.sqrt(((x - x.mean(axis=0)) ** 2).mean())

    def adapted(x, **kwargs):
        keras.utils.set_random_seed(0)
        model = models.shallow((12,), 24, layers.TopK(3), **kwargs)
        model.adapt(x)
        return model.predict(x, verbose=0), model.dictionary()

    for one, other in zip(adapted(x, scaling=True), adapted(x / rms), strict=True):
        np.testing.assert_allclose(one, other * rms, rtol=1e-3, atol=1e-2)


def test_adapt_finds_the_geometric_median(rng):
    from scipy.optimize import minimize

    x = np.concatenate([rng.normal(size=(60, 3)), rng.normal(size=(15, 3)) + 20])
    model = models.shallow((3,), 8, layers.TopK(2))
    model.adapt(x.astype("float32"), location="geometric_median")

    def sum_of_distances(point):
        return np.linalg.norm(x - point, axis=1).sum()

    best = minimize(sum_of_distances, x.mean(axis=0), tol=1e-10).x
    center = to_numpy(model.encoder.get_layer("center").mean)
    bias = to_numpy(model.decoder.get_layer("output").bias)
    np.testing.assert_allclose(center, best, atol=1e-3)
    np.testing.assert_allclose(bias, best, atol=1e-3)


def test_unknown_locations_are_refused():
    model = models.shallow((12,), 24, layers.TopK(2))
    with pytest.raises(ValueError, match="Did you mean 'mean'"):
        model.adapt(np.zeros((4, 12), "float32"), location="man")
