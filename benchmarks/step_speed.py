"""Compare the training step of this package with those of other libraries.

    python benchmarks/step_speed.py [SIDE ...] [--units 4096 12288] [--doublings]

A batch has 1,024 samples of 768 dimensions, and k is 32. The optimizer is Adam unless
the name of a side contains SGD. Every side runs in its own process. In each round, all
sides run two steps in turn. The extra `bench` installs the other libraries. With
`--doublings`, the script instead measures our TopK while the batch size, the units or
the dimensions double three times. The results are written to `results/step_speed.json`
and rendered into `docs/speed.md`.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

import render
from _step_sides import SIDES
from _timing import RESULTS, machine, record

SHAPE = {"dim": 768, "batch": 1024, "k": 32}
STEPS = 2
# The C library reads this variable when a process starts.
HUGE_PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
PACKAGES = ["sae-lens", "eai-sparsify", "dictionary-learning"]


class Side:
    """A process that runs training steps on request."""

    def __init__(self, name: str, units: int, dim: int, batch: int, k: int) -> None:
        script = Path(__file__).with_name("_step_sides.py")
        sizes = [str(n) for n in (units, dim, batch, k)]
        variables = HUGE_PAGES if name.endswith(", huge pages") else {}
        self.process = subprocess.Popen(
            [sys.executable, script, name.removesuffix(", huge pages"), *sizes],
            env={**os.environ, **variables},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def seconds(self, steps: int) -> float:
        self.process.stdin.write(f"{steps}\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError("A side exited. Run `_step_sides.py` to see why.")
        return float(answer) / steps

    def finish(self) -> float:
        """End the process, and return its peak memory in MiB."""
        self.process.stdin.close()
        return float(self.process.stdout.readline())


def measure(names: list[str], units: int, rounds: int, **shape: int) -> dict:
    sides, before = {}, machine(PACKAGES)
    for name in names:  # each side takes about a minute to start
        sides[name] = Side(name, units, **shape)
        sides[name].seconds(2)  # compile, and allocate memory
        print(f"{name} is ready", flush=True)
    times: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(rounds):
        for name, side in sides.items():
            times[name].append(side.seconds(STEPS))
    return {
        name: {
            "milliseconds": [1000 * t for t in times[name]],
            "median": 1000 * statistics.median(times[name]),
            "samples_a_second": shape["batch"] / statistics.median(times[name]),
            "peak_mib": side.finish(),
            "machine": before,
        }
        for name, side in sides.items()
    }


def doublings(name: str, rounds: int) -> dict:
    """Return the median milliseconds of our TopK as each size doubles."""
    start = {"units": 3072, "dim": 384, "batch": 512}
    found, before = {}, machine()
    for size in start:
        cases = [{**start, size: start[size] * 2**n} for n in range(4)]
        sides = [Side(name, k=32, **case) for case in cases]
        for side in sides:
            side.seconds(2)
        times = [[side.seconds(STEPS) for side in sides] for _ in range(rounds)]
        for side in sides:
            side.finish()
        medians = [1000 * statistics.median(t) for t in zip(*times, strict=True)]
        found[size] = {"sizes": [c[size] for c in cases], "milliseconds": medians}
    return {"side": name, "start": start, "machine": before, **found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    names = ", ".join(SIDES).replace("%", "%%")
    parser.add_argument("sides", nargs="*", help=f"one or more of {names}")
    parser.add_argument("--units", type=int, nargs="+", default=[4096, 12288])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--doublings", action="store_true")
    options = parser.parse_args()
    kept = RESULTS / "step_speed.json"
    results = json.loads(kept.read_text()) if kept.exists() else {}
    if options.doublings:
        results["doublings"] = doublings("TopK, JAX", options.rounds)
    for units in [] if options.doublings else options.units:
        names = options.sides or list(SIDES)
        found = measure(names, units, options.rounds, **SHAPE)
        for name, side in found.items():
            print(f"{units} {name}: {side['median']:.0f} ms", flush=True)
        results.setdefault("units", {}).setdefault(str(units), {}).update(found)
    record("step_speed", results)
    render.main()


if __name__ == "__main__":
    main()
