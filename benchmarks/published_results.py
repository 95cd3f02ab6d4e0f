"""Compare published results with those of this package at the same settings.

    TFDS_DATA_DIR=... python benchmarks/published_results.py [ROW ...] [--seeds N]

Without a row, the script runs all rows that are not marked as long. The results are
written to `results/published_results.json`, one entry per row, and rendered into
`results/published_results.md` and `docs/published.md`. The backend is JAX, which was
the fastest on a CPU, unless `KERAS_BACKEND` is set.
"""

import argparse
import json
import os
import statistics
import sys
import time

os.environ.setdefault("KERAS_BACKEND", "jax")

import render
from _published_rows import ROWS
from _timing import RESULTS, machine, record

PAGE = RESULTS / "published_results.md"


def run(name: str, seeds: int | None) -> dict:
    row, before = ROWS[name], machine()
    results, seconds = [], []
    for seed in range(seeds or row.seeds):
        begin = time.perf_counter()
        results.append(row.run(seed))
        seconds.append(time.perf_counter() - begin)
        print(f"{name}, seed {seed}: {results[-1]} in {seconds[-1]:.0f} s", flush=True)
    mean = {k: statistics.mean(r[k] for r in results) for k in results[0]}
    spread = {
        k: statistics.stdev(r[k] for r in results) if len(results) > 1 else 0.0
        for k in results[0]
    }
    return {
        "metric": row.metric,
        "published": row.published,
        "target": row.target,
        "reached": bool(row.reached(mean)),
        "mean": mean,
        "spread": spread,
        "seeds": results,
        "seconds": seconds,
        "settings": row.settings,
        "long": row.long,
        "machine": before,
    }


def page(results: dict) -> str:
    lines = [
        "# Published results and ours",
        "",
        "The table shows the mean over the random seeds, with the standard deviation",
        "in brackets, and whether the target was reached. A row that takes more than",
        "15 minutes is marked as long, and runs only if it is named.",
        "`benchmarks/published_results.py` writes this page.",
        "",
        "| row | published | target | ours | seeds | reached | minutes per seed |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in ROWS:
        if name not in results:
            continue
        row = results[name]
        minutes = statistics.mean(row["seconds"]) / 60
        cells = [name, row["published"], row["target"], *render.outcome(row)]
        cells.append(f"{minutes:.1f}" + ", long" * row["long"])
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", "## Settings and other metrics", ""]
    for name in ROWS:
        if name in results:
            row = results[name]
            settings = "; ".join(f"{k}: {v}" for k, v in row["settings"].items())
            others = ", ".join(f"{k} {v:.4g}" for k, v in row["mean"].items())
            lines.append(f"- `{name}`: {settings}. Means: {others}.")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", nargs="*", help=f"one or more of {', '.join(ROWS)}")
    parser.add_argument(
        "--seeds", type=int, help="number of random seeds, instead of the row's own"
    )
    options = parser.parse_args()
    unknown = set(options.rows) - set(ROWS)
    if unknown:
        sys.exit(f"Unknown rows: {', '.join(sorted(unknown))}.")
    names = options.rows or [name for name, row in ROWS.items() if not row.long]
    kept = RESULTS / "published_results.json"
    for name in names:
        result = run(name, options.seeds)
        # Another process may have written rows in the meantime.
        results = json.loads(kept.read_text()) if kept.exists() else {}
        results[name] = result
        record("published_results", results)
        PAGE.write_text(page(results))
        render.main()


if __name__ == "__main__":
    main()
