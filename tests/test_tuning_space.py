"""The space of a search: what is drawn, where, and what an argument does to it."""

import keras_tuner
import numpy as np
import pytest

from keras_sae import layers, regularizers
from keras_sae.tuning import SparsityHyperModel, space

SHAPE = (4, 4, 1)


def drawn(seed=0, **kwargs):
    """A hypermodel, and the settings of one trial that an oracle draws from it."""
    hypermodel = SparsityHyperModel(input_shape=SHAPE, **kwargs)
    oracle = keras_tuner.oracles.RandomSearchOracle(max_trials=100, seed=seed + 1)
    hp = oracle.get_space()
    hypermodel.declare_hyperparameters(hp)
    oracle.update_space(hp)
    hp = oracle.get_space()
    hp.values = oracle._random_values()
    return hypermodel, hp


@pytest.mark.parametrize("kind", space.KINDS)
@pytest.mark.parametrize("family", space.FAMILIES)
def test_every_family_is_built_with_every_kind(family, kind):
    for seed in range(3):
        hypermodel, hp = drawn(seed, model=family, sparsity=kind)
        model = hypermodel.build(hp)
        assert model.name == family
        assert model.encoder.output_shape[-1] == hp["units"]
        sparse = model.sparse_layers[-1].sparsity
        made = getattr(sparse, "regularizer", sparse)
        assert type(made) is layers.sparsity.NAMES[kind]
        assert float(model.optimizer.learning_rate) == pytest.approx(
            hp["learning_rate"]
        )


def test_a_setting_is_drawn_only_where_it_applies():
    families, seen = ["shallow", "deep"], set()
    for seed in range(40):
        _, hp = drawn(seed, model=families, sparsity=["l1", "kl"])
        values = hp.values
        seen.add((values["model"], values["sparsity"]))
        assert ("depth" in values) == (values["model"] == "deep")
        assert ("pretraining" in values) == (values["model"] == "deep")
        assert ("l1_factor" in values) == (values["sparsity"] == "l1")
        assert ("kl_target" in values) == (values["sparsity"] == "kl")
        assert ("kl_factor" in values) == (values["sparsity"] == "kl")
        assert {"units", "tied", "batch_size", "learning_rate"} <= set(values)
    assert len(seen) == 4


def test_drawn_values_reach_the_model():
    hypermodel, hp = drawn(
        model="stacked",
        sparsity="kl",
        units=3,
        depth=3,
        tied=True,
        kl_target=0.125,
        factor=0.25,
        learning_rate=0.5,
    )
    model = hypermodel.build(hp)
    assert [layer.units for layer in model.sparse_layers] == [12, 6, 3]
    for layer in model.sparse_layers:
        config = layer.sparsity.regularizer.get_config()
        assert (config["target"], config["factor"]) == (0.125, 0.25)
    kernels = {id(variable) for variable in model.trainable_variables}
    untied, hp = drawn(model="stacked", sparsity="kl", units=3, depth=3, tied=False)
    assert len(kernels) == len(untied.build(hp).trainable_variables) - 3


def test_ranges_are_fixed_narrowed_widened():
    numbers = {"units": [], "l1_factor": [], "batch_size": [], "learning_rate": []}
    for seed in range(60):
        _, hp = drawn(
            seed,
            sparsity="l1",
            units=(5, 500),
            l1_factor=[0.0, 0.5],
            batch_size=(8, 32),
            learning_rate=0.25,
        )
        for name, values in numbers.items():
            values.append(hp[name])
    assert min(numbers["units"]) < 20
    assert max(numbers["units"]) > 100
    # On a log scale half of the values lie below the geometric mean, 50.
    assert 15 < sum(units < 50 for units in numbers["units"]) < 45
    assert set(numbers["l1_factor"]) == {0.0, 0.5}
    assert set(numbers["batch_size"]) == {8, 16, 32}
    assert set(numbers["learning_rate"]) == {0.25}


def test_the_factor_of_all_kinds_gives_way_to_that_of_one():
    for seed in range(10):
        _, hp = drawn(seed, sparsity=["l1", "kl"], factor=0.5, kl_factor=0.25)
        kind = hp["sparsity"]
        assert hp[f"{kind}_factor"] == {"l1": 0.5, "kl": 0.25}[kind]


def test_no_more_units_stay_on_than_there_are():
    made = space.kind_of("l1", {"factor": 0.5}, units=4)
    assert isinstance(made, regularizers.L1)
    for kind in {"top_k", "batch_top_k"} & space.KINDS.keys():
        assert space.kind_of(kind, {"k": 9}, units=4).k == 4


def test_build_is_pure():
    """The settings decide the model: no draw of before changes it."""
    hypermodel, hp = drawn(sparsity="l1")
    before = dict(hp.values)
    first, second = hypermodel.build(hp), hypermodel.build(hp)
    assert hp.values == before
    assert first.get_config() == second.get_config()
    assert first is not second


def test_fit_takes_batch_size_epochs_and_pretraining(rng):
    x = rng.random((10, *SHAPE), dtype="float32")
    hypermodel, hp = drawn(model="stacked", sparsity="l1", pretraining=1, depth=2)
    hp.values["batch_size"] = 128  # more than there are samples
    model = hypermodel.build(hp)
    before = [np.array(w) for w in model.levels[0].encode[-1].get_weights()]
    history = hypermodel.fit(hp, model, x, epochs=2, initial_epoch=2, verbose=0)
    assert history.epoch == []  # nothing left to do: and no pretraining either
    after = model.levels[0].encode[-1].get_weights()
    assert all((one == other).all() for one, other in zip(before, after, strict=True))
    history = hypermodel.fit(hp, model, x, epochs=2, verbose=0)
    assert history.epoch == [0, 1]
    assert history.params["steps"] == 1


def test_pretraining_changes_a_model_before_its_fit(rng, monkeypatch):
    from keras_sae import pretraining

    called = []
    monkeypatch.setattr(
        pretraining, "greedy", lambda model, x, epochs, **kw: called.append(epochs)
    )
    x = rng.random((10, *SHAPE), dtype="float32")
    for epochs in (0, 3):
        hypermodel, hp = drawn(model="deep", sparsity="l1", pretraining=epochs)
        model = hypermodel.build(hp)
        monkeypatch.setattr(type(model), "fit", lambda *args, **kwargs: None)
        hypermodel.fit(hp, model, x, epochs=1)
    assert called == [3]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model": "shalow"}, r"Unknown model: 'shalow'. Did you mean 'shallow'"),
        ({"sparsity": "l2"}, r"Unknown sparsity: 'l2'"),
        ({"lerning_rate": 0.1}, r"Unknown range: .*Did you mean 'learning_rate'"),
        ({"units": (64, 16)}, r"units=\(64, 16\). Write \(16, 64\)"),
        ({"l1_factor": (0.1, 0.01)}, r"lowest to its highest.*l1_factor"),
        ({"units": (1, 2, 3)}, r"one value, a range \(low, high\), or a list"),
        ({"units": []}, r"no value to choose"),
        ({"units": 0}, r"positive integer. Received: units=0"),
        ({"units": (4, 8.5)}, r"positive integer"),
        ({"factor": -1}, r"factor=-1"),
        ({"factor": (0.0, 0.1)}, r"log scale.*A list may hold 0"),
        ({"target": 1.5}, r"between 0 and 1"),
        ({"learning_rate": 0}, r"above 0. Received: learning_rate=0"),
        ({"learning_rate": float("nan")}, r"above 0"),
        ({"tied": "yes"}, r"must be True, False, or \[False, True\]"),
        ({"pretraining": -1}, r"pretraining=-1"),
        ({"input_shape": None}, r"`input_shape` must hold"),
    ],
)
def test_bad_ranges(arguments, message):
    with pytest.raises(ValueError, match=message):
        SparsityHyperModel(**{"input_shape": SHAPE, **arguments})
