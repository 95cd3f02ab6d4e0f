"""`keras-sae tune`: what it leaves, what it says, how it fails."""

import json

import keras
import pandas as pd
import pytest
from helpers import tensorflow_only
from typer.testing import CliRunner

from keras_sae import cli, datasets, searches

RUNNER = CliRunner()
# What it calls is tested on every backend; how it parses and prints is the same.
pytestmark = tensorflow_only
SMALL = ["--epochs", "1", "--trials", "2", "--max-l0", "60"]


@pytest.fixture(autouse=True)
def _few_digits(monkeypatch):
    (x, y), (test, y_test) = datasets.load_data("digits")
    small = ((x[:150], y[:150]), (test[:60], y_test[:60]))
    monkeypatch.setattr(datasets, "load_data", lambda name: small)


def _run(*arguments):
    return RUNNER.invoke(cli.app, ["tune", *map(str, arguments)])


def test_tune_leaves_a_table_a_picture_and_the_best_model(tmp_path):
    out = tmp_path / "out"
    result = _run(*SMALL, "--sparsity", "l1", "--output", out)
    assert result.exit_code == 0, result.output
    assert {path.name for path in out.iterdir()} == {
        "settings.json",
        "search",
        "trials.csv",
        "trials.json",
        "pareto.png",
        "best.keras",
        "best.json",
    }
    table = pd.read_csv(out / "trials.csv")
    assert list(table["status"]) == ["COMPLETED"] * 2
    assert table["score"].is_monotonic_increasing
    records = json.loads((out / "trials.json").read_text())
    assert [r["score"] for r in records] == pytest.approx(list(table["score"]))
    best = json.loads((out / "best.json").read_text())
    assert best["settings"]["units"] == table["units"][0]
    model = keras.saving.load_model(out / "best.keras")
    assert model.encoder.output_shape[-1] == table["units"][0]
    shown = " ".join(result.output.split())
    assert f"reconstruction {best['figures']['reconstruction']:.4g}" in shown
    assert f"{table['reconstruction'][0]:.5f}" in shown

    # More trials go on from there; other settings do not.
    more = _run(*SMALL, "--trials", 3, "--sparsity", "l1", "--output", out)
    assert more.exit_code == 0, more.output
    again = pd.read_csv(out / "trials.csv").set_index("trial").sort_index()
    assert len(again) == 3
    first = table.set_index("trial").sort_index()
    pd.testing.assert_frame_equal(again.loc[first.index], first)
    other = _run(*SMALL, "--sparsity", "kl", "--output", out)
    assert other.exit_code == 2
    assert "sparsity was 'l1' and is now 'kl'" in " ".join(other.output.split())


def test_a_limit_that_no_trial_met_leaves_the_trials(tmp_path):
    result = _run(*SMALL, "--max-l0", 0.01, "--sparsity", "l1", "--output", tmp_path)
    assert result.exit_code == 2
    assert "No trial kept the limit of 0.01" in result.output
    assert len(pd.read_csv(tmp_path / "trials.csv")) == 2
    assert not (tmp_path / "best.keras").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model", "shalow"], "Did you mean 'shallow'"),
        (["--sparsity", "l1,l2"], "Unknown sparsity: 'l2'"),
        (["--tuner", "bayes"], "Did you mean 'bayesian'"),
        (["--objective", "val_lss"], "Unknown objective"),
        (["--max-l0", "-1"], "max_l0=-1"),
    ],
)
def test_bad_options_end_in_one_message(options, message, tmp_path):
    given = [] if "--max-l0" in options else ["--max-l0", "60"]
    given = [] if "--objective" in options else given
    base = ["--epochs", "1", "--trials", "2", *given]
    result = _run(*base, *options, "--output", tmp_path / "out")
    assert result.exit_code == 2, result.output
    assert message in " ".join(result.output.split())
    assert "Traceback" not in result.output


def test_help_shows_an_example():
    result = _run("--help")
    assert result.exit_code == 0
    assert "keras-sae tune --" in result.output
    for option in ("--dataset", "--epochs", "--seed", "--output", "--workers"):
        assert option in result.output


def test_a_fifth_is_held_out_and_nothing_is_lost(rng):
    x, y = rng.random((53, 2)), rng.integers(0, 9, 53)
    (a, y_a), (b, y_b) = searches.split(x, y, 0)
    assert (len(a), len(b)) == (43, 10)
    both = {(*row, label) for row, label in zip([*a, *b], [*y_a, *y_b], strict=True)}
    assert both == {(*row, label) for row, label in zip(x, y, strict=True)}
