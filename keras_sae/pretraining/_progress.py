"""A folder that remembers finished levels, and how far the next one has come."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_sae.utils import io as files


class Progress:
    """Finished levels as whole files, the level under way as Keras's own backup.

    `settings.json` says what is pretrained; `level-0.npz` holds the weights and
    the logs of a finished level; `level-1/` those of a level under way.

    Args:
        directory: A folder, new, empty, or of an earlier call.
        settings: What determines the result, JSON values only.

    Raises:
        ValueError: The folder holds something else.
    """

    def __init__(self, directory: str | Path, settings: Mapping[str, Any]) -> None:
        self.folder = Path(directory)
        if self.folder.exists() and not self.folder.is_dir():
            raise ValueError(
                "`directory` must be a folder, new or of an earlier call. Received: "
                f"{str(directory)!r}, which is a file."
            )
        self._new = not self.folder.exists()
        files.output_folder(self.folder, "directory", "Choose another.")
        written = self.folder / "settings.json"
        if written.exists():
            self._check(json.loads(written.read_text()), settings)
            return
        if any(not x.name.startswith(".unfinished-") for x in self.folder.iterdir()):
            raise ValueError(
                "`directory` holds files that are not of a pretraining. Received: "
                f"{str(directory)!r}. Choose an empty or a new folder."
            )
        with files.atomic_write(written) as path:
            path.write_text(json.dumps(dict(settings), indent=1))

    def _check(self, found: dict[str, Any], settings: Mapping[str, Any]) -> None:
        changes = files.describe_changes(found, settings)
        if changes:
            raise ValueError(
                "`directory` holds the pretraining of another model, data or "
                f"settings. Received: {str(self.folder)!r}, where {changes}. Choose "
                "another folder, or delete it."
            )

    def load(self, level: int, model: keras.Model) -> keras.callbacks.History | None:
        """Sets the weights of a finished level; returns its logs, None if not done."""
        path = self._file(level)
        if not path.exists():
            return None
        with np.load(path, allow_pickle=False) as saved:
            for i, weight in enumerate(model.weights):
                weight.assign(saved[f"weight-{i}"])
            logs = json.loads(str(saved["logs"]))
        return as_history(model, logs)

    def save(self, level: int, model: keras.Model, logs: dict[str, Any]) -> None:
        """Keeps a finished level, whole; forgets that it was under way."""
        weights = {
            f"weight-{i}": keras.ops.convert_to_numpy(_of_numpy(weight))
            for i, weight in enumerate(model.weights)
        }
        with files.atomic_write(self._file(level)) as path:
            np.savez(path, logs=json.dumps(logs), **weights)
        self.forget(level)

    def forget(self, level: int) -> None:
        """Drops what is kept of a level under way."""
        shutil.rmtree(self._folder(level), ignore_errors=True)

    def withdraw(self) -> None:
        """Gives back a folder in which nothing was kept: the call was refused."""
        found = list(self.folder.rglob("*"))
        if [x.name for x in found if not x.is_dir()] != ["settings.json"]:
            return
        (self.folder / "settings.json").unlink()
        for path in found[::-1]:  # what is in a folder comes after it
            if path.is_dir():
                path.rmdir()
        if self._new:
            self.folder.rmdir()

    def callbacks(self, level: int) -> list[keras.callbacks.Callback]:
        """The callbacks that keep a level under way, to be called last."""
        folder = self._folder(level)
        folder.mkdir(exist_ok=True)
        metadata = folder / "training_metadata.json"
        if metadata.exists() and not metadata.read_text().strip():
            metadata.unlink()  # cut off while Keras wrote it: the epoch is lost
        backup = keras.callbacks.BackupAndRestore(
            str(folder), double_checkpoint=True, delete_checkpoint=False
        )
        return [Journal(folder / "logs.json"), backup]

    def logs(self, level: int, history: keras.callbacks.History) -> dict[str, Any]:
        """The logs of a level from its first epoch on, also after interruptions."""
        path = self._folder(level) / "logs.json"
        return json.loads(path.read_text()) if path.exists() else as_logs(history)

    def _file(self, level: int) -> Path:
        return self.folder / f"level-{level}.npz"

    def _folder(self, level: int) -> Path:
        return self.folder / f"level-{level}"


def _of_numpy(weight: Any) -> Any:
    """The weight, in a precision that NumPy has."""
    known = weight.dtype != "bfloat16"
    return weight if known else keras.ops.cast(weight, "float32")


class Journal(keras.callbacks.Callback):
    """Writes the logs of every epoch into a file, and goes on with those in it."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.logs: dict[str, Any] = {"epoch": [], "history": {}}
        if path.exists():
            self.logs = json.loads(path.read_text())

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Adds the epoch; one that is run again replaces what was kept of it."""
        kept = sum(known < epoch for known in self.logs["epoch"])
        self.logs["epoch"] = [*self.logs["epoch"][:kept], epoch]
        for name, value in (logs or {}).items():
            values = self.logs["history"].get(name, [])[:kept]
            self.logs["history"][name] = [*values, float(value)]
        with files.atomic_write(self.path) as path:
            path.write_text(json.dumps(self.logs))


def as_logs(history: keras.callbacks.History) -> dict[str, Any]:
    """Returns a history as JSON values."""
    values = {k: [float(v) for v in vs] for k, vs in history.history.items()}
    return {"epoch": list(history.epoch), "history": values}


def as_history(model: keras.Model, logs: dict[str, Any]) -> keras.callbacks.History:
    """Returns the history that `as_logs` described."""
    history = keras.callbacks.History()
    history.set_model(model)
    history.history, history.epoch = logs["history"], logs["epoch"]
    return history
