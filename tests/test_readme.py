"""The README runs as it stands, and names nothing that is not there."""

import re

import keras
import pytest
from helpers import tensorflow_only
from pages import ROOT, blocks, run

import keras_sae

README = (ROOT / "README.md").read_text()


@tensorflow_only
def test_the_twenty_lines_run(tmp_path):
    ((_, code),) = blocks(ROOT / "README.md")
    assert len([line for line in code.splitlines() if line.strip()]) <= 20
    names = run(ROOT / "README.md", tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"filters.png", "edges.keras"}
    assert names["features"].shape == (len(names["x_test"]), 96)
    # What the text says of the picture: with the penalty few units are active.
    active = (names["features"] != 0).sum(axis=1).mean()
    assert active < 96 / 4
    keras.saving.load_model(tmp_path / "edges.keras")


def test_names_in_the_box_exist():
    table = README.split("## What is in the box")[1]
    for name in re.findall(r"`([a-z]+\.[A-Za-z]\w+)`", table):
        module, attribute = name.split(".")
        if module == "keras":
            continue
        assert hasattr(getattr(keras_sae, module), attribute), name


@pytest.mark.parametrize("path", re.findall(r"\]\((?!http)([^)]+)\)", README))
def test_links_lead_somewhere(path):
    assert (ROOT / path).exists()


def test_there_is_one_command_of_each_kind():
    commands = re.findall(r"```sh\n(.*?)```", README, re.S)
    assert [command.strip().split("&& ")[-1] for command in commands] == [
        "keras-sae compare",
        "pytest",
    ]
