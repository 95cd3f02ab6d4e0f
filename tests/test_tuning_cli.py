"""`keras-sae tune`: files, messages and errors."""

import json
import shutil

import keras
import keras_tuner
import pandas as pd
import pytest
from commands import refuse, run, succeed
from helpers import tensorflow_only

from keras_sae import datasets
from keras_sae.cli.tune import describe_sparsity, split_validation

# Parsing and printing do not depend on the backend.
pytestmark = tensorflow_only
SMALL = ["--epochs", "1", "--trials", "2", "--max-l0", "60", "--sparsity", "l1"]


@pytest.fixture(scope="module", autouse=True)
def _few_digits():
    (x, y), (x_test, y_test) = datasets.load_data("digits")
    small = ((x[:150], y[:150]), (x_test[:60], y_test[:60]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets, "load_data", lambda name: small)
        yield


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tune") / "out"
    result = succeed("tune", *SMALL, "--output", folder)
    return folder, result


def test_tune_writes_a_table_a_picture_and_the_best_model(searched):
    folder, result = searched
    assert {path.name for path in folder.iterdir()} == {
        "settings.json",
        "search",
        "trials.csv",
        "trials.json",
        "pareto.png",
        "best.keras",
        "best.json",
    }
    table = pd.read_csv(folder / "trials.csv")
    assert list(table["status"]) == ["COMPLETED"] * 2
    assert table["score"].is_monotonic_increasing
    records = json.loads((folder / "trials.json").read_text())
    assert [r["score"] for r in records] == pytest.approx(list(table["score"]))
    best = json.loads((folder / "best.json").read_text())
    assert best["settings"]["units"] == table["units"][0]
    model = keras.saving.load_model(folder / "best.keras")
    assert model.encoder.output_shape[-1] == table["units"][0]
    shown = " ".join(result.output.split())
    assert f"reconstruction {best['metrics']['reconstruction']:.4g}" in shown
    assert f"{table['reconstruction'][0]:.5f}" in shown


@pytest.mark.slow
def test_more_trials_continue_the_search(searched, tmp_path):
    folder = shutil.copytree(searched[0], tmp_path / "out")
    result = succeed("tune", *SMALL, "--trials", 3, "--output", folder)
    assert "after 2 trials" in result.output
    before, after = (
        pd.read_csv(path / "trials.csv").set_index("trial").sort_index()
        for path in (searched[0], folder)
    )
    assert len(after) == 3
    pd.testing.assert_frame_equal(after.loc[before.index], before)


@pytest.mark.slow
def test_search_that_stops_before_the_best_model_is_unfinished(
    searched, tmp_path, monkeypatch
):
    folder = shutil.copytree(searched[0], tmp_path / "out")

    def interrupt(*args):
        raise KeyboardInterrupt

    more = [*SMALL, "--trials", 3, "--output", folder]
    with monkeypatch.context() as patch:  # after trials.csv, before best.json
        patch.setattr("keras_sae.cli.tune.print_search", interrupt)
        patch.setattr("keras_sae.cli.tune.write_json", interrupt)
        assert run("tune", *more).exit_code == 130
    assert len(pd.read_csv(folder / "trials.csv")) == 3
    for options, trials in ((more, 3), ([*SMALL, "--output", folder], 3)):
        result = succeed("tune", *options)
        assert ("This search is finished" in result.output) == (options is not more)
        best = json.loads((folder / "best.json").read_text())
        assert best["trials"] == trials


@pytest.mark.slow
def test_search_with_other_settings_gets_the_next_free_folder(searched, tmp_path):
    folder = shutil.copytree(searched[0], tmp_path / "out")
    result = succeed("tune", *SMALL, "--factor", 1e-3, "--units", 8, "--output", folder)
    changes = "factor was None and is now 0.001; units was None and is now '8'"
    assert changes in " ".join(result.output.split())
    table = pd.read_csv(tmp_path / "out-2" / "trials.csv")
    assert set(table["l1_factor"]) == {1e-3}
    assert set(table["units"]) == {8}


def test_finished_search_is_recognized_without_its_data(searched, monkeypatch):
    folder, first = searched
    monkeypatch.setattr(datasets, "load_data", None)
    result = succeed("tune", *SMALL, "--output", folder)
    assert "This search is finished" in result.output
    assert result.stdout.splitlines()[1:] == first.stdout.splitlines()


def test_report_and_export_of_a_finished_search(searched, tmp_path):
    folder = shutil.copytree(searched[0], tmp_path / "out")
    serving = tmp_path / "serving"
    options = ["--report", "--export", serving]
    succeed("tune", *SMALL, *options, "--output", folder)
    assert (serving / "1" / "saved_model.pb").exists()
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "The best sparse autoencoder on digits" in page
    assert "shallow, l1" in page


def test_options_set_the_search_space(tmp_path, monkeypatch):
    def stop(hypermodel, *args, **kwargs):
        hp = keras_tuner.HyperParameters()
        model = hypermodel.build(hp)
        raise ValueError(json.dumps([hp.values, model.count_params()]))

    monkeypatch.setattr("keras_sae.tuning.search", stop)
    options = ["--family", "deep,variational", "--sparsity", "kl,none", "--untied"]
    options += ["--units", "12,6", "--target", 0.2, "--corruption", 0.1]
    result = run("tune", *options, "--output", tmp_path / "out")
    values, parameters = json.loads(result.stderr.split("Error: ")[1])
    assert (values["model"], values["sparsity"]) == ("deep", "kl")
    assert values["kl_target"] == 0.2
    assert "units" not in values
    assert values["depth"] == 2
    dense = 64 * 12 + 12 + 12 * 6 + 6  # and the same transposed, with other biases
    assert parameters > 2 * dense


def test_best_trial_that_is_worse_than_the_mean_is_reported(searched, tmp_path):
    folder = shutil.copytree(searched[0], tmp_path / "out")
    table = pd.read_csv(folder / "trials.csv")
    for explained, is_said in ((-0.25, True), (0.25, False)):
        table.assign(explained_variance=explained).to_csv(folder / "trials.csv")
        result = succeed("tune", *SMALL, "--output", folder)
        output = " ".join(result.output.split())
        assert ("mean of the data is a better reconstruction" in output) == is_said
        assert ("of the trial is -0.25" in output) == is_said


@pytest.mark.slow
def test_trials_are_written_when_none_meets_the_limit(tmp_path):
    refuse("0.01", "tune", *SMALL, "--max-l0", 0.01, "--output", tmp_path)
    assert len(pd.read_csv(tmp_path / "trials.csv")) == 2
    assert not (tmp_path / "best.keras").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--family", "shalow"], "Did you mean 'shallow'"),
        (["--family", "deep,shallow", "--units", "8,4"], "A shallow model has one"),
        (["--k", "3"], "--k has no effect on the sparsity l1"),
        (["--sparsity", "l1,l2"], "Unknown sparsity: 'l2'"),
        (["--tuner", "bayes"], "Did you mean 'bayesian'"),
        (["--objective", "val_lss"], "Unknown objective"),
        (["--max-l0", "-1"], "--max-l0 -1"),
    ],
)
def test_bad_options_end_in_one_message(options, message, tmp_path):
    base = SMALL[:4] if "--objective" in options else SMALL
    refuse(message, "tune", *base, *options, "--output", tmp_path / "out")


def test_validation_split_is_a_fifth_and_loses_no_sample():
    train, validation = split_validation(53, seed=0)
    assert (len(train), len(validation)) == (43, 10)
    assert sorted([*train, *validation]) == list(range(53))


def test_sparsity_is_described_with_its_own_settings():
    row = {"sparsity": "kl", "kl_target": 0.05, "kl_factor": 0.5, "l1_factor": None}
    assert describe_sparsity(pd.DataFrame([row])) == ["kl 0.05, 0.5"]
