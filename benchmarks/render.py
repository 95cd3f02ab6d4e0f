"""Writes the figures of `results/*.json` into the pages of the site.

    python benchmarks/render.py

A page says which it wants, and what stands between the two comments is replaced:

    <!-- figures: published fashion_l1 fashion_kl -->
    <!-- end -->

`tests/test_site.py` holds the pages against the results.
"""

import json
import re
from pathlib import Path
from typing import Any

from _timing import RESULTS, medians

PAGES = Path(__file__).parents[1] / "docs"
_MARKED = re.compile(r"(<!-- figures: (\w+)(.*?) -->\n).*?(<!-- end -->)", re.DOTALL)


def read(name: str) -> Any:
    return json.loads((RESULTS / f"{name}.json").read_text())


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def outcome(row: dict[str, Any]) -> tuple[str, str, str]:
    """Of a published figure: ours with its spread, the seeds, and if it is reached."""
    key = row["figure"]
    count = len(row["seeds"])
    spread = f" ({row['spread'][key]:.2g})" if count > 1 else ""
    ours = f"{key} {row['mean'][key]:.4g}{spread}"
    return ours, str(count), "yes" if row["reached"] else "**no**"


def published(*names: str) -> str:
    """Rows of the published figures, as far as they have been run."""
    results, rows = read("paper_figures"), []
    for name in names:
        if name not in results:
            continue
        row = results[name]
        ours, seeds, reached = outcome(row)
        cells = [row["published"], ours, seeds, row["target"], reached]
        rows.append([f"`{name}`", *cells])
    return table(["row", "published", "ours", "seeds", "to reach", "reached"], rows)


def fit_speed() -> str:
    """Median seconds of an epoch, and the share of plain Keras's."""
    rows = []
    for backend, seconds in read("fit_speed")["seconds"].items():
        values = medians(seconds)
        for name, value in values.items():
            share = f"{value / values['plain Keras']:.2f}"
            rows.append([backend, name, f"{value:.2f}", share])
    return table(["process", "side", "seconds", "of plain Keras"], rows)


def pretraining_speed() -> str:
    """Median seconds of pretraining, and ours as a share of each other's."""
    result, rows = read("pretraining_speed"), []
    for backend, seconds in result["seconds"].items():
        values = medians(seconds)
        for name, value in values.items():
            kind = name.split(",")[0]
            share = f"{values[f'{kind}, keras_sae'] / value:.2f}"
            rows.append([backend, name, f"{value:.1f}", share])
    return table(["process", "side", "seconds", "ours takes of it"], rows)


def machine(name: str) -> str:
    """What a result was measured on."""
    shape = read(name)["machine"]
    versions = ", ".join(f"{k} {v}" for k, v in shape["versions"].items())
    memory, cores = shape["memory_gib"], shape["cores"]
    return f"On {cores} cores ({shape['processor']}, {memory} GiB), with {versions}."


def copying_gap() -> str:
    """Explained variance and copying, with a penalty and without."""
    rows = []
    for row in read("copying_gap")["rows"]:
        shares = [f"{row[k]:.3f}" for k in ("explained_variance", "copying")]
        dead = f"{row['dead_fraction']:.0%}"
        rows.append(
            [str(row["units"]), row["model"], *shares, f"{row['l0']:.0f}", dead]
        )
    return table(
        ["units", "model", "explained variance", "copying", "L0", "dead"], rows
    )


def tuning_workers() -> str:
    """What a second worker on a second core gives."""
    result = read("tuning_workers")
    one, two = (side["seconds"] for side in result["sides"].values())
    return (
        f"{result['settings']['trials']} equal trials took one worker on one core "
        f"{one:.0f} s and two on two {two:.0f} s, {result['faster']:.1f} times as fast "
        "(`benchmarks/tuning_workers.py`)."
    )


FIGURES = {
    f.__name__: f
    for f in (
        published,
        fit_speed,
        pretraining_speed,
        machine,
        copying_gap,
        tuning_workers,
    )
}


def rendered(text: str) -> str:
    """A page with its figures as the results have them."""

    def fill(match: re.Match) -> str:
        begin, name, arguments, end = match.groups()
        return f"{begin}\n{FIGURES[name](*arguments.split())}\n\n{end}"

    return _MARKED.sub(fill, text)


def marked() -> list[Path]:
    """The pages that have figures."""
    return [p for p in sorted(PAGES.rglob("*.md")) if _MARKED.search(p.read_text())]


def main() -> None:
    for path in marked():
        path.write_text(rendered(path.read_text()))


if __name__ == "__main__":
    main()
