"""Tables in the terminal: which columns, how wide, what they mean."""

from typing import Any

_COLUMNS = {
    "model": ("model", "{}"),
    "reconstruction": ("error", "{:.5f}"),
    "explained_variance": ("EV", "{:.3f}"),
    "copying": ("copy", "{:.2f}"),
    "l0": ("L0", "{:.1f}"),
    "dead_fraction": ("dead", "{:.0%}"),
    "probe_accuracy": ("probe", "{:.1%}"),
    "parameters": ("weights", "{:,.0f}"),
    "seconds": ("s", "{:.0f}"),
}
# Over several seeds these are printed with their standard deviation, and what is no
# result makes room for it.
_SPREAD = ("reconstruction", "probe_accuracy")
_ROOM = ("parameters", "seconds")
_CAPTION = """On the test set. error: squared, a value. EV: share of the data's \
variance kept; copy: the same on noise (1 is the identity). L0: active units a \
sample (~ sum of activations, where none is exactly 0). dead: units that never \
fire. probe: accuracy of a linear classifier on the code. s: training, with one \
seed; ±: standard deviation, with several. All figures, with few labels and after \
fine-tuning too, stand in table.csv."""


# The same of a search, on the validation data.
TRIAL_COLUMNS = {
    "trial": ("trial", "{}"),
    "model": ("model", "{}"),
    "sparsity": ("sparsity", "{}"),
    "units": ("units", "{:.0f}"),
    "learning_rate": ("rate", "{:.4f}"),
    "reconstruction": ("error", "{:.5f}"),
    "explained_variance": ("EV", "{:.3f}"),
    "l0": ("L0", "{:.1f}"),
    "probe_accuracy": ("probe", "{:.1%}"),
    "score": ("score", "{:.3f}"),
}
TRIAL_CAPTION = """The best first, on a fifth of the training set. sparsity: with \
what was drawn for it. error: squared, a value. EV: share of the data's variance \
kept. L0: active units a sample (~ sum of the activations, of kl). probe: accuracy \
of a linear classifier on the code. score: what was searched. All settings stand in \
trials.csv."""


def print_table(
    table: Any, columns: dict[str, tuple] = _COLUMNS, caption: str = _CAPTION
) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    several = any(table[s].notna().any() for s in map(_spread, _SPREAD) if s in table)
    shown = [
        name
        for name in columns
        if name in table.columns and not (several and name in _ROOM)
    ]
    printed = Table(
        caption=caption,
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    for name in shown:
        printed.add_column(
            columns[name][0],
            justify="left" if name == "model" else "right",
            no_wrap=True,
        )
    for _, row in table.iterrows():
        printed.add_row(*(_cell(name, row, columns) for name in shown))
    Console().print(printed)


def _cell(name: str, row: Any, columns: dict[str, tuple]) -> str:
    value, text = row[name], columns[name][1]
    if value == value:
        spread = row.get(_spread(name), float("nan")) if name in _SPREAD else None
        deviation = "" if spread is None or spread != spread else f"±{text}"
        return (text + deviation).format(value, spread)
    expected = row.get("expected_l0", float("nan"))
    return f"~{expected:.1f}" if name == "l0" and expected == expected else "-"


def _spread(name: str) -> str:
    return f"{name}_spread"
