"""The figures against NumPy: functions of arrays, and streaming in float32."""

import keras
import numpy as np
import pytest

from keras_sae import metrics

SPLITS = [(23,), (5, 5, 5, 5, 3), (1, 22), (10, 13)]
splits = pytest.mark.parametrize("sizes", SPLITS, ids=str)


@pytest.fixture
def codes(rng):
    """Sparse codes, some units always off."""
    codes = rng.normal(size=(23, 6)) * (rng.uniform(size=(23, 6)) < 0.4)
    codes[:, [1, 4]] = 0
    return codes.astype("float32")


def parts(array, sizes):
    return np.split(array, np.cumsum(sizes)[:-1])


def streamed(metric, sizes, *arrays) -> float:
    for batch in zip(*(parts(array, sizes) for array in arrays), strict=True):
        metric.update_state(*batch)
    return float(metric.result())


def numpy_explained_variance(x, r) -> float:
    """1 - E|x - r|^2 / (E|x|^2 - |E x|^2), each value's own variance summed."""
    x, r = (np.asarray(a, "float64").reshape(len(a), -1) for a in (x, r))
    return 1 - ((x - r) ** 2).mean(axis=0).sum() / x.var(axis=0).sum()


# Functions.


@pytest.mark.parametrize("threshold", [0.0, 0.5])
def test_l0(codes, threshold):
    expected = np.mean([sum(abs(h) > threshold for h in row) for row in codes])
    assert metrics.l0(codes, threshold) == pytest.approx(expected, rel=1e-12)


def test_l0_counts_all_values_of_a_sample(codes):
    assert metrics.l0(codes.reshape(23, 2, 3)) == metrics.l0(codes)


def test_dead_fraction(codes):
    assert metrics.dead_fraction(codes) == pytest.approx(2 / 6)
    peaks = np.abs(codes).max(axis=0)
    threshold = float(np.sort(peaks)[3])  # two zeros, and two up to here
    assert metrics.dead_fraction(codes, threshold) == pytest.approx(4 / 6)


def test_hoyer(codes):
    values = []
    for row in codes.astype("float64"):
        if row.any():
            ratio = np.linalg.norm(row, 1) / np.linalg.norm(row, 2)
            values.append((6**0.5 - ratio) / (6**0.5 - 1))
    assert len(values) < 23  # a sample of zeros is left out
    assert metrics.hoyer(codes) == pytest.approx(np.mean(values), rel=1e-12)


def test_hoyer_does_not_see_the_scale(codes):
    assert metrics.hoyer(codes * 1e-6) == pytest.approx(metrics.hoyer(codes), rel=1e-6)


def test_hoyer_of_nothing_is_nan():
    assert np.isnan(metrics.hoyer(np.zeros((3, 4))))


def test_explained_variance(rng):
    x, r = rng.normal(size=(2, 23, 4, 3))
    expected = numpy_explained_variance(x, r)
    assert metrics.explained_variance(x, r) == pytest.approx(expected, rel=1e-12)


def test_explained_variance_of_the_data_and_of_its_mean(rng):
    x = rng.normal(1e3, 1.0, size=(23, 4))
    assert metrics.explained_variance(x, x) == 1
    mean = np.broadcast_to(x.mean(axis=0), x.shape)
    assert metrics.explained_variance(x, mean) == pytest.approx(0, abs=1e-9)


def test_explained_variance_of_constant_data_is_nan():
    assert np.isnan(metrics.explained_variance(np.ones((3, 2)), np.zeros((3, 2))))


def test_functions_take_tensors(codes):
    tensor = keras.ops.convert_to_tensor(codes)
    for function in (metrics.l0, metrics.hoyer, metrics.dead_fraction):
        assert function(tensor) == function(codes)
        assert isinstance(function(tensor), float)


@pytest.mark.parametrize("bad", [np.zeros(3), np.zeros((0, 3)), 1.0], ids=str)
@pytest.mark.parametrize("function", [metrics.l0, metrics.hoyer, metrics.dead_fraction])
def test_bad_codes(function, bad):
    with pytest.raises(ValueError, match=r"`codes`.*at least two axes") as error:
        function(bad)
    assert f"codes.shape={np.shape(bad)}" in str(error.value)


def test_hoyer_of_one_unit():
    with pytest.raises(ValueError, match=r"`codes` needs at least two.*1 unit"):
        metrics.hoyer(np.ones((3, 1)))


def test_explained_variance_of_two_shapes():
    with pytest.raises(ValueError, match=r"`reconstruction`.*\(3, 2\) and \(3, 4\)"):
        metrics.explained_variance(np.zeros((3, 4)), np.zeros((3, 2)))


# Streaming.


@splits
def test_streaming_l0(codes, sizes):
    expected = (codes != 0).sum(axis=1).mean()
    assert streamed(metrics.L0(), sizes, codes) == pytest.approx(expected, rel=1e-6)


@splits
@pytest.mark.parametrize("bounds", [(0.0, 1.0), (-1.0, 1.0)])
def test_streaming_expected_l0(rng, sizes, bounds):
    low, high = bounds
    codes = rng.uniform(low, high, size=(23, 6)).astype("float32")
    expected = ((codes.astype("float64") - low) / (high - low)).sum(axis=1).mean()
    value = streamed(metrics.ExpectedL0(bounds), sizes, codes)
    assert value == pytest.approx(expected, rel=1e-6)


@splits
def test_streaming_explained_variance(rng, sizes):
    x, r = rng.normal(size=(2, 23, 4, 3)).astype("float32")
    value = streamed(metrics.ExplainedVariance(12), sizes, x, r)
    # float32 sums of 276 numbers.
    assert value == pytest.approx(numpy_explained_variance(x, r), rel=1e-5)


@splits
def test_streaming_explained_variance_far_from_zero(rng, sizes):
    """E|x|^2 - |E x|^2 in float32 would have no digit left here."""
    x = rng.normal(1e3, 1.0, size=(23, 12)).astype("float32")
    r = x + rng.normal(0, 0.5, size=(23, 12)).astype("float32")
    value = streamed(metrics.ExplainedVariance(12), sizes, x, r)
    # x itself is kept to 6e-5 around 1e3, 6e-5 of the spread.
    assert value == pytest.approx(numpy_explained_variance(x, r), abs=1e-3)


def test_streaming_explained_variance_of_many_small_batches(rng):
    x = rng.normal(1e3, 1.0, size=(1000, 3)).astype("float32")
    r = x + rng.normal(0, 0.5, size=x.shape).astype("float32")
    value = streamed(metrics.ExplainedVariance(3), (2,) * 500, x, r)
    assert value == pytest.approx(numpy_explained_variance(x, r), abs=1e-3)


def test_streaming_is_not_the_mean_of_batches(rng):
    """Batches that vary little about means that vary much."""
    x = (rng.normal(size=(20, 3)) * 0.1 + np.arange(20)[:, None] // 5).astype("float32")
    r = x + 0.1
    batches = [
        numpy_explained_variance(a, b)
        for a, b in zip(*(np.split(v, 4) for v in (x, r)), strict=True)
    ]
    value = streamed(metrics.ExplainedVariance(3), (5,) * 4, x, r)
    assert value == pytest.approx(numpy_explained_variance(x, r), rel=1e-4)
    assert abs(value - np.mean(batches)) > 0.1


def test_streaming_of_constant_data_is_nan():
    metric = metrics.ExplainedVariance(2)
    metric.update_state(np.ones((3, 2)), np.zeros((3, 2)))
    assert np.isnan(float(metric.result()))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_codes_are_counted_in_float32(dtype):
    codes = keras.ops.ones((3000, 7), dtype=dtype)
    for metric in (metrics.L0(), metrics.ExpectedL0()):
        metric.update_state(codes)
        assert float(metric.result()) == 7
