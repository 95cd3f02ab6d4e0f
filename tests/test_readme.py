"""The code of the README runs, and everything that it names exists."""

import re

import keras
import pytest
from helpers import tensorflow_only
from pages import ROOT, blocks, run

import keras_sae

README = (ROOT / "README.md").read_text()


def run_twenty_lines(folder, epochs):
    """Run the code of the README with another number of epochs."""
    ((_, code),) = blocks(ROOT / "README.md")
    assert "epochs=60," in code
    assert len([line for line in code.splitlines() if line.strip()]) <= 20
    page = folder / "lines.md"
    page.write_text(f"```python\n{code}```\n".replace("=60,", f"={epochs},"))
    names = run(page, folder)
    page.unlink()
    assert {path.name for path in folder.iterdir()} == {"filters.png", "edges.keras"}
    keras.saving.load_model(folder / "edges.keras")
    return names


@tensorflow_only
def test_the_twenty_lines_run(tmp_path):
    names = run_twenty_lines(tmp_path, epochs=1)
    assert names["features"].shape == (len(names["x_test"]), 96)


@tensorflow_only
@pytest.mark.slow
def test_the_twenty_lines_give_a_sparse_code(tmp_path):
    features = run_twenty_lines(tmp_path, epochs=60)["features"]
    assert (features != 0).sum(axis=1).mean() < 96 / 4


def test_names_in_the_table_of_contents_exist():
    table = README.split("## Contents of the package")[1]
    for name in re.findall(r"`([a-z]+\.[A-Za-z]\w+)`", table):
        module, attribute = name.split(".")
        if module == "keras":
            continue
        assert hasattr(getattr(keras_sae, module), attribute), name


@pytest.mark.parametrize("path", re.findall(r"\]\((?!http)([^)#]+)", README))
def test_links_lead_to_a_file(path):
    assert (ROOT / path).exists()


def test_there_is_one_command_of_each_kind():
    commands = re.findall(r"```sh\n(.*?)```", README, re.S)
    assert [command.strip().split("&& ")[-1] for command in commands] == [
        "keras-sae compare",
        "pytest",
    ]
