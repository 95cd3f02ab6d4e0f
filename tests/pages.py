"""The pages of the documentation, and the code in them."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"

_BLOCK = re.compile(r'^```python(?: title="([^"]*)")?\n(.*?)^```$', re.DOTALL | re.M)


def blocks(page: Path) -> list[tuple[str, str]]:
    """Title (or "") and text of each block of Python, in their order."""
    return _BLOCK.findall(page.read_text())


def run(
    page: Path, folder: Path, wanted: Callable[[str], bool] = lambda title: True
) -> dict:
    """The names that a page's blocks leave, run one after another in `folder`.

    Args:
        page: The file.
        folder: Where what the blocks write is swept up.
        wanted: Whether to run a block of this title.
    """
    names: dict = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for title, code in blocks(page):
            if wanted(title):
                exec(compile(code, page.name, "exec"), names)
    return names
