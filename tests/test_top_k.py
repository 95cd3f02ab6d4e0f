"""Tests of `TopK`, `BatchTopK` and `LifetimeSparsity` against NumPy."""

import keras
import numpy as np
import pytest
from helpers import gradient, to_numpy, top_k
from keras import ops

from keras_sae import callbacks, datasets, layers, metrics, models


@pytest.fixture
def a(rng) -> np.ndarray:
    return rng.uniform(0.1, 1.0, size=(40, 30)).astype("float32")


def batch_top_k(a: np.ndarray, n: int) -> np.ndarray:
    """Return `a` with all but its `n` largest values set to 0."""
    return top_k(a.reshape(1, -1), n).reshape(a.shape)


# TopK.


@pytest.mark.parametrize("k", [1, 3, 30])
def test_top_k_keeps_the_largest_values_per_sample(a, k):
    np.testing.assert_array_equal(to_numpy(layers.TopK(k)(a)), top_k(a, k))


def test_top_k_passes_the_gradient_of_the_kept_values(a):
    layer = layers.TopK(3)
    slope = gradient(lambda x: ops.sum(ops.square(layer(x))), a)
    np.testing.assert_allclose(slope, 2 * top_k(a, 3), rtol=1e-6)


def test_top_k_selects_along_the_last_axis(a):
    code = layers.TopK(2)(a.reshape(4, 10, 30))
    np.testing.assert_array_equal(to_numpy(code).reshape(40, 30), top_k(a, 2))


def test_warmup_anneals_k(rng):
    model = models.shallow((12,), 20, layers.TopK(2, initial_k=11))
    model.compile("sgd")
    x = rng.normal(size=(64, 12)).astype("float32")
    warmup = callbacks.SparsityWarmup(epochs=2)
    l0 = model.fit(x, epochs=4, verbose=0, callbacks=[warmup]).history["l0"]
    # k goes from 11 to 2 in steps of a third. About half of the 20 units are positive.
    assert l0[0] <= 8
    assert l0[1:] == pytest.approx([5, 2, 2], abs=0.2)


# BatchTopK.


@pytest.mark.parametrize("k", [1, 4, 29])
def test_batch_top_k_keeps_the_largest_values_of_the_batch(a, k):
    code = layers.BatchTopK(k)(a, training=True)
    np.testing.assert_array_equal(to_numpy(code), batch_top_k(a, k * len(a)))


def test_one_sample_may_take_most_of_the_batch(a):
    a[7] += 10
    code = to_numpy(layers.BatchTopK(1)(a, training=True))
    np.testing.assert_array_equal(code, batch_top_k(a, 40))
    assert (code[7] > 0).sum() == 30


def test_batch_top_k_keeps_only_positive_values():
    a = np.array([[1.0, 0, 0, 0], [2.0, 0, 0, 0]], "float32")
    code = to_numpy(layers.BatchTopK(3)(a, training=True))
    np.testing.assert_array_equal(code, a)


def test_threshold_is_a_running_mean_of_the_smallest_active_value(rng):
    layer, threshold = layers.BatchTopK(3, momentum=0.5), 0.0
    for t in range(20):
        a = rng.uniform(0.1, 1.0, size=(40, 30)).astype("float32")
        layer(a, training=True)
        mu = min(0.5, t / (t + 9))
        smallest = np.sort(a.ravel())[-3 * 40]
        threshold = mu * threshold + (1 - mu) * smallest
    assert float(layer.threshold) == pytest.approx(threshold, rel=1e-5)
    code = to_numpy(layer(a, training=False))
    np.testing.assert_array_equal(code, np.where(a > np.float32(threshold), a, 0))


def test_threshold_is_unchanged_when_no_unit_is_active(a):
    layer = layers.BatchTopK(3)
    layer(a, training=True)
    before = float(layer.threshold)
    layer(np.zeros_like(a), training=True)
    assert float(layer.threshold) == before > 0


def test_inference_does_not_depend_on_the_other_samples(a):
    layer = layers.BatchTopK(3)
    layer(a, training=True)
    together = to_numpy(layer(a, training=False))
    alone = [to_numpy(layer(row[None], training=False))[0] for row in a]
    np.testing.assert_array_equal(together, alone)


# LifetimeSparsity.


def test_lifetime_keeps_the_strongest_samples_per_unit_in_training_only(a):
    layer = layers.LifetimeSparsity(0.05)
    code = to_numpy(layer(a, training=True))
    np.testing.assert_array_equal(code, top_k(a.T, 2).T)  # ceil(0.05 * 40)
    np.testing.assert_array_equal(to_numpy(layer(a)), a)


def test_lifetime_keeps_at_least_one_sample(rng):
    a = rng.random((8, 4)).astype("float32")
    code = to_numpy(layers.LifetimeSparsity(1e-6)(a, training=True))
    np.testing.assert_array_equal(code, np.where(a == a.max(axis=0), a, 0))


def test_lifetime_number_of_samples_has_no_rounding_error(rng):
    """0.3 of 50 is 15, but the product is a little more in float32."""
    code = rng.uniform(1, 2, size=(50, 6)).astype("float32")
    kept = to_numpy(layers.LifetimeSparsity(0.3)(code, training=True))
    assert (np.count_nonzero(kept, axis=0) == 15).all()


# Arguments.


@pytest.mark.parametrize("bad", [0, -1, 2.5, True, "8"])
@pytest.mark.parametrize("cls", [layers.TopK, layers.BatchTopK])
def test_k_must_be_a_positive_integer(cls, bad):
    with pytest.raises(ValueError, match=r"`k` must be a positive integer.*Received"):
        cls(bad)


@pytest.mark.parametrize("cls", [layers.TopK, layers.BatchTopK])
def test_k_must_not_exceed_the_units(cls):
    with pytest.raises(ValueError, match="k=33, units=32"):
        models.shallow((12,), 32, cls(33))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: layers.TopK(4, initial_k=4), "initial_k=4, k=4"),
        (lambda: layers.TopK(4, auxiliary="yes"), "auxiliary='yes'"),
        (lambda: layers.BatchTopK(4, momentum=1), "momentum=1"),
        (lambda: layers.LifetimeSparsity(0), "fraction=0"),
    ],
)
def test_arguments_out_of_range_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_lifetime_sparsity_refuses_a_batch_of_one_sample():
    model = models.shallow((12,), 32, layers.LifetimeSparsity(0.5))
    model.compile("sgd")
    with pytest.raises(ValueError, match="batch_size=1"):
        model.fit(np.zeros((4, 12), "float32"), batch_size=1)


# Training on data.


@pytest.mark.parametrize(
    ("epochs", "ratio"), [(8, 1.0), pytest.param(40, 0.8, marks=pytest.mark.slow)]
)
def test_top_k_reconstructs_digits_better_than_pca(epochs, ratio):
    from sklearn.decomposition import PCA

    (x, _), (x_test, _) = datasets.load_data("digits")
    flat, flat_test = x.reshape(len(x), -1), x_test.reshape(len(x_test), -1)
    pca = PCA(8, svd_solver="full").fit(flat)
    reconstruction = pca.inverse_transform(pca.transform(flat_test))
    model = models.shallow((8, 8, 1), 256, layers.TopK(8))
    model.compile(keras.optimizers.Adam(3e-3))
    model.fit(x, epochs=epochs, batch_size=64, verbose=0)
    error = ((model.predict(x_test, verbose=0) - x_test) ** 2).mean()
    assert error < ratio * ((reconstruction - flat_test) ** 2).mean()
    assert metrics.l0(model.encode(x_test)) <= 8
