"""Searches: objectives, results, failures, and resuming."""

import contextlib
import functools
import gc
import math
import re
import sys
import warnings
from pathlib import Path

import keras
import keras_tuner
import numpy as np
import pandas as pd
import pytest
from helpers import tensorflow_only
from pages import DOCS, blocks
from pages import run as run_page

import keras_sae
from keras_sae import evaluation, tuning
from keras_sae.tuning import objectives
from keras_sae.tuning.results import check_outcome
from keras_sae.utils import io

GUIDE = DOCS / "guides" / "tuning.md"
X = np.ones((4, 16), "float32")


@pytest.fixture(scope="module", autouse=True)
def _quick_collections():
    """Each trial collects garbage; exempt the objects that exist by now."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


class Formula(keras_tuner.HyperModel):
    """Trials without training: all metrics are a formula of one choice, `dense`.

    The loss falls and L0 rises with it. `accident(dense)` may raise.
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
    kwargs = {"progress": False, "tuner": "grid", "max_l0": 5.5, **kwargs}
    return tuning.search(hypermodel or Formula(), X, X, max_trials, epochs, **kwargs)


def fail_above(limit, kind=OSError):
    def accident(dense):
        if dense > limit:
            raise kind("disk full")

    return accident


@pytest.fixture(scope="module")
def finished():
    return run()


# Objectives.


@pytest.fixture(scope="module")
def digits():
    (x, y), (x_val, y_val) = keras_sae.datasets.load_data("digits")
    return x[:200], y[:200], x_val[:100], y_val[:100]


@pytest.fixture(scope="module")
def competing(digits):
    """A search with two penalties of L1 and one of KL, with labels."""
    x, y, x_val, y_val = digits
    space = tuning.SparsityHyperModel(
        "shallow",
        (8, 8, 1),
        sparsity=["l1", "kl"],
        l1_factor=[1e-6, 3e-2],
        kl_factor=0.1,
        target=0.05,
        units=32,
        tied=False,
        learning_rate=2e-2,
        batch_size=50,
    )
    labels = (y, y_val)
    return tuning.search(
        space, x, x_val, 3, 12, labels=labels, tuner="grid", progress=False
    )


def test_default_objective_selects_a_sparse_model_where_the_loss_selects_a_dense_one(
    competing,
):
    table = tuning.trials(competing)
    trials = competing.oracle.trials.values()
    losses = [trial.metrics.get_last_value("val_loss") for trial in trials]
    sparse, dense = table.loc[table["score"].idxmin()], table.loc[np.argmin(losses)]
    limit = competing.oracle.objective.max_l0
    assert sparse["effective_l0"] <= limit < dense["effective_l0"]
    assert dense["l1_factor"] == 1e-6
    assert sparse["reconstruction"] > dense["reconstruction"]


def test_l1_and_kl_are_compared_by_effective_l0_in_one_search(competing):
    table = tuning.trials(competing)
    assert set(table["sparsity"]) == {"l1", "kl"}
    # The limit holds for the effective number of units of all trials.
    assert (table["expected_l0"].notna() == (table["sparsity"] == "kl")).all()
    limit = competing.oracle.objective.max_l0
    within = table[table["effective_l0"] <= limit]
    assert set(within["sparsity"]) == {"l1"}
    assert (table["expected_l0"] < limit).sum() == 1  # The sum is no count of units.
    assert within["reconstruction"].idxmin() == table["score"].idxmin()
    expected = np.where(
        table["effective_l0"] <= limit,
        1 - table["explained_variance"],
        1 + table["effective_l0"] / limit,
    )
    assert (table["explained_variance"] > 0).all()
    np.testing.assert_allclose(table["score"], expected, rtol=1e-6)


def test_probe_accuracy_is_that_of_a_linear_classifier_on_the_codes(competing, digits):
    x, y, x_val, y_val = digits
    best = tuning.trials(competing).set_index("trial").loc[best_id(competing)]
    model = competing.get_best_models()[0]
    accuracy = evaluation.probe(model.encode(x), y, model.encode(x_val), y_val)
    assert best["probe_accuracy"] == pytest.approx(accuracy, abs=0.011)


def best_id(tuner):
    return tuner.oracle.get_best_trials(1)[0].trial_id


def test_models_within_the_limit_score_below_all_others(rng):
    objective = tuning.ReconstructionUnderL0(10)
    logs = [
        {"val_explained_variance": ev, name: l0}
        for ev, l0 in rng.normal(0, 3, (200, 2)) * [1, 5] + [0, 10]
        for name in ("val_l0", "val_effective_l0")
        if ev <= 1
    ]
    scores = np.array([objective.get_value(log) for log in logs])
    l0 = np.array([objective.l0(log) for log in logs])
    assert scores[l0 <= 10].max() < 2 < scores[l0 > 10].min()
    # Models that are worse than the mean of the data keep their order, too.
    explained = np.array([log["val_explained_variance"] for log in logs])[l0 <= 10]
    within = scores[l0 <= 10]
    assert (explained < 0).sum() > 20
    order = np.argsort(explained)
    assert (np.diff(within[order])[np.diff(explained[order]) > 0] < 0).all()
    np.testing.assert_allclose(within[explained >= 0], 1 - explained[explained >= 0])
    assert not objective.has_value({"val_l0": 1.0})
    assert not objective.has_value({"val_explained_variance": 1.0})
    diverged = {"val_explained_variance": math.nan, "val_l0": 1.0}
    assert math.isnan(objective.get_value(diverged))


@pytest.mark.parametrize(
    ("objective", "name", "direction"),
    [
        ("reconstruction", "val_reconstruction_loss", "min"),
        ("probe_accuracy", "probe_accuracy", "max"),
        ("val_l0", "val_l0", "min"),
        ("val_explained_variance", "val_explained_variance", "max"),
        (keras_tuner.Objective("val_loss", "max"), "val_loss", "max"),
    ],
)
def test_objectives_by_name(objective, name, direction):
    model = keras_sae.models.shallow((4,), 2, "l1")
    found = objectives.get(objective, model, size=4)
    assert (found.name, found.direction) == (name, direction)


def test_best_trial_is_that_of_the_objective(finished):
    def selected(tuner):
        return tuner.get_best_hyperparameters()[0]["dense"]

    assert selected(finished) == 0.5
    largest = keras_tuner.Objective("val_loss", "max")
    assert selected(run(objective=largest, max_l0=None)) == 0.25


def test_default_limit_is_the_square_root_of_the_sample_size():
    model = keras_sae.models.shallow((16,), 2, "l1")
    assert objectives.get("reconstruction_under_l0", model, size=16).max_l0 == 4


# Results.


def test_trials_have_one_row_each(finished):
    table = tuning.trials(finished)
    assert list(table["dense"]) == [0.25, 0.5, 0.75, 1.0]
    assert list(table["l0"]) == [2.5, 5.0, 7.5, 10.0]
    assert list(table["reconstruction"]) == [0.375, 0.25, 0.125, 0.0]
    assert "expected_l0" not in table
    assert list(table["score"]) == [0.75, 0.5, 1 + 7.5 / 5.5, 1 + 10 / 5.5]
    assert set(table["status"]) == {"COMPLETED"}


def test_plots_and_the_pareto_front_take_the_trials(finished):
    table = tuning.trials(finished)
    pd.testing.assert_frame_equal(tuning.pareto_front(finished), table)
    assert "L0" in keras_sae.plots.pareto(table).axes[0].get_xlabel()


def test_best_model_repeats_the_best_trial(competing, digits, tmp_path):
    x, _, x_val, _ = digits
    path = tmp_path / "new" / "best.keras"
    model = tuning.best_model(competing, x, path, validation_data=x_val, verbose=0)
    loss = model.history.history["val_reconstruction_loss"][-1]
    best = tuning.trials(competing).set_index("trial").loc[best_id(competing)]
    assert loss == pytest.approx(best["reconstruction"], rel=1e-3)
    loaded = keras.saving.load_model(path)
    np.testing.assert_allclose(loaded.encode(x), model.encode(x), rtol=1e-5)
    assert [p.name for p in path.parent.iterdir()] == ["best.keras"]


def test_best_model_needs_a_keras_path():
    with pytest.raises(ValueError, match=r"must end in .keras. Received: path='x.h5'"):
        tuning.best_model(None, None, "x.h5")


# Tuners.


def test_bayesian_search_has_few_random_trials():
    tuner = run(tuner="bayesian", max_trials=1)
    assert tuner.oracle.num_initial_points == 3


def test_hyperband_resumes_its_best_trials(rng):
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
    assert {1, 3} <= set(epochs)


@pytest.mark.slow
@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"")])
def test_hyperband_trains_anew_what_it_cannot_resume(rng, monkeypatch, damage):
    fit, epochs = keras.Model.fit, []

    @functools.wraps(fit)
    def record(self, *args, **kwargs):
        epochs.append((kwargs.get("initial_epoch", 0), kwargs["epochs"]))
        return fit(self, *args, **kwargs)

    monkeypatch.setattr(keras.Model, "fit", record)
    save = io.save_state

    def save_and_damage(path, *args, **kwargs):
        save(path, *args, **kwargs)
        damage(path)

    monkeypatch.setattr(io, "save_state", save_and_damage)
    x = rng.random((40, 6), dtype="float32")
    space = tuning.SparsityHyperModel("shallow", (6,), sparsity="l1", units=4)
    with warnings.catch_warnings(record=True, action="always") as caught:
        tuner = tuning.search(
            space, x, x, 4, 3, tuner="hyperband", max_l0=8, progress=False
        )
    assert epochs == [(0, 1), (0, 1), (0, 1), (0, 3)]
    assert set(tuning.trials(tuner)["status"]) == {"COMPLETED"}
    messages = [str(w.message) for w in caught]
    assert sum("trained from the beginning" in message for message in messages) == 1
    with contextlib.suppress(UserWarning, ValueError):  # sets a damaged file aside
        tuner.get_best_models(1)
    with pytest.raises(ValueError, match="missing or damaged"):
        tuner.get_best_models(1)


def test_grid_visits_each_combination_once():
    class Conditional(Formula):
        def build(self, hp):
            if hp.Boolean("deep"):
                with hp.conditional_scope("deep", [True]):
                    hp.Int("depth", 2, 3)
            return super().build(hp)

    table = tuning.trials(run(Conditional([0.25, 0.5]), max_trials=10))
    rows = table[["deep", "depth", "dense"]].fillna(0).to_numpy().tolist()
    assert sorted(rows) == sorted(
        [deep, depth, dense]
        for deep, depth in [(False, 0), (True, 2), (True, 3)]
        for dense in (0.25, 0.5)
    )


def test_zero_is_a_random_seed():
    def tried(seed):
        hypermodel = Formula([n / 100 for n in range(100)])
        run(hypermodel, 3, tuner="random", seed=seed, max_l0=10)
        return hypermodel.ran

    first = tried(0)
    assert tried(0) == first
    assert tried(1) != first


def own_tuner(hypermodel, folder, objective=None):
    objective = objective or tuning.ReconstructionUnderL0(5.5)
    return keras_tuner.RandomSearch(hypermodel, objective, seed=1, directory=folder)


def test_a_tuner_of_the_user_is_run_and_checked(tmp_path):
    space = Formula()
    mine = own_tuner(space, tmp_path)
    tuner = run(space, tuner=mine, max_l0=None)
    assert tuner is mine
    assert len(tuning.trials(tuner)) == 4
    with pytest.raises(ValueError, match="`epochs` is required"):
        tuning.best_model(mine, X, tmp_path / "best.keras")

    failing = Formula(accident=fail_above(0))
    mine = own_tuner(failing, tmp_path / "failing")
    with pytest.raises(tuning.FailedTrialsError, match="disk full"):
        run(failing, tuner=mine, max_trials=2, max_l0=None)


def test_a_tuner_of_the_user_has_its_own_hypermodel_and_folder(tmp_path):
    mine = own_tuner(Formula(), tmp_path)
    with pytest.raises(ValueError, match="a tuner created with `hypermodel`"):
        run(Formula(), tuner=mine, max_l0=None)
    with pytest.raises(ValueError, match="do not pass `directory`"):
        run(mine.hypermodel, tuner=mine, max_l0=None, directory=tmp_path)


# Failed trials.


@pytest.mark.parametrize("trials", [1, 4])
def test_failed_trials_raise_with_the_first_cause(trials):
    """keras-tuner returns one or two failed trials as if they were results."""
    with pytest.raises(tuning.FailedTrialsError, match="none completed") as raised:
        run(Formula(accident=fail_above(0)), max_trials=trials)
    assert isinstance(raised.value.__cause__, OSError)
    assert "{'dense': 0.25}: OSError: disk full" in str(raised.value)


def test_the_cause_reaches_a_chief_through_a_file(monkeypatch):
    """What keras-tuner sends to a chief has no field for a message."""
    end_trial = keras_tuner.Oracle.end_trial

    def end_trial_by_grpc(self, trial):
        end_trial(self, type(trial).from_proto(trial.to_proto()))

    monkeypatch.setattr(keras_tuner.Oracle, "end_trial", end_trial_by_grpc)
    with pytest.raises(tuning.FailedTrialsError, match=": OSError: disk full"):
        run(Formula(accident=fail_above(0.5)))


def test_the_first_failure_ends_a_search_and_completed_trials_are_reported():
    hypermodel = Formula(accident=fail_above(0.5))
    with pytest.raises(
        tuning.FailedTrialsError, match="Of 3 trials, 1 failed and 2 completed"
    ) as raised:
        run(hypermodel)
    assert hypermodel.ran == [0.25, 0.5, 0.75]
    table = tuning.trials(raised.value.tuner)
    assert list(table["status"]) == ["COMPLETED", "COMPLETED", "FAILED"]


def test_max_failures_allows_failed_trials_that_are_never_among_the_best():
    tuner = run(Formula(accident=fail_above(0.5)), max_failures=2)
    statuses = tuning.trials(tuner)["status"]
    assert list(statuses) == ["COMPLETED", "COMPLETED", "FAILED", "FAILED"]
    assert len(tuner.get_best_hyperparameters(4)) == 2
    assert len(tuning.pareto_front(tuner)) == 2
    tuner.oracle.max_failures = 1
    with pytest.raises(tuning.FailedTrialsError, match="2 failed and 2 completed"):
        check_outcome(tuner, 1)


def test_a_diverged_trial_fails_with_advice():
    hypermodel = Formula([math.nan])
    with pytest.raises(tuning.FailedTrialsError, match=r"diverged: .*learning_rate"):
        run(hypermodel)


def test_an_objective_that_is_not_logged_fails_with_the_logged_ones():
    objective = keras_tuner.Objective("val_beauty", "max")
    with pytest.raises(tuning.FailedTrialsError) as raised:
        run(objective=objective, max_l0=None)
    assert "Received: objective='val_beauty'. Logged" in str(raised.value)
    assert "val_l0" in str(raised.value)


@tensorflow_only
def test_search_needs_no_tensorboard(monkeypatch):
    """keras-tuner imports it in each trial."""
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    monkeypatch.setitem(sys.modules, "tensorboard.plugins.hparams", None)
    assert len(tuning.trials(run(max_trials=2))) == 2


def test_progress_is_printed_to_stderr(capfd):
    run(Formula(accident=fail_above(0.25)), 2, max_failures=1, progress=True)
    output = capfd.readouterr()
    assert "Trial 1 of 2: reconstruction_under_l0 0.75\n" in output.err
    assert "Trial 2 of 2: failed: OSError: disk full" in output.err
    assert output.out == ""


# Resuming.


@pytest.mark.parametrize("tuner", ["random", "bayesian", "grid"])
def test_larger_max_trials_resumes_a_finished_search(tuner, tmp_path):
    first = tuning.trials(run(max_trials=2, tuner=tuner, directory=tmp_path))
    hypermodel = Formula()
    table = tuning.trials(run(hypermodel, tuner=tuner, directory=tmp_path))
    pd.testing.assert_frame_equal(table[:2], first)
    assert len(hypermodel.ran) == 2
    assert table["dense"].nunique() >= 3  # the Bayesian tuner may repeat itself
    idle = Formula()
    assert tuning.trials(run(idle, tuner=tuner, directory=tmp_path)).equals(table)
    assert idle.ran == []


@pytest.mark.parametrize("kind", [OSError, KeyboardInterrupt])
def test_failed_and_interrupted_trials_are_tried_again(kind, tmp_path):
    with pytest.raises((tuning.FailedTrialsError, KeyboardInterrupt)):
        run(Formula(accident=fail_above(0.5, kind)), directory=tmp_path)
    hypermodel = Formula()
    table = tuning.trials(run(hypermodel, directory=tmp_path))
    assert hypermodel.ran == [0.75, 1.0]
    assert list(table["dense"]) == [0.25, 0.5, 0.75, 1.0]
    assert set(table["status"]) == {"COMPLETED"}


def test_a_kill_while_the_state_is_written_loses_no_trial(tmp_path, monkeypatch):
    write = Path.write_text

    def write_half(self, text, *args, **kwargs):
        write(self, text[: len(text) // 2])
        raise KeyboardInterrupt

    def accident(dense):
        if dense > 0.5:
            monkeypatch.setattr(Path, "write_text", write_half)

    with pytest.raises(KeyboardInterrupt):
        run(Formula(accident=accident), directory=tmp_path)
    monkeypatch.undo()
    hypermodel = Formula()
    table = tuning.trials(run(hypermodel, directory=tmp_path))
    assert set(table["status"]) == {"COMPLETED"}
    assert hypermodel.ran == [0.75, 1.0]


@pytest.mark.parametrize(
    "content",
    [b"", b'{"oracle"', b"\xff\xfe", b"[]", b'{"oracle": {}, "trials": [{}]}'],
)
@pytest.mark.parametrize("name", ["state.json", "search.json"])
def test_a_damaged_state_is_named(name, content, tmp_path):
    run(directory=tmp_path, max_trials=1)
    (tmp_path / name).write_bytes(content)
    expected = f"{name}.*cannot be read"
    if b"trials" in content and name == "search.json":  # any object may be settings
        expected = "other settings"
    with pytest.raises(ValueError, match=expected):
        run(directory=tmp_path)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"hypermodel": Formula([0.25, 0.5])}, "space"),
        ({"max_l0": 6}, "objective"),
        ({"seed": 1}, "seed"),
        ({"epochs": 2}, "epochs"),
        ({"tuner": "random"}, "tuner"),
    ],
)
def test_a_folder_of_another_search_is_rejected(change, named, tmp_path_factory):
    folder = tmp_path_factory.getbasetemp() / "search"
    run(directory=folder)  # trains for the first case only
    before = sorted(path.name for path in folder.rglob("*"))
    with pytest.raises(ValueError, match=rf"other settings.*{named} was"):
        run(**change, directory=folder)
    assert sorted(path.name for path in folder.rglob("*")) == before


@pytest.mark.parametrize("change", ["data", "options"])
def test_other_data_and_options_make_another_search(change, tmp_path):
    x = np.random.default_rng(0).random((8, 6), dtype="float32")

    def search(x=x, **options):
        space = tuning.SparsityHyperModel(
            "shallow", (6,), sparsity="l1", units=4, options=options
        )
        tuning.search(space, x, x, 1, 1, directory=tmp_path, max_l0=9, progress=False)

    search()
    named = {"data": "data was", "options": "space was"}[change]
    with pytest.raises(ValueError, match=named):
        search(x * 2) if change == "data" else search(output_activation="sigmoid")


@tensorflow_only
def test_labeled_datasets_are_searched_as_their_arrays(digits):
    import tensorflow as tf

    x, y, x_val, y_val = digits
    data, held_out = (
        tf.data.Dataset.from_tensor_slices(pair).batch(50)
        for pair in ((x, y), (x_val, y_val))
    )
    space = tuning.SparsityHyperModel("shallow", (8, 8, 1), sparsity="l1", units=8)
    options = {"max_l0": 8, "progress": False}
    expected = tuning.search(space, x, x_val, 1, 1, labels=(y, y_val), **options)
    found = tuning.search(space, data, held_out, 1, 1, **options)
    pd.testing.assert_frame_equal(tuning.trials(found), tuning.trials(expected))
    assert "probe_accuracy" in tuning.trials(found)
    tables = pd.DataFrame(x.reshape(200, 64)), pd.DataFrame(x_val.reshape(100, 64))
    space = tuning.SparsityHyperModel("shallow", (64,), sparsity="l1", units=8)
    assert len(tuning.trials(tuning.search(space, *tables, 1, 1, **options))) == 1


# Bad input.


def test_a_limit_that_no_trial_meets_names_the_closest_trial():
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
        (
            {"objective": "val_lss", "max_l0": None},
            r"Unknown objective: 'val_lss'. Did",
        ),
        ({"objective": ["val_loss", "val_l0"], "max_l0": None}, r"sum of a list"),
        ({"objective": "reconstruction"}, r"`max_l0` needs the objective"),
        ({"objective": "probe_accuracy", "max_l0": None}, r"needs labels=\(y, y_val\)"),
        ({"max_l0": 0}, r"> 0. Received: max_l0=0"),
        ({"labels": ([1], [2])}, r"one label for each sample"),
        ({"max_trials": 0}, r"max_trials=0"),
        ({"epochs": 1.5}, r"epochs=1.5"),
        ({"workers": 0}, r"workers=0"),
        ({"workers": 2}, r"share the folder.*directory=None"),
    ],
)
def test_bad_arguments_are_rejected_before_the_first_trial(arguments, message):
    hypermodel = Formula()
    with pytest.raises(ValueError, match=message):
        run(hypermodel, **arguments)
    assert hypermodel.ran == []


def test_data_must_be_arrays():
    with pytest.raises(ValueError, match="a tuple of length 3"):
        tuning.search(Formula(), X, (X, X, X), 2, 1)
    with pytest.raises(ValueError, match="`validation_data` must be an array"):
        tuning.search(Formula(), X, None, 2, 1)
    with pytest.raises(ValueError, match="`x` must be an array"):
        tuning.search(Formula(), [1, 2], X, 2, 1)
    with pytest.raises(ValueError, match="`validation_data` must have shape"):
        tuning.search(Formula(), X, X[:, 0], 2, 1)


def test_a_small_space_ends_the_search_early():
    assert len(tuning.trials(run(Formula([0.25]), max_trials=3))) == 1


def test_tuning_is_loaded_on_first_use():
    assert keras_sae.tuning.search is tuning.search
    with pytest.raises(AttributeError, match="no attribute 'tunning'"):
        _ = keras_sae.tunning


# The guide.


def test_names_in_the_guide_exist():
    guide = GUIDE.read_text()
    for name in re.findall(r"\btuning\.([A-Za-z_]+)\(", guide):
        assert hasattr(tuning, name), name
    for name in re.findall(r"`(\w+Error)`", guide):
        assert hasattr(tuning, name), name
    names = set(re.findall(r'^\| `"(\w+)"` \|', guide, re.M))
    assert names == {objectives.DEFAULT, *objectives.NAMED}
    for link in re.findall(r"\]\((?!http)([^)]+)\)", guide):
        assert (GUIDE.parent / link).exists(), link


def test_the_search_space_of_the_guide_can_be_built():
    (code,) = [code for _, code in blocks(GUIDE) if "l1_factor=" in code]
    hypermodel = eval(code, {"tuning": tuning})
    hp = keras_tuner.HyperParameters()
    hypermodel.declare_hyperparameters(hp)
    model = hypermodel.build(hp)
    assert model.decoder.layers[-2].activation.__name__ == "sigmoid"
    assert hp["batch_size"] == 64


@tensorflow_only
def test_the_code_of_the_guide_runs(tmp_path, monkeypatch):
    search, small = tuning.search, {"max_trials": 2, "epochs": 1, "max_l0": 1000}
    monkeypatch.setattr(tuning, "search", lambda *a, **k: search(*a, **{**k, **small}))
    names = run_page(GUIDE, tmp_path)
    assert {"best.keras", "front.png", "search"} == {p.name for p in tmp_path.iterdir()}
    assert 1 <= len(names["front"]) <= len(tuning.trials(names["tuner"])) == 2
