"""`keras-sae compare`, `train` and `export`: files, messages and errors."""

import contextlib
import inspect
import json
import os
import shutil
import subprocess
import sys

import keras
import numpy as np
import pandas as pd
import pytest
from commands import refuse, run, succeed
from helpers import tensorflow_only

import keras_sae
from keras_sae import cli, datasets
from keras_sae.cli import compare, presets
from keras_sae.cli.train import train as _train
from keras_sae.cli.tune import tune as _tune
from keras_sae.evaluation.training import file_stem
from keras_sae.layers import MaskingNoise, get_sparsity

# Parsing and printing do not depend on the backend.
pytestmark = tensorflow_only
SMALL = ["--epochs", "1", "--units", "4"]
# A target, a preparation, and the pictures of a variational model.
COMPARED = ["KL", "stacked, greedy", "variational, 4"]


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module", autouse=True)
def _few_digits():
    """Let the commands load 160 digits instead of all of them."""
    load_data = datasets.load_data

    def load_few(name, **options):
        if options:  # a file
            return load_data(name, **options)
        (x, y), (x_test, y_test) = load_data(name)
        return (x[:160], y[:160]), (x_test[:60], y_test[:60])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets, "load_data", load_few)
        yield


@contextlib.contextmanager
def _fewer_models(*names):
    """Let `compare` train only some of its models, and sweep only KL."""
    families = presets.families

    def fewer(*args):
        preset = families(*args)
        return presets.Preset(
            {name: preset.builders[name] for name in names},
            {name: f for name, f in preset.prepare.items() if name in names},
            {"KL": preset.sweeps["KL"]},
        )

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(presets, "families", fewer)
        yield


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli") / "out"
    with _fewer_models(*COMPARED):
        result = succeed("compare", *SMALL, "--output", folder)
    return folder, result


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli") / "out"
    succeed("train", *SMALL, "--output", folder)
    return folder


def test_compare_writes_models_metrics_and_pictures(compared):
    folder, result = compared
    names = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    stems = [file_stem(name, 0) for name in COMPARED]
    pictures = ["filters", "reconstructions", "activations", "history"]
    assert names == {
        "settings.json",
        "metrics.json",
        "table.csv",
        *(f"{stem}.{suffix}" for stem in stems for suffix in ("json", "keras")),
        *(f"{picture}.png" for picture in (*pictures, "samples", "latent_plane")),
    }
    table = pd.read_csv(folder / "table.csv")
    baselines = ["PCA", "raw pixels", "random encoder", "dictionary learning"]
    assert list(table["model"]) == [*COMPARED, *baselines]
    expected = {"fine_tuned_accuracy", "probe_accuracy_100", "copying", "hoyer"}
    assert expected | {"target_distance"} <= set(table.columns)
    for name in table["model"]:
        assert name in result.output
    records = json.loads((folder / "metrics.json").read_text())
    for record, row in zip(records, table.to_dict("records"), strict=True):
        for key, value in record.items():  # NaN is null in JSON
            missing = row[key] != row[key]
            assert value is None if missing else value == pytest.approx(row[key])


def test_families_have_codes_of_equal_width():
    preset = presets.families((8, 8, 1), 4, 1, 1e-3, 1e-2, 0.05, 1e-3)
    assert list(preset.builders)[::5] == ["no penalty", "contractive", "convolutional"]
    for build in preset.builders.values():
        model = build()
        model.check_data(np.ones((2, 8, 8, 1), "float32"), batch_size=2)
        assert model.encode(np.ones((2, 8, 8, 1), "float32")).shape == (2, 4)
    # A series of measurements has no convolutional model.
    preset = presets.families((8,), 4, 1, 1e-3, 1e-2, 0.05, 1e-3)
    assert "convolutional" not in preset.builders


def test_saved_models_run_one_step_per_call(trained):
    model = keras.saving.load_model(trained / "shallow-seed0.keras")
    assert model.steps_per_execution == 1


def test_same_seed_gives_the_same_metrics(trained, tmp_path):
    again = tmp_path / "again"
    succeed("train", *SMALL, "--output", again)
    first, second = (
        pd.read_csv(folder / "table.csv").drop(columns="seconds")
        for folder in (trained, again)
    )
    pd.testing.assert_frame_equal(first, second, check_exact=True)


def test_finished_run_is_recognized_without_its_data(trained, monkeypatch):
    model = trained / "shallow-seed0.keras"
    before = model.stat().st_mtime_ns
    monkeypatch.setattr(datasets, "load_data", None)
    result = succeed("train", *SMALL, "--output", trained)
    assert "This run is finished" in result.output
    error = pd.read_csv(trained / "table.csv")["reconstruction"][0]
    assert f"{error:.5f}" in result.output
    assert model.stat().st_mtime_ns == before


def test_finished_run_is_repeated_with_overwrite(trained, tmp_path):
    folder = shutil.copytree(trained, tmp_path / "out")
    before = (folder / "shallow-seed0.keras").stat().st_mtime_ns
    (folder / "old.png").write_text("")
    succeed("train", *SMALL, "--overwrite", "--output", folder)
    assert (folder / "shallow-seed0.keras").stat().st_mtime_ns != before
    assert not (folder / "old.png").exists()


def test_overwrite_deletes_only_the_folder_of_a_run(tmp_path):
    (tmp_path / "settings.json").write_text('{"editor": "vim"}')
    message = "expected 'command' of type str"
    refuse(message, "train", *SMALL, "--overwrite", "--output", tmp_path)
    assert (tmp_path / "settings.json").exists()


def test_interrupted_run_resumes(tmp_path, monkeypatch):
    def stop(epoch, logs):
        if epoch == 1:
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def interrupting(trainings, epochs):
        yield lambda name: [keras.callbacks.LambdaCallback(on_epoch_end=stop)]

    command = ["train", "--epochs", 3, "--units", 4, "--output"]
    with monkeypatch.context() as patch:
        patch.setattr(compare, "progress_bars", interrupting)
        result = run(*command, tmp_path / "out")
    assert result.exit_code == 130
    assert "Run the same command again to resume" in result.output
    assert not (tmp_path / "out" / "table.csv").exists()
    result = succeed(*command, tmp_path / "out")
    message = "0 of 1 models are finished. The next model starts at epoch 1"
    assert message in result.output
    record = json.loads((tmp_path / "out" / "shallow-seed0.json").read_text())
    assert len(record["history"]["loss"]) == 3


_KILLED = """
import os, signal, sys
from matplotlib.figure import Figure
from keras_sae import cli, datasets

def savefig(self, path):
    path.write_bytes(b"a part of the picture")
    os.kill(os.getpid(), signal.SIGKILL)

Figure.savefig = savefig
load_data = datasets.load_data
datasets.load_data = lambda name: tuple(
    (x[:n], y[:n]) for (x, y), n in zip(load_data(name), (160, 60))
)
cli.main()
"""


@pytest.mark.slow
def test_run_that_was_killed_while_it_drew_a_picture_resumes(tmp_path):
    arguments = ["train", *SMALL, "--output", str(tmp_path / "out")]
    killed = subprocess.run([sys.executable, "-c", _KILLED, *arguments])
    assert killed.returncode == -9
    model = tmp_path / "out" / "shallow-seed0.keras"
    before = model.stat().st_mtime_ns
    assert list(model.parent.glob(".unfinished-*"))
    assert not list(model.parent.glob("*.png"))
    succeed(*arguments)
    assert model.stat().st_mtime_ns == before
    assert len(list(model.parent.glob("*.png"))) == 4
    assert not list(model.parent.glob(".unfinished-*"))


def test_run_with_other_settings_gets_the_next_free_folder(trained, tmp_path):
    folder = shutil.copytree(trained, tmp_path / "out")
    before = (folder / "shallow-seed0.keras").stat().st_mtime_ns
    result = succeed("train", *SMALL, "--seed", 1, "--output", folder)
    assert "seed was 0 and is now 1" in result.output
    assert (tmp_path / "out-2" / "shallow-seed1.keras").exists()
    assert (folder / "shallow-seed0.keras").stat().st_mtime_ns == before
    result = succeed("train", *SMALL, "--seed", 1, "--output", folder)
    assert "This run is finished" in result.output
    assert not (tmp_path / "out-3").exists()


def test_folder_with_other_files_is_not_touched(tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    message = "--output must be a new or empty folder"
    refuse(message, "train", *SMALL, "--output", tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("output", ["file", "file/out"])
def test_output_that_cannot_be_a_folder_is_an_error(output, tmp_path):
    (tmp_path / "file").write_text("")
    message = "must be a writable folder"
    refuse(message, "train", *SMALL, "--output", tmp_path / output)


def test_train_applies_its_options(tmp_path):
    out = tmp_path / "out"
    options = ["--family", "deep", "--units", "8,4", "--sparsity", "kl", "--tied"]
    options += ["--target", 0.1, "--factor", 0.5, "--epochs", 1]
    succeed("train", *options, "--output", out)
    model = keras.saving.load_model(out / "deep-seed0.keras")
    assert [layer.units for layer in model.sparse_layers] == [8, 4]
    regularizer = model.sparse_layers[-1].sparsity.regularizer
    assert (regularizer.target, regularizer.factor) == (0.1, 0.5)
    assert model.decoder.layers[1].kernel is model.sparse_layers[-1].kernel
    np.testing.assert_allclose(float(model.optimizer.learning_rate), 5e-3, rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--dataset", "digit"], "digits"),
        (["--sparsity", "k1"], "Did you mean"),
        (["--family", "shalow"], "Did you mean 'shallow'"),
        (["--target", "0.1"], "--target has no effect on the sparsity l1"),
        (["--k", "3"], "one of top_k, batch_top_k, jump_relu, matryoshka"),
        (["--sparsity", "top_k", "--k", "9"], "--k"),
        (["--sparsity", "l1,kl"], "`keras-sae tune` accepts lists"),
        (["--family", "variational", "--tied"], "cannot have tied weights"),
        (["--corruption", "1"], "--corruption must be between 0 and 1"),
        (["--label", "class"], "apply only to files"),
        (["--sparsity", "kl", "--target", "1.5"], "between 0 and 1"),
        (["--factor", "-1"], "--factor must be a finite number >= 0. Received: --fac"),
        (["--factor", "nan"], "--factor"),
        (["--learning-rate", "-1"], "--learning-rate -1"),
        (["--learning-rate", "nan"], "--learning-rate must be a finite number > 0"),
        (["--units", "4,x"], "separated by commas"),
        (["--units", "0"], "positive integer"),
        (["--family", "deep", "--units", "8,-1"], "positive integer"),
    ],
)
def test_bad_options_end_in_one_message_and_no_folder(options, message, tmp_path):
    out = tmp_path / "out"
    refuse(message, "train", *SMALL, *options, "--output", out)
    assert not out.exists()


@pytest.mark.slow
def test_full_comparison_runs_three_seeds_and_a_sweep(tmp_path, monkeypatch):
    monkeypatch.setattr(compare, "FACTORS", (1e-3, 1e-1))
    out = tmp_path / "out"
    with _fewer_models("L1"):
        result = succeed("compare", *SMALL, "--full", "--output", out)
    table = pd.read_csv(out / "table.csv")
    assert list(table["seed"][:3]) == [0, 1, 2]
    errors = table.loc[table["model"] == "L1", "reconstruction"]
    assert f"{errors.mean():.5f}±{errors.std():.5f}" in result.output
    summary = pd.read_csv(out / "summary.csv").set_index("model")
    assert summary.loc["L1", "reconstruction_std"] == pytest.approx(errors.std())
    swept = pd.read_csv(out / "sweep.csv")
    assert list(swept["model"]) == ["KL"] * 2
    assert swept["effective_l0"].notna().all()
    assert (out / "pareto.png").exists()


def _signatures(path) -> list[str]:
    import tensorflow as tf

    return sorted(tf.saved_model.load(str(path)).signatures)


def test_train_exports_a_finished_model_with_its_metrics(trained, tmp_path):
    serving = tmp_path / "serving" / "sae"
    options = ["--output", trained, "--export", serving]
    result = succeed("train", *SMALL, *options)
    assert str(serving / "1") in result.output.replace("\n", "")
    assert "anomaly_score" in _signatures(serving / "1")
    metadata = json.loads((serving / "1/assets.extra/metadata.json").read_text())
    [row] = json.loads((trained / "metrics.json").read_text())[:1]
    for name in ("reconstruction", "l0"):
        assert metadata["metrics"][name] == pytest.approx(row[name], rel=1e-4)


def test_export_writes_the_given_version_once(trained, tmp_path, monkeypatch):
    monkeypatch.setattr("keras_sae.export.serving_assets.find_spec", lambda name: None)
    model = trained / "shallow-seed0.keras"
    options = ["--images", "--version", 5, "--top-k", 2]
    result = succeed("export", model, "--output", tmp_path, *options)
    assert "encode_png" in _signatures(tmp_path / "5")
    # A missing package is one line, without the code that warns.
    [line] = [x for x in result.stderr.splitlines() if "warm-up" in x]
    assert line.startswith("The artifact has no warm-up requests")
    refuse("never overwritten", "export", model, "--output", tmp_path, *options)


def test_export_trains_for_further_epochs(trained, tmp_path):
    model = trained / "shallow-seed0.keras"
    options = ["--dataset", "digits", "--epochs", 2, "--output", tmp_path]
    succeed("export", model, *options)
    metadata = json.loads((tmp_path / "1/assets.extra/metadata.json").read_text())
    [before] = json.loads((trained / "metrics.json").read_text())[:1]
    assert metadata["metrics"]["reconstruction"] < before["reconstruction"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.keras"], "nowhere.keras"),
        (["MODEL", "--epochs", 3], "--epochs requires data"),
        (["MODEL", "--version", 0], "positive integer"),
        (["MODEL", "--dataset", "digit"], "digits"),
    ],
)
def test_bad_exports_end_in_one_message(arguments, message, trained, tmp_path):
    model = str(trained / "shallow-seed0.keras")
    given = [model if argument == "MODEL" else argument for argument in arguments]
    refuse(message, "export", *given, "--output", tmp_path / "sae")
    assert not (tmp_path / "sae").exists()


@pytest.mark.parametrize("command", ["encode", "score"])
def test_help_of_commands_with_arguments_shows_an_example(command):
    result = succeed(command, "--help")
    assert f"keras-sae {command} model.keras" in result.output
    assert "--output" in result.output


@pytest.mark.parametrize("command", ["compare", "train", "tune", "export"])
def test_help_shows_an_example_and_the_common_options(command):
    result = succeed(command, "--help")
    assert f"keras-sae {command} --" in result.output
    for option in ("--dataset", "--data", "--epochs", "--seed", "--output"):
        assert option in result.output


def test_train_and_tune_share_the_options_of_a_model():
    names = (
        "family",
        "sparsity",
        "k",
        "factor",
        "target",
        "units",
        "tied",
        "corruption",
    )
    train, tune = (inspect.signature(command) for command in (_train, _tune))
    for name in (*names, "report", "export_to", "overwrite", "data", "label"):
        assert train.parameters[name].annotation == tune.parameters[name].annotation
        assert train.parameters[name].default == tune.parameters[name].default


@pytest.mark.parametrize(
    ("family", "sparsity", "settings"),
    [
        ("shallow", "batch_top_k", {"k": 2}),
        ("deep", "matryoshka", {}),
        ("stacked", "lifetime", {"fraction": 0.2}),
        ("convolutional", "gated", {"factor": 0.1}),
        ("deep", "jump_relu", {"factor": 0.1, "target_l0": 2}),
        ("variational", None, None),
    ],
)
def test_train_builds_every_family(family, sparsity, settings, monkeypatch):
    built = []

    class Builds(compare.Run):
        def train(self, baselines):
            built.append(self.preset.builders[family]())

    monkeypatch.setattr("keras_sae.cli.train.Run", Builds)
    options = ["--family", family, "--units", 6, "--corruption", 0.2]
    names = {"k": "k", "target_l0": "k", "factor": "factor", "fraction": "target"}
    for name, value in (settings or {}).items():
        options += [f"--{names[name]}", value]
    options += ["--sparsity", sparsity] if sparsity else []
    succeed("train", *options, "--output", "out")
    [model] = built
    assert model.name == family
    assert model.encoder.output_shape[-1] == 6
    assert [x.rate for x in model.encoder.layers if isinstance(x, MaskingNoise)] == [
        0.2
    ]
    used = model.sparse_layers[-1].sparsity if model.sparse_layers else None
    assert type(used) is type(get_sparsity(sparsity))
    for name, value in (settings or {}).items():
        assert getattr(used, name) == value


def test_version_is_that_of_the_package():
    result = succeed("--version")
    assert result.output == f"keras-sae {keras_sae.__version__}\n"


def _run_alone(folder, *arguments):
    """Run the command in a process and a folder of its own, as from a shell."""
    code = "import sys; sys.argv[0] = 'keras-sae'; import keras_sae_cli as c; c.main()"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={k: v for k, v in os.environ.items() if not k.startswith("TF_")},
        cwd=folder,
        capture_output=True,
        text=True,
    )


def test_error_is_the_only_line_on_standard_error(tmp_path):
    done = _run_alone(tmp_path, "train", "--data", "no.csv")
    assert done.returncode == 2
    assert done.stderr.startswith("Error: There is no such file or folder")
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_screen_shows_no_log_lines_bars_or_warnings(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "not-prepared"))
    done = _run_alone(tmp_path, "train", *SMALL, "--export", "serving/sae")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


def test_main_help_fits_a_screen_and_has_each_command_and_an_example():
    result = succeed("--help")
    assert len(result.output.splitlines()) <= 24
    for command in cli.app.app.registered_commands:
        assert f" {command.callback.__name__} " in result.output
    assert "keras-sae train --data flowers.csv" in result.output


def test_report_of_a_finished_run(trained):
    result = succeed("train", *SMALL, "--report", "--output", trained)
    assert "report.html" in result.output.replace("\n", "")
    page = (trained / "report.html").read_text(encoding="utf-8")
    assert "Sparse autoencoders on digits" in page
    assert '"shallow"' in page
