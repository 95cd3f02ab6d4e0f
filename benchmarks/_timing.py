"""Time several sides in turn, compute medians, and describe the computer."""

import importlib.metadata
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def in_turn(sides: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, list]:
    """Run all sides in turn for `rounds` rounds, and return the seconds of each run.

    Other work on the computer thus affects all sides alike. Each side first runs once
    without being measured.
    """
    for run in sides.values():
        run()
    seconds: dict[str, list] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, run in sides.items():
            begin = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - begin)
    return seconds


def medians(seconds: Mapping[str, list]) -> dict[str, float]:
    """Return the median of each side."""
    return {name: statistics.median(values) for name, values in seconds.items()}


def machine(others: Sequence[str] = ()) -> dict[str, Any]:
    """Return the versions, the processor, the memory and the load of this computer.

    Args:
        others: Further packages whose versions are included.
    """
    packages = ["keras", "tensorflow", "jax", "torch", "numpy", "scikit-learn", *others]
    versions = {}
    for name in packages:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    flags = Path("/proc/cpuinfo").read_text().split()
    features = ["avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile"]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "python": platform.python_version(),
        "versions": versions,
        "processor": platform.machine(),
        "features": [name for name in features if name in flags],
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory),
        "load_before": os.getloadavg()[0],
    }


def record(name: str, result: Mapping[str, Any]) -> Path:
    """Write `results/NAME.json` and return its path."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    return path
