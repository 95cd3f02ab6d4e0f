"""Published results beside what the same settings give here.

    TFDS_DATA_DIR=... python benchmarks/paper_figures.py [ROW ...] [--seeds N]

Without a row, all that are not marked as long are run. Results are kept in
`results/paper_figures.json`, a row an entry, and rendered into
`docs/paper_figures.md` and the pages that quote them. JAX unless `KERAS_BACKEND`
says otherwise: it was the fastest on a CPU.
"""

import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "jax")

import render
from _paper_rows import ROWS
from _timing import RESULTS, machine, record

PAGE = Path(__file__).parents[1] / "docs" / "paper_figures.md"


def run(name: str, seeds: int | None) -> dict:
    row = ROWS[name]
    figures, seconds = [], []
    for seed in range(seeds or row.seeds):
        begin = time.perf_counter()
        figures.append(row.run(seed))
        seconds.append(time.perf_counter() - begin)
        print(f"{name}, seed {seed}: {figures[-1]} in {seconds[-1]:.0f} s", flush=True)
    mean = {k: statistics.mean(f[k] for f in figures) for k in figures[0]}
    spread = {
        k: statistics.stdev(f[k] for f in figures) if len(figures) > 1 else 0.0
        for k in figures[0]
    }
    return {
        "figure": row.figure,
        "published": row.published,
        "target": row.target,
        "reached": bool(row.reached(mean)),
        "mean": mean,
        "spread": spread,
        "seeds": figures,
        "seconds": seconds,
        "settings": row.settings,
        "long": row.long,
        "machine": machine(),
    }


def page(results: dict) -> str:
    lines = [
        *("---", "hide: [toc]", "---", ""),  # a wide table
        "# Published figures and ours",
        "",
        "Each row: the published settings, mean of the seeds (and their standard",
        "deviation), and whether the target was reached. Made by",
        "`benchmarks/paper_figures.py` from `benchmarks/results/paper_figures.json`. A",
        "row whose seeds take more than 15 minutes together is long, and run only by",
        "its name.",
        "",
        "| row | published | to reach | ours | seeds | reached | minutes a seed |",
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
    lines += ["", "## Settings and further figures", ""]
    for name in ROWS:
        if name in results:
            row = results[name]
            settings = "; ".join(f"{k}: {v}" for k, v in row["settings"].items())
            others = ", ".join(f"{k} {v:.4g}" for k, v in row["mean"].items())
            lines.append(f"- `{name}`: {settings}. Means: {others}.")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", nargs="*", help=f"among: {', '.join(ROWS)}")
    parser.add_argument("--seeds", type=int, help="in place of the row's own")
    options = parser.parse_args()
    unknown = set(options.rows) - set(ROWS)
    if unknown:
        sys.exit(f"Unknown rows: {', '.join(sorted(unknown))}.")
    names = options.rows or [name for name, row in ROWS.items() if not row.long]
    kept = RESULTS / "paper_figures.json"
    for name in names:
        result = run(name, options.seeds)
        # Read again each time: rows may be run beside each other.
        results = json.loads(kept.read_text()) if kept.exists() else {}
        results[name] = result
        record("paper_figures", results)
        PAGE.parent.mkdir(exist_ok=True)
        PAGE.write_text(page(results))
        render.main()


if __name__ == "__main__":
    main()
