"""Print tables, and write them to files."""

from pathlib import Path
from typing import TYPE_CHECKING

from keras_sae.utils.io import atomic_write, write_json

if TYPE_CHECKING:
    import pandas as pd

# Printed columns, with their headings and formats.
COLUMNS = {
    "trial": ("trial", "{}"),
    "model": ("model", "{}"),
    "sparsity": ("sparsity", "{}"),
    "units": ("units", "{:.0f}"),
    "learning_rate": ("LR", "{:.4f}"),
    "reconstruction": ("error", "{:.5f}"),
    "explained_variance": ("EV", "{:.3f}"),
    "copying": ("copy", "{:.2f}"),
    "l0": ("L0", "{:.1f}"),
    "effective_l0": ("eff.", "{:.1f}"),
    "dead_fraction": ("dead", "{:.0%}"),
    "probe_accuracy": ("probe", "{:.1%}"),
    "seconds": ("s", "{:.0f}"),
    "score": ("score", "{:.3f}"),
}
CAPTION = """Metrics on the test set. error: mean squared error per value. EV: \
explained variance. copy: explained variance on noise (1 means the model copies its \
input). L0: active units per sample; eff.: effective number of them, which is also \
meaningful for codes that are never exactly 0. dead: fraction of units that never \
fire. probe: accuracy of a linear classifier on the code. s: training time in \
seconds. ±: standard deviation over the seeds. table.csv has all metrics, including \
the accuracy with few labels and after fine-tuning."""
TRIAL_CAPTION = """Metrics on the validation data, a fifth of the training set. The \
best trial is first. sparsity: kind and settings. LR: learning rate. error: mean \
squared error per value. EV: explained variance. L0: active units per sample; eff.: \
effective number of them. probe: accuracy of a linear classifier on the code. score: \
value of the objective. trials.csv has all settings."""
SCORE_CAPTION = """error: mean squared error per value. EV: explained variance. \
copy: explained variance on noise (1 means the model copies its input). L0: active \
units per row; eff.: effective number of them. dead: fraction of units that never \
fire."""
# With several seeds, the columns of the first group are printed with standard
# deviations. Those of the second group are left out to save space.
_WITH_DEVIATION = ("reconstruction", "probe_accuracy")
_WITHOUT_DEVIATION = ("copying", "seconds")


def print_table(table: "pd.DataFrame", caption: str) -> None:
    """Print the `COLUMNS` of a table that has one row per model or trial."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    deviations = table.filter([f"{name}_std" for name in _WITH_DEVIATION])
    hidden = _WITHOUT_DEVIATION if deviations.notna().any(axis=None) else ()
    printed = Table(caption=caption, caption_justify="left", box=box.SIMPLE_HEAD)
    printed.pad_edge, printed.collapse_padding = False, True
    shown = [name for name in COLUMNS if name in table and name not in hidden]
    for name in shown:
        printed.add_column(COLUMNS[name][0], justify="right", no_wrap=True)
        if name == "model":
            printed.columns[-1].justify = "left"
    for row in table.to_dict("records"):
        printed.add_row(*(_cell(name, row, COLUMNS[name][1]) for name in shown))
    Console().print(printed)


def save_table(table: "pd.DataFrame", csv: Path, json: Path) -> None:
    """Write a table as CSV and as a JSON list of rows, with null for missing values."""
    write_json(json, table.to_dict("records"))
    with atomic_write(csv) as path:
        table.to_csv(path, index=False)


def _cell(name: str, row: dict, text: str) -> str:
    value = row[name]
    if value == value:  # not NaN
        deviation = row.get(f"{name}_std", float("nan"))
        if name in _WITH_DEVIATION and deviation == deviation:
            return f"{text}±{text}".format(value, deviation)
        return text.format(value)
    return "-"
