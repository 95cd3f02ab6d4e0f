"""Data whose features are known, and figures of how well they are found."""

import itertools

import numpy as np
import pytest
from scipy.stats import norm

from keras_sae import datasets, metrics


def test_data_are_sums_of_the_features():
    task = datasets.superposition(20, 8, 0.2, magnitude=2.0, magnitude_std=0.5)
    x, activations = task.sample(5000)
    np.testing.assert_allclose(x, activations @ task.features, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(task.features, axis=1), 1, rtol=1e-6)
    fires = activations > 0
    # 100,000 draws: the standard error of the share is .0013.
    assert fires.mean() == pytest.approx(0.2, abs=0.006)
    assert activations[fires].mean() == pytest.approx(2.0, abs=0.02)
    assert activations[fires].std() == pytest.approx(0.5, abs=0.02)
    assert task.l0 == pytest.approx(4.0)


def test_features_are_orthogonal_where_they_can_be():
    features = datasets.superposition(16, 32, 0.25).features
    np.testing.assert_allclose(features @ features.T, np.eye(16), atol=1e-6)
    crowded = datasets.superposition(64, 32, 0.25).features
    assert np.abs(crowded @ crowded.T - np.eye(64)).max() > 0.1


def test_zipf_is_an_affine_map_of_one_over_rank():
    p = datasets.zipf(256)
    rank = 1 / np.arange(1, 257)
    slope, offset = np.polyfit(rank, p, 1)
    np.testing.assert_allclose(p, slope * rank + offset, rtol=1e-9)
    assert (p[0], p[-1]) == pytest.approx((0.3, 0.01))
    assert p.sum() == pytest.approx(4.05, abs=0.01)


def test_each_feature_fires_as_often_as_it_should():
    p = datasets.zipf(10, 0.05, 0.4)
    _, activations = datasets.superposition(10, 5, p).sample(40_000)
    np.testing.assert_allclose((activations > 0).mean(axis=0), p, atol=0.01)


def test_groups_fire_together_and_as_often():
    task = datasets.superposition(6, 4, 0.3, group_size=3, correlation=0.8)
    _, activations = task.sample(40_000)
    fires = activations > 0
    np.testing.assert_allclose(fires.mean(axis=0), 0.3, atol=0.01)
    both = (fires[:, 0] & fires[:, 1]).mean()
    # The probability of two correlated normals being below the cut, by simulation.
    rng = np.random.default_rng(0)
    common, own = rng.normal(size=(200_000, 1)), rng.normal(size=(200_000, 2))
    pair = 0.8**0.5 * common + 0.2**0.5 * own < norm.ppf(0.3)
    assert both == pytest.approx(pair.all(axis=1).mean(), abs=0.01)
    assert (fires[:, 0] & fires[:, 3]).mean() == pytest.approx(0.09, abs=0.01)


def test_a_dataset_is_fresh_data_in_batches():
    task = datasets.superposition(20, 8, 0.2)
    dataset = task.dataset(1000, batch_size=256)
    batches = [batch.numpy() for batch in dataset]
    assert [b.shape for b in batches] == [(256, 8)] * 3
    assert dataset.cardinality() == 3
    assert not np.array_equal(batches[0], batches[1])
    again = [batch.numpy() for batch in dataset]
    np.testing.assert_array_equal(batches, again)
    other = next(iter(task.dataset(1000, 256, seed=1))).numpy()
    assert not np.array_equal(batches[0], other)
    assert not np.array_equal(batches[0], task.sample(256)[0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"firing_probability": 20},
            "more features would be active than there are.*Received",
        ),
        ({"firing_probability": 0}, "above 0"),
        ({"firing_probability": [0.1, 0.2]}, r"shape \(2,\) for num_features=16"),
        ({"dimension": 0}, "dimension=0"),
        ({"num_features": 2.5}, "num_features=2.5"),
        ({"magnitude_std": -1}, "magnitude_std=-1"),
        ({"magnitude": float("nan")}, "magnitude=nan"),
        ({"group_size": 0}, "group_size=0"),
        ({"correlation": 1}, "correlation=1"),
        ({"features": np.ones((3, 3))}, r"features.shape=\(3, 3\)"),
        ({"features": np.eye(16, 8)}, r"features\[8\]=.*and 7 more such rows"),
        ({"features": np.full((16, 8), np.nan)}, r"features\[0\]=.*and 15 more"),
    ],
)
def test_bad_tasks(arguments, message):
    good = {"num_features": 16, "dimension": 8, "firing_probability": 0.1}
    with pytest.raises(ValueError, match=message):
        datasets.superposition(**{**good, **arguments})


def test_bad_requests():
    task = datasets.superposition(16, 8, 0.1)
    with pytest.raises(ValueError, match="samples=100 with batch_size=256"):
        task.dataset(100, 256)
    with pytest.raises(ValueError, match="samples=0"):
        task.sample(0)
    with pytest.raises(ValueError, match=r"low=0\.5, high=0\.1"):
        datasets.zipf(4, low=0.5, high=0.1)


def cosines(features, atoms):
    unit = [v / np.linalg.norm(v, axis=1, keepdims=True) for v in (features, atoms)]
    return np.abs(unit[0] @ unit[1].T)


@pytest.mark.parametrize("units", [4, 6])
def test_the_matching_is_the_best_of_all(rng, units):
    features, atoms = rng.normal(size=(4, 5)), rng.normal(size=(units, 5))
    cos = cosines(features, atoms)
    best = max(
        cos[np.arange(4), list(order)].mean()
        for order in itertools.permutations(range(units), 4)
    )
    assert metrics.recovery_score(features, atoms) == pytest.approx(best)
    rows, columns = metrics.matching(features, atoms)
    assert cos[rows, columns].mean() == pytest.approx(best)


def test_recovery_does_not_see_order_sign_or_scale(rng):
    features = rng.normal(size=(8, 5))
    atoms = -3 * features[rng.permutation(8)]
    assert metrics.recovery_score(features, atoms) == pytest.approx(1)
    assert metrics.uniqueness(features, atoms) == 1


def test_uniqueness_counts_split_features(rng):
    features = np.eye(4)
    atoms = features[[0, 0, 1, 3]] + 0.01
    assert metrics.uniqueness(features, atoms) == 0.75


def test_f1_of_each_pair(rng):
    from sklearn.metrics import f1_score

    true, found = rng.random((2, 50, 3)) < 0.4
    expected = np.mean([f1_score(true[:, i], found[:, 2 - i]) for i in range(3)])
    pairs = np.arange(3), np.array([2, 1, 0])
    codes = found * rng.random((50, 3))
    assert metrics.f1(true, codes, pairs) == pytest.approx(expected)
    with pytest.raises(ValueError, match="50 and 49"):
        metrics.f1(true, codes[1:], pairs)


def test_shrinkage_of_a_scaled_reconstruction(rng):
    x = rng.normal(size=(10, 3, 2))
    assert metrics.shrinkage(x, 0.7 * x) == pytest.approx(0.3)
    with pytest.raises(ValueError, match=r"\(10, 3\) and \(10, 3, 2\)"):
        metrics.shrinkage(x, x[..., 0])


def test_bad_directions():
    with pytest.raises(ValueError, match=r"\(2, 3\) and \(2, 2\)"):
        metrics.recovery_score(np.ones((2, 3)), np.ones((2, 2)))
    with pytest.raises(ValueError, match="0 such features and 1 such atoms"):
        metrics.recovery_score(np.eye(2), [[1, 0], [0, 0]])
