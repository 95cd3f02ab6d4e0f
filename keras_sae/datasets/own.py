"""Load a user's own files: arrays, tables and folders of images."""

import os
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np

from keras_sae.types import PathLike
from keras_sae.utils.io import UNREADABLE
from keras_sae.utils.validation import known_name

if TYPE_CHECKING:
    import pandas as pd

ARRAYS, TABLES = (".npy", ".npz"), (".csv", ".parquet")
# Extensions of the files that `keras.utils.image_dataset_from_directory` reads.
_IMAGES = (".bmp", ".gif", ".jpeg", ".jpg", ".png")
_ADVICE = (
    "Save the values with `numpy.save`. The resulting `.npy` file is memory-mapped, so "
    "it can be larger than the available memory."
)

Arrays = tuple[np.ndarray, np.ndarray | None]


def is_path(name: object) -> TypeGuard[PathLike]:
    """Return whether `name` is the path of a file or folder, not a dataset's name.

    A string is a path if it starts with `.`, `~` or a separator, contains a separator
    and exists, or has the extension of a supported file. A folder named `images` in
    the working directory must be written as `./images`.
    """
    if not isinstance(name, str):
        return isinstance(name, os.PathLike)
    known = Path(name).suffix.lower() in (*ARRAYS, *TABLES)
    begins = name.startswith((".", "~", os.sep))
    return known or begins or (os.sep in name and os.path.exists(name))


def load_path(
    path: PathLike, label: str | None = None, columns: Sequence[str] | None = None
) -> Arrays:
    """Return the data and labels of a path, as `keras_sae.datasets.load_data` does."""
    path = Path(path).expanduser()
    if not path.exists():
        raise ValueError(
            f"There is no such file or folder. Received: {str(path)!r}, in the folder "
            f"{os.getcwd()!r}."
        )
    suffix = path.suffix.lower()
    if suffix in TABLES and not path.is_dir():
        return _table(path, label, columns)
    if suffix not in ARRAYS and not path.is_dir():
        raise ValueError(
            f"The path must be a folder of images or a file that ends in "
            f"{', '.join((*ARRAYS, *TABLES))}. Received: {str(path)!r}."
        )
    if columns is not None or (label is not None and suffix != ".npz"):
        raise ValueError(
            f"`columns` applies only to tables ({', '.join(TABLES)}), and `label` only "
            "to tables and `.npz` files. Received: "
            f"label={label!r}, columns={columns!r} with {str(path)!r}. Remove them."
        )
    if path.is_dir():
        return _folder(path)
    if suffix == ".npz":
        check_memory(path, path.stat().st_size)
    try:
        if suffix == ".npz":
            with path.open("rb") as file:
                arrays = dict(np.load(file))
        else:
            arrays = {"x": np.load(path, mmap_mode="r")}
    except (EOFError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(UNREADABLE.format(path=str(path), error=error)) from error
    return _arrays(path, arrays, label)


def column_names(path: Path) -> list[str]:
    """Return the column names of a table, or an empty list for other files."""
    if path.is_dir() or path.suffix.lower() not in TABLES:
        return []
    if path.suffix.lower() == ".csv":
        return list(map(str, _read_csv(path, nrows=0).columns))
    import pyarrow.parquet

    return list(map(str, pyarrow.parquet.read_schema(path).names))


def class_numbers(labels: np.ndarray) -> np.ndarray:
    """Return labels as int64, with text labels numbered in sorted order.

    Raises:
        ValueError: A label is missing or is not a whole number.
    """
    import pandas as pd

    series = pd.Series(labels)
    if series.isna().any():
        raise ValueError(
            f"Every sample needs a label. Received: {int(series.isna().sum())} of "
            f"{len(series)} labels missing. Remove the rows without a label."
        )
    if pd.api.types.is_float_dtype(series):
        if (series != series.round()).any():
            raise ValueError(
                "Class labels must be integers or text. Received: fractions such as "
                f"{series[series != series.round()].iloc[0]:g}."
            )
        return series.to_numpy("int64")
    if pd.api.types.is_integer_dtype(series) or pd.api.types.is_bool_dtype(series):
        return series.to_numpy("int64")
    return np.unique(series.astype(str).to_numpy(), return_inverse=True)[1]


def _arrays(path: Path, arrays: dict[str, np.ndarray], label: str | None) -> Arrays:
    names = list(arrays)
    if label is not None:
        known_name("array", label, names)
    elif "y" in names and len(names) > 1:
        label = "y"
    others = [name for name in names if name != label]
    if "x" not in others and len(others) != 1:
        raise ValueError(
            "The file must contain an array `x`, or one array besides the labels. "
            f"Received: {str(path)!r} with the arrays {', '.join(names)}."
        )
    x = _samples(path, arrays["x" if "x" in others else others[0]])
    y = None if label is None else class_numbers(arrays[label])
    if y is not None and len(y) != len(x):
        raise ValueError(
            "Data and labels must have the same number of samples. Received: "
            f"{len(x)} and {len(y)} in {str(path)!r}."
        )
    return x, y


def _samples(path: Path, x: np.ndarray) -> np.ndarray:
    if x.ndim < 2 or not len(x) or x.dtype.kind not in "biuf":
        raise ValueError(
            "The array must contain numbers and have the shape (samples, ...). "
            f"Received: shape {x.shape}, dtype {x.dtype} in {str(path)!r}."
        )
    return x


def _table(path: Path, label: str | None, columns: Sequence[str] | None) -> Arrays:
    import pandas as pd

    wanted = None if columns is None else list(columns)
    if path.suffix.lower() == ".csv":
        check_memory(path, path.stat().st_size)
    else:
        import pyarrow.parquet

        metadata = pyarrow.parquet.read_metadata(path)
        check_memory(path, 8 * metadata.num_rows * metadata.num_columns)
    labels, names = [] if label is None else [label], column_names(path)
    for name in (*(wanted or ()), *labels):
        known_name("column", name, names)
    if wanted is not None:
        wanted = [name for name in wanted if name != label]
    used = None if wanted is None else [*wanted, *labels]
    if path.suffix.lower() == ".csv":
        table = _read_csv(path, usecols=used)
    else:
        table = pd.read_parquet(path, columns=used)
    y = None if label is None else class_numbers(table.pop(str(label)).to_numpy())
    features = table if wanted is None else table[wanted]
    if features.empty:
        raise ValueError(
            "The table must have rows, and columns besides the label. "
            f"Received: {len(features)} rows and {features.shape[1]} columns in "
            f"{str(path)!r}, not counting the label."
        )
    text = [
        str(name)
        for name, kind in features.dtypes.items()
        if not pd.api.types.is_numeric_dtype(kind)
    ]
    if text:
        raise ValueError(
            f"Text columns cannot be encoded: {', '.join(text)}. Pass the label column "
            "as `label`, or select the numeric columns with `columns`. Received: "
            f"{str(path)!r}, label={label!r}, columns={columns!r}."
        )
    return features.to_numpy("float32", na_value=np.nan), y


def _read_csv(path: Path, **options: Any) -> "pd.DataFrame":
    import pandas as pd

    try:
        return pd.read_csv(path, **options)
    except (pd.errors.EmptyDataError, pd.errors.ParserError, UnicodeDecodeError) as e:
        raise ValueError(f"The table cannot be read: {e}. File: {str(path)!r}.") from e


def _folder(path: Path) -> Arrays:
    import keras
    from PIL import Image, UnidentifiedImageError

    files = sorted(f for f in path.rglob("*") if f.suffix.lower() in _IMAGES)
    if not files:
        raise ValueError(
            f"The folder contains no images. Received: {str(path)!r}. Expected files "
            f"that end in {', '.join(_IMAGES)}, with or without a subfolder per class."
        )
    has_classes = any(file.parent != path for file in files)
    if has_classes and any(file.parent == path for file in files):
        raise ValueError(
            "The folder contains both images and subfolders of images. Received: "
            f"{str(path)!r}. Move every image into the subfolder of its class."
        )
    sizes: dict[tuple[int, int], Path] = {}
    is_gray = True
    for file in files:
        try:
            with Image.open(file) as image:
                sizes.setdefault(image.size, file)
                is_gray = is_gray and image.mode in ("1", "L", "I;16")
        except UnidentifiedImageError as error:
            raise ValueError(f"The file is not an image: {str(file)!r}.") from error
    if len(sizes) > 1:
        found = ", ".join(f"{w}x{h} ({f.name})" for (w, h), f in sizes.items())
        raise ValueError(
            f"All images must have the same size. Received: {found[:200]}. Resize "
            "them, for example with `keras.utils.load_img(file, target_size=(height, "
            "width))`."
        )
    [(width, height)] = sizes
    channels = 1 if is_gray else 3
    # Concatenating the batches requires twice the memory of the images.
    check_memory(path, 8 * len(files) * width * height * channels)
    batches = keras.utils.image_dataset_from_directory(
        path,
        labels="inferred" if has_classes else None,
        color_mode="grayscale" if is_gray else "rgb",
        image_size=(height, width),
        shuffle=False,
        verbose=False,
    )
    if not has_classes:
        x, y = np.concatenate(list(batches.as_numpy_iterator())), None
    else:
        images, labels = zip(*batches.as_numpy_iterator(), strict=True)
        x, y = np.concatenate(images), np.concatenate(labels).astype("int64")
    x /= np.float32(255)
    return x, y


def check_memory(path: Path, needed: int, advice: str = _ADVICE) -> None:
    """Raise an error that ends with `advice` if `needed` bytes exceed free memory."""
    import psutil

    free = psutil.virtual_memory().available
    if needed > free:
        raise ValueError(
            f"The data does not fit into memory. Received: {str(path)!r}, which needs "
            f"about {needed / 1e9:.1f} GB, with {free / 1e9:.1f} GB free. {advice}"
        )
