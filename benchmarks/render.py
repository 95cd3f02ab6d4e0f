"""Write the results of `results/*.json` into the pages of the documentation.

    python benchmarks/render.py

In a page, a comment names a table and its arguments. The script replaces the text
between this comment and the next comment:

    <!-- results: published fashion_l1 fashion_kl -->
    <!-- end -->

`tests/test_site.py` compares the pages with the results.
"""

import json
import re
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from _timing import RESULTS, medians

PAGES = Path(__file__).parents[1] / "docs"
_MARKED = re.compile(r"(<!-- results: (\w+)(.*?) -->\n).*?(<!-- end -->)", re.DOTALL)


def read(name: str) -> Any:
    """Return the content of `results/NAME.json`."""
    return json.loads((RESULTS / f"{name}.json").read_text())


def table(head: list[str], rows: list[list[str]]) -> str:
    """Return a table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def outcome(row: dict[str, Any]) -> tuple[str, str, str]:
    """Return our result, the number of seeds, and whether the target is reached."""
    key = row["metric"]
    count = len(row["seeds"])
    spread = f" ({row['spread'][key]:.2g})" if count > 1 else ""
    ours = f"{key} {row['mean'][key]:.4g}{spread}"
    return ours, str(count), "yes" if row["reached"] else "**no**"


def published(*names: str) -> str:
    """Return a table of the named published results that have been run."""
    results, rows = read("published_results"), []
    for name in names:
        if name not in results:
            continue
        row = results[name]
        ours, seeds, reached = outcome(row)
        cells = [row["published"], ours, seeds, row["target"], reached]
        rows.append([f"`{name}`", *cells])
    return table(["row", "published", "ours", "seeds", "target", "reached"], rows)


def fit_speed() -> str:
    """Return a table of median seconds per epoch, also relative to plain Keras."""
    rows = []
    for backend, seconds in read("fit_speed")["seconds"].items():
        values = medians(seconds)
        for name, value in values.items():
            share = value / values["plain Keras"]
            share = f"{share:.2f}" if share > 0.01 else f"{share:.3f}"
            rows.append([backend, name, f"{value:.2f}", share])
    head = ["backend", "implementation", "seconds", "relative to plain Keras"]
    return table(head, rows)


def pretraining_speed() -> str:
    """Return a table of median seconds of pretraining, also relative to a reference."""
    result, rows = read("pretraining_speed"), []
    references = {"greedy": "greedy, plain Keras", "RBM": "RBM, scikit-learn"}
    for backend, seconds in result["seconds"].items():
        values = medians(seconds)
        for name, value in values.items():
            share = f"{value / values[references[name.split(',')[0]]]:.2f}"
            rows.append([backend, name, f"{value:.1f}", share])
    head = ["backend", "implementation", "seconds", "relative to the reference"]
    return table(head, rows)


def recording() -> str:
    """Return a table of the times of recording, also relative to `predict`."""
    rows = []
    for name, side in read("recording")["speed"].items():
        values = medians(side["seconds"])
        seconds = [f"{value:.2f}" for value in values.values()]
        share = f"{values['record'] / values['predict']:.2f}"
        size = f"{side['rows']:,} x {side['width']}"
        rows.append([name, size, *seconds, share])
    head = ["layer", "rows x width", "predict, s", "record, s", "relative to predict"]
    return table(head, rows)


def recording_memory() -> str:
    """Describe the memory that recording and reading a large store need."""
    memory = read("recording")["memory"]
    return (
        f"Recording {memory['rows']:,} rows of {memory['width']} values takes "
        f"{memory['record_mib']:,.0f} MiB of memory, and a pass over them takes "
        f"{memory['pass_mib']:,.0f} MiB. The files take up "
        f"{memory['files_mib']:,.0f} MiB."
    )


def machine(name: str, part: str | None = None) -> str:
    """Describe the computer, versions and load of a result, or of a part of it."""
    result = read(name)
    runs = list(machines(result if part is None else result[part]))
    shape = runs[0]
    details = [shape["processor"], *shape.get("features", [])]
    computer = ", ".join([*details, f"{shape['memory_gib']} GiB"])
    cores = " or ".join(str(n) for n in sorted({run["cores"] for run in runs}))
    plural = "" if cores == "1" else "s"
    versions = ", ".join(f"{k} {v}" for k, v in shape["versions"].items())
    text = f"Measured on {cores} core{plural} ({computer}), with {versions}."
    loads = sorted(run["load_before"] for run in runs if "load_before" in run)
    if not loads:  # not recorded in older results
        return text
    load = " to ".join(dict.fromkeys(f"{n:.1f}" for n in (loads[0], loads[-1])))
    return (
        f"{text} The load average (0 on an idle computer) was {load} before the "
        "measurement."
    )


def machines(result: Any) -> Iterator[dict[str, Any]]:
    """Yield the description of the computer for each run in a result."""
    if isinstance(result, dict) and "versions" in result:
        yield result
    elif isinstance(result, dict):
        for part in result.values():
            yield from machines(part)


def copying_gap() -> str:
    """Return a table of explained variance and copying, with and without a penalty."""
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


def probe_differences() -> str:
    """Return a table of probe accuracies, and of their gains over the pixels."""
    rows, lines = read("compare_spread")["splits"]["rows"], []
    baseline = [r["probe_accuracy"] for r in rows if r["model"] == "raw pixels"]
    for name in dict.fromkeys(row["model"] for row in rows):
        runs = [row for row in rows if row["model"] == name]
        accuracies = [run["probe_accuracy"] for run in runs]
        gains = [100 * (a - b) for a, b in zip(accuracies, baseline, strict=True)]
        error = statistics.stdev(gains) / len(gains) ** 0.5
        gain = (
            ""
            if name == "raw pixels"
            else f"{statistics.mean(gains):+.1f} ± {error:.1f}"
        )
        dead = max(run["dead_fraction"] for run in runs)
        lines.append([name, f"{statistics.mean(accuracies):.1%}", gain, f"{dead:.1%}"])
    return table(["model", "probe", "minus pixels", "most dead units"], lines)


def processor_differences() -> str:
    """Return a table of the largest differences between runs, with their models."""
    results = read("compare_spread")
    first = "oneDNN, 1 thread"
    others = sorted(results.keys() - {"splits", first})
    names = {
        "explained_variance": "EV",
        "l0": "L0",
        "effective_l0": "effective L0",
        "probe_accuracy": "probe",
    }
    lines = []
    for other in others:
        cells = []
        for metric in names:
            one, two = (
                {row["model"]: row[metric] for row in results[name]["rows"]}
                for name in (first, other)
            )
            gaps = [(abs(one[model] - two[model]), model) for model in one]
            size, model = max(gaps)
            cells.append(f"{size:.3f} ({model})" if size else "0")
        lines.append([other, *cells])
    return table([f"compared with {first}", *names.values()], lines)


def sparse_codes() -> str:
    """Return a table of the time and the memory of operations on wide sparse codes."""
    rows = []
    for name, side in read("sparse_codes")["sides"].items():
        sizes = [f"{side[key]:,}" for key in ("samples", "units")]
        memory = [f"{side[k]:.2f}" for k in ("peak_gib_above_import", "dense_gib")]
        rows.append([name, *sizes, f"{side['seconds']:.0f}", *memory])
    head = ["operation", "samples", "units", "seconds", "peak GiB", "GiB as an array"]
    return table(head, rows)


def tuning_workers() -> str:
    """Describe the speedup of two workers on two cores."""
    result = read("tuning_workers")
    one, two = (side["seconds"] for side in result["sides"].values())
    return (
        f"{result['settings']['trials']} equal trials took {one:.0f} s with one worker "
        f"on one core, and {two:.0f} s with two workers on two cores. That is "
        f"{result['faster']:.1f} times as fast (`benchmarks/tuning_workers.py`)."
    )


def step_speed(units: str) -> str:
    """Return a table of times of a training step, also relative to two references."""
    sides, rows = read("step_speed")["units"][units], []
    for name, side in sides.items():
        kind = name.split(",")[0]
        other = sides.get(f"{kind}, SAELens", sides.get("TopK, SAELens"))
        # SAELens starts with another number of active units, so there is no ratio.
        compared = other is not None and "few" not in name
        ratio = f"{side['median'] / other['median']:.2f}" if compared else ""
        product = f"{side['median'] / sides['encoder product']['median']:.2f}"
        memory = f"{side['peak_mib']:,.0f}"
        rows.append([name, f"{side['median']:.0f}", product, ratio, memory])
    head = ["implementation", "ms per step", "relative to the product"]
    return table([*head, "relative to SAELens", "peak MiB"], rows)


def serving_speed() -> str:
    """Return a table of milliseconds per request, by batch size."""
    seconds = read("serving_speed")["seconds"]
    rows = []
    for side, times in seconds.items():
        values = medians(times)
        rows.append([side, *(f"{1e3 * value:.2f}" for value in values.values())])
    counts = next(iter(seconds.values()))
    sizes = [f"{n} sample{'s' * (int(n) > 1)}" for n in counts]
    return table(["ms per request", *sizes], rows)


# Recovery scores of SAELens 6.54 on its own features. "other" is its best other method.
SAELENS = {
    "16 in 32": {"TopK": "0.825", "BatchTopK": "1.000", "other": "1.000"},
    "64 in 32": {"TopK": "0.901", "BatchTopK": "0.842", "other": "0.985"},
    "256 in 64, Zipf": {"TopK": "0.763", "BatchTopK": "0.673", "other": "0.684"},
}


def recovery(part: str) -> str:
    """Return a table of recovery on our features (`tasks`) or those of `saelens`."""
    rows = []
    for task, methods in read("recovery")[part].items():
        for method, runs in methods.items():
            mean = {key: statistics.mean(run[key] for run in runs) for key in runs[0]}
            least = min(run["recovery"] for run in runs)
            found = f"{mean['recovery']:.3f} ({least:.3f})"
            theirs = [SAELENS[task][method], SAELENS[task]["other"]]
            l0 = f"{mean['l0']:.2f} ({mean['true_l0']:.2f})"
            others = [f"{mean['f1']:.3f}", l0, f"{mean['dead']:.1%}"]
            rows.append([task, method, found, *theirs, *others])
    head = ["task", "method", "recovery", "SAELens", "SAELens, best other"]
    return table([*head, "F1", "L0 (true)", "dead"], rows)


def fidelity(name: str) -> str:
    """Return a table of a network's losses when a layer's output is replaced."""
    rows = []
    for title, losses in read("fidelity")[name]["tables"].items():
        for row, values in losses.items():
            accuracy = f"{values['accuracy']:.1%}" if "accuracy" in values else "-"
            shares = [f"{values[f'recovered_of_{n}']:.3f}" for n in ("mean", "zero")]
            rows.append([title, row, f"{values['loss']:.3f}", accuracy, *shares])
    head = ["network", "in the layer's place", "loss", "accuracy"]
    return table([*head, "recovered of the mean's loss", "of zero's loss"], rows)


def fidelity_tokens() -> str:
    """Describe the numbers of tokens, and the loss of the unchanged language model."""
    result = read("fidelity")["8_inside_a_language_model"]
    text = (
        f"The dictionaries were trained on {result['train_tokens']:,} tokens and "
        f"tested on {result['tokens']:,} tokens of held-out text."
    )
    ours, theirs = result["loss"], result["llama_cpp_loss"]
    if theirs is None:
        return text
    return (
        f"{text} On the same tokens, the loss of the model in Keras is {ours:.4f}, and "
        f"with llama.cpp it is {theirs:.4f}: a difference of {ours / theirs - 1:+.2%}."
    )


TABLES = {
    f.__name__: f
    for f in (
        published,
        fit_speed,
        pretraining_speed,
        recording,
        recording_memory,
        machine,
        copying_gap,
        probe_differences,
        processor_differences,
        sparse_codes,
        tuning_workers,
        step_speed,
        serving_speed,
        recovery,
        fidelity,
        fidelity_tokens,
    )
}


def rendered(text: str) -> str:
    """Return the text of a page with the current results."""

    def fill(match: re.Match) -> str:
        begin, name, arguments, end = match.groups()
        return f"{begin}\n{TABLES[name](*arguments.split())}\n\n{end}"

    return _MARKED.sub(fill, text)


def marked() -> list[Path]:
    """Return the pages that contain results."""
    return [p for p in sorted(PAGES.rglob("*.md")) if _MARKED.search(p.read_text())]


def main() -> None:
    for path in marked():
        path.write_text(rendered(path.read_text()))


if __name__ == "__main__":
    main()
