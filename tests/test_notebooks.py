"""Tests of the committed notebooks and their outputs, without a kernel.

`.ci/notebooks.py` executes them.
"""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PATHS = sorted((ROOT / "notebooks").glob("*.ipynb"))
# A path on a particular computer.
ABSOLUTE = re.compile(
    r"(?:^|[\s'\"(=])(?:/(?:tmp|home|root|usr|opt|work|Users)/|[A-Z]:\\)"
)
MAX_BYTES = 1_000_000

pytestmark = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)


def cells(path, kind=None):
    """Return the cells of a notebook, of one kind or all."""
    every = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in every if kind in (None, cell["cell_type"])]


def outputs(path):
    return [output for cell in cells(path, "code") for output in cell["outputs"]]


def texts(path):
    """Yield the sources, and the outputs that are text."""
    for cell in cells(path):
        yield "".join(cell["source"])
    for output in outputs(path):
        yield "".join(output.get("text", ()))
        for kind, value in output.get("data", {}).items():
            if kind.startswith("text/"):
                yield "".join(value)


def test_notebooks_are_numbered_from_one_to_eight(path):
    assert [p.stem[:2] for p in PATHS] == [f"{n}_" for n in range(1, 9)]
    assert path.stem == path.stem.lower()


def test_metadata_fits_any_computer(path):
    notebook = json.loads(path.read_text(encoding="utf-8"))
    assert notebook["nbformat"] == 4
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    assert set(notebook["metadata"]["language_info"]) == {"name"}
    ids = [cell["id"] for cell in notebook["cells"]]
    assert len(set(ids)) == len(ids)
    assert path.stat().st_size < MAX_BYTES


def test_cells_were_executed_in_order_in_a_new_kernel(path):
    counts = [cell["execution_count"] for cell in cells(path, "code")]
    assert counts == list(range(1, len(counts) + 1))


def test_outputs_have_no_error_and_no_warning(path):
    kinds = {output["output_type"] for output in outputs(path)}
    assert kinds <= {"stream", "execute_result", "display_data"}
    assert {o["name"] for o in outputs(path) if o["output_type"] == "stream"} <= {
        "stdout"
    }


def test_outputs_have_plots_and_a_table(path):
    shown = [kind for output in outputs(path) for kind in output.get("data", {})]
    assert shown.count("image/png") >= 2
    assert "text/html" in shown


def test_no_path_of_a_computer_is_shown(path):
    for text in texts(path):
        assert not ABSOLUTE.search(text), text[:200]


def test_notebook_has_a_title_short_cells_a_fit_and_working_links(path):
    assert "".join(cells(path)[0]["source"]).startswith("# ")
    for cell in cells(path, "code"):
        assert len("".join(cell["source"]).splitlines()) <= 25
    assert any(".fit(" in "".join(cell["source"]) for cell in cells(path, "code")) or (
        "tuning.search(" in "\n".join(texts(path))
    )
    for cell in cells(path, "markdown"):
        for link in re.findall(r"\]\((?!http)([^)]+)\)", "".join(cell["source"])):
            assert (path.parent / link).exists(), link
