"""What a comparison is going to train, checked before any of it is trained."""

import itertools
import operator
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from keras_sae.evaluation.probing import check_classes
from keras_sae.evaluation.training import Run, run_name
from keras_sae.models import _fingerprint, validation
from keras_sae.utils import io as files
from keras_sae.utils import validation as checks

Data = tuple[Any, Any]


def planned(
    builds: Mapping[str, Callable[[], Any]],
    train: Data,
    test: Data,
    seeds: Any,
    settings: Mapping[str, int],
    prepare: Iterable[str],
    directory: str | Path | None,
) -> list[tuple[str, int, Run]]:
    """Returns the trainings of a comparison: name of the model, seed and files.

    Args:
        builds: Names, and functions that return a compiled model.
        train: As for `compare`.
        test: As for `compare`.
        seeds: As for `compare`.
        settings: `epochs`, `batch_size` and `fine_tuning`, as for `compare`.
        prepare: Names of the models that are prepared before their fit.
        directory: As for `compare`.

    Raises:
        ValueError: As for `compare`.
    """
    seeds = whole(seeds)
    checks.positive_integer("epochs", settings["epochs"])
    if settings["fine_tuning"] != 0:
        checks.positive_integer("fine_tuning", settings["fine_tuning"])
    if train[1] is not None and test[1] is not None:
        check_classes(train[1], len(train[0]), test[1], len(test[0]))
    for name in prepare:
        checks.known_name("name in `prepare`", name, builds)
    kept: dict[str, dict[str, Any]] = {name: dict(settings) for name in builds}
    for name, build in builds.items():
        model = build()
        model.check_data(train[0], batch_size=settings["batch_size"])
        if hasattr(model, "elbo"):  # its likelihood may be of data in [0, 1] alone
            model.check_data(test[0])
        validation.check_data(test[0], model.sample_shape)
        if directory is not None:
            kept[name]["model"] = _fingerprint.of_model(model)
            kept[name]["prepared"] = name in prepare
    folder = None
    if directory is not None:
        _check_stems(builds)
        folder = files.output_folder(directory, "directory", "Choose another.")
        data = {"train": _of_data(train), "test": _of_data(test)}
        kept = {name: settings | data for name, settings in kept.items()}
    return [
        (name, seed, Run(run_name(name, seed), folder, kept[name]))
        for name, seed in itertools.product(builds, seeds)
    ]


def check_pairs(**given: Any) -> None:
    """Raises unless each is a pair of data and labels, which may be None."""
    for name, pair in given.items():
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise ValueError(
                f"`{name}` must be a pair of data and labels. Received: "
                f"{type(pair).__name__}. Without labels it is `(x, None)`."
            )


def _of_data(data: Data) -> list[Any]:
    return [
        None if part is None else _fingerprint.fingerprint(np.asarray(part))
        for part in data
    ]


def whole(seeds: Any) -> list[int]:
    """Returns the seeds as integers, at least one.

    Args:
        seeds: As for `compare`.

    Raises:
        ValueError: There is none, or they are not whole numbers.
    """
    try:
        found = [operator.index(seed) for seed in seeds]
    except TypeError:
        found = []
    if not found:
        raise ValueError(
            "`seeds` is empty, or not of whole numbers: each model is trained once a "
            f"seed. Received: seeds={seeds!r}. Expected e.g. (0,) or range(3)."
        )
    return found


def _check_stems(names: Iterable[str]) -> None:
    """Raises if two models would leave the same files."""
    known: dict[str, str] = {}
    for name in names:
        other = known.setdefault(run_name(name, 0), name)
        if other != name:
            raise ValueError(
                "Names of models must differ in more than case and signs, as files are "
                f"called by them. Received: {other!r} and {name!r}, both "
                f"{run_name(name, 0)!r}."
            )
