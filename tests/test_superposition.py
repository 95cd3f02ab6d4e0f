"""Synthetic data whose features are known."""

import numpy as np
import pytest
from scipy.stats import norm

from keras_sae import datasets


def test_samples_are_sums_of_the_active_features():
    task = datasets.superposition(20, 8, 0.2, magnitude=2.0, magnitude_std=0.5)
    x, activations = task.sample(5000)
    np.testing.assert_allclose(x, activations @ task.features, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(task.features, axis=1), 1, rtol=1e-6)
    fires = activations > 0
    # 100,000 draws: the standard error of the mean is .0013.
    assert fires.mean() == pytest.approx(0.2, abs=0.006)
    assert activations[fires].mean() == pytest.approx(2.0, abs=0.02)
    assert activations[fires].std() == pytest.approx(0.5, abs=0.02)
    assert task.l0 == pytest.approx(4.0)


def test_features_are_orthogonal_if_the_dimension_allows_it():
    features = datasets.superposition(16, 32, 0.25).features
    np.testing.assert_allclose(features @ features.T, np.eye(16), atol=1e-6)
    crowded = datasets.superposition(64, 32, 0.25).features
    assert np.abs(crowded @ crowded.T - np.eye(64)).max() > 0.1


def test_zipf_probabilities_are_affine_in_one_over_rank():
    p = datasets.zipf(256)
    rank = 1 / np.arange(1, 257)
    slope, offset = np.polyfit(rank, p, 1)
    np.testing.assert_allclose(p, slope * rank + offset, rtol=1e-9)
    assert (p[0], p[-1]) == pytest.approx((0.3, 0.01))
    assert p.sum() == pytest.approx(4.05, abs=0.01)


def test_features_fire_with_their_own_probabilities():
    p = datasets.zipf(10, 0.05, 0.4)
    _, activations = datasets.superposition(10, 5, p).sample(40_000)
    np.testing.assert_allclose((activations > 0).mean(axis=0), p, atol=0.01)


def test_features_of_a_group_fire_together():
    task = datasets.superposition(6, 4, 0.3, group_size=3, correlation=0.8)
    _, activations = task.sample(40_000)
    fires = activations > 0
    np.testing.assert_allclose(fires.mean(axis=0), 0.3, atol=0.01)
    both = (fires[:, 0] & fires[:, 1]).mean()
    # Simulate how often two correlated normals are both below the threshold.
    rng = np.random.default_rng(0)
    common, own = rng.normal(size=(200_000, 1)), rng.normal(size=(200_000, 2))
    pair = 0.8**0.5 * common + 0.2**0.5 * own < norm.ppf(0.3)
    assert both == pytest.approx(pair.all(axis=1).mean(), abs=0.01)
    assert (fires[:, 0] & fires[:, 3]).mean() == pytest.approx(0.09, abs=0.01)


def test_dataset_yields_new_batches_determined_by_the_seed():
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
        ({"firing_probability": 20}, "at most 1. Received: values from 20 to 20"),
        ({"firing_probability": 0}, "above 0"),
        ({"firing_probability": [0.1, 0.2]}, r"shape \(2,\) for num_features=16"),
        ({"dimension": 0}, "dimension=0"),
        ({"num_features": 2.5}, "num_features=2.5"),
        ({"magnitude_std": -1}, "magnitude_std=-1"),
        ({"magnitude": float("nan")}, "magnitude=nan"),
        ({"group_size": 0}, "group_size=0"),
        ({"correlation": 1}, "correlation=1"),
        ({"features": np.ones((3, 3))}, r"features.shape=\(3, 3\)"),
        ({"features": np.eye(16, 8)}, r"features\[8\]=.*and 7 more invalid"),
        ({"features": np.full((16, 8), np.nan)}, r"features\[0\]=.*and 15 more"),
    ],
)
def test_invalid_tasks_raise(arguments, message):
    good = {"num_features": 16, "dimension": 8, "firing_probability": 0.1}
    with pytest.raises(ValueError, match=message):
        datasets.superposition(**{**good, **arguments})


def test_invalid_sample_counts_raise():
    task = datasets.superposition(16, 8, 0.1)
    with pytest.raises(ValueError, match="samples=100, batch_size=256"):
        task.dataset(100, 256)
    with pytest.raises(ValueError, match="samples=0"):
        task.sample(0)
    with pytest.raises(ValueError, match=r"low=0\.5, high=0\.1"):
        datasets.zipf(4, low=0.5, high=0.1)
