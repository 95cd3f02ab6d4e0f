"""The command line: what it leaves, what it says, how it fails, that it repeats."""

import json

import keras
import numpy as np
import pandas as pd
import pytest
from helpers import tensorflow_only
from typer.testing import CliRunner

from keras_sae import cli, evaluation, models, plans, runs

RUNNER = CliRunner()
# What it calls is tested on every backend; how it parses and prints is the same.
pytestmark = tensorflow_only
SMALL = ["--epochs", "1", "--units", "4"]


def _run(*arguments):
    return RUNNER.invoke(cli.app, [str(a) for a in arguments])


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli") / "out"
    result = _run("compare", *SMALL, "--output", folder)
    assert result.exit_code == 0, result.output
    return folder, result


def test_a_saved_model_runs_one_step_a_call_on_every_backend(tmp_path):
    model = plans.compiled(1e-3, models.shallow, (6,), 4)()
    model.fit(np.ones((40, 6), "float32"), verbose=0)
    model.save(tmp_path / "model.keras")
    assert model.steps_per_execution > 1
    assert keras.saving.load_model(tmp_path / "model.keras").steps_per_execution == 1


def test_compare_leaves_models_figures_and_pictures(compared):
    folder, result = compared
    names = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    names_of_models = plans.families((8, 8, 1), 4, 1, 1e-3, 1e-2, 0.05, 1e-3).builders
    runs = [evaluation.run_name(name, 0) for name in names_of_models]
    pictures = ["filters", "reconstructions", "activations", "history"]
    assert names == {
        "settings.json",
        "metrics.json",
        "table.csv",
        *(f"{run}.{kind}" for run in runs for kind in ("json", "keras")),
        *(f"{picture}.png" for picture in (*pictures, "samples", "latent_plane")),
    }
    table = pd.read_csv(folder / "table.csv")
    baselines = ["PCA", "raw pixels", "random encoder", "dictionary learning"]
    assert list(table["model"]) == [*names_of_models, *baselines]
    wanted = {"fine_tuned_accuracy", "probe_accuracy_100", "probe_accuracy_1000"}
    assert wanted | {"copying", "hoyer", "target_distance"} <= set(table.columns)
    for name in table["model"]:
        assert name in result.output
    records = json.loads((folder / "metrics.json").read_text())
    for record, row in zip(records, table.to_dict("records"), strict=True):
        for key, value in record.items():  # JSON has no NaN: null
            missing = row[key] != row[key]
            assert value is None if missing else value == pytest.approx(row[key])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli") / "out"
    assert _run("train", *SMALL, "--output", folder).exit_code == 0
    return folder


def test_the_same_seed_gives_the_same_numbers(trained, tmp_path):
    again = tmp_path / "again"
    assert _run("train", *SMALL, "--output", again).exit_code == 0
    first, second = (
        pd.read_csv(folder / "table.csv").drop(columns="seconds")
        for folder in (trained, again)
    )
    pd.testing.assert_frame_equal(first, second, check_exact=True)


def test_a_finished_run_is_read_again(trained):
    model = trained / "shallow-seed0.keras"
    before = model.stat().st_mtime_ns
    assert _run("train", *SMALL, "--output", trained).exit_code == 0
    assert model.stat().st_mtime_ns == before


def test_another_run_is_not_overwritten(trained):
    result = _run("train", *SMALL, "--seed", 1, "--output", trained)
    assert result.exit_code == 2
    assert "seed was 0 and is now 1" in result.output
    assert (trained / "shallow-seed0.keras").exists()


def test_a_folder_with_other_files_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    result = _run("train", *SMALL, "--output", tmp_path)
    assert result.exit_code == 2
    assert "not a run of keras-sae" in result.output
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_folder_that_is_a_file(tmp_path):
    path = tmp_path / "file"
    path.write_text("")
    result = _run("train", *SMALL, "--output", path)
    assert result.exit_code == 2
    assert "must be a folder that can be written" in result.output


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")  # not even the superuser makes a folder in it
    result = _run("train", *SMALL, "--output", tmp_path / "file" / "out")
    assert result.exit_code == 2
    assert "must be a folder that can be written" in result.output


def test_train_takes_its_settings(tmp_path):
    out = tmp_path / "out"
    options = ["--sparsity", "kl", "--target", 0.1, "--factor", 0.5, "--tied"]
    result = _run("train", *SMALL, *options, "--output", out)
    assert result.exit_code == 0, result.output
    import keras

    model = keras.saving.load_model(out / "shallow-seed0.keras")
    regularizer = model.sparse_layers[0].sparsity.regularizer
    assert (regularizer.target, regularizer.factor) == (0.1, 0.5)
    assert model.decoder.layers[1].kernel is model.sparse_layers[0].kernel
    np.testing.assert_allclose(float(model.optimizer.learning_rate), 5e-3, rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--dataset", "digit"], "digits"),
        (["--sparsity", "k1"], "Did you mean"),
        (["--family", "shalow"], "Did you mean 'shallow'"),
        (["--target", "0.1"], "belongs to the KL penalty"),
        (["--sparsity", "top_k"], "must be a penalty with a weight"),
        (["--sparsity", "kl", "--target", "1.5"], "between 0 and 1"),
        (["--factor", "-1"], "`factor`"),
        (["--factor", "nan"], "`factor`"),
        (["--learning-rate", "-1"], "`learning_rate`"),
        (["--learning-rate", "nan"], "`learning_rate` must be a finite number > 0"),
        (["--batch-size", "5000"], "fewer samples than one batch"),
        (["--units", "4,x"], "with commas between"),
        (["--units", "0"], "positive integer"),
        (["--family", "deep", "--units", "8,-1"], "positive integer"),
    ],
)
def test_bad_options_end_in_one_message_and_no_folder(options, message, tmp_path):
    out = tmp_path / "out"
    result = _run("train", *SMALL, *options, "--output", out)
    assert result.exit_code == 2, result.output
    assert message in " ".join(result.output.split())
    assert "Traceback" not in result.output
    assert not out.exists()


def test_a_deep_family_takes_several_widths(tmp_path):
    out = tmp_path / "out"
    options = ["--epochs", "1", "--family", "deep", "--units", "8,4"]
    assert _run("train", *options, "--output", out).exit_code == 0
    import keras

    model = keras.saving.load_model(out / "deep-seed0.keras")
    assert [layer.units for layer in model.sparse_layers] == [8, 4]


def test_full_runs_three_seeds_and_a_sweep(tmp_path, monkeypatch):
    from keras_sae import datasets

    (x, y), (test, y_test) = datasets.load_data("digits")
    small = ((x[:80], y[:80]), (test[:40], y_test[:40]))
    monkeypatch.setattr(datasets, "load_data", lambda name: small)
    whole = plans.families

    def fewer(*args, **kwargs):
        plan = whole(*args, **kwargs)
        return plans.Plan({"L1": plan.builders["L1"]}, sweeps={"KL": plan.sweeps["KL"]})

    monkeypatch.setattr(plans, "families", fewer)
    monkeypatch.setattr(runs, "FACTORS", (1e-3, 1e-1))
    out = tmp_path / "out"
    result = _run("compare", *SMALL, "--full", "--output", out)
    assert result.exit_code == 0, result.output
    table = pd.read_csv(out / "table.csv")
    assert list(table["seed"][:3]) == [0, 1, 2]
    errors = table.loc[table["model"] == "L1", "reconstruction"]
    assert f"{errors.mean():.5f}±{errors.std():.5f}" in result.output
    summary = pd.read_csv(out / "summary.csv").set_index("model")
    assert summary.loc["L1", "reconstruction_spread"] == pytest.approx(errors.std())
    swept = pd.read_csv(out / "sweep.csv")
    assert list(swept["model"]) == ["KL"] * 2
    assert swept["active"].notna().all()
    assert (out / "pareto.png").exists()


def _served(path) -> list[str]:
    import tensorflow as tf

    return sorted(tf.saved_model.load(str(path)).signatures)


def test_train_exports_what_it_has_trained(trained, tmp_path):
    """The run is read again, and its model exported with its figures."""
    serving = tmp_path / "serving" / "sae"
    options = ["--output", trained, "--export", serving]
    result = _run("train", *SMALL, *options)
    assert result.exit_code == 0, result.output
    assert str(serving / "1") in result.output.replace("\n", "")
    assert "anomaly_score" in _served(serving / "1")
    metadata = json.loads((serving / "1/assets.extra/metadata.json").read_text())
    [row] = json.loads((trained / "metrics.json").read_text())[:1]
    for name in ("reconstruction", "l0"):
        assert metadata["figures"][name] == pytest.approx(row[name], rel=1e-4)


def test_export_of_a_file(trained, tmp_path):
    model = trained / "shallow-seed0.keras"
    options = ["--images", "--version", 5, "--top-k", 2]
    result = _run("export", model, "--output", tmp_path, *options)
    assert result.exit_code == 0, result.output
    assert "encode_png" in _served(tmp_path / "5")
    result = _run("export", model, "--output", tmp_path, *options)
    assert result.exit_code == 2
    assert "never overwritten" in result.output


def test_export_says_in_a_line_what_is_missing(trained, tmp_path, monkeypatch):
    monkeypatch.setattr("keras_sae.export._extras.find_spec", lambda name: None)
    model = trained / "shallow-seed0.keras"
    result = _run("export", model, "--output", tmp_path / "sae")
    assert result.exit_code == 0
    [line] = [x for x in result.stderr.splitlines() if "warm-up" in x]
    assert line.startswith("The artifact has no warm-up requests")


def test_export_may_train_on(trained, tmp_path):
    model = trained / "shallow-seed0.keras"
    errors = []
    for epochs in (0, 2):
        options = ["--dataset", "digits", "--epochs", epochs, "--output", tmp_path]
        assert _run("export", model, *options).exit_code == 0
        path = tmp_path / str(len(errors) + 1) / "assets.extra" / "metadata.json"
        errors.append(json.loads(path.read_text())["figures"]["reconstruction"])
    assert errors[1] < errors[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.keras"], "nowhere.keras"),
        (["MODEL", "--epochs", 3], "Training needs data"),
        (["MODEL", "--version", 0], "positive integer"),
        (["MODEL", "--dataset", "digit"], "digits"),
    ],
)
def test_bad_exports_end_in_one_message(arguments, message, trained, tmp_path):
    model = str(trained / "shallow-seed0.keras")
    given = [model if one == "MODEL" else one for one in arguments]
    result = _run("export", *given, "--output", tmp_path / "sae")
    assert result.exit_code == 2, result.output
    assert message in result.output
    assert not (tmp_path / "sae").exists()


@pytest.mark.parametrize("command", ["compare", "train", "export"])
def test_help_shows_an_example(command):
    result = _run(command, "--help")
    assert result.exit_code == 0
    assert f"keras-sae {command} --" in result.output
    for option in ("--dataset", "--epochs", "--seed", "--output"):
        assert option in result.output


def test_a_report_of_a_finished_run(trained):
    result = _run("train", *SMALL, "--report", "--output", trained)
    assert result.exit_code == 0, result.output
    assert "report.html" in result.output.replace("\n", "")
    page = (trained / "report.html").read_text(encoding="utf-8")
    assert "Sparse autoencoders on digits" in page
    assert "dictionary learning" in page  # the table, with its baselines


def test_the_first_help_fits_a_screen_and_has_an_example_of_each_command():
    result = _run("--help")
    assert result.exit_code == 0
    assert len(result.output.splitlines()) <= 24
    for command in cli.app.registered_commands:
        assert f"keras-sae {command.callback.__name__} --" in result.output
