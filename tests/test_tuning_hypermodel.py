"""The search space: which hyperparameters a trial has, and how ranges are given."""

import keras_tuner
import numpy as np
import pytest

from keras_sae import layers, pretraining, regularizers
from keras_sae.layers.serialization import NAMES
from keras_sae.models import Autoencoder
from keras_sae.tuning import SparsityHyperModel
from keras_sae.tuning.hypermodel import FAMILIES, KINDS

SHAPE = (4, 4, 1)


def draw(count=1, **kwargs):
    """Return a hypermodel, and the hyperparameters of `count` random trials."""
    hypermodel = SparsityHyperModel(input_shape=SHAPE, **kwargs)
    oracle = keras_tuner.oracles.RandomSearchOracle(max_trials=1000, seed=1)
    hp = oracle.get_space()
    hypermodel.declare_hyperparameters(hp)
    oracle.update_space(hp)
    trials = []
    for number in range(count):
        hp = oracle.get_space()
        hp.values = oracle.populate_space(str(number))["values"]
        trials.append(hp)
    return hypermodel, trials


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_built_with_every_kind_of_sparsity(family, kind):
    hypermodel, (hp,) = draw(model=family, sparsity=kind)
    model = hypermodel.build(hp)
    assert model.name == family
    assert model.encoder.output_shape[-1] == hp["units"]
    sparse = model.sparse_layers  # empty for a variational model without a sparsity
    sparsity = sparse[-1].sparsity if sparse else None
    if isinstance(sparsity, layers.ActivityPenalty):
        sparsity = sparsity.regularizer
    assert type(sparsity) is NAMES.get(kind, type(None))
    assert float(model.optimizer.learning_rate) == pytest.approx(hp["learning_rate"])


def test_function_sets_the_widths_of_all_layers():
    hypermodel, (hp,) = draw(model="deep", sparsity="l1", units=lambda hp: (9, 7, 5))
    layers = hypermodel.build(hp).sparse_layers
    assert [layer.units for layer in layers] == [9, 7, 5]


def test_a_trial_has_only_the_hyperparameters_that_apply():
    seen = set()
    _, trials = draw(30, model=["shallow", "deep"], sparsity=["l1", "kl"])
    for hp in trials:
        values = hp.values
        seen.add((values["model"], values["sparsity"]))
        assert ("depth" in values) == (values["model"] == "deep")
        assert ("pretraining" in values) == (values["model"] == "deep")
        assert ("l1_factor" in values) == (values["sparsity"] == "l1")
        assert ("kl_target" in values) == (values["sparsity"] == "kl")
        assert ("kl_factor" in values) == (values["sparsity"] == "kl")
        assert {"units", "tied", "batch_size", "learning_rate"} <= set(values)
    assert len(seen) == 4


def test_hyperparameters_reach_the_model():
    hypermodel, (hp,) = draw(
        model="stacked",
        sparsity="kl",
        units=3,
        depth=3,
        tied=True,
        kl_target=0.125,
        factor=0.25,
    )
    model = hypermodel.build(hp)
    assert [layer.units for layer in model.sparse_layers] == [12, 6, 3]
    for layer in model.sparse_layers:
        config = layer.sparsity.regularizer.get_config()
        assert (config["target"], config["factor"]) == (0.125, 0.25)
    untied, (hp,) = draw(model="stacked", sparsity="kl", units=3, depth=3, tied=False)
    count = len(untied.build(hp).trainable_variables)
    assert len(model.trainable_variables) == count - 3


def test_ranges_choices_and_constants_replace_the_defaults():
    _, trials = draw(
        60,
        sparsity="l1",
        units=(5, 500),
        l1_factor=[0.0, 0.5],
        batch_size=(8, 32),
        learning_rate=0.25,
    )
    units = np.array([hp["units"] for hp in trials])
    assert units.min() < 20
    assert units.max() > 100
    # On a log scale half of the values lie below the geometric mean, 50.
    assert 15 < (units < 50).sum() < 45
    assert {hp["l1_factor"] for hp in trials} == {0.0, 0.5}
    assert {hp["batch_size"] for hp in trials} == {8, 16, 32}
    assert {hp["learning_rate"] for hp in trials} == {0.25}


def test_a_range_may_be_a_function_of_the_hyperparameters():
    hypermodel, trials = draw(
        5, sparsity=["top_k", "l1"], units=[8, 32], k=lambda hp: hp.get("units") // 8
    )
    assert {hp["sparsity"] for hp in trials} == {"top_k", "l1"}
    for hp in trials:
        model = hypermodel.build(hp)
        if hp["sparsity"] == "top_k":
            assert model.sparse_layers[0].sparsity.k == hp["units"] // 8
    with pytest.raises(ValueError, match="`k` must be a positive integer"):
        draw(sparsity="top_k", k=lambda hp: -1)


def test_the_factor_of_one_kind_takes_precedence_over_that_of_all_kinds():
    _, trials = draw(10, sparsity=["l1", "kl"], factor=0.5, kl_factor=0.25)
    for hp in trials:
        kind = hp["sparsity"]
        assert hp[f"{kind}_factor"] == {"l1": 0.5, "kl": 0.25}[kind]


def test_sparsity_may_be_an_object_or_a_function_that_returns_one():
    penalty = regularizers.L1(0.5)
    hypermodel, (hp,) = draw(sparsity=penalty)
    assert hypermodel.build(hp).sparse_layers[0].sparsity.regularizer.factor == 0.5

    hypermodel, trials = draw(
        6, sparsity=lambda hp: layers.TopK(hp.Int("active", 1, 4)), units=8
    )
    for hp in trials:
        assert hypermodel.build(hp).sparse_layers[0].sparsity.k == hp["active"]
    assert len({hp["active"] for hp in trials}) > 1


def test_k_does_not_exceed_units():
    hypermodel, (hp,) = draw(sparsity="top_k", k=9, units=4)
    assert hypermodel.build(hp).sparse_layers[0].sparsity.k == 4


def test_build_depends_on_the_hyperparameters_alone():
    hypermodel, (hp,) = draw(sparsity="l1")
    before = dict(hp.values)
    first, second = hypermodel.build(hp), hypermodel.build(hp)
    assert hp.values == before
    assert first.get_config() == second.get_config()
    assert first is not second


def test_fit_takes_the_batch_size_and_pretrains_before_the_first_epoch_only(rng):
    x = rng.random((10, *SHAPE), dtype="float32")
    hypermodel, (hp,) = draw(model="stacked", sparsity="l1", pretraining=1, depth=2)
    hp.values["batch_size"] = 128  # more than there are samples
    model = hypermodel.build(hp)
    before = [np.array(w) for w in model.get_weights()]
    history = hypermodel.fit(hp, model, x, epochs=2, initial_epoch=2, verbose=0)
    assert history.epoch == []
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    history = hypermodel.fit(hp, model, x, epochs=1, verbose=0)
    assert history.epoch == [0]
    assert history.params["steps"] == 1


@pytest.mark.parametrize(("epochs", "expected"), [(0, []), (3, [3])])
def test_pretraining_runs_for_the_drawn_number_of_epochs(epochs, expected, monkeypatch):
    calls = []
    monkeypatch.setattr(
        pretraining, "greedy", lambda model, x, epochs, **kwargs: calls.append(epochs)
    )
    monkeypatch.setattr(Autoencoder, "fit", lambda *args, **kwargs: None)
    hypermodel, (hp,) = draw(model="deep", sparsity="l1", pretraining=epochs)
    hypermodel.fit(hp, hypermodel.build(hp), np.ones((10, *SHAPE)), epochs=1)
    assert calls == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model": "shalow"}, r"Unknown model: 'shalow'. Did you mean 'shallow'"),
        ({"sparsity": "l2"}, r"Unknown sparsity: 'l2'"),
        ({"sparsity": ["l1", "l2"]}, r"Unknown sparsity: 'l2'"),
        ({"sparsity": regularizers.L1}, r"Write `\(\)` after the class"),
        ({"lerning_rate": 0.1}, r"Unknown range: .*Did you mean 'learning_rate'"),
        ({"units": (64, 16)}, r"'units'.* 64 is greater than .* 16"),
        ({"l1_factor": (0.1, 0.01)}, r"'l1_factor'.* 0.1 is greater than"),
        ({"units": (1, 2, 3)}, r"a constant, a range \(low, high\)"),
        ({"units": []}, r"`values` must be provided"),
        ({"units": 0}, r"positive integer. Received: units=0"),
        ({"units": (4, 8.5)}, r"must be an int, Received: 8.5"),
        ({"factor": -1}, r"factor=-1"),
        ({"factor": (0.0, 0.1)}, r"'l1_factor'\), sampling='log' does not support"),
        ({"target": 1.5}, r"between 0 and 1"),
        ({"learning_rate": 0}, r"> 0. Received: learning_rate=0"),
        ({"learning_rate": float("nan")}, r"finite number > 0"),
        ({"input_shape": None}, r"`input_shape` must contain"),
    ],
)
def test_bad_ranges_are_rejected_before_the_first_trial(arguments, message):
    def build(input_shape=SHAPE, **arguments):
        hypermodel = SparsityHyperModel(input_shape=input_shape, **arguments)
        hypermodel.build(keras_tuner.HyperParameters())

    with pytest.raises(ValueError, match=message):
        build(**arguments)


def test_a_list_mixes_no_objects_and_names():
    with pytest.raises(TypeError, match="`Choice` can contain only one type"):
        SparsityHyperModel(input_shape=SHAPE, sparsity=[regularizers.L1(), "l1"])


def test_integers_are_accepted_where_fractions_are_meant():
    _, trials = draw(9, sparsity="l1", l1_factor=[0, 0.5], learning_rate=(1, 2))
    assert {hp["l1_factor"] for hp in trials} == {0.0, 0.5}
    assert len({hp["learning_rate"] for hp in trials}) == 9
