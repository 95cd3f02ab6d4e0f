"""The folder of a search: which search it holds, told by its space and its data."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras_tuner
import numpy as np

from keras_sae.utils import io as files

_FILE = "search.json"


def fingerprint(hypermodel: Any, arrays: Any, **settings: Any) -> dict[str, Any]:
    """Returns what determines the figures of a search, JSON values only.

    Args:
        hypermodel: A `keras_tuner.HyperModel`.
        arrays: Arrays, None and tuples of them: the data.
        **settings: What else counts, JSON values.

    Returns:
        A dict, with hashes in place of space and data.
    """
    hp = keras_tuner.HyperParameters()
    hypermodel.declare_hyperparameters(hp)
    hypermodel.build(hp)
    config: dict[str, Any] = getattr(hypermodel, "get_config", dict)()
    space = [type(hypermodel).__name__, config, hp.get_config()["space"]]
    return {"space": _digest(space), "data": _digest_of_arrays(arrays), **settings}


def name_of(settings: Mapping[str, Any]) -> str:
    """Returns the name of the project with these settings."""
    return f"search-{_digest(settings)[:12]}"


def claim(folder: Path, settings: Mapping[str, Any], trials: bool = False) -> None:
    """Marks a folder as that of a search, or raises if it is that of another.

    Args:
        folder: Where the search is kept.
        settings: What `fingerprint` returned.
        trials: Whether a tuner has found trials in it.

    Raises:
        ValueError: It holds another search.
    """
    path = folder / _FILE
    if path.exists():
        found = json.loads(path.read_text())
        _check_same(folder, found, dict(settings))
    elif trials:
        raise ValueError(
            "The tuner's folder holds trials of a search that is not known. "
            f"Received: {str(folder)!r}. Make the tuner with overwrite=True, or with "
            "another project_name."
        )
    else:
        with files.atomic_write(path) as unfinished:
            unfinished.write_text(json.dumps(dict(settings), indent=1))


def _check_same(folder: Path, found: dict, settings: dict) -> None:
    changes = files.describe_changes(found, settings)
    if changes:
        raise ValueError(
            f"`directory` holds another search. Received: {str(folder)!r}, where "
            f"{changes}. Choose another folder, or delete it."
        )


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, default=repr)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _digest_of_arrays(arrays: Any) -> str:
    digest = hashlib.sha256()
    _add(digest, arrays)
    return digest.hexdigest()[:16]


def _add(digest: Any, value: Any) -> None:
    if isinstance(value, (tuple, list)):
        for one in value:
            _add(digest, one)
    elif value is not None:
        array = np.ascontiguousarray(value)
        digest.update(f"{array.shape}{array.dtype}".encode())
        digest.update(array.view(np.uint8).data if array.size else b"")
