"""The notebooks lie as they were executed: in order, whole, quiet, small, portable.

`.ci/notebooks.py` executes them; here is what can be seen without a kernel.
"""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PATHS = sorted((ROOT / "notebooks").glob("*.ipynb"))
# A folder of a machine, or of somebody's home.
ABSOLUTE = re.compile(
    r"(?:^|[\s'\"(=])(?:/(?:tmp|home|root|usr|opt|work|Users)/|[A-Z]:\\)"
)
MOST_BYTES = 1_000_000

pytestmark = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)


def cells(path, kind=None):
    """The cells of a notebook, of one kind or all."""
    every = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in every if kind in (None, cell["cell_type"])]


def outputs(path):
    return [output for cell in cells(path, "code") for output in cell["outputs"]]


def texts(path):
    """Sources, and outputs but for pictures, as text."""
    for cell in cells(path):
        yield "".join(cell["source"])
    for output in outputs(path):
        yield "".join(output.get("text", ()))
        for kind, value in output.get("data", {}).items():
            if kind.startswith("text/"):
                yield "".join(value)


def test_there_are_six(path):
    assert [p.stem[:2] for p in PATHS] == [f"{n}_" for n in range(1, 7)]
    assert path.stem == path.stem.lower()


def test_it_is_a_notebook_of_any_machine(path):
    notebook = json.loads(path.read_text(encoding="utf-8"))
    assert notebook["nbformat"] == 4
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    assert set(notebook["metadata"]["language_info"]) == {"name"}
    ids = [cell["id"] for cell in notebook["cells"]]
    assert len(set(ids)) == len(ids)
    assert path.stat().st_size < MOST_BYTES


def test_it_was_executed_in_order_from_a_fresh_kernel(path):
    counts = [cell["execution_count"] for cell in cells(path, "code")]
    assert counts == list(range(1, len(counts) + 1))


def test_it_ran_without_an_error_or_a_warning(path):
    kinds = {output["output_type"] for output in outputs(path)}
    assert kinds <= {"stream", "execute_result", "display_data"}
    assert {o["name"] for o in outputs(path) if o["output_type"] == "stream"} <= {
        "stdout"
    }


def test_its_figures_and_tables_are_there(path):
    shown = [kind for output in outputs(path) for kind in output.get("data", {})]
    assert shown.count("image/png") >= 2
    assert "text/html" in shown


def test_it_names_no_folder_of_a_machine(path):
    for text in texts(path):
        assert not ABSOLUTE.search(text), text[:200]


def test_it_can_be_read(path):
    """A title first, short cells, plain `fit`, links that lead somewhere."""
    assert "".join(cells(path)[0]["source"]).startswith("# ")
    for cell in cells(path, "code"):
        assert len("".join(cell["source"]).splitlines()) <= 25
    assert any(".fit(" in "".join(cell["source"]) for cell in cells(path, "code")) or (
        "tuning.search(" in "\n".join(texts(path))
    )
    for cell in cells(path, "markdown"):
        for link in re.findall(r"\]\((?!http)([^)]+)\)", "".join(cell["source"])):
            assert (path.parent / link).exists(), link
