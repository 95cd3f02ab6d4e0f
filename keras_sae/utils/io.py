"""Files that are there whole or not at all, and folders that know what they hold."""

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def whole(path: str | Path) -> Iterator[Path]:
    """Yields a name to write to; `path` appears only when the block has succeeded.

    The temporary name keeps the suffix, which Keras and matplotlib go by, and the
    folder, because a rename is atomic only within one file system.

    Args:
        path: Where the file is to be. One that is there already is replaced.

    Example:

    >>> import pathlib, tempfile
    >>> from keras_sae.utils.io import whole
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> with whole(folder / "a.txt") as path:
    ...     _ = path.write_text("done")
    ...     [p.name for p in folder.glob("a.txt")]
    []
    >>> (folder / "a.txt").read_text()
    'done'
    """
    path = Path(path)
    with tempfile.TemporaryDirectory(prefix=".unfinished-", dir=path.parent) as folder:
        unfinished = Path(folder) / path.name
        yield unfinished
        os.replace(unfinished, path)


def output_folder(
    path: str | Path,
    argument: str = "output",
    mend: str = "Choose another with --output.",
) -> Path:
    """Makes the folder `path` and returns it, if it can be written.

    Args:
        path: A folder, there already or not.
        argument: What the caller calls it, for the message.
        mend: How to mend it, for the message.

    Returns:
        The folder's path.

    Raises:
        ValueError: It cannot be made or written, or is a file.

    Example:

    >>> import tempfile
    >>> from keras_sae.utils.io import output_folder
    >>> output_folder(tempfile.mkdtemp() + "/new").is_dir()
    True
    """
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise ValueError(
            f"`{argument}` must be a folder that can be written. Received: "
            f"{str(path)!r} ({error.strerror or error}). {mend}"
        ) from error
    return path


def changes(found: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    """Returns in words which settings a folder was not made with, empty if none.

    Args:
        found: Settings as the folder keeps them, from JSON.
        settings: Those of now, JSON values.

    Example:

    >>> from keras_sae.utils.io import changes
    >>> changes({"epochs": 10, "seed": 0}, {"epochs": 20, "seed": 0})
    'epochs was 10 and is now 20'
    """
    now = json.loads(json.dumps(dict(settings)))
    return "; ".join(
        f"{key} was {found.get(key)!r} and is now {now.get(key)!r}"
        for key in sorted({*found, *now})
        if found.get(key) != now.get(key)
    )
