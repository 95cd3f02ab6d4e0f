"""Searches: what they are for, what keras-tuner's faults are kept from doing."""

import gc
import importlib.util
import math
from pathlib import Path

import keras
import keras_tuner
import numpy as np
import pandas as pd
import pytest
from helpers import tensorflow_only

import keras_sae
from keras_sae import evaluation, tuning
from keras_sae.tuning import guard, objectives, results

SHAPE = (16,)


@pytest.fixture(scope="module", autouse=True)
def _quick_collections():
    """keras-tuner collects garbage at each trial: what is there by now is none."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


class Formula(keras_tuner.HyperModel):
    """Trials that cost nothing: figures are a formula of one setting, `dense`.

    The loss falls and the activity rises with it. `accident(dense, x)` may raise.
    """

    def __init__(self, values=(0.25, 0.5, 0.75, 1.0), accident=None):
        super().__init__()
        self.values, self.accident, self.ran = list(values), accident, []

    def build(self, hp):
        hp.Choice("dense", self.values)
        model = keras.Sequential([keras.Input((1,)), keras.layers.Identity()])
        model.compile("sgd", "mse")
        return model

    def fit(self, hp, model, x, epochs=1, **kwargs):
        dense = hp["dense"]
        self.ran.append(dense)
        if self.accident is not None:
            self.accident(dense)
        history = keras.callbacks.History()
        history.history = {
            "val_loss": [9.0, 1 - dense],
            "val_reconstruction_loss": [9.0, (1 - dense) / 2],
            "val_explained_variance": [-9.0, dense],
            "val_l0": [90.0, 10 * dense],
        }
        return history


def run(hypermodel=None, max_trials=4, epochs=1, **kwargs):
    x = np.ones((4, *SHAPE), "float32")
    kwargs = {"progress": False, "tuner": "grid", "max_l0": 5.5, **kwargs}
    return tuning.search(hypermodel or Formula(), x, x, max_trials, epochs, **kwargs)


def fail_above(limit, kind=OSError):
    def accident(dense):
        if dense > limit:
            raise kind("disk full")

    return accident


def digits():
    (x, y), (x_val, y_val) = keras_sae.datasets.load_data("digits")
    return x[:200], y[:200], x_val[:100], y_val[:100]


# What a search is for.


@pytest.fixture(scope="module")
def competing():
    """L1 and KL in one search by the default objective, and again by `val_loss`."""
    keras.utils.set_random_seed(0)
    x, _, x_val, _ = digits()
    space = tuning.SparsityHyperModel(
        "shallow",
        (8, 8, 1),
        sparsity=["l1", "kl"],
        l1_factor=[1e-6, 3e-2],
        kl_factor=0.1,
        target=0.05,
        units=32,
        tied=False,
        learning_rate=1e-2,
        batch_size=50,
    )
    return {
        objective: tuning.search(
            space, x, x_val, 3, 25, objective=objective, tuner="grid", progress=False
        )
        for objective in ("reconstruction_under_l0", "val_loss")
    }


def best(tuner):
    return tuning.trials(tuner).set_index("trial").loc[_best_id(tuner)]


def _best_id(tuner):
    return tuner.oracle.get_best_trials(1)[0].trial_id


def test_the_default_finds_a_sparse_model_where_the_loss_finds_a_dense_one(competing):
    sparse = best(competing["reconstruction_under_l0"])
    dense = best(competing["val_loss"])
    limit = math.sqrt(64)
    assert sparse["l0"] <= limit < dense["l0"]
    assert dense["l1_factor"] == 1e-6
    assert sparse["reconstruction"] > dense["reconstruction"]


def test_l1_and_kl_compete_in_one_search(competing):
    table = tuning.trials(competing["reconstruction_under_l0"])
    assert set(table["sparsity"]) == {"l1", "kl"}
    # A bounded code is limited by the sum of its activations.
    assert (table["expected"] == (table["sparsity"] == "kl")).all()
    met = table[table["l0"] <= 8]
    assert set(met["sparsity"]) == {"l1", "kl"}
    winner = met["reconstruction"].idxmin()
    assert winner == table["score"].idxmin()
    assert (table.loc[table["l0"] > 8, "score"] > met["score"].max()).all()
    expected = np.where(
        table["l0"] <= 8, 1 - table["explained_variance"], 1 + table["l0"] / 8
    )
    assert (table["explained_variance"] > 0).all()
    np.testing.assert_allclose(table["score"], expected, rtol=1e-6)


def test_the_score_keeps_what_met_the_limit_before_what_did_not(rng):
    objective = tuning.ReconstructionUnderL0(10)
    logs = [
        {"val_explained_variance": ev, name: l0}
        for ev, l0 in rng.normal(0, 3, (200, 2)) * [1, 5] + [0, 10]
        for name in ("val_l0", "val_expected_l0")
        if ev <= 1
    ]
    scores = np.array([objective.get_value(log) for log in logs])
    active = np.array([objectives.activity(log) for log in logs])
    assert scores[active <= 10].max() < 2 < scores[active > 10].min()
    # Also models worse than the data's mean are told apart, and in their order.
    explained = np.array([log["val_explained_variance"] for log in logs])[active <= 10]
    assert (explained < 0).sum() > 20
    order = np.argsort(explained)
    assert (
        np.diff(scores[active <= 10][order])[np.diff(explained[order]) > 0] < 0
    ).all()
    good = explained >= 0
    np.testing.assert_allclose(scores[active <= 10][good], 1 - explained[good])
    assert not objective.has_value({"val_l0": 1.0})
    assert not objective.has_value({"val_explained_variance": 1.0})
    bad = {"val_explained_variance": math.nan, "val_l0": 1.0}
    assert math.isnan(objective.get_value(bad))


@pytest.mark.parametrize(
    ("objective", "chosen"),
    [
        ("reconstruction_under_l0", 0.5),
        ("reconstruction", 1.0),
        ("val_l0", 0.25),
        ("val_explained_variance", 1.0),
        (keras_tuner.Objective("val_loss", "max"), 0.25),
    ],
)
def test_objectives(objective, chosen, monkeypatch):
    logged = {"val_l0", "val_explained_variance"}
    monkeypatch.setattr(objectives, "logged_by", lambda model: logged)
    limit = {"reconstruction_under_l0": 5.5}.get(str(objective))
    tuner = run(objective=objective, max_l0=limit)
    assert tuner.get_best_hyperparameters()[0]["dense"] == chosen


def test_the_default_limit_is_the_root_of_the_size():
    assert run(max_l0=None).oracle.objective.max_l0 == 4


def test_the_probe_is_an_objective_and_a_figure():
    x, y, x_val, y_val = digits()
    space = tuning.SparsityHyperModel(
        "shallow", (8, 8, 1), sparsity="l1", units=[4, 32], batch_size=50
    )
    tuner = tuning.search(
        space,
        x,
        x_val,
        2,
        2,
        labels=(y, y_val),
        objective="probe_accuracy",
        progress=False,
    )
    table = tuning.trials(tuner)
    chosen = best(tuner)
    assert chosen["score"] == chosen["probe_accuracy"] == table["probe_accuracy"].max()
    model = tuner.get_best_models()[0]
    codes, held = model.encode(x), model.encode(x_val)
    assert chosen["probe_accuracy"] == pytest.approx(
        evaluation.probe(codes, y, held, y_val), abs=0.02
    )


# Tables, and the best model.


def test_trials_have_a_row_each():
    table = tuning.trials(run())
    assert list(table["dense"]) == [0.25, 0.5, 0.75, 1.0]
    assert list(table["l0"]) == [2.5, 5.0, 7.5, 10.0]
    assert list(table["reconstruction"]) == [0.375, 0.25, 0.125, 0.0]
    assert not table["expected"].any()
    assert list(table["score"]) == [0.75, 0.5, 1 + 7.5 / 5.5, 1 + 10 / 5.5]
    assert set(table["status"]) == {"COMPLETED"}


def test_the_front_is_what_nothing_beats(rng, monkeypatch):
    table = pd.DataFrame(rng.integers(0, 8, (60, 2)), columns=["l0", "reconstruction"])
    table["status"] = rng.choice(["COMPLETED", "COMPLETED", "FAILED"], 60)
    table.loc[3, "l0"] = np.nan
    monkeypatch.setattr(results, "trials", lambda tuner: table)
    done = table[table["status"] == "COMPLETED"].dropna()
    a, b = (done[name].to_numpy() for name in ("l0", "reconstruction"))
    beaten = [
        (((a <= p) & (b <= q)) & ((a < p) | (b < q))).any()
        for p, q in zip(a, b, strict=True)
    ]
    expected = done[~np.array(beaten)].sort_values(["l0", "reconstruction"])
    front = tuning.pareto_front(None)
    columns = ["l0", "reconstruction"]
    pd.testing.assert_frame_equal(
        front[columns], expected[columns].reset_index(drop=True), check_dtype=False
    )


def test_plots_take_the_tables():
    from keras_sae import plots

    tuner = run()
    assert (
        plots.pareto(tuning.trials(tuner)).axes[0].get_xlabel()
        == "active units per sample (L0)"
    )


def test_the_best_model_is_that_of_its_trial(competing, tmp_path):
    tuner = competing["reconstruction_under_l0"]
    x, _, x_val, _ = digits()
    path = tmp_path / "new" / "best.keras"
    model = tuning.best_model(tuner, x, path, validation_data=x_val, verbose=0)
    figure = model.history.history["val_reconstruction_loss"][-1]
    assert figure == pytest.approx(best(tuner)["reconstruction"], rel=1e-3)
    loaded = keras.saving.load_model(path)
    np.testing.assert_allclose(loaded.encode(x), model.encode(x), rtol=1e-5)
    assert [p.name for p in path.parent.iterdir()] == ["best.keras"]


def test_the_best_model_needs_a_name_for_keras(tmp_path):
    with pytest.raises(ValueError, match=r"must end in .keras. Received: path='x.h5'"):
        tuning.best_model(None, None, "x.h5")


# Tuners.


@pytest.mark.parametrize("tuner", ["random", "bayesian", "grid"])
def test_tuners_by_name(tuner):
    table = tuning.trials(run(tuner=tuner, max_trials=3))
    assert table["dense"].nunique() == 3


def test_the_bayesian_tuner_does_not_spend_the_search_on_its_first_points():
    tuner = run(tuner="bayesian", max_trials=4)
    assert tuner.oracle.num_initial_points == 3


def test_hyperband_goes_on_with_what_it_has_trained(rng):
    x = rng.random((40, 6), dtype="float32")
    space = tuning.SparsityHyperModel(
        "shallow", (6,), sparsity="l1", units=[4, 8], batch_size=20
    )
    tuner = tuning.search(
        space, x, x, 4, 3, tuner="hyperband", max_l0=8, progress=False
    )
    table = tuning.trials(tuner)
    assert set(table["status"]) == {"COMPLETED"}
    assert not [name for name in table.columns if name.startswith("tuner/")]
    epochs = [t.hyperparameters["tuner/epochs"] for t in tuner.oracle.trials.values()]
    assert 1 in epochs
    assert 3 in epochs


def test_zero_is_a_seed():
    space = tuning.SparsityHyperModel("shallow", (6,), sparsity="l1", units=(4, 400))
    x = np.random.default_rng(0).random((8, 6), dtype="float32")

    def tried(seed):
        tuner = tuning.search(
            space, x, x, 1, 1, max_l0=400, seed=seed, tuner="random", progress=False
        )
        return tuning.trials(tuner).drop(columns=["trial", "status"])

    first = tried(0)
    assert tried(0).equals(first)
    assert not tried(1).equals(first)


def test_a_tuner_of_the_users_own(tmp_path):
    space = Formula()
    mine = keras_tuner.RandomSearch(
        space, tuning.ReconstructionUnderL0(5.5), seed=1, directory=tmp_path
    )
    tuner = run(space, tuner=mine, max_l0=None)
    assert tuner is mine
    assert len(tuning.trials(tuner)) == 4
    assert tuner.get_best_hyperparameters()[0]["dense"] == 0.5


# What keras-tuner does in silence.


@pytest.mark.parametrize("trials", [1, 2, 4])
def test_failed_trials_raise_with_the_first_cause(trials):
    """keras-tuner returns from fewer than three as if they were results."""
    with pytest.raises(tuning.FailedTrialsError, match="none completed") as raised:
        run(Formula(accident=fail_above(0)), max_trials=trials)
    assert isinstance(raised.value.__cause__, OSError)
    assert "OSError: disk full" in str(raised.value)
    assert "{'dense': 0.25}" in str(raised.value)


def test_the_cause_reaches_a_chief_by_a_file(monkeypatch):
    """What keras-tuner sends to a chief has no room for a message."""
    trial_of = keras_tuner.engine.trial.Trial
    end_trial = guard.GuardedOracle.end_trial

    def sent(self, trial):
        with guard.quiet():
            end_trial(self, trial_of.from_proto(trial.to_proto()))

    monkeypatch.setattr(guard.GuardedOracle, "end_trial", sent)
    with pytest.raises(tuning.FailedTrialsError, match="by: OSError: disk full"):
        run(Formula(accident=fail_above(0.5)))


def test_the_number_of_completed_trials_is_reported():
    hypermodel = Formula(accident=fail_above(0.5))
    with pytest.raises(tuning.FailedTrialsError, match="2 completed of 4") as raised:
        run(hypermodel)
    assert hypermodel.ran == [0.25, 0.5, 0.75]  # the first failure ends the search
    table = tuning.trials(raised.value.tuner)
    assert list(table["status"]) == ["COMPLETED", "COMPLETED", "FAILED"]


def test_failures_may_be_allowed_and_are_never_among_the_best():
    tuner = run(Formula(accident=fail_above(0.5)), max_failures=2)
    statuses = tuning.trials(tuner)["status"]
    assert list(statuses) == ["COMPLETED", "COMPLETED", "FAILED", "FAILED"]
    assert len(tuner.get_best_hyperparameters(4)) == 2
    assert len(tuning.pareto_front(tuner)) == 2
    with pytest.raises(tuning.FailedTrialsError, match="3 trials failed"):
        run(Formula(accident=fail_above(0.25)), max_failures=2)


def test_failed_trials_are_tried_again(tmp_path):
    with pytest.raises(tuning.FailedTrialsError):
        run(Formula(accident=fail_above(0.5)), directory=tmp_path)
    mended = Formula()
    tuner = run(mended, directory=tmp_path)
    assert mended.ran == [0.75, 1.0]
    assert list(tuning.trials(tuner)["status"]) == ["COMPLETED"] * 4


def test_a_trial_that_diverges_is_a_failure_that_says_so():
    hypermodel = Formula(values=[math.inf, 0.5])
    hypermodel.values = [0.5, 0.25]

    def fit(hp, model, x, **kwargs):
        history = keras.callbacks.History()
        history.history = {"val_explained_variance": [math.nan], "val_l0": [1.0]}
        return history

    hypermodel.fit = fit
    with pytest.raises(tuning.FailedTrialsError, match=r"diverged: .*learning_rate"):
        run(hypermodel)


@tensorflow_only
def test_without_tensorboard_nothing_begins(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name == "tensorboard" else find(name, *rest),
    )
    hypermodel = Formula()
    with pytest.raises(ImportError, match="pip install tensorboard"):
        run(hypermodel)
    assert hypermodel.ran == []


@pytest.mark.parametrize("tuner", ["random", "bayesian", "grid"])
def test_a_search_goes_on_with_more_trials(tuner, tmp_path):
    first = tuning.trials(run(max_trials=2, tuner=tuner, directory=tmp_path))
    hypermodel = Formula()
    table = tuning.trials(run(hypermodel, tuner=tuner, directory=tmp_path))
    pd.testing.assert_frame_equal(table[:2], first)
    assert len(hypermodel.ran) == 2
    assert table["dense"].nunique() >= 3  # the Bayesian tuner may repeat itself
    idle = Formula()
    assert tuning.trials(run(idle, tuner=tuner, directory=tmp_path)).equals(table)
    assert idle.ran == []


def test_an_interrupted_search_goes_on_with_the_trial_it_was_in(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(Formula(accident=fail_above(0.5, KeyboardInterrupt)), directory=tmp_path)
    hypermodel = Formula()
    table = tuning.trials(run(hypermodel, directory=tmp_path))
    assert hypermodel.ran == [0.75, 1.0]
    assert list(table["dense"]) == [0.25, 0.5, 0.75, 1.0]
    assert set(table["status"]) == {"COMPLETED"}


def test_a_file_that_is_cut_off_in_the_middle_is_not_there(tmp_path, monkeypatch):
    """keras-tuner opens a file for writing first: its content would be gone."""
    write = Path.write_text

    def cut_off(self, text, *args, **kwargs):
        write(self, text[: len(text) // 2])
        raise KeyboardInterrupt

    def accident(dense):
        if dense > 0.5:
            monkeypatch.setattr(Path, "write_text", cut_off)

    with pytest.raises(KeyboardInterrupt):
        run(Formula(accident=accident), directory=tmp_path)
    monkeypatch.undo()
    hypermodel = Formula()
    table = tuning.trials(run(hypermodel, directory=tmp_path))
    assert set(table["status"]) == {"COMPLETED"}
    assert hypermodel.ran == [0.75, 1.0]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"hypermodel": Formula(values=[0.25, 0.5])}, "space"),
        ({"max_l0": 6}, "objective"),
        ({"seed": 1}, "seed"),
        ({"epochs": 2}, "epochs"),
        ({"tuner": "random"}, "tuner"),
    ],
)
def test_a_folder_that_holds_another_search(change, named, tmp_path):
    run(directory=tmp_path)
    before = sorted(path.name for path in tmp_path.rglob("*"))
    with pytest.raises(ValueError, match=rf"holds another search.*{named} was"):
        run(**change, directory=tmp_path)
    assert sorted(path.name for path in tmp_path.rglob("*")) == before


def test_other_data_are_another_search(tmp_path):
    x = np.ones((4, *SHAPE), "float32")
    arguments = {"progress": False, "directory": tmp_path, "max_l0": 20}
    tuning.search(Formula(), x, x, 1, 1, **arguments)
    with pytest.raises(ValueError, match=r"holds another search.*data was"):
        tuning.search(Formula(), x, x * 2, 1, 1, **arguments)


def test_a_folder_of_the_users_tuner_whose_space_has_changed(tmp_path):
    def mine(space):
        return keras_tuner.RandomSearch(
            space, tuning.ReconstructionUnderL0(20), seed=1, directory=tmp_path
        )

    space = Formula()
    run(space, tuner=mine(space), max_l0=None)
    changed = Formula(values=[0.25, 0.125])
    with pytest.raises(ValueError, match=r"holds another search.*space was"):
        run(changed, tuner=mine(changed), max_l0=None)


def test_a_folder_that_keras_tuner_has_filled_by_itself(tmp_path):
    def mine():
        return keras_tuner.RandomSearch(
            Formula(), keras_tuner.Objective("val_loss", "min"), directory=tmp_path
        )

    mine().search(np.ones((4, 1)), verbose=0)
    tuner = mine()
    with pytest.raises(ValueError, match="trials of a search that is not known"):
        run(tuner.hypermodel, tuner=tuner, max_l0=None)


def test_the_guard_is_put_on_once():
    tuner = run()
    kind = type(tuner)
    assert guard.guarded(tuner, 0) is tuner
    assert type(tuner) is kind
    assert isinstance(tuner, keras_tuner.GridSearch)


# Bad input.


def test_a_limit_that_no_trial_met():
    with pytest.raises(tuning.ConstraintError) as raised:
        run(max_l0=1)
    message = str(raised.value)
    assert isinstance(raised.value, ValueError)
    for part in ("limit of 1 active", "4 completed", "trial 0", "l0=2.5", "0.25"):
        assert part in message
    assert len(tuning.trials(raised.value.tuner)) == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tuner": "bayes"}, r"Unknown tuner: 'bayes'. Did you mean 'bayesian'"),
        ({"tuner": 3}, r"names random, bayesian, hyperband, grid"),
        (
            {"objective": "val_lss", "max_l0": None},
            r"Unknown objective: 'val_lss'. Did",
        ),
        ({"objective": ["val_loss", "val_l0"], "max_l0": None}, r"the plain sum"),
        ({"objective": "reconstruction"}, r"`max_l0` belongs to the objective"),
        ({"objective": "probe_accuracy", "max_l0": None}, r"Give labels=\(y, y_val\)"),
        ({"max_l0": 0}, r"above 0. Received: max_l0=0"),
        ({"labels": ([1], [2])}, r"one label for each sample"),
        ({"max_trials": 0}, r"max_trials=0"),
        ({"epochs": 1.5}, r"epochs=1.5"),
        ({"workers": 0}, r"workers=0"),
        ({"workers": 2}, r"share the folder.*directory=None"),
    ],
)
def test_bad_arguments(arguments, message):
    hypermodel = Formula()
    with pytest.raises(ValueError, match=message):
        run(hypermodel, **arguments)
    assert hypermodel.ran == []


def test_an_objective_that_is_not_logged():
    named = keras_tuner.Objective("val_beauty", "max")
    with pytest.raises(tuning.FailedTrialsError) as raised:
        run(objective=named, max_l0=None)
    assert "not logged. Received: objective='val_beauty'" in str(raised.value)
    assert "val_l0" in str(raised.value)


def test_a_list_of_objectives_in_the_users_tuner(tmp_path):
    space = Formula()
    mine = keras_tuner.RandomSearch(space, ["val_loss", "loss"], directory=tmp_path)
    with pytest.raises(ValueError, match="the plain sum"):
        run(space, tuner=mine, max_l0=None)


def test_a_tuner_of_another_space(tmp_path):
    mine = keras_tuner.RandomSearch(Formula(), "val_loss", directory=tmp_path)
    with pytest.raises(ValueError, match="made for another hypermodel"):
        run(Formula(), tuner=mine, max_l0=None)
    with pytest.raises(ValueError, match="`directory` belongs to a tuner"):
        run(mine.hypermodel, tuner=mine, max_l0=None, directory=tmp_path)


def test_no_validation_data():
    x = np.ones((4, *SHAPE), "float32")
    with pytest.raises(ValueError, match="validation_data=None"):
        tuning.search(Formula(), x, None, 2, 1)
    with pytest.raises(ValueError, match="`x` must be an array"):
        tuning.search(Formula(), [1, 2], x, 2, 1)


def test_a_space_that_is_used_up_before_a_trial(tmp_path):
    tuner = run(Formula(values=[0.25]), max_trials=3)
    assert len(tuning.trials(tuner)) == 1


def test_tuning_is_there_after_import_of_the_package():
    assert keras_sae.tuning.search is tuning.search
    with pytest.raises(AttributeError, match="no attribute 'tunning'"):
        _ = keras_sae.tunning
