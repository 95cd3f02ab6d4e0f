"""Training runs of a comparison, which are all checked before the first one starts."""

import itertools
import math
import operator
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import keras
import numpy as np

from keras_sae import models
from keras_sae.callbacks import DeadUnits
from keras_sae.evaluation.evaluate import evaluate
from keras_sae.evaluation.probing import check_classes, fine_tuned_accuracy
from keras_sae.models import validation as data_validation
from keras_sae.types import Config, LabeledData, PathLike
from keras_sae.utils import io, validation
from keras_sae.utils.fingerprint import fingerprint, model_fingerprint

Builder: TypeAlias = Callable[[], models.Autoencoder]
Prepare: TypeAlias = Callable[[models.Autoencoder, np.ndarray], Any]

_ADVICE = "Choose another directory, or delete this one."


def file_stem(name: str, seed: int) -> str:
    """Return the stem of a training run's file names, such as "no-penalty-seed0"."""
    stem = "".join(c if c.isalnum() else "-" for c in name.lower()).strip("-")
    return f"{stem}-seed{seed}"


@dataclass(frozen=True)
class TrainingRun:
    """One training run of a comparison: a model and a random seed."""

    name: str
    seed: int
    builder: Builder
    optimizer: str
    prepare: Prepare | None
    width: int  # of the code
    settings: Config  # everything that determines the metrics, as JSON-like values
    directory: Path | None

    def saved_metrics(self) -> dict[str, float] | None:
        """Return the metrics saved by an earlier call with these settings, or None."""
        if self.directory is None:
            return None
        stem = file_stem(self.name, self.seed)
        path, model = (self.directory / f"{stem}.{end}" for end in ("json", "keras"))
        if not path.exists():
            return None
        try:
            record = io.read_json(path, settings=dict, metrics=dict, history=dict)
        except ValueError as error:
            io.set_aside(path, str(error.__cause__))
            return None
        if changes := io.describe_changes(record["settings"], self.settings):
            raise ValueError(
                "`directory` already contains results for this model with different "
                f"settings. Received: {str(path)!r}, where {changes}. {_ADVICE}"
            )
        try:
            if model.exists():
                io.check_archive(model)
        except ValueError as error:
            io.set_aside(model, str(error.__cause__))
        if not model.exists():
            io.set_aside(path, f"{model.name!r} is missing")
            return None
        # `write_json` stores NaN as null.
        return {k: math.nan if v is None else v for k, v in record["metrics"].items()}

    def train(
        self,
        train: LabeledData,
        test: LabeledData,
        callbacks: list[keras.callbacks.Callback],
    ) -> dict[str, float]:
        """Train, evaluate and save the model, and return its metrics."""
        epochs, batch_size, fine_tuning = (
            self.settings[name] for name in ("epochs", "batch_size", "fine_tuning")
        )
        keras.utils.set_random_seed(self.seed)
        model = build(self.builder, self.optimizer)
        begin = time.perf_counter()
        if self.prepare is not None:
            self.prepare(model, np.asarray(train[0]))
        if model.sparse_layers:
            callbacks = [DeadUnits(), *callbacks]
        history = model.fit(
            train[0],
            epochs=epochs,
            batch_size=batch_size,
            callbacks=callbacks,
            verbose=0,
        )
        seconds = time.perf_counter() - begin
        result = evaluate(model, *test, train=train)
        if fine_tuning and train[1] is not None and test[1] is not None:
            result["fine_tuned_accuracy"] = fine_tuned_accuracy(
                model, train, test, fine_tuning, batch_size
            )
        result["seconds"] = seconds
        if self.directory is not None:
            stem = self.directory / file_stem(self.name, self.seed)
            with io.atomic_write(f"{stem}.keras") as path:
                model.save(path)
            record = {"settings": self.settings, "metrics": result}
            io.write_json(f"{stem}.json", record | {"history": history.history})
        return result


def plan_runs(
    builders: Mapping[str, Builder],
    train: LabeledData,
    test: LabeledData,
    seeds: Iterable[int],
    settings: Config,
    *,
    optimizer: str,
    prepare: Mapping[str, Prepare],
    directory: PathLike | None,
) -> list[TrainingRun]:
    """Check the arguments of `keras_sae.evaluation.compare`, and return its runs.

    `settings` contains `epochs`, `batch_size` and `fine_tuning`. `directory` is
    created only after all checks have passed.
    """
    if train[1] is not None and test[1] is not None:
        check_classes(train, test)
    try:
        integers = [operator.index(seed) for seed in seeds]
    except TypeError:
        integers = []
    if not integers:
        raise ValueError(
            "`seeds` must be a sequence of at least one integer, such as range(3). "
            f"Received: seeds={seeds!r}."
        )
    for name, value in settings.items():
        if (name, value) != ("fine_tuning", 0):
            validation.positive_integer(name, value)
    for name in prepare:
        validation.known_name("name in `prepare`", name, builders)
    folder = None if directory is None else Path(directory)
    if folder is not None:
        for name, other in itertools.combinations(builders, 2):
            if file_stem(name, 0) == file_stem(other, 0):
                raise ValueError(
                    "Model names must differ in more than case or punctuation, because "
                    f"they become file names. Received: {name!r} and {other!r}, which "
                    f"both become {file_stem(name, 0)!r}."
                )
        settings = settings | {"train": fingerprint(train), "test": fingerprint(test)}
    runs = []
    for name, builder in builders.items():
        model = build(builder, optimizer)
        model.check_data(train[0], batch_size=settings["batch_size"])
        if isinstance(model, models.VariationalAutoencoder):
            model.check_data(test[0])  # a Bernoulli likelihood needs data in [0, 1]
        data_validation.check_data(test[0], model.sample_shape)
        own = dict(settings)
        if folder is not None:
            own |= {"model": model_fingerprint(model), "prepared": name in prepare}
        width = int(model.encoder.output_shape[-1])
        shared = builder, optimizer, prepare.get(name), width, own, folder
        for seed in integers:
            runs.append(TrainingRun(name, seed, *shared))
            runs[-1].saved_metrics()  # raises an error if the settings differ
    if folder is not None:
        io.output_folder(folder, "directory", _ADVICE)
        io.clear_unfinished(folder)
    return runs


def build(builder: Builder, optimizer: str) -> models.Autoencoder:
    """Return a compiled autoencoder, or raise an error if `builder` is invalid."""
    # A Keras model is also callable but expects an input, so do not call it.
    model = builder if isinstance(builder, keras.Model) else builder()
    if model is builder or not isinstance(model, models.Autoencoder):
        returned = "" if model is builder else f", which returned {model!r}"
        raise ValueError(
            "A builder must be a function that takes no arguments and returns a new "
            f"`Autoencoder`. Received: {builder!r}{returned}."
        )
    if not model.compiled:
        model.compile(keras.optimizers.get(optimizer))
    return model
