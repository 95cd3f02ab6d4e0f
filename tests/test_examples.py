"""Tests of the examples of units against a full sort."""

import keras
import numpy as np
import pytest
from helpers import convolutional_code

from keras_sae import activations, evaluation, layers, models
from keras_sae.evaluation import examples

RNG = np.random.default_rng(0)
X = RNG.normal(size=(300, 6)).astype("float32")


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    return models.shallow((6,), 20, layers.TopK(4))


@pytest.mark.parametrize("merged_at_once", [1, 2**20])
def test_examples_are_the_largest_activations(model, merged_at_once, monkeypatch):
    monkeypatch.setattr(examples, "_MERGED_AT_ONCE", merged_at_once)
    table = evaluation.top_examples(model, X, count=5, batch_size=32)
    code = model.encode(X)
    for unit in range(20):
        order = np.argsort(-code[:, unit], kind="stable")[:5]
        order = order[code[order, unit] > 0]
        rows = table[table.unit == unit]
        assert rows["sample"].tolist() == order.tolist()
        np.testing.assert_allclose(rows.activation, code[order, unit], rtol=1e-5)
    assert set(table.group) == {"top"}
    assert table.unit.is_monotonic_increasing


def test_chosen_units_of_a_code_of_both_signs():
    model = models.shallow((6,), 8, activation="tanh")
    table = evaluation.top_examples(model, X, units=[5, 2], count=3)
    code = model.encode(X)
    assert table.unit.tolist() == [2, 2, 2, 5, 5, 5]
    expected = np.argsort(-abs(code[:, 5]), kind="stable")[:3]
    assert table[table.unit == 5]["sample"].tolist() == expected.tolist()


def test_quantiles_spread_over_the_range(model):
    options = {"units": [3], "count": 6, "quantiles": 4, "batch_size": 50}
    table = evaluation.top_examples(model, X, **options)
    code = model.encode(X)[:, 3]
    active = np.sort(code[code > 0])
    assert len(active) > 40
    for low in (0, 25, 50, 75):
        group = table[table.group == f"{low}-{low + 25}%"]
        assert len(group) == 6
        np.testing.assert_allclose(group.activation, code[group["sample"]], rtol=1e-5)
        # The groups of a sample of 24 are close to the quarters of all activations.
        place = np.searchsorted(active, group.activation.mean()) / len(active)
        assert low / 100 - 0.12 < place < low / 100 + 0.37
    chosen = table[table.group != "top"]
    assert chosen.activation.is_monotonic_decreasing
    assert chosen["sample"].is_unique
    again = evaluation.top_examples(model, X, **options)
    assert again.equals(table)


def test_a_unit_with_few_activations_is_listed_whole(model):
    code = model.encode(X)
    unit = int(np.argmin((code > 0).sum(axis=0)))
    options = {"units": [unit], "count": 100, "quantiles": 3}
    table = evaluation.top_examples(model, X, **options)
    number = (code[:, unit] > 0).sum()
    assert (table.group == "top").sum() == number
    assert (table.group != "top").sum() == number


def test_examples_of_a_store_have_origins(model, tmp_path):
    base = keras.Sequential([keras.Input((6,)), keras.layers.ReLU(name="relu")])
    store = activations.record(base, "relu", X, tmp_path, file_bytes=500)
    table = evaluation.top_examples(model, store, units=[1], count=4)
    assert len(table) == 4
    rows = np.maximum(X, 0)[[origin[0] for origin in table.origin]]
    np.testing.assert_allclose(
        model.encode(rows)[:, 1], table.activation, rtol=0.01, atol=1e-3
    )


def test_a_unit_with_positions_counts_once_per_sample():
    keras.utils.set_random_seed(0)
    model = convolutional_code((8, 8, 1), 3)
    x = RNG.normal(size=(30, 8, 8, 1)).astype("float32")
    table = evaluation.top_examples(model, x, count=4, batch_size=8)
    peaks = model.encode(x).reshape(30, -1, 3).max(axis=1)
    assert (peaks > 0).any(axis=0).all()
    for unit in range(3):
        rows = table[table.unit == unit]
        expected = np.sort(peaks[:, unit])[::-1][:4]
        np.testing.assert_allclose(rows.activation, expected, rtol=1e-5)
        assert rows["sample"].is_unique


def test_bad_arguments_are_refused(model):
    with pytest.raises(ValueError, match=r"`units` must lie between 0 and 19.*\[20\]"):
        evaluation.top_examples(model, X, units=[20])
    with pytest.raises(ValueError, match="`count` must be a positive integer"):
        evaluation.top_examples(model, X, count=0)
    with pytest.raises(ValueError, match="`x` must have shape"):
        evaluation.top_examples(model, X[:, :3])
