"""Hook of MkDocs that turns each notebook, with its committed outputs, into a page."""

import base64
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))


def on_config(config: MkDocsConfig) -> None:
    """List the notebooks under the entry "Notebooks" of the navigation."""
    for entry in config.nav or ():
        if "Notebooks" in entry:
            entry["Notebooks"] += [f"notebooks/{path.stem}.md" for path in NOTEBOOKS]


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Add a page per notebook, and its pictures."""
    for path in NOTEBOOKS:
        pictures: dict[str, bytes] = {}
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        text = "\n\n".join(
            part for cell in cells for part in parts(cell, path.stem, pictures)
        )
        pages = {f"{path.stem}.md": text, **pictures}
        for name, content in pages.items():
            files.append(File.generated(config, f"notebooks/{name}", content=content))


def parts(
    cell: dict[str, Any], stem: str, pictures: dict[str, bytes]
) -> Iterator[str]:
    """Yield the source and the outputs of a cell as Markdown; collect its pictures."""
    source = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
        source = source.replace("](../docs/", "](../")
        yield re.sub(r"\]\((\w+)\.ipynb\)", r"](\1.md)", source)
        return
    yield f"```python\n{source}\n```"
    for output in cell["outputs"]:
        data = output.get("data", {})
        if "image/png" in data:
            name = f"{stem}/{len(pictures) + 1}.png"
            pictures[name] = base64.b64decode("".join(data["image/png"]))
            yield f"![Output of the code above]({name})"
        elif "text/html" in data:  # a table of pandas
            html = "".join(data["text/html"])
            html = re.sub(r"<style.*?</style>", "", html, flags=re.DOTALL)
            yield html.replace(' border="1" class="dataframe"', "")
        else:
            text = "".join(output.get("text", data.get("text/plain", "")))
            yield f"```text\n{text.rstrip()}\n```"
