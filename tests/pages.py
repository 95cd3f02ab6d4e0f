"""The pages of the documentation, and the code in them.

`python tests/pages.py concepts.md` runs a page and keeps the pictures that it shows.
"""

import importlib.util
import re
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
# Packages that blocks of these titles need, and that may be absent.
NEEDS = {
    "PyTorch": "torch",
    "ONNX": "tf2onnx",
    "KerasHub": "keras_hub",
    "Apache Beam": "apache_beam",
}

_BLOCK = re.compile(r'^```python(?: title="([^"]*)")?\n(.*?)^```$', re.DOTALL | re.M)


def blocks(page: Path) -> list[tuple[str, str]]:
    """Return the title, or "", and the text of each block of Python, in order."""
    return _BLOCK.findall(page.read_text())


def pictures(page: Path) -> set[str]:
    """Return the names of the pictures that a page shows and its code draws."""
    text = page.read_text()
    shown = re.findall(r"!\[[^\]]*\]\(\s*[./]*pictures/([\w.]+)\)", text)
    drawn = re.findall(r'\.savefig\("([\w.]+)"', text)
    return set(shown) & set(drawn)


def runs_here(title: str) -> bool:
    """Return whether the package that blocks of a title need is installed."""
    return title not in NEEDS or importlib.util.find_spec(NEEDS[title]) is not None


def run(page: Path, folder: Path, wanted: Callable[[str], bool] = runs_here) -> dict:
    """Run the blocks of a page one after another, and return the names they define.

    Args:
        page: The file.
        folder: Working directory of the blocks, for the files that they write.
        wanted: Whether to run a block of this title.
    """
    names: dict = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for title, code in blocks(page):
            if wanted(title):
                exec(compile(code, page.name, "exec"), names)
    return names


if __name__ == "__main__":
    for name in sys.argv[1:]:
        with tempfile.TemporaryDirectory() as folder:
            run(DOCS / name, Path(folder))
            for picture in pictures(DOCS / name):
                shutil.copy(Path(folder) / picture, DOCS / "pictures")
