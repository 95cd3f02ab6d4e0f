"""Finds prepared datasets, prepares the embedded ones, and never waits in vain."""

import contextlib
import difflib
import importlib
import os
import random
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tensorflow_datasets.core import DatasetBuilder

EMBEDDED = ("digits", "natural_patches")
_HOME_FOLDER = os.path.join("~", "tensorflow_datasets")  # TFDS's own default
_PROBE_SECONDS = 5


def prepared_builder(
    name: str,
    data_dir: str | os.PathLike[str] | None,
    download: bool,
    **builder_kwargs: Any,
) -> "DatasetBuilder":
    """Returns the TFDS builder of a dataset that is ready to be read."""
    if not isinstance(name, str):
        raise ValueError(
            f"`name` must be the name of a dataset, a string. Received: name={name!r}."
        )
    if name in EMBEDDED:
        return _embedded(name, data_dir, **builder_kwargs)
    return _from_tfds(name, data_dir, download, **builder_kwargs)


def _embedded(
    name: str, data_dir: str | os.PathLike[str] | None, **builder_kwargs: Any
) -> "DatasetBuilder":
    module = f"{__package__}.{name}.{name}_dataset_builder"
    create = importlib.import_module(module).Builder
    folders = _folders(data_dir)
    for folder in folders:
        builder = create(data_dir=folder, **builder_kwargs)
        if _is_prepared(builder):
            return builder
    for folder in filter(_can_be_written, folders):
        _prepare(create(data_dir=folder, **builder_kwargs))
        # Made anew: where another process was first, this reads its figures.
        return create(data_dir=folder, **builder_kwargs)
    raise ValueError(
        f"The dataset {name!r} is prepared on first use, and no folder for it can be "
        f"written. Tried: {', '.join(folders)}. Give a folder that can be, as "
        f"`data_dir` or in TFDS_DATA_DIR. Received: data_dir={data_dir!r}."
    )


def _folders(data_dir: str | os.PathLike[str] | None) -> list[str]:
    """Where an embedded set may lie: the folder given, else TFDS's defaults."""
    given = data_dir or os.environ.get("TFDS_DATA_DIR")
    folders = [given or _HOME_FOLDER] if data_dir else [given or "", _HOME_FOLDER]
    expanded = [os.path.expanduser(os.fspath(folder)) for folder in folders if folder]
    return list(dict.fromkeys(expanded))


def _can_be_written(folder: str) -> bool:
    """Whether `folder`, or else the nearest parent there is, can be written."""
    if "://" in folder:  # remote: only trying can tell
        return True
    path = os.path.abspath(folder)
    while not os.path.exists(path):
        path = os.path.dirname(path)
    # Root may write where the mode says that nobody should: keep to the mode.
    marked = os.stat(path).st_mode & 0o222
    return os.path.isdir(path) and bool(marked) and os.access(path, os.W_OK | os.X_OK)


def _is_prepared(builder: "DatasetBuilder") -> bool:
    # Not `builder.is_prepared()`, which logs a warning where it is not.
    return bool((builder.data_path / "dataset_info.json").exists())


def _prepare(builder: "DatasetBuilder") -> None:
    """Writes the set to a temporary folder that TFDS renames when it is whole."""
    # TFDS prints; standard output belongs to the caller's results.
    with contextlib.redirect_stdout(sys.stderr), _private_random_state():
        try:
            builder.download_and_prepare()
        except OSError:
            # The renaming fails where another process has been faster.
            if not _is_prepared(builder):
                raise


@contextlib.contextmanager
def _private_random_state() -> Iterator[None]:
    """Reseeds Python's generator for a while, and then puts its state back.

    TFDS names its temporary folder by it. Two processes with one seed would
    write into one folder, and a first run would go on with other random numbers
    than a second one.
    """
    state = random.getstate()
    random.seed()
    try:
        yield
    finally:
        random.setstate(state)


def _from_tfds(
    name: str,
    data_dir: str | os.PathLike[str] | None,
    download: bool,
    **builder_kwargs: Any,
) -> "DatasetBuilder":
    import tensorflow_datasets as tfds

    # The variable is read here since TFDS reads it only once, when imported.
    folder = data_dir or os.environ.get("TFDS_DATA_DIR") or None
    if folder is not None:
        folder = os.path.expanduser(os.fspath(folder))
    try:
        builder = tfds.builder(name, data_dir=folder, **builder_kwargs)
    except tfds.core.DatasetNotFoundError:
        raise ValueError(_unknown(name)) from None
    except (AssertionError, ValueError) as error:
        raise ValueError(
            f"`name` cannot be opened by TFDS. Expected {EMBEDDED} or "
            "'dataset[/config][:version]' of TFDS. "
            f"Received: name={name!r}, with {builder_kwargs}."
        ) from error
    if _is_prepared(builder):
        return builder
    if not download:
        raise ValueError(_not_prepared(name, builder, builder_kwargs))
    _check_network(name, builder)
    builder.download_and_prepare()
    return builder


def _unknown(name: str) -> str:
    import tensorflow_datasets as tfds

    # Community sets would be looked up on the network.
    known = [*EMBEDDED, *tfds.list_builders(with_community_datasets=False)]
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    hint = f"Did you mean {near[0]!r}? " if near else ""
    return (
        f"Unknown dataset: name={name!r}. {hint}Expected one of {EMBEDDED}, or a name "
        "of `tfds.list_builders()`."
    )


def _not_prepared(
    name: str, builder: "DatasetBuilder", builder_kwargs: dict[str, Any]
) -> str:
    root = os.fspath(builder.data_dir_root)
    options = f", builder_kwargs={builder_kwargs!r}" if builder_kwargs else ""
    call = f"tfds.load({name!r}, data_dir={root!r}{options})"
    return (
        f"The dataset {name!r} is not prepared: there is no {builder.data_dir}. "
        "Nothing is downloaded unasked. Where there is a network, run\n"
        f'    python -c "import tensorflow_datasets as tfds; {call}"\n'
        "or pass `download=True`. Where it is prepared already, pass its folder as "
        "`data_dir` or set TFDS_DATA_DIR."
    )


def _check_network(name: str, builder: "DatasetBuilder") -> None:
    """Fails at once where the source cannot be reached; TFDS retries for minutes."""
    for url in list(builder.url_infos)[:1]:
        request = urllib.request.Request(url, method="HEAD")
        try:
            urllib.request.urlopen(request, timeout=_PROBE_SECONDS).close()
        except urllib.error.HTTPError:
            return  # it answered; TFDS will know what to ask for
        except OSError as error:
            raise ValueError(
                f"The dataset {name!r} is not prepared in {builder.data_dir} and "
                f"cannot be downloaded: {url} does not answer ({error}). Prepare it "
                "on a machine with a network and copy the folder, or give its "
                "`data_dir`."
            ) from error
