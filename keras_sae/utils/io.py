"""Atomic writes, and directories that remember which run they belong to."""

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from keras_sae.types import PathLike

# Prefix of temporary folders. A killed process may leave some behind.
UNFINISHED = ".unfinished-"


@contextmanager
def atomic_write(path: PathLike) -> Iterator[Path]:
    """Yield a temporary path, and rename it to `path` when the block succeeds.

    Readers see the old content or the new content, never a part. The temporary path has
    the same suffix, by which Keras and matplotlib choose a format. It is in the same
    folder, because a rename is atomic only within one file system.

    Args:
        path: Where the file or folder should be. An existing file is replaced.

    Example:

    >>> import pathlib
    >>> from keras_sae.utils.io import atomic_write
    >>> with atomic_write("a.txt") as path:
    ...     _ = path.write_text("done")
    >>> pathlib.Path("a.txt").read_text()
    'done'
    """
    path = Path(path)
    with tempfile.TemporaryDirectory(prefix=UNFINISHED, dir=path.parent) as folder:
        temporary = Path(folder) / path.name
        yield temporary
        os.replace(temporary, path)


def write_json(path: PathLike, value: Any) -> None:
    """Write `value` as JSON, atomically; NaN and infinity become null."""
    finite = json.loads(json.dumps(value), parse_constant=lambda _: None)
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(finite, indent=1) + "\n")


def output_folder(
    path: PathLike,
    argument: str = "output",
    advice: str = "Choose another folder with --output.",
) -> Path:
    """Create the folder `path` if needed, and return it if it can be written.

    Args:
        path: A folder; it may exist.
        argument: Name of the caller's argument, for the error message.
        advice: How to fix the problem, for the error message.

    Raises:
        ValueError: `path` cannot be created or written, or is a file.

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
            f"`{argument}` must be a folder that can be written. Received: "
            f"{str(path)!r} ({error.strerror or error}). {advice}"
        ) from error
    return folder


def describe_changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """Return in words which settings differ, or an empty string if none do.

    Args:
        old: Settings that were read from JSON.
        new: Current settings, JSON-like values.

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
    """A directory that belongs to one run and remembers the settings of that run.

    The first call writes the settings to a file in it. Later calls with the same
    settings resume; other settings, or files that no run has written, are an error.

    Args:
        path: A new or empty directory, or one of an earlier call.
        settings: Everything that determines the results, JSON-like values.
        argument: Name of the caller's argument, for error messages.
        advice: How to choose another directory, for error messages.
        file: Name of the file that holds the settings.

    Attributes:
        path: The `pathlib.Path` of the directory.

    Raises:
        ValueError: The directory cannot be written, holds other files, or belongs to
            a run with other settings.

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
        written = self.path / file
        if written.exists():
            changes = describe_changes(json.loads(written.read_text()), settings)
            if changes:
                raise ValueError(
                    f"`{argument}` belongs to a run with other settings. Received: "
                    f"{str(path)!r}, where {changes}. {advice}"
                )
        elif all(entry.name.startswith(UNFINISHED) for entry in self.path.iterdir()):
            write_json(written, dict(settings))
        else:
            raise ValueError(
                f"`{argument}` must be a new or empty folder, or that of an earlier "
                f"run. Received: {str(path)!r}, which holds other files. {advice}"
            )
