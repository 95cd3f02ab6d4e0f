"""One training that can be interrupted, and the files it leaves."""

import json
import math
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras

from keras_sae.callbacks import DeadUnits
from keras_sae.utils import io as files

_OLD = 2.0  # seconds


def run_name(name: str, seed: int) -> str:
    """Returns the stem of the files that one training leaves.

    Args:
        name: Name of the model.
        seed: Its seed.

    Returns:
        A name that every file system takes.

    Example:

    >>> from keras_sae import evaluation
    >>> evaluation.run_name("no penalty", 0)
    'no-penalty-seed0'
    """
    stem = "".join(c if c.isalnum() else "-" for c in name.lower()).strip("-")
    return f"{stem}-seed{seed}"


class _Backup(keras.callbacks.BackupAndRestore):
    """Keras's, after an epoch, but not again within seconds.

    Of a small model an epoch takes less time than its backup. Beside the weights it
    keeps how long they have been trained.

    Args:
        folder: Where backups go.
        begin: When training would have begun if it had never been interrupted, by
            `time.perf_counter`.
    """

    _at = -math.inf

    def __init__(self, folder: Path, begin: float) -> None:
        super().__init__(folder / "weights")
        self.spent, self.begin = folder / "seconds.json", begin

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Saves the weights, if those saved are old enough."""
        if time.monotonic() - self._at >= _OLD:
            super().on_epoch_end(epoch, logs)
            with files.atomic_write(self.spent) as path:
                path.write_text(json.dumps(time.perf_counter() - self.begin))
            self._at = time.monotonic()


class Run:
    """One training, and the files it leaves if it has a folder.

    Args:
        name: Stem of the files.
        folder: Where they go, or None.
        settings: What determines the figures, JSON values; it is kept with them.

    Raises:
        ValueError: The folder has files of that name with other settings.
    """

    def __init__(
        self, name: str, folder: Path | None, settings: Mapping[str, Any]
    ) -> None:
        self.name, self.folder, self.settings = name, folder, dict(settings)
        if folder is None:
            return
        for path in (self._path(".json"), self._backup() / "settings.json"):
            if path.exists():
                self._check(path, json.loads(path.read_text()).get("settings", {}))

    def _check(self, path: Path, found: Mapping[str, Any]) -> None:
        changes = files.describe_changes(found, self.settings)
        if changes:
            raise ValueError(
                "`directory` holds this model as it was trained with other settings. "
                f"Received: {str(path)!r}, where {changes}. Choose another folder, "
                "or delete it."
            )

    def _path(self, suffix: str) -> Path:
        assert self.folder is not None
        return self.folder / f"{self.name}{suffix}"

    def finished(self) -> tuple[Any, dict[str, float]]:
        """The model and its figures, if an earlier call has come to their end."""
        if self.folder is None or not self._path(".json").exists():
            return None, {}
        record = json.loads(self._path(".json").read_text())
        return keras.saving.load_model(self._path(".keras")), record["figures"]

    def train(
        self,
        model: Any,
        x: Any,
        epochs: int,
        batch_size: int,
        callbacks: list,
        prepare: Callable[[Any, Any], Any] | None,
    ) -> tuple[float, dict[str, list[float]]]:
        """Fits, resuming where a backup is found; seconds and history."""
        callbacks = [DeadUnits(), *callbacks] if model.sparse_layers else callbacks
        begin = time.perf_counter()
        resumes = self.folder is not None and (self._backup() / "weights").exists()
        if resumes:
            begin -= self._spent()
        elif prepare is not None:
            prepare(model, x)
        with self._backups(begin) as backups:
            history = model.fit(
                x,
                epochs=epochs,
                batch_size=batch_size,
                verbose=0,
                callbacks=[*callbacks, *backups],
            )
        seconds = time.perf_counter() - begin
        return seconds, history.history if self.folder is None else self._logged()

    def _spent(self) -> float:
        """Seconds of training that are in the backup."""
        path = self._backup() / "seconds.json"
        return float(json.loads(path.read_text())) if path.exists() else math.nan

    @contextmanager
    def _backups(self, begin: float) -> Iterator[list[keras.callbacks.Callback]]:
        """What lets an interrupted training go on: its weights, and its logs."""
        if self.folder is None:
            yield []
            return
        self._backup().mkdir(parents=True, exist_ok=True)
        with files.atomic_write(self._backup() / "settings.json") as path:
            path.write_text(json.dumps({"settings": self.settings}))
        logger = keras.callbacks.CSVLogger(
            str(self._backup() / "logs.csv"), append=True
        )
        try:
            yield [logger, _Backup(self._backup(), begin)]
        finally:  # Keras closes the file only where training ends as planned
            if logger.csv_file is not None:
                logger.csv_file.close()

    def _backup(self) -> Path:
        assert self.folder is not None
        return self.folder / ".backup" / self.name

    def _logged(self) -> dict[str, list[float]]:
        """The logs of every epoch, of earlier attempts as well."""
        import pandas as pd

        # Keras makes columns for a validation that there may not have been.
        logs = pd.read_csv(self._backup() / "logs.csv").dropna(axis=1, how="all")
        # Epochs that ended without a backup were run and logged twice, or once alone
        # if the training that went on was stopped before them.
        logs = logs[logs["epoch"] <= logs["epoch"].iloc[-1]]
        logs = logs.drop_duplicates("epoch", keep="last").sort_values("epoch")
        logs = logs.drop(columns="epoch")
        return {str(name): list(values) for name, values in logs.items()}

    def finish(self, model: Any, figures: dict[str, float], history: dict) -> None:
        """Leaves the model and then its record, whose presence means finished."""
        if self.folder is None:
            return
        with files.atomic_write(self._path(".keras")) as path:
            model.save(path)
        record = {"settings": self.settings, "figures": figures, "history": history}
        with files.atomic_write(self._path(".json")) as path:
            path.write_text(json.dumps(record, indent=1))
        shutil.rmtree(self._backup())
