"""The loop that both ways of pretraining share: a level after the other."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_sae.models import Autoencoder, building_blocks, data_adapter
from keras_sae.models._fingerprint import fingerprint
from keras_sae.pretraining import _sources
from keras_sae.pretraining._progress import (
    Progress,
    as_history,
    as_logs,
)
from keras_sae.utils import validation as checks

# Losses whose target is a class: a model compiled with one is a classifier.
_OF_CLASSES = (
    keras.losses.CTC,
    keras.losses.CategoricalCrossentropy,
    keras.losses.CategoricalFocalCrossentropy,
    keras.losses.CategoricalGeneralizedCrossEntropy,
    keras.losses.CategoricalHinge,
    keras.losses.Circle,
    keras.losses.Hinge,
    keras.losses.SparseCategoricalCrossentropy,
    keras.losses.SquaredHinge,
)
_FUNCTIONS_OF_CLASSES = (
    keras.losses.ctc,
    keras.losses.categorical_crossentropy,
    keras.losses.categorical_focal_crossentropy,
    keras.losses.categorical_generalized_cross_entropy,
    keras.losses.categorical_hinge,
    keras.losses.circle,
    keras.losses.hinge,
    keras.losses.sparse_categorical_crossentropy,
    keras.losses.squared_hinge,
)

# Begins the names of folders for codes, which are as large as the data.
_CODES = ".unfinished-"

# What a callback may do before or after a step.
_OF_STEPS = (
    "on_batch_begin",
    "on_batch_end",
    "on_test_batch_begin",
    "on_test_batch_end",
    "on_train_batch_begin",
    "on_train_batch_end",
)


@dataclass(frozen=True)
class Stage:
    """A level on its own.

    Attributes:
        model: What is fitted to the code below, compiled and built.
        encoder: From the code below to the code of this level.
        finish: Writes what `model` has learnt into the layers of the level.
    """

    model: keras.Model
    encoder: keras.Model
    finish: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class Plan:
    """What is the same for both ways of pretraining; see `keras_sae.pretraining`."""

    model: Autoencoder
    epochs: list[int]
    batch_size: int
    callbacks: list[list[keras.callbacks.Callback]]
    directory: str | Path | None
    verbose: Any
    settings: dict[str, Any] = field(default_factory=dict)


def plan(
    model: Any,
    epochs: Any,
    batch_size: Any,
    callbacks: Any,
    directory: str | Path | None,
    verbose: Any,
    settings: dict[str, Any],
) -> Plan:
    """Checks the common arguments and spreads them over the levels."""
    count = len(levels_of(model))
    epochs = [
        checks.positive_integer("epochs", n) for n in each("epochs", epochs, count)
    ]
    if isinstance(callbacks, keras.callbacks.Callback):
        callbacks = [callbacks]
    if callbacks is not None and not isinstance(callbacks, (list, tuple)):
        raise ValueError(
            "`callbacks` must be a list of Keras callbacks, or one such list a level. "
            f"Received: callbacks={callbacks!r}."
        )
    callbacks = callbacks or []
    nested = bool(callbacks) and isinstance(callbacks[0], (list, tuple))
    spread = (
        [list(entry) for entry in each("callbacks", callbacks, count)]
        if nested
        else [list(callbacks)] * count
    )
    batch_size = checks.positive_integer("batch_size", batch_size)
    return Plan(model, epochs, batch_size, spread, directory, verbose, settings)


def levels_of(model: Any) -> list[Any]:
    """Returns the levels of a model, outermost first, if it has any to pretrain."""
    advice = (
        "Pretrain a model of `keras_sae.models.shallow`, `deep` or `stacked`; a "
        "classifier is made from it afterwards."
    )
    if not isinstance(model, Autoencoder):
        raise ValueError(
            f"`model` must be a `keras_sae.models.Autoencoder`. Received: {model!r}. "
            + advice
        )
    try:
        levels = list(model.levels)
    except ValueError as error:
        raise ValueError(
            "`model` has nothing to pretrain layer by layer. Received: "
            f"model={model.name!r}. {advice}"
        ) from error
    loss: Any = getattr(model, "loss", None)
    if isinstance(loss, (list, tuple)) and len(loss) == 1:
        [loss] = loss  # as Keras has it for a model of one output
    if of_classes(loss):
        raise ValueError(
            "`model` is compiled for something else than rebuilding its input. "
            f"Received: loss={model.loss!r}. {advice}"
        )
    weights = [
        weight
        for level in levels
        for layer in (*level.encode, *level.decode)
        for weight in layer.trainable_weights
    ]
    if not weights:
        raise ValueError(
            "`model` has nothing to pretrain: none of its weights is trainable. "
            f"Received: model={model.name!r} with trainable={model.trainable}. Set "
            "`trainable = True` on the model, or on the layers of a level."
        )
    return levels


def of_classes(loss: Any) -> bool:
    """Whether the target of a loss, as `compile` takes it, is a class."""
    loss = keras.losses.get(loss) if isinstance(loss, (str, dict)) else loss
    return isinstance(loss, _OF_CLASSES) or loss in _FUNCTIONS_OF_CLASSES


def each(name: str, value: Any, count: int) -> list[Any]:
    """Returns one value a level: `value` itself for all, or a sequence of them."""
    if not isinstance(value, (list, tuple)):
        return [value] * count
    if len(value) != count:
        raise ValueError(
            f"`{name}` must be one value for all levels, or one a level. Received: "
            f"{len(value)} values for {count} levels: {name}={value!r}."
        )
    return list(value)


def chains(layers: Any, shape: tuple[int, ...]) -> tuple[keras.Model, keras.Model]:
    """Returns encoder and decoder of a level, made of the level's own layers."""
    encoder = building_blocks.chain(shape, layers.encode, "encoder")
    code = tuple(encoder.output_shape[1:])
    return encoder, building_blocks.chain(code, layers.decode, "decoder")


def train(
    plan: Plan,
    x: Any,
    validation: Any,
    make: Callable[[int, Any, Any, tuple[int, ...]], Stage],
) -> list[keras.callbacks.History]:
    """Trains the levels one after the other, each on the code of the one below.

    Args:
        plan: What `plan` returned.
        x: Data of the first level, as the user gave it.
        validation: Held-out data, as the user gave it, or None.
        make: From a level's index, its data, what is held out (or None) and the
            shape of a sample to its stage.

    Returns:
        The history of each level.
    """
    shape, histories = plan.model.sample_shape, []
    x = _sources.open_source(x, shape, plan.batch_size)
    validation = _open_validation(validation, shape, plan.batch_size)
    with _workspace(plan, x, validation) as (progress, folder):
        for level in range(len(plan.epochs)):
            stage = make(level, x, validation, shape)
            stage.model.steps_per_execution = _steps_at_once(plan, level, stage.model)
            _announce(plan, level, stage)
            histories.append(_train_level(plan, level, stage, x, validation, progress))
            stage.finish()
            shape = tuple(stage.encoder.output_shape[1:])
            if level + 1 < len(plan.epochs):
                x = _encode(stage, x, plan, folder / f"train-{level}")
                validation = _encode(stage, validation, plan, folder / f"val-{level}")
                for used in folder.glob(f"*-{level - 1}"):
                    used.unlink()
    return histories


def _steps_at_once(plan: Plan, level: int, model: keras.Model) -> int:
    """As the model is compiled, or as many as help where nobody sees the difference."""
    compiled = plan.model.steps_per_execution
    if compiled > 1 or any(_sees_steps(callback) for callback in plan.callbacks[level]):
        return compiled
    return data_adapter.steps_per_execution(model)


def _sees_steps(callback: keras.callbacks.Callback) -> bool:
    """Whether a callback does anything before or after a step."""
    silent = [getattr(keras.callbacks.Callback, hook) for hook in _OF_STEPS]
    given = [getattr(callback, hook) for hook in _OF_STEPS]
    return [getattr(hook, "__func__", hook) for hook in given] != silent


def _train_level(
    plan: Plan,
    level: int,
    stage: Stage,
    x: Any,
    validation: Any,
    progress: Progress | None,
) -> keras.callbacks.History:
    done = progress.load(level, stage.model) if progress else None
    if done is not None:
        return done
    history = stage.model.fit(
        x,
        batch_size=plan.batch_size if isinstance(x, np.ndarray) else None,
        epochs=plan.epochs[level],
        # Keras warns that it cannot shuffle any other stream.
        shuffle=isinstance(x, (np.ndarray, keras.utils.PyDataset)),
        validation_data=validation,
        callbacks=[
            *plan.callbacks[level],
            *(progress.callbacks(level) if progress else []),
        ],
        verbose=plan.verbose,
    )
    logs = progress.logs(level, history) if progress else as_logs(history)
    if not np.isfinite(logs["history"]["loss"][-1]):
        if progress:
            progress.forget(level)
        raise ValueError(
            f"Level {level} diverged: its loss is {logs['history']['loss'][-1]}. Lower "
            "the learning rate, or look for samples that are not finite."
        )
    if progress:
        progress.save(level, stage.model, logs)
        history = as_history(stage.model, logs)
    return history


def _announce(plan: Plan, level: int, stage: Stage) -> None:
    if plan.verbose in (0, False):
        return
    sizes = [
        int(np.prod(s[1:]))
        for s in (stage.encoder.input_shape, stage.encoder.output_shape)
    ]
    print(f"Level {level + 1} of {len(plan.epochs)}: {sizes[0]} -> {sizes[1]}")


def _open_validation(validation: Any, shape: tuple[int, ...], batch_size: int) -> Any:
    """Validation data may be `(x, target)`; the target is the first level's alone."""
    if not isinstance(validation, tuple):
        if validation is None:
            return None
        validation = (validation,)
    first = _sources.open_source(validation[0], shape, batch_size, held_out=True)
    return first if len(validation) == 1 else (first, *validation[1:])


def _encode(stage: Stage, x: Any, plan: Plan, path: Path) -> Any:
    x = x[0] if isinstance(x, tuple) else x
    return (
        None if x is None else _sources.encode(stage.encoder, x, plan.batch_size, path)
    )


@contextmanager
def _workspace(
    plan: Plan, x: Any, validation: Any
) -> Iterator[tuple[Progress | None, Path]]:
    """Yields the memory of finished levels, and a folder for codes on disk."""
    progress = None
    if plan.directory is not None:
        layers = [
            keras.saving.serialize_keras_object(layer)
            for level in plan.model.levels
            for layer in (*level.encode, *level.decode)
        ]
        settings = {
            **plan.settings,
            "model": fingerprint(layers),
            "data": _described(x),
            "validation_data": _described(validation),
            "epochs": plan.epochs,
            "batch_size": plan.batch_size,
        }
        progress = Progress(plan.directory, settings)
        for left in Path(plan.directory).glob(f"{_CODES}*"):
            shutil.rmtree(left, ignore_errors=True)  # codes of a run that was killed
    try:
        with tempfile.TemporaryDirectory(prefix=_CODES, dir=plan.directory) as folder:
            yield progress, Path(folder)
    except ValueError:
        if progress:
            progress.withdraw()
        raise


def _described(data: Any) -> Any:
    """What tells data from other data; of anything but arrays, only that it is."""
    data = data.array if isinstance(data, _sources.Rows) else data
    if data is None or isinstance(data, np.ndarray):
        return None if data is None else fingerprint(data)
    return [_described(part) for part in data] if isinstance(data, tuple) else "stream"
