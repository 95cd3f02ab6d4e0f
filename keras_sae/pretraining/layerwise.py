"""Training loop shared by `greedy` and `boltzmann`: one level at a time."""

import math
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import keras
import numpy as np

from keras_sae.models import Autoencoder, building_blocks, data_adapter, loops
from keras_sae.models.data_adapter import DiskBatches
from keras_sae.models.validation import as_numpy, is_array, is_dataset
from keras_sae.types import Config, Data, PathLike
from keras_sae.utils import io, validation
from keras_sae.utils.fingerprint import fingerprint, without_names

Callbacks: TypeAlias = keras.callbacks.Callback | Sequence | None
LevelData: TypeAlias = np.ndarray | keras.utils.PyDataset | Iterable[Any]


class LevelTrainer:
    """Train an autoencoder's levels in turn, each on the codes of the previous one.

    For each level, the caller builds a Keras model, passes it to `fit`, and then calls
    `encode_data`. The arguments are the same as for `keras_sae.pretraining.greedy`.
    `chains` contains the encoder and decoder of each level. `x` and `validation_data`
    are the data for the next level.
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
        count = len(self.levels)
        self.epochs = [
            validation.positive_integer("epochs", number)
            for number in per_level("epochs", epochs, count)
        ]
        self.batch_size = validation.positive_integer("batch_size", batch_size)
        self.callbacks: list[Callbacks] = [callbacks] * count
        if isinstance(callbacks, list) and any(isinstance(c, list) for c in callbacks):
            self.callbacks = per_level("callbacks", callbacks, count)
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
        self.x = open_data(model, x, self.batch_size)
        self.validation_data: tuple[Any, ...] = ()
        if validation_data is not None:
            parts: Any = validation_data
            first, *target = parts if isinstance(parts, tuple) else (parts,)
            first = open_data(model, first, self.batch_size, "validation_data")
            if target:
                model.check_data(first, target[0])
            self.validation_data = (first, *target)

    def resume_from(self, directory: PathLike | None, settings: Config) -> None:
        """Let `fit` save finished levels to `directory`, and load existing ones."""
        if directory is None:
            return
        layers = [
            keras.saving.serialize_keras_object(layer)
            for level in self.levels
            for layer in (*level.encode, *level.decode)
        ]
        fingerprints = []
        for x in (self.x, *self.validation_data):
            array = x.arrays[0] if isinstance(x, DiskBatches) else x
            is_stream = not isinstance(array, np.ndarray)  # has no fingerprint
            fingerprints.append("stream" if is_stream else fingerprint(array))
        settings = {
            **without_names(settings),
            "model": fingerprint(layers),
            "data": fingerprints[0],
            "validation_data": fingerprints[1:],
            "epochs": self.epochs,
            "batch_size": self.batch_size,
        }
        self.directory = io.RunDirectory(directory, settings).path

    def fit(self, level_model: keras.Model) -> None:
        """Train the next level, or load it if an earlier call finished it."""
        index = len(self.histories)
        if self.directory is None:
            self.histories.append(self._train(index, level_model))
            return
        finished = self.directory / f"level-{index}.npz"
        initial = self.directory / f"level-{index}-initial.npz"
        history = keras.callbacks.History()
        if (record := io.load_state(finished, level_model)) is not None:
            history.set_model(level_model)
            history.epoch, history.history = record["epochs"], record["logs"]
        else:
            for later in range(index + 1, len(self.levels)):
                path = self.directory / f"level-{later}.npz"
                if path.exists():
                    io.set_aside(path, f"the file of level {index} is missing")
            # An interrupted level restarts from the same weights.
            if io.load_state(initial, level_model) is None:
                io.save_state(initial, level_model, {})
            history = self._train(index, level_model)
            logs = {k: [float(x) for x in v] for k, v in history.history.items()}
            record = {"epochs": history.epoch, "logs": logs}
            io.save_state(finished, level_model, record)
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
        can_run_several = keras.config.backend() == "tensorflow" and not callbacks
        if steps == 1 and can_run_several and loops.replicas(level_model) == 1:
            steps = 32  # Each return to Python takes one to two milliseconds.
        level_model.steps_per_execution = steps
        x = self.x
        if isinstance(x, np.ndarray) and keras.config.backend() == "tensorflow":
            x = data_adapter.array_dataset([x], self.batch_size)
        history = level_model.fit(
            x,
            batch_size=self.batch_size if isinstance(x, np.ndarray) else None,
            epochs=self.epochs[index],
            # Keras warns if `shuffle` is True for any other dataset.
            shuffle=isinstance(x, (np.ndarray, keras.utils.PyDataset))
            and not isinstance(x, DiskBatches),
            validation_data=self.validation_data or None,
            validation_batch_size=self.batch_size,
            callbacks=callbacks,
            verbose=self.verbose,
        )
        loss = history.history["loss"][-1]
        if not np.isfinite(loss):
            raise ValueError(
                f"Level {index} diverged. Received: loss={loss} after training. Lower "
                "the learning rate, or check the data for non-finite values."
            )
        return history

    def encode_data(self) -> None:
        """Replace the data with the codes of the last trained level."""
        trained = len(self.histories)
        if trained == len(self.levels):
            return
        arguments = self.batch_size, self.directory
        encoder = self.chains[trained - 1][0]
        self.x = encode(encoder, self.x, *arguments)
        if self.validation_data:
            x = self.validation_data[0]
            self.validation_data = (encode(encoder, x, *arguments),)


def per_level(argument: str, value: Any, count: int) -> list[Any]:
    """Return a list of one value per level. A single value is repeated."""
    if not isinstance(value, (list, tuple)):
        return [value] * count
    if len(value) != count:
        raise ValueError(
            f"`{argument}` must be one value for all levels, or one per level. "
            f"Received: {len(value)} values for {count} levels: {argument}={value!r}."
        )
    return list(value)


def open_data(
    model: Autoencoder, x: Data, batch_size: int, argument: str = "x"
) -> LevelData:
    """Check `x` and return it as an array or as batches that can be read repeatedly.

    `argument` is the caller's name for the data. Only the first batch of a dataset is
    checked. A `numpy.memmap` is returned as batches, shuffled if `argument` is `"x"`.
    """
    if isinstance(x, (Iterator, tuple)):
        raise ValueError(
            f"`{argument}` is read once per epoch and level, so it must be an array, a "
            "`tf.data.Dataset`, a `keras.utils.PyDataset` or a PyTorch `DataLoader`. "
            f"Received: {type(x).__name__}. Pass data without labels. A `PyDataset` "
            "can wrap any source."
        )
    if is_dataset(x) and x.cardinality() == -1:  # endless
        raise ValueError(
            f"`{argument}` must be finite. Received: {x!r}, which never ends. Remove "
            "`.repeat()`, because `epochs` already repeats the data."
        )
    try:
        x, _, (first, _) = data_adapter.open_data(x)
        training = argument == "x" and is_array(x)
        model.check_data(first, None, batch_size if training else None)
    except ValueError as error:
        raise ValueError(str(error).replace("`x`", f"`{argument}`")) from error
    if isinstance(x, np.memmap):
        return DiskBatches([x], batch_size, shuffle=argument == "x")
    return np.asarray(as_numpy(x), keras.config.floatx()) if is_array(x) else x


def batches(x: LevelData, batch_size: int = 256) -> Iterator[np.ndarray]:
    """Yield batches of an array or a dataset, without targets, in a single pass."""
    if isinstance(x, np.ndarray):
        yield from (x[i : i + batch_size] for i in range(0, len(x), batch_size))
        return
    for batch in x:
        yield as_numpy(batch[0] if isinstance(batch, (tuple, list)) else batch)


def encode(
    encoder: keras.Model, x: LevelData, batch_size: int, folder: Path | None = None
) -> LevelData:
    """Return the codes of `x`, in memory for an array and on disk for a dataset.

    The temporary file has no name, so the operating system deletes it even if the
    process is killed.
    """
    shape = tuple(encoder.output_shape[1:])
    # Without gradients, more samples fit into memory than in a training step.
    step = 8 * batch_size
    codes = (
        # `predict` would keep all batches in memory before joining them.
        keras.ops.convert_to_numpy(encoder(batch, training=False))
        for batch in batches(x, step)
    )
    if isinstance(x, np.ndarray):
        array = np.empty((len(x), *shape), "float32")
        for i, code in enumerate(codes):
            array[i * step : (i + 1) * step] = code
        return array
    with tempfile.TemporaryFile(dir=folder) as file:
        for code in codes:
            file.write(code.astype("float32").tobytes())
        file.flush()
        on_disk = np.memmap(file, "float32", "r").reshape(-1, *shape)
    return DiskBatches([on_disk], batch_size, shuffle=True)


def summarize(x: LevelData, batch_size: int) -> tuple[int, int, np.ndarray]:
    """Return the number of batches, the number of samples, and the mean sample."""
    steps = samples = 0
    total = np.zeros((), "float64")
    for batch in batches(x, batch_size):
        total = total + batch.reshape(len(batch), -1).sum(axis=0, dtype="float64")
        steps, samples = steps + 1, samples + len(batch)
    return steps, samples, total / samples
