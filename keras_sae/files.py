"""Files that are there whole or not at all."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole(path: str | Path) -> Iterator[Path]:
    """Yields a name to write to; `path` appears only when the block has succeeded.

    The temporary name keeps the suffix, which Keras and matplotlib go by, and the
    folder, because a rename is atomic only within one file system.

    Args:
        path: Where the file is to be. One that is there already is replaced.

    Example:

    >>> import pathlib, tempfile
    >>> from keras_sae.files import whole
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
    >>> from keras_sae.files import output_folder
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
