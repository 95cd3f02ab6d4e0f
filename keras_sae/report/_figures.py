"""What the figures of an evaluation are called, and the table of models."""

from dataclasses import dataclass
from typing import Any

from keras_sae import evaluation

# Of each figure: its name on the page, its format, and what it says.
FIGURES = {
    "reconstruction": ("Error", "{:.5f}", "squared, a value of the input"),
    "explained_variance": (
        "Explained variance",
        "{:.3f}",
        "share of the data's variance that is kept",
    ),
    "copying": ("Copying", "{:.3f}", "the same on pure noise: 1 is the identity"),
    "copying_gap": ("Selectivity", "{:.3f}", "explained variance less copying"),
    "l0": ("L0", "{:.1f}", "active units a sample"),
    "expected_l0": (
        "Expected L0",
        "{:.1f}",
        "sum of activations a sample, as none is exactly zero",
    ),
    "dead_fraction": ("Dead units", "{:.1%}", "zero for every sample"),
    "hoyer": ("Hoyer", "{:.3f}", "sparsity of a code: 0 is flat, 1 is one unit"),
    "mean_activation": ("Mean activation", "{:.4f}", "of all units and samples"),
    "target_distance": (
        "Distance to target",
        "{:.4f}",
        "of the units' mean activations, as pressed for",
    ),
    "probe_accuracy": ("Probe", "{:.1%}", "accuracy of a linear classifier on codes"),
    "probe_accuracy_100": ("Probe, 100", "{:.1%}", "the same, of 100 labels"),
    "probe_accuracy_1000": ("Probe, 1,000", "{:.1%}", "the same, of 1,000 labels"),
    "fine_tuned_accuracy": ("Fine-tuned", "{:.1%}", "encoder and softmax trained on"),
    "elbo": ("ELBO", "{:.1f}", "evidence lower bound, nats a sample"),
    "reconstruction_sum": ("Error, summed", "{:.3f}", "squared, a sample"),
    "parameters": ("Weights", "{:,.0f}", "trainable numbers"),
    "seconds": ("Seconds", "{:.1f}", "of training"),
}

# A card is made of the samples of the page; the table has those of training as well.
_OF_A_CARD = {
    "probe_accuracy": "accuracy of a linear classifier on codes, which learned on half "
    "of these samples and was asked about the other; the table's learned on the "
    "training set",
}

# Axes of the Pareto plot; smaller is better on both.
ACTIVE, ERROR = "active units a sample", "squared error a value"


@dataclass(frozen=True)
class Comparison:
    """A table of models as the page shows it.

    Args:
        headings: Name, and what it says, of each column.
        rows: Of each model its cells: number to sort by (None: missing), and text.
        points: The table with the columns `ACTIVE` and `ERROR`, or None.
    """

    headings: list[tuple[str, str]]
    rows: list[list[tuple[Any, str]]]
    points: Any


def cards(figures: dict[str, float]) -> list[dict[str, Any]]:
    """The figures of an evaluation, in the page's order, as names and texts."""
    known = [key for key in FIGURES if key in figures]
    return [
        {
            "key": key,
            "name": FIGURES[key][0],
            "text": _text(key, figures[key]),
            "says": _OF_A_CARD.get(key, FIGURES[key][2]),
        }
        for key in known
    ]


def comparison(table: Any) -> Comparison:
    """The table of models for the page, its means over the seeds.

    Raises:
        ValueError: It has no column `model`.
    """
    if "model" not in table.columns:
        raise ValueError(
            "`table` must have the column 'model', as what evaluation.compare returns. "
            f"Received columns: {', '.join(map(str, table.columns))}."
        )
    means = evaluation.summarize(table) if "seed" in table.columns else table
    keys = [key for key in FIGURES if key in means.columns]
    rows = [
        [(row["model"], str(row["model"])), *(_cell(key, row) for key in keys)]
        for row in means.to_dict("records")
    ]
    headings = [("Model", "")] + [(FIGURES[key][0], FIGURES[key][2]) for key in keys]
    return Comparison(headings, rows, _points(table))


def _points(table: Any) -> Any:
    active = evaluation.active_units(table)
    if active.isna().all() or "reconstruction" not in table.columns:
        return None
    return table.assign(**{ACTIVE: active, ERROR: table["reconstruction"]})


def _cell(key: str, row: dict[str, Any]) -> tuple[Any, str]:
    value, spread = row[key], row.get(f"{key}_spread", float("nan"))
    if value != value:
        return None, ""
    deviation = "" if spread != spread else f" \N{PLUS-MINUS SIGN} {_text(key, spread)}"
    return float(value), _text(key, value) + deviation


def _text(key: str, value: float) -> str:
    return "not defined" if value != value else FIGURES[key][1].format(value)
