"""Metrics against NumPy, scikit-learn and exhaustive search."""

import itertools

import keras
import numpy as np
import pytest
from scipy import sparse
from sklearn.metrics import f1_score

from keras_sae import metrics

SPLITS = [(23,), (5, 5, 5, 5, 3), (1, 22), (10, 13)]
splits = pytest.mark.parametrize("sizes", SPLITS, ids=str)


@pytest.fixture
def codes(rng):
    """Sparse codes with two dead units."""
    codes = rng.normal(size=(23, 6)) * (rng.uniform(size=(23, 6)) < 0.4)
    codes[:, [1, 4]] = 0
    return codes.astype("float32")


def streamed(metric, sizes, *arrays) -> float:
    ends = np.cumsum(sizes)[:-1]
    for batch in zip(*(np.split(array, ends) for array in arrays), strict=True):
        metric.update_state(*batch)
    return float(metric.result())


def numpy_explained_variance(x, r) -> float:
    """1 - E|x - r|^2 / (E|x|^2 - |E x|^2), each value's own variance summed."""
    x, r = (np.asarray(a, "float64").reshape(len(a), -1) for a in (x, r))
    return 1 - ((x - r) ** 2).mean(axis=0).sum() / x.var(axis=0).sum()


# Sparsity of codes.


@pytest.mark.parametrize("threshold", [0.0, 0.5])
def test_l0_counts_units_above_the_threshold(codes, threshold):
    expected = np.mean([sum(abs(h) > threshold for h in row) for row in codes])
    assert metrics.l0(codes, threshold) == pytest.approx(expected, rel=1e-12)


def test_l0_counts_all_values_of_a_sample(codes):
    assert metrics.l0(codes.reshape(23, 2, 3)) == metrics.l0(codes)


def test_dead_fraction_counts_units_below_the_threshold_in_every_sample(codes):
    assert metrics.dead_fraction(codes) == pytest.approx(2 / 6)
    peaks = np.abs(codes).max(axis=0)
    threshold = float(np.sort(peaks)[3])  # two dead units, and two up to here
    assert metrics.dead_fraction(codes, threshold) == pytest.approx(4 / 6)


def test_hoyer_is_the_mean_over_samples_that_are_not_zero(codes):
    values = []
    for row in codes.astype("float64"):
        if row.any():
            ratio = np.linalg.norm(row, 1) / np.linalg.norm(row, 2)
            values.append((6**0.5 - ratio) / (6**0.5 - 1))
    assert len(values) < 23
    assert metrics.hoyer(codes) == pytest.approx(np.mean(values), rel=1e-12)


def test_hoyer_does_not_depend_on_the_scale(codes):
    assert metrics.hoyer(codes * 1e-6) == pytest.approx(metrics.hoyer(codes), rel=1e-6)


def test_hoyer_is_nan_if_every_code_is_zero():
    assert np.isnan(metrics.hoyer(np.zeros((3, 4))))


def test_functions_accept_tensors_and_return_floats(codes):
    tensor = keras.ops.convert_to_tensor(codes)
    for function in (metrics.l0, metrics.hoyer, metrics.dead_fraction):
        assert function(tensor) == function(codes)
        assert isinstance(function(tensor), float)


@pytest.mark.parametrize("bad", [np.zeros(3), np.zeros((0, 3)), 1.0], ids=str)
@pytest.mark.parametrize("function", [metrics.l0, metrics.hoyer, metrics.dead_fraction])
def test_codes_without_samples_or_units_raise(function, bad):
    with pytest.raises(ValueError, match=r"`codes`.*at least two axes") as error:
        function(bad)
    assert f"codes.shape={np.shape(bad)}" in str(error.value)


def test_hoyer_of_a_single_unit_raises():
    with pytest.raises(ValueError, match=r"`codes` must have at least two.*1 unit"):
        metrics.hoyer(np.ones((3, 1)))


@splits
def test_l0_metric_equals_l0_of_all_batches(codes, sizes):
    expected = (codes != 0).sum(axis=1).mean()
    assert streamed(metrics.L0(), sizes, codes) == pytest.approx(expected, rel=1e-6)


@splits
@pytest.mark.parametrize("bounds", [(0.0, 1.0), (-1.0, 1.0)])
def test_expected_l0_metric_rescales_the_activations(rng, sizes, bounds):
    low, high = bounds
    codes = rng.uniform(low, high, size=(23, 6)).astype("float32")
    expected = ((codes.astype("float64") - low) / (high - low)).sum(axis=1).mean()
    value = streamed(metrics.L0(bounds), sizes, codes)
    assert value == pytest.approx(expected, rel=1e-6)


def test_l0_metric_counts_all_values_of_a_sample(codes):
    codes = codes[:22].reshape(2, 11, -1)
    metric = metrics.L0()
    metric.update_state(codes)
    assert float(metric.result()) == pytest.approx((codes != 0).sum() / 2)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_codes_are_counted_in_float32(dtype):
    codes = keras.ops.ones((3000, 7), dtype=dtype)
    for metric in (metrics.L0(), metrics.L0((0.0, 1.0))):
        metric.update_state(codes)
        assert float(metric.result()) == 7


# Reconstruction.


def test_explained_variance_equals_numpy(rng):
    x, r = rng.normal(size=(2, 23, 4, 3))
    expected = numpy_explained_variance(x, r)
    assert metrics.explained_variance(x, r) == pytest.approx(expected, rel=1e-12)


def test_explained_variance_is_1_for_the_data_and_0_for_their_mean(rng):
    x = rng.normal(1e3, 1.0, size=(23, 4))
    assert metrics.explained_variance(x, x) == 1
    mean = np.broadcast_to(x.mean(axis=0), x.shape)
    assert metrics.explained_variance(x, mean) == pytest.approx(0, abs=1e-9)


def test_explained_variance_of_constant_data_is_nan():
    x, r = np.ones((3, 2)), np.zeros((3, 2))
    assert np.isnan(metrics.explained_variance(x, r))
    metric = metrics.ExplainedVariance(2)
    metric.update_state(x, r)
    assert np.isnan(float(metric.result()))


def test_shrinkage_of_a_scaled_reconstruction(rng):
    x = rng.normal(size=(10, 3, 2))
    assert metrics.shrinkage(x, 0.7 * x) == pytest.approx(0.3)


@pytest.mark.parametrize("function", [metrics.explained_variance, metrics.shrinkage])
def test_reconstructions_of_another_shape_raise(function):
    message = r"`reconstruction` must have.*shape=\(3, 2\), x.shape=\(3, 4\)"
    with pytest.raises(ValueError, match=message):
        function(np.zeros((3, 4)), np.zeros((3, 2)))


@splits
@pytest.mark.parametrize("far", [False, True])
def test_explained_variance_metric_equals_the_function(rng, sizes, far):
    """Far from zero, E|x|^2 - |E x|^2 would have no correct digit in float32."""
    if far:
        x = rng.normal(1e3, 1.0, size=(23, 4, 3)).astype("float32")
        r = x + rng.normal(0, 0.5, size=x.shape).astype("float32")
    else:
        x, r = rng.normal(size=(2, 23, 4, 3)).astype("float32")
    value = streamed(metrics.ExplainedVariance(12), sizes, x, r)
    # Near 1e3, float32 resolves 6e-5 of the standard deviation of x.
    tolerance = {"abs": 1e-3} if far else {"rel": 1e-5}
    assert value == pytest.approx(numpy_explained_variance(x, r), **tolerance)


def test_explained_variance_metric_stays_precise_over_many_small_batches(rng):
    x = rng.normal(1e3, 1.0, size=(1000, 3)).astype("float32")
    r = x + rng.normal(0, 0.5, size=x.shape).astype("float32")
    value = streamed(metrics.ExplainedVariance(3), (2,) * 500, x, r)
    assert value == pytest.approx(numpy_explained_variance(x, r), abs=1e-3)


def test_explained_variance_metric_is_not_the_mean_over_batches(rng):
    """The batches vary little about means that vary much."""
    x = (rng.normal(size=(20, 3)) * 0.1 + np.arange(20)[:, None] // 5).astype("float32")
    r = x + 0.1
    batches = [
        numpy_explained_variance(a, b)
        for a, b in zip(*(np.split(v, 4) for v in (x, r)), strict=True)
    ]
    value = streamed(metrics.ExplainedVariance(3), (5,) * 4, x, r)
    assert value == pytest.approx(numpy_explained_variance(x, r), rel=1e-4)
    assert abs(value - np.mean(batches)) > 0.1


# Dictionaries.


@pytest.mark.parametrize("units", [4, 6])
def test_matching_maximizes_the_sum_of_cosines(rng, units):
    features, dictionary = rng.normal(size=(4, 5)), rng.normal(size=(units, 5))
    unit = [
        v / np.linalg.norm(v, axis=1, keepdims=True) for v in (features, dictionary)
    ]
    cos = np.abs(unit[0] @ unit[1].T)
    best = max(
        cos[np.arange(4), list(order)].mean()
        for order in itertools.permutations(range(units), 4)
    )
    assert metrics.recovery_score(features, dictionary) == pytest.approx(best)
    rows, columns = metrics.matching(features, dictionary)
    assert cos[rows, columns].mean() == pytest.approx(best)


def test_recovery_does_not_depend_on_order_sign_or_scale(rng):
    features = rng.normal(size=(8, 5))
    dictionary = -3 * features[rng.permutation(8)]
    assert metrics.recovery_score(features, dictionary) == pytest.approx(1)
    assert metrics.uniqueness(features, dictionary) == 1


def test_uniqueness_is_lower_if_units_split_a_feature():
    features = np.eye(4)
    dictionary = features[[0, 0, 1, 3]] + 0.01
    assert metrics.uniqueness(features, dictionary) == 0.75


def test_f1_is_the_mean_of_scikit_learns_over_pairs(rng):
    true, found = rng.random((2, 50, 3)) < 0.4
    expected = np.mean([f1_score(true[:, i], found[:, 2 - i]) for i in range(3)])
    pairs = np.arange(3), np.array([2, 1, 0])
    codes = found * rng.random((50, 3))
    assert metrics.f1(true, codes, pairs) == pytest.approx(expected)
    with pytest.raises(ValueError, match="50 and 49"):
        metrics.f1(true, codes[1:], pairs)


def test_dictionaries_of_another_dimension_or_with_zero_rows_raise():
    with pytest.raises(ValueError, match=r"\(2, 3\) and \(2, 2\)"):
        metrics.recovery_score(np.ones((2, 3)), np.ones((2, 2)))
    with pytest.raises(ValueError, match="0 zero rows in `features` and 1 in"):
        metrics.recovery_score(np.eye(2), [[1, 0], [0, 0]])


# Sparse matrices.

SPARSE_METRICS = {
    "l0": metrics.l0,
    "l0 above 1": lambda codes: metrics.l0(codes, threshold=1.0),
    "hoyer": metrics.hoyer,
    "dead_fraction": metrics.dead_fraction,
    "dead_fraction above 2": lambda codes: metrics.dead_fraction(codes, threshold=2.0),
    "effective_l0": metrics.effective_l0,
    "effective_l0 of a dictionary": lambda codes: metrics.effective_l0(
        codes, np.arange(1.0, 21.0).reshape(10, 2)
    ),
    "effective_l0 with rest": lambda codes: metrics.effective_l0(
        codes, rest=np.linspace(-1, 1, 10)
    ),
}


def mostly_zero(samples: int = 41) -> np.ndarray:
    """Codes with dead, rare, frequent and constant units, and samples of zeros."""
    rng = np.random.default_rng(0)
    codes = rng.normal(size=(samples, 10))
    codes *= rng.uniform(size=codes.shape) < np.linspace(0, 0.9, 10)
    codes[:, 9] = 1.5
    codes[3] = 0
    return codes


@pytest.mark.parametrize("metric", SPARSE_METRICS.values(), ids=SPARSE_METRICS)
@pytest.mark.parametrize("samples", [40, 41])
def test_metrics_of_a_sparse_matrix_equal_those_of_the_array(metric, samples):
    codes = mostly_zero(samples)
    for kind in (sparse.csr_array, sparse.csc_matrix, sparse.coo_array):
        assert metric(kind(codes)) == pytest.approx(metric(codes), rel=1e-12)


def test_wide_sparse_codes_are_not_made_dense():
    """As an array, the codes would have 80 GB."""
    rng = np.random.default_rng(0)
    dense = rng.normal(size=(500, 10)) * (rng.uniform(size=(500, 10)) < 0.2)
    expected = [metrics.l0(dense), metrics.effective_l0(dense)]
    entries = sparse.coo_array(dense)
    cells = entries.row * 200, entries.col * 10_000
    wide = sparse.csr_array((entries.data, cells), (100_000, 100_000))
    found = [metrics.l0(wide) * 200, metrics.effective_l0(wide) * 200]
    np.testing.assert_allclose(found, expected)


def test_an_empty_sparse_matrix_is_refused():
    with pytest.raises(ValueError, match=r"`codes`.*at least one sample.*\(0, 3\)"):
        metrics.l0(sparse.csr_array((0, 3)))
