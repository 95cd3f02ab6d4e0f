"""Tests of the documentation: code, numbers, names and API pages."""

import ast
import builtins
import importlib
import re
import sys

import commands
import numpy as np
import pandas as pd
import pytest
from contracts import public_modules
from helpers import tensorflow_only
from pages import DOCS, ROOT, blocks, pictures, run

import keras_sae
from keras_sae import metrics

# These pages are run by test_serving_clients.py, with a server, and by test_tuning.py.
ELSEWHERE = {"guides/serving.md", "guides/clients.md", "guides/tuning.md"}
PAGES = [p for p in sorted(DOCS.rglob("*.md")) if blocks(p)]
NAMES = {str(p.relative_to(DOCS)): p for p in PAGES}
MODULES = {name.removeprefix("keras_sae.") for name in public_modules()}
API_PAGES = [p.stem for p in sorted((DOCS / "api").glob("*.md"))]
# Modules that are not public as a whole, and what their page shows.
PARTS = {"ops": "keras_sae.ops.sparse_code.SparseCode"}


@tensorflow_only
def test_code_of_the_start_page_runs(tmp_path):
    check_page("index.md", tmp_path)


# Keras reads a removed name of NumPy when it exports to ONNX.
@tensorflow_only
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:In the future `np.object`:FutureWarning")
@pytest.mark.parametrize("name", sorted(set(NAMES) - ELSEWHERE - {"index.md"}))
def test_code_of_a_page_runs(name, tmp_path):
    check_page(name, tmp_path)


def check_page(name, tmp_path):
    names = run(NAMES[name], tmp_path)
    assert all((tmp_path / picture).exists() for picture in pictures(NAMES[name]))
    if name in CHECKS:
        CHECKS[name](names, tmp_path)


def check_index(names, folder):
    del folder
    assert names["metrics"]["l0"] <= 4
    assert names["metrics"]["explained_variance"] > 0.7
    assert names["metrics"]["copying"] < 0.2


def check_concepts(names, folder):
    del folder
    assert names["copied"]["none"] > 0.9
    assert max(names["copied"]["L1"], names["copied"]["TopK"]) < 0.6
    features = names["task"].features
    scores = [metrics.recovery_score(features, x) for x in names["found"].values()]
    assert scores[0] < 0.6 < 0.8 < scores[1]


def check_sparsity_guide(names, folder):
    del folder
    units = {n: m.encode(names["x_test"]) for n, m in names["trained"].items()}
    active = {name: metrics.l0(code) for name, code in units.items()}
    assert active["TopK"] <= 16 < active["L1"] < active["no sparsity"]


def check_own_sparsity_guide(names, folder):
    import tensorflow as tf

    artifact = tf.saved_model.load(str(folder / names["version"]))
    x = names["x_test"][:4]
    code = artifact.signatures["encode"](x=tf.constant(x))["code"]
    np.testing.assert_allclose(code, names["own"].encode(x), atol=1e-5)
    scale = names["fitted"].history["sparsity_scale"]
    assert scale[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1])


def check_families_guide(names, folder):
    del folder
    assert [len(history.epoch) for history in names["histories"]] == [2, 2]
    assert names["drawn"].shape == (10, 8, 8, 1)


def check_inside_guide(names, folder):
    del folder
    assert names["paths"] == ["conv", "flatten", "hidden", "head"]
    assert names["hidden"].shape == (360, 32)
    table = names["table"]
    assert table.accuracy["original"] > 0.9
    page = (DOCS / "guides/inside_a_model.md").read_text()
    rows = re.findall(r"^\| `(\w+)`.*\| (-?[\d.]+) \|$", page, re.MULTILINE)
    shown = {name: float(value) for name, value in rows}
    recovered = table.recovered_of_mean
    assert recovered.to_dict() == pytest.approx(shown, abs=0.2)
    assert recovered["splice"] > max(0.9, recovered["random"])
    assert names["effects"].loss_change.iloc[0] > 0
    assert names["agree"] > 0.9


def check_editing_guide(names, folder):
    threes = {name: np.asarray(row) for name, row in names["threes"].items()}
    assert threes["removed"][3] < threes["original"][3] <= threes["doubled"][3]
    assert threes["clamped"].min() > 0.8
    assert names["replaced_accuracy"] > 0.9
    assert (folder / "edited.keras").exists()


def check_how_do_i(names, folder):
    del folder
    assert names["score"] == pytest.approx(0.71, abs=0.1)
    assert names["effects"].loss_change.iloc[0] > 0 > names["against"].loss_change.min()


def check_own_data_guide(names, folder):
    assert names["curve"] == pytest.approx([0.44, 0.68, 0.76], abs=0.05)
    assert names["result"]["dead_fraction"] <= 1 / 16  # one unit
    assert (folder / "wine.keras").exists()


def check_anomalies_guide(names, folder):
    assert names["curve"][1:] == pytest.approx([0.93, 0.98], abs=0.02)
    found = names["found"]
    assert all(0 < shares[0] < 0.03 for shares in found.values())
    assert found["model"][1] == pytest.approx(0.61, abs=0.05)
    assert found["model"][2] > 0.95
    assert found["PCA"][1:] == pytest.approx([0.58, 0.98], abs=0.02)
    assert found["IsolationForest"][1] < 0.03
    assert names["first"] == pytest.approx(0.89, abs=0.05)
    assert names["first_two"] > 0.95
    files = [folder / name for name in ("machine.keras", "new.csv")]
    commands.succeed("score", *files, "--output", folder / "scores.csv")
    scores = pd.read_csv(folder / "scores.csv").anomaly_score
    errors = names["errors"](names["faulty"]).sum(axis=1)
    np.testing.assert_allclose(scores, errors, rtol=1e-3)


# What the text of a page says about the results of its code.
CHECKS = {
    "index.md": check_index,
    "concepts.md": check_concepts,
    "how_do_i.md": check_how_do_i,
    "guides/sparsity.md": check_sparsity_guide,
    "guides/own_sparsity.md": check_own_sparsity_guide,
    "guides/families.md": check_families_guide,
    "guides/own_data.md": check_own_data_guide,
    "guides/anomalies.md": check_anomalies_guide,
    "guides/inside_a_model.md": check_inside_guide,
    "guides/editing_a_model.md": check_editing_guide,
}


def names_in(code):
    """Return the names that a block of code uses, and those that it defines."""
    nodes = list(ast.walk(ast.parse(code)))
    used = {n.id for n in nodes if isinstance(n, ast.Name)}
    defined = {n.id for n in nodes if isinstance(n, ast.Name) and is_store(n)}
    defined |= {n.arg for n in nodes if isinstance(n, ast.arg)}
    imported = (n.names for n in nodes if isinstance(n, (ast.Import, ast.ImportFrom)))
    defined |= {(a.asname or a.name).split(".")[0] for names in imported for a in names}
    named = (ast.FunctionDef, ast.ClassDef)
    defined |= {n.name for n in nodes if isinstance(n, named)}
    return used, defined


def is_store(name):
    return isinstance(name.ctx, ast.Store)


def test_answers_define_or_list_the_names_they_use():
    """An answer may use the first block of the page, and names that its text lists."""
    page = (DOCS / "how_do_i.md").read_text()
    start, *answers = re.split(r"^### ", page, flags=re.MULTILINE)

    def code(text):
        return "\n".join(re.findall(r"^```py.*\n([^`]*)", text, re.MULTILINE))

    _, known = names_in(code(start))
    for answer in answers:
        used, defined = names_in(code(answer))
        foreign = used - defined - known - set(dir(builtins))
        prose = re.sub(r"^```.*?^```", "", answer, flags=re.DOTALL | re.MULTILINE)
        assert all(f"`{name}`" in prose for name in foreign), (answer[:60], foreign)


def test_every_block_has_a_language():
    for page in DOCS.rglob("*.md"):
        fences = re.findall(r"^```(.*)$", page.read_text(), re.MULTILINE)
        assert all(fences[::2]), page
        assert not any(fences[1::2]), page


def test_start_page_has_the_commands_of_the_readme():
    start, readme = (
        re.findall(r"```sh\n(.*?)```", page.read_text(), re.S)
        for page in (DOCS / "index.md", ROOT / "README.md")
    )
    assert start == readme[:2]


def test_every_picture_is_shown():
    """Run `python tests/pages.py PAGE` to draw the pictures of a page again."""
    text = "".join(
        page.read_text() for page in [*DOCS.rglob("*.md"), ROOT / "README.md"]
    )
    for picture in (DOCS / "pictures").iterdir():
        assert f"pictures/{picture.name}" in text, picture.name


def test_every_public_module_has_a_page():
    assert set(API_PAGES) - set(PARTS) == MODULES | {"beam"}
    for name in API_PAGES:
        page = (DOCS / "api" / f"{name}.md").read_text()
        assert page == f"::: {PARTS.get(name, f'keras_sae.{name}')}\n"


@pytest.mark.parametrize("name", sorted(set(API_PAGES) - set(PARTS)))
def test_api_page_shows_what_the_module_exports(name):
    """mkdocstrings shows the definitions of a module, and the imports in `__all__`."""
    if name == "beam":
        pytest.importorskip("apache_beam")
    module = importlib.import_module(f"keras_sae.{name}")
    listed = getattr(module, "__all__", None)
    if listed is None:
        assert not hasattr(module, "__path__"), "a package needs an `__all__`"
        return
    imported = {
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and getattr(value, "__module__", "").startswith("keras_sae.")
    }
    assert imported <= set(listed)
    assert all(hasattr(module, name) for name in listed)


def renderer():
    folder = str(ROOT / "benchmarks")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [folder, *sys.path])
        return importlib.import_module("render")


def test_numbers_in_pages_are_those_of_the_results():
    """Run `python benchmarks/render.py` to update the pages."""
    render = renderer()
    assert len(render.marked()) >= 3
    for page in render.marked():
        assert render.rendered(page.read_text()) == page.read_text(), page.name


def test_page_of_published_settings_has_every_row():
    page = (DOCS / "published.md").read_text()
    for row in renderer().read("published_results"):
        assert f"| `{row}` |" in page, row


def test_names_in_the_text_exist():
    modules = "|".join(sorted(MODULES - {"beam"}))  # `beam.Map` is of Apache Beam
    pattern = rf"`((?:{modules})\.\w+)"
    for page in sorted(DOCS.rglob("*.md")):
        files = {"models.config", "report.html"}
        named = set(re.findall(pattern, page.read_text())) - files
        for name in named:
            module, attribute = name.split(".")
            assert hasattr(getattr(keras_sae, module), attribute), (page.name, name)
