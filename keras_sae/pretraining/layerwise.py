"""The loop that `greedy` and `boltzmann` share: one level after the other."""

import json
import math
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import keras
import numpy as np

from keras_sae.models import Autoencoder, building_blocks, data_adapter
from keras_sae.pretraining import data
from keras_sae.types import Config, Data, PathLike
from keras_sae.utils import validation
from keras_sae.utils.fingerprint import fingerprint, without_names
from keras_sae.utils.io import RunDirectory, atomic_write

Callbacks: TypeAlias = keras.callbacks.Callback | Sequence | None


class LevelTrainer:
    """Train the levels of an autoencoder in turn, each on the codes of the one below.

    The caller makes a Keras model per level, passes it to `fit`, and then calls
    `encode_data`. Arguments are those of `keras_sae.pretraining.greedy`. `chains` are
    the encoder and decoder of each level; `x` and `validation_data` are those of the
    next level.
    """

    def __init__(
        self,
        model: Autoencoder,
        x: Data,
        validation_data: Data | None,
        epochs: int | Sequence[int],
        batch_size: int,
        callbacks: Callbacks,
        verbose: str | int,
    ) -> None:
        try:
            self.levels = model.levels
        except (AttributeError, ValueError) as error:
            raise ValueError(
                "`model` must be an autoencoder of dense layers that can be pretrained "
                f"layer by layer. Received: model={model!r}. Use "
                "`keras_sae.models.shallow`, `deep` or `stacked`."
            ) from error
        if not model.trainable_weights:
            raise ValueError(
                "`model` must have trainable weights. Received: a model with trainable="
                f"{model.trainable}. Set `trainable = True` on the model or its layers."
            )
        count = len(self.levels)
        self.epochs = [
            validation.positive_integer("epochs", number)
            for number in per_level("epochs", epochs, count)
        ]
        self.batch_size = validation.positive_integer("batch_size", batch_size)
        flat = keras.tree.flatten(callbacks or [])
        if not all(isinstance(entry, keras.callbacks.Callback) for entry in flat):
            raise ValueError(
                "`callbacks` must be a list of Keras callbacks, or one such list per "
                f"level. Received: callbacks={callbacks!r}."
            )
        nested = isinstance(callbacks, (list, tuple)) and any(
            isinstance(entry, (list, tuple)) for entry in callbacks
        )
        self.callbacks = (
            per_level("callbacks", callbacks, count) if nested else [flat] * count
        )
        self.verbose = verbose
        self.steps_per_execution = model.steps_per_execution
        self.directory: Path | None = None
        self.histories: list[keras.callbacks.History] = []
        self.chains: list[tuple[keras.Model, keras.Model]] = []
        shape = model.sample_shape
        for level in self.levels:
            encoder = building_blocks.chain(shape, level.encode, "encoder")
            code_shape = tuple(encoder.output_shape[1:])
            decoder = building_blocks.chain(code_shape, level.decode, "decoder")
            self.chains.append((encoder, decoder))
            shape = code_shape
        self.x = data.open_data(model, x, self.batch_size)
        self.validation_data: tuple[Any, ...] = ()
        if validation_data is not None:
            parts: Any = validation_data
            first, *target = parts if isinstance(parts, tuple) else (parts,)
            first = data.open_data(model, first, self.batch_size, "validation_data")
            if target:
                model.check_data(first, target[0])
            self.validation_data = (first, *target)

    def resume_from(self, directory: PathLike | None, settings: Config) -> None:
        """Keep finished levels in `directory`, and load those of an earlier call."""
        if directory is None:
            return
        layers = [
            keras.saving.serialize_keras_object(layer)
            for level in self.levels
            for layer in (*level.encode, *level.decode)
        ]
        parts = self.x, *self.validation_data
        arrays = [x.array if isinstance(x, data.DiskBatches) else x for x in parts]
        # Streams cannot be compared.
        fingerprints = [
            fingerprint(x) if isinstance(x, np.ndarray) else "stream" for x in arrays
        ]
        settings = {
            **without_names(settings),
            "model": fingerprint(layers),
            "data": fingerprints[0],
            "validation_data": fingerprints[1:],
            "epochs": self.epochs,
            "batch_size": self.batch_size,
        }
        self.directory = RunDirectory(directory, settings).path

    def fit(self, level_model: keras.Model) -> None:
        """Train the next level, or load it if an earlier call has finished it."""
        index = len(self.histories)
        if self.directory is None:
            self.histories.append(self._train(index, level_model))
            return
        finished = self.directory / f"level-{index}.npz"
        initial = self.directory / f"level-{index}-initial.npz"
        if finished.exists():
            history = _load(finished, level_model)
        else:
            # An interrupted level starts again from the same weights.
            if initial.exists():
                _load(initial, level_model)
            else:
                _save(initial, level_model, [], {})
            history = self._train(index, level_model)
            _save(finished, level_model, history.epoch, history.history)
        initial.unlink(missing_ok=True)
        self.histories.append(history)

    def _train(self, index: int, level_model: keras.Model) -> keras.callbacks.History:
        if self.verbose not in (0, False):
            encoder, _ = self.chains[index]
            shapes = encoder.input_shape, encoder.output_shape
            inputs, units = (math.prod(shape[1:]) for shape in shapes)
            print(f"Level {index + 1} of {len(self.levels)}: {inputs} -> {units}")
        callbacks = self.callbacks[index]
        steps = self.steps_per_execution
        if steps == 1 and not callbacks:
            steps = data_adapter.steps_per_execution(level_model)
        level_model.steps_per_execution = steps
        x = self.x
        if isinstance(x, np.ndarray) and keras.config.backend() == "tensorflow":
            x = data_adapter.array_dataset([x], self.batch_size)
        history = level_model.fit(
            x,
            batch_size=self.batch_size if isinstance(x, np.ndarray) else None,
            epochs=self.epochs[index],
            # Keras warns if it is asked to shuffle another stream.
            shuffle=isinstance(x, (np.ndarray, keras.utils.PyDataset))
            and not isinstance(x, data.DiskBatches),
            validation_data=self.validation_data or None,
            validation_batch_size=self.batch_size,
            callbacks=callbacks,
            verbose=self.verbose,
        )
        loss = history.history["loss"][-1]
        if not np.isfinite(loss):
            raise ValueError(
                f"Level {index} diverged. Received: loss={loss} after training. Lower "
                "the learning rate, or check the data for values that are not finite."
            )
        return history

    def encode_data(self) -> None:
        """Replace the data by the codes of the level that was trained last."""
        trained = len(self.histories)
        if trained == len(self.levels):
            return
        arguments = self.batch_size, self.directory
        encoder = self.chains[trained - 1][0]
        self.x = data.encode(encoder, self.x, *arguments)
        if self.validation_data:
            x = self.validation_data[0]
            self.validation_data = (data.encode(encoder, x, *arguments),)


def per_level(argument: str, value: Any, count: int) -> list[Any]:
    """Return one value per level: a list as it is, anything else repeated."""
    if not isinstance(value, (list, tuple)):
        return [value] * count
    if len(value) != count:
        raise ValueError(
            f"`{argument}` must be one value for all levels, or one per level. "
            f"Received: {len(value)} values for {count} levels: {argument}={value!r}."
        )
    return list(value)


def _save(
    path: Path, model: keras.Model, epochs: list[int], logs: dict[str, list[float]]
) -> None:
    """Write the weights and the history of a level to one file."""
    logs = {name: [float(value) for value in logs[name]] for name in logs}
    weights: dict[str, Any] = {
        # NumPy's format has no bfloat16.
        f"weight-{i}": keras.ops.convert_to_numpy(
            keras.ops.cast(weight, "float32") if weight.dtype == "bfloat16" else weight
        )
        for i, weight in enumerate(model.weights)
    }
    with atomic_write(path) as temporary:
        np.savez(temporary, history=json.dumps([epochs, logs]), **weights)


def _load(path: Path, model: keras.Model) -> keras.callbacks.History:
    """Set the weights of a level from its file, and return its history."""
    history = keras.callbacks.History()
    history.set_model(model)
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as saved:
            weights = [saved[f"weight-{i}"] for i in range(len(model.weights))]
            history.epoch, history.history = json.loads(str(saved["history"]))
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"`directory` holds a file that cannot be read. Received: {str(path)!r} "
            f"({error}). Delete it and the files of later levels to train them again."
        ) from error
    for weight, value in zip(model.weights, weights, strict=True):
        weight.assign(value)
    return history
