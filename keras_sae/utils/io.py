"""Atomic writes, checked reads, and run directories.

Files are written under a temporary name and then renamed, so a killed process or a full
disk leaves no partial file. Damaged files are never used. The functions that read them
raise an error that names the file, or rename the file so that it is created again.
"""

import itertools
import json
import os
import shutil
import tempfile
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np
import psutil

from keras_sae.types import PathLike

# Prefix of temporary folders. A killed process may leave some behind.
UNFINISHED = ".unfinished-"
# Error message for a missing or damaged file.
UNREADABLE = (
    "A file is missing or damaged. Received: {path!r}, which cannot be read: {error}. "
    "Restore the file, or choose another directory."
)


@contextmanager
def atomic_write(path: PathLike) -> Iterator[Path]:
    """Yield a temporary path, and rename it to `path` when the block succeeds.

    Readers see either the old or the new content, never a partial file. The temporary
    path has the suffix of `path`, because Keras and matplotlib infer the format from
    it. The temporary file is inside the folder of `path`, because a rename is atomic
    only within one file system.

    Args:
        path: Final path of the file or folder. An existing file is replaced.

    Example:

    >>> import pathlib
    >>> from keras_sae.utils.io import atomic_write
    >>> with atomic_write("a.txt") as path:
    ...     _ = path.write_text("done")
    >>> pathlib.Path("a.txt").read_text()
    'done'
    """
    path = Path(path)
    prefix = f"{UNFINISHED}{os.getpid()}-"
    with tempfile.TemporaryDirectory(prefix=prefix, dir=path.parent) as folder:
        temporary = Path(folder) / path.name
        yield temporary
        os.replace(temporary, path)


def write_json(path: PathLike, value: Any) -> None:
    """Write `value` as JSON atomically, with null for NaN and infinity."""
    finite = json.loads(json.dumps(value), parse_constant=lambda _: None)
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(finite, indent=1) + "\n")


def read_json(path: PathLike, **types: type) -> dict[str, Any]:
    """Return the JSON object that `write_json` wrote to `path`.

    Args:
        path: Path of the file.
        **types: Keys that the object must have, and the types of their values.

    Raises:
        ValueError: The file cannot be read, or does not contain an object with these
            keys and types.

    Example:

    >>> from keras_sae.utils.io import read_json, write_json
    >>> write_json("a.json", {"epochs": 3})
    >>> read_json("a.json", epochs=int)
    {'epochs': 3}
    """
    try:
        value = json.loads(Path(path).read_bytes())
        if not isinstance(value, dict):
            raise ValueError(f"expected an object instead of {type(value).__name__}")
        for key, kind in types.items():
            if not isinstance(value.get(key), kind):
                raise ValueError(f"expected {key!r} of type {kind.__name__}")
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(UNREADABLE.format(path=str(path), error=error)) from error
    return value


def set_aside(path: PathLike, reason: str) -> None:
    """Rename a file that cannot be used, and issue a warning. Nothing is deleted."""
    path = Path(path)
    names = (path.with_name(f"{path.name}.unused-{n}") for n in itertools.count(1))
    aside = next(name for name in names if not name.exists())
    path.rename(aside)
    warnings.warn(
        f"{str(path)!r} cannot be used: {reason}. The file was renamed to "
        f"{aside.name!r}.",
        stacklevel=3,
    )


def save_state(
    path: PathLike,
    model: keras.Model,
    record: Mapping[str, Any],
    with_optimizer: bool = False,
) -> None:
    """Write the variables of a model and a JSON-like record to one `.npz` file.

    The checksums of an `.npz` file reveal damage. A damaged HDF5 file, in contrast, can
    cause a segmentation fault when it is read.
    """
    arrays = [
        # NumPy's format has no bfloat16.
        keras.ops.convert_to_numpy(
            keras.ops.cast(v, "float32") if v.dtype == "bfloat16" else v
        )
        for v in state_variables(model, with_optimizer)
    ]
    with atomic_write(path) as temporary:
        np.savez(temporary, *arrays, record=json.dumps(record))


def load_state(
    path: PathLike, model: keras.Model, with_optimizer: bool = False
) -> dict[str, Any] | None:
    """Load the variables from a file that `save_state` wrote, and return its record.

    The result is None if the file does not exist. If the file is damaged, or if its
    variables have other shapes, it is renamed by `set_aside`, and the result is None.
    """
    path = Path(path)
    if not path.exists():
        return None
    variables = state_variables(model, with_optimizer)
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as saved:
            record = json.loads(str(saved["record"]))
            arrays = [saved[f"arr_{i}"] for i in range(len(saved.files) - 1)]
        if [array.shape for array in arrays] != [tuple(v.shape) for v in variables]:
            raise ValueError("it contains the variables of another model")
    except Exception as error:  # damaged files raise errors of many kinds
        set_aside(path, str(error))
        return None
    for variable, value in zip(variables, arrays, strict=True):
        variable.assign(value)
    return record


def state_variables(
    model: keras.Model, with_optimizer: bool = False
) -> list[keras.Variable]:
    """Return the weights and random states of a model, without its metric variables."""
    metrics = {id(v) for metric in model.metrics for v in metric.variables}
    variables = [v for v in model.variables if id(v) not in metrics]
    if with_optimizer and model.compiled:
        model.optimizer.build(model.trainable_variables)
        variables += model.optimizer.variables
    return variables


def load_model(path: PathLike, **options: Any) -> keras.Model:
    """Load a `.keras` file, or raise an error that names the damaged file.

    The checksums are verified before Keras reads the file.

    Args:
        path: Path of the file.
        **options: Options of `keras.saving.load_model`.

    Raises:
        ValueError: The file is missing or damaged, or Keras cannot load it.
    """
    check_archive(path)
    try:
        return keras.saving.load_model(path, **options)
    except Exception as error:  # Keras raises errors of many kinds
        raise ValueError(UNREADABLE.format(path=str(path), error=error)) from error


def check_archive(path: PathLike) -> None:
    """Raise an error if a `.keras` file is missing or does not match its checksums."""
    try:
        with zipfile.ZipFile(path) as archive:
            if (damaged := archive.testzip()) is not None:
                raise ValueError(f"wrong checksum of {damaged!r}")
    except Exception as error:  # damaged archives raise errors of many kinds
        raise ValueError(UNREADABLE.format(path=str(path), error=error)) from error


def clear_unfinished(folder: PathLike) -> None:
    """Delete the unfinished files that killed processes left in a folder."""
    for leftover in Path(folder).glob(f"{UNFINISHED}*"):
        number = leftover.name.removeprefix(UNFINISHED).split("-")[0]
        try:  # A process that is older than the file may still be writing it.
            started = psutil.Process(int(number)).create_time()
            if started <= leftover.stat().st_mtime:
                continue
        except (OSError, ValueError, psutil.Error):
            pass
        shutil.rmtree(leftover, ignore_errors=True)


def output_folder(
    path: PathLike,
    argument: str = "output",
    advice: str = "Choose another folder with --output.",
) -> Path:
    """Create the folder `path` if needed, and return it if it is writable.

    Args:
        path: Path of a folder, which may already exist.
        argument: Name of the caller's argument, for the error message.
        advice: How to fix the problem, for the error message.

    Raises:
        ValueError: `path` cannot be created, is not writable, or is a file.

    Example:

    >>> from keras_sae.utils.io import output_folder
    >>> output_folder("new").is_dir()
    True
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(
            f"`{argument}` must be a writable folder. Received: "
            f"{str(path)!r} ({error.strerror or error}). {advice}"
        ) from error
    return folder


def describe_changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """Return a description of the settings that differ, or an empty string.

    Args:
        old: Settings that were read from JSON.
        new: Current settings, as JSON-like values.

    Example:

    >>> from keras_sae.utils.io import describe_changes
    >>> describe_changes({"epochs": 10, "seed": 0}, {"epochs": 20, "seed": 0})
    'epochs was 10 and is now 20'
    """
    now = json.loads(json.dumps(dict(new)))
    return "; ".join(
        f"{key} was {old.get(key)!r} and is now {now.get(key)!r}"
        for key in sorted({*old, *now})
        if old.get(key) != now.get(key)
    )


class RunDirectory:
    """A directory that belongs to one run and stores its settings.

    The first call writes the settings to a file in the directory. Later calls compare
    their settings with this file, so that a run is resumed only with the same settings.
    A directory that contains files but no settings is rejected.

    Args:
        path: A new or empty directory, or the directory of an earlier call.
        settings: All settings that determine the results, as JSON-like values.
        argument: Name of the caller's argument, for error messages.
        advice: How to choose another directory, for error messages.
        file: Name of the file with the settings.

    Attributes:
        path: The `pathlib.Path` of the directory.

    Raises:
        ValueError: The directory is not writable, contains other files, or belongs to a
            run with other settings.

    Example:

    >>> from keras_sae.utils.io import RunDirectory
    >>> RunDirectory("run", {"seed": 0}).path.is_dir()
    True
    """

    def __init__(
        self,
        path: PathLike,
        settings: Mapping[str, Any],
        *,
        argument: str = "directory",
        advice: str = "Choose another directory, or delete it.",
        file: str = "settings.json",
    ) -> None:
        self.path = output_folder(path, argument, advice)
        clear_unfinished(self.path)
        written = self.path / file
        if written.exists():
            changes = describe_changes(read_json(written), settings)
            if changes:
                raise ValueError(
                    f"`{argument}` belongs to a run with other settings. Received: "
                    f"{str(path)!r}, where {changes}. {advice}"
                )
        elif all(entry.name.startswith(UNFINISHED) for entry in self.path.iterdir()):
            write_json(written, dict(settings))
        else:
            raise ValueError(
                f"`{argument}` must be a new or empty folder, or the folder of an "
                f"earlier run. Received: {str(path)!r}, which contains other files. "
                f"{advice}"
            )
