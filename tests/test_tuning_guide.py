"""The guide names what there is, and its space is one."""

import re

import keras_tuner
from helpers import tensorflow_only
from pages import DOCS, blocks, run

from keras_sae import tuning
from keras_sae.tuning import objectives

PAGE = DOCS / "guides" / "tuning.md"
GUIDE = PAGE.read_text()
BLOCKS = [code for _, code in blocks(PAGE)]


def test_names_in_the_guide_exist():
    for name in re.findall(r"\btuning\.([A-Za-z_]+)\(", GUIDE):
        assert hasattr(tuning, name), name
    table = GUIDE.split("## What is searched for")[1].split("##")[0]
    named = re.findall(r'^\| `"(\w+)"` \|', table, re.M)
    assert set(named) == set(objectives.OBJECTIVES)
    assert hasattr(tuning, "ConstraintError")
    assert hasattr(tuning, "FailedTrialsError")


def test_links_of_the_guide_lead_somewhere():
    for link in re.findall(r"\]\((?!http)([^)]+)\)", GUIDE):
        assert (PAGE.parent / link).exists(), link


def test_the_space_of_the_guide_can_be_built():
    (space,) = [block for block in BLOCKS if "factor=..." in block]
    hypermodel = eval(space, {"tuning": tuning})
    hp = keras_tuner.HyperParameters()
    hypermodel.declare_hyperparameters(hp)
    model = hypermodel.build(hp)
    assert model.decoder.layers[-2].activation.__name__ == "sigmoid"
    assert hp["batch_size"] == 64


@tensorflow_only
def test_its_code_runs(tmp_path, monkeypatch):
    """Two trials of an epoch, and a limit that all keep, stand for the long search."""
    search, small = tuning.search, {"max_trials": 2, "epochs": 1, "max_l0": 1000}
    monkeypatch.setattr(tuning, "search", lambda *a, **k: search(*a, **{**k, **small}))
    names = run(PAGE, tmp_path)
    assert {"best.keras", "front.png", "search"} == {p.name for p in tmp_path.iterdir()}
    assert 1 <= len(names["front"]) <= len(tuning.trials(names["tuner"])) == 2
