"""The site: its code runs, its figures are the results', and it leaves nothing out."""

import importlib
import importlib.util
import re
import sys

import pytest
from contracts import NOT_PUBLIC
from helpers import tensorflow_only
from pages import DOCS, ROOT, blocks, run

import keras_sae

# Their own tests run them: with a server, and with a search that is cut short.
ELSEWHERE = {"guides/serving.md", "guides/tuning.md"}
PAGES = [p for p in sorted(DOCS.rglob("*.md")) if blocks(p)]
NAMES = {str(p.relative_to(DOCS)): p for p in PAGES}
ROOMS = [p.stem for p in sorted((DOCS / "api").glob("*.md"))]


def runs_here(title: str) -> bool:
    return title != "PyTorch" or importlib.util.find_spec("torch") is not None


@tensorflow_only
@pytest.mark.parametrize("name", [n for n in NAMES if n not in ELSEWHERE])
def test_the_code_of_a_page_runs(name, tmp_path):
    names = run(NAMES[name], tmp_path, runs_here)
    LEFT.get(name, lambda names: None)(names)


def _features_were_found(names):
    # Of 64 features in 32 dimensions a random atom has a |cos| of some .4 at best.
    assert names["recovered"]["recovery"] > 0.8
    assert set(names["trained"]) == set(names["choices"])


def _levels_were_trained(names):
    assert [len(history.epoch) for history in names["histories"]] == [2, 2]
    assert names["drawn"].shape == (10, 8, 8, 1)


# What a page's text says of what its code leaves.
LEFT = {
    "guides/sparsity.md": _features_were_found,
    "guides/families.md": _levels_were_trained,
}


def test_every_block_has_a_language():
    for page in DOCS.rglob("*.md"):
        fences = re.findall(r"^```(.*)$", page.read_text(), re.MULTILINE)
        assert all(fences[::2]), page
        assert not any(fences[1::2]), page


def test_the_start_page_has_the_commands_of_the_readme():
    start, readme = (
        re.findall(r"```sh\n(.*?)```", page.read_text(), re.S)
        for page in (DOCS / "index.md", ROOT / "README.md")
    )
    assert start == readme[:2]


def public_modules() -> set[str]:
    found = {p.stem for p in (ROOT / "keras_sae").iterdir() if p.stem.isidentifier()}
    return {name for name in found if not name.startswith("_")} - set(NOT_PUBLIC)


def test_every_public_module_has_a_page():
    assert set(ROOMS) == public_modules() - {"py"}
    for room in ROOMS:
        page = (DOCS / "api" / f"{room}.md").read_text()
        assert page == f"::: keras_sae.{room}\n"


@pytest.mark.parametrize("room", ROOMS)
def test_an_api_page_has_what_the_module_exports(room):
    """mkdocstrings shows what is defined in a module, and of imports its `__all__`."""
    module = importlib.import_module(f"keras_sae.{room}")
    given = getattr(module, "__all__", None)
    if given is None:
        assert not hasattr(module, "__path__"), "a package says what it exports"
        return
    imported = {
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and getattr(value, "__module__", "").startswith("keras_sae.")
    }
    assert imported <= set(given)
    assert all(hasattr(module, name) for name in given)


def renderer():
    folder = str(ROOT / "benchmarks")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [folder, *sys.path])
        return importlib.import_module("render")


def test_figures_are_those_of_the_results():
    """`python benchmarks/render.py` mends it."""
    render = renderer()
    assert len(render.marked()) >= 3
    for page in render.marked():
        assert render.rendered(page.read_text()) == page.read_text(), page.name


def test_every_published_figure_stands_on_the_page():
    page = (DOCS / "published.md").read_text()
    for row in renderer().read("paper_figures"):
        assert f"| `{row}` |" in page, row


def test_names_in_the_text_exist():
    pattern = r"`((?:layers|models|callbacks|metrics|evaluation|plots|datasets|"
    pattern += r"pretraining|regularizers|tuning|wrappers|export|report)\.\w+)"
    for page in sorted(DOCS.rglob("*.md")):
        named = set(re.findall(pattern, page.read_text())) - {"models.config"}  # a file
        for name in named:
            module, attribute = name.split(".")
            assert hasattr(getattr(keras_sae, module), attribute), (page.name, name)
