"""Load the data for a command: a named dataset, or your own files."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from keras_sae import datasets, models
from keras_sae.datasets.own import Arrays, check_memory, column_names
from keras_sae.utils.validation import fraction

Dataset = Annotated[
    str, typer.Option(help="fashion_mini, digits, natural_patches, or a TFDS dataset.")
]
OwnData = Annotated[
    str | None,
    typer.Option(
        metavar="PATH",
        help="Your own data, instead of --dataset: a .npy, .npz, .csv or .parquet "
        "file, or a folder of images.",
    ),
]
Label = Annotated[
    str | None, typer.Option(help="Column or .npz array of --data with the labels.")
]
Columns = Annotated[
    str | None,
    typer.Option(metavar="A,B,...", help="Columns to use. Default: all but --label."),
]
Validation = Annotated[
    float, typer.Option(help="Fraction of --data that is held out for the metrics.")
]
# `read` warns if the ratio of two columns' standard deviations exceeds this value.
_LARGE_RATIO = 100


@dataclass(frozen=True)
class Splits:
    """Training and test data, and the names of a table's columns and label."""

    name: str
    train: Arrays
    test: Arrays
    columns: list[str] | None = None
    label: str | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return self.train[0].shape[1:]


def check_options(context: typer.Context) -> None:
    """Raise an error for --dataset with --data, or for --validation without --data."""
    given = {
        name: value
        for name, value in context.params.items()
        if (source := context.get_parameter_source(name))
        and source.name == "COMMANDLINE"
    }
    if "data" in given and "dataset" in given:
        raise ValueError(
            "--dataset and --data must not be given together. Received: --dataset "
            f"{given['dataset']} --data {given['data']}. Remove one of them."
        )
    if "validation" in given and "data" not in given:
        raise ValueError(
            "--validation requires --data, because a named dataset has its own test "
            f"data. Received: --validation {given['validation']:g} without --data. "
            "Remove --validation."
        )


def load_splits(
    dataset: str,
    data: str | None = None,
    label: str | None = None,
    columns: Sequence[str] | None = None,
    validation: float = 0.2,
    model: models.Autoencoder | None = None,
) -> Splits:
    """Load a named dataset, or read files and hold out a fraction of each class.

    The same rows of a file are held out in every call.
    """
    if data is None:
        import tensorflow_datasets as tfds

        tfds.disable_progress_bar()
        if label is not None or columns is not None:
            raise ValueError(
                "`label` and `columns` apply only to files. Received: the dataset "
                f"{dataset!r}. Pass the path of a file as --data."
            )
        return Splits(dataset, *datasets.load_data(dataset))
    import pandas as pd

    fraction("validation", validation)
    x, y, names = read(data, label, columns, model)
    order = pd.Series(np.random.default_rng(0).permutation(len(x)))
    is_test = np.zeros(len(x), bool)
    for _, rows in order.groupby(order * 0 if y is None else y[order]):
        # At least one row of each class is left for training.
        count = min(len(rows) - 1, round(validation * len(rows)))
        is_test[rows.iloc[:count]] = True
    if not is_test.any():
        raise ValueError(
            f"The data has too few rows to hold any out. Received: {len(x)} rows and "
            f"--validation {validation:g}. Add rows, or increase --validation."
        )
    train, test = (
        (x[part], None if y is None else y[part]) for part in (~is_test, is_test)
    )
    typer.echo(f"Training on {len(train[0]):,} rows, testing on {len(test[0]):,}.")
    return Splits(data, train, test, names, label)


def names_in(
    model: models.Autoencoder, data: str
) -> tuple[list[str] | None, str | None]:
    """Return the columns that a model reads from a table, and the name of the label.

    The columns are None unless `data` is a table. The label is None unless `data` is a
    table or a `.npz` file that contains it.
    """
    path = Path(data).expanduser()
    found = column_names(path) if path.exists() else []
    missing = [name for name in model.columns or () if found and name not in found]
    if missing:
        raise ValueError(
            "The data must have all columns that the model was trained on. Missing: "
            f"{', '.join(missing)}. Received: {data} with the columns "
            f"{', '.join(found)}."
        )
    columns = list(model.columns) if found and model.columns else None
    if path.suffix == ".npz" and path.is_file():
        with np.load(path) as arrays:
            found = list(arrays)
    return columns, model.label if model.label in found else None


def check_shape(model: models.Autoencoder, x: np.ndarray, data: str) -> None:
    """Raise an error if the samples in `x` do not have the model's input shape."""
    shape = model.sample_shape
    if x.shape[-len(shape) :] != shape:
        raise ValueError(
            f"The model takes samples of shape {shape}. Received: {data} with samples "
            f"of shape {x.shape[1:]}. Pass samples of the shape of the training data, "
            "or select columns of a table with --columns."
        )


def read(
    data: str,
    label: str | None = None,
    columns: Sequence[str] | None = None,
    model: models.Autoencoder | None = None,
) -> tuple[np.ndarray, np.ndarray | None, list[str] | None]:
    """Read files as float32, print a summary, and divide 8-bit images by 255.

    Args:
        data: Path of a file or a folder.
        label: As in `keras_sae.datasets.load_data`.
        columns: As in `keras_sae.datasets.load_data`.
        model: None, or the model that will process the data. With a model, images are
            divided only if the model was trained on values in [0, 1].

    Returns:
        A tuple of the samples, the labels or None, and a table's column names or None.
    """
    path = Path(data).expanduser()
    stored, y = datasets.load_data(path, label=label, columns=columns)
    advice = "Train in Python instead, where `fit` reads a `.npy` file in batches."
    # The float32 array needs 4 bytes per value, and its splits take another 4.
    check_memory(path, 8 * stored.size, advice)
    x = np.array(stored, "float32")
    names = [name for name in columns or column_names(path) if name != label]
    finite = np.isfinite(x)
    low, high = (
        pick(where=finite, initial=start)
        for pick, start in ((x.min, np.inf), (x.max, -np.inf))
    )
    what = f"samples of shape {x.shape[1:]}"
    if names:
        shown = names[:10] + ["..."] * (len(names) > 10)
        what = f"{len(names)} columns ({', '.join(shown)})"
    classes = "no labels" if y is None else f"{len(np.unique(y))} classes"
    missing = x.size - int(finite.sum())
    typer.echo(
        f"{data}: {len(x):,} rows, {what}, {stored.dtype} from {low:g} to {high:g}, "
        f"{classes}, {missing:,} missing or infinite values."
    )
    if missing:
        counts = (
            zip(names, (~finite).sum(axis=0).tolist(), strict=True) if names else ()
        )
        found = ", ".join(f"{count} in {name!r}" for name, count in counts if count)
        raise ValueError(
            f"Every value must be a finite number. Received: {missing} missing or "
            f"infinite values{f' ({found})' if found else ''}. Replace them or remove "
            f"their rows{', or omit their columns with --columns' if names else ''}."
        )
    is_image = stored.dtype == "uint8" or (x.ndim == 4 and x.shape[-1] in (1, 3, 4))
    if is_image and not names and low >= 0 and 1 < high <= 255:
        trained = (0.0, 1.0) if model is None else model.input_range
        if trained is not None and trained[0] >= 0 and trained[1] <= 1:
            x /= 255
            action = "The values are divided by 255."
        elif trained is None:
            action = (
                "The values are not scaled, because the range of the model's training "
                "data is unknown."
            )
        else:
            action = (
                "The values are not scaled, because the model was trained on "
                f"values from {trained[0]:g} to {trained[1]:g}."
            )
        typer.echo(f"The data looks like 8-bit images. {action}")
    scales = x.std(axis=0)
    smallest = np.where(scales > 0, scales, np.inf).argmin()
    if names and model is None and scales.max() > _LARGE_RATIO * scales[smallest] > 0:
        typer.echo(
            f"The columns differ in scale: the standard deviation is "
            f"{scales[smallest]:.3g} for {names[smallest]!r} and {scales.max():.3g} "
            f"for {names[scales.argmax()]!r}. The columns that vary most dominate the "
            "error, so scale the columns first."
        )
    return x, y, names or None
