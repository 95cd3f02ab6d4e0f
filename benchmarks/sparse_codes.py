"""Measure the memory and time of wide sparse codes: encode, evaluate and report.

    python benchmarks/sparse_codes.py [--only encode|evaluate|report] [--samples N]

`encode` computes the codes of 1,000,000 memory-mapped samples of dimension 64 with
16,384 units. `evaluate` and `report` use 100,000 samples of dimension 256 and 65,536
units. All models are untrained and use `TopK(32)`. Each side runs in its own process.
The memory in use after the imports is subtracted from its peak memory. The backend is
TensorFlow unless `KERAS_BACKEND` is set.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import render
from _timing import RESULTS, machine, record

K = 32
# Samples, dimension and units of each side.
SIDES = {
    "encode": (1_000_000, 64, 16_384),
    "evaluate": (100_000, 256, 65_536),
    "report": (100_000, 256, 65_536),
}


def write_samples(path: Path, samples: int, dimension: int) -> None:
    x = np.lib.format.open_memmap(path, "w+", "float32", (samples, dimension))
    rng = np.random.default_rng(0)
    for begin in range(0, samples, 10_000):
        part = x[begin : begin + 10_000]
        part[:] = rng.normal(size=part.shape)


def run(side: str, path: Path) -> dict:
    """Run one side in this process, and return its time and its peak memory."""
    import keras
    import psutil

    from keras_sae import evaluation, layers, models, report

    imported = psutil.Process().memory_info().rss
    x = np.load(path, mmap_mode="r")
    keras.utils.set_random_seed(0)
    model = models.shallow(x.shape[1:], SIDES[side][2], layers.TopK(K))
    begin, result = time.perf_counter(), {}
    if side == "encode":
        codes = model.encode(x, sparse=True)
        result["nonzero"] = int(codes.nnz)
    elif side == "evaluate":
        result["l0"] = evaluation.evaluate(model, x)["l0"]
    else:
        page = report.write_report(model, x, path.with_suffix(".html"))
        result["page_bytes"] = page.stat().st_size
    seconds = time.perf_counter() - begin
    peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "backend": keras.backend.backend(),
        "samples": x.shape[0],
        "dimension": x.shape[1],
        "units": SIDES[side][2],
        "seconds": seconds,
        "peak_gib_above_import": (peak - imported) / 2**30,
        "dense_gib": 4 * x.shape[0] * SIDES[side][2] / 2**30,
        **result,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=SIDES)
    parser.add_argument("--samples", type=int)
    parser.add_argument("--run", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        side, path = options.run
        print(json.dumps(run(side, Path(path))))
        return
    file = RESULTS / "sparse_codes.json"
    sides = json.loads(file.read_text())["sides"] if file.exists() else {}
    before = machine()
    for side in [options.only] if options.only else SIDES:
        samples, dimension, _ = SIDES[side]
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "x.npy"
            write_samples(path, options.samples or samples, dimension)
            command = [sys.executable, __file__, "--run", side, str(path)]
            environment = {"TF_CPP_MIN_LOG_LEVEL": "3", **os.environ}
            done = subprocess.run(
                command, env=environment, stdout=subprocess.PIPE, text=True, check=True
            )
        sides[side] = json.loads(done.stdout.splitlines()[-1])
        print(side, sides[side], flush=True)
    if options.samples is None:
        record("sparse_codes", {"k": K, "machine": before, "sides": sides})
        render.main()


if __name__ == "__main__":
    main()
