"""Progress bars of the command line: one a training, and one for all of them."""

from types import TracebackType
from typing import Any

import keras


class Bars:
    """Shows how far a comparison has come.

    A bar counts the trainings and turns while something goes on that has no
    epochs: pretraining, probes, fine-tuning, baselines. Below it each training has
    one of its own.

    Args:
        trainings: How many there will be.
        epochs: Of each training.
    """

    def __init__(self, trainings: int, epochs: int) -> None:
        from rich import progress

        self.epochs, self._begun = epochs, 0
        self.progress = progress.Progress(
            progress.SpinnerColumn(),
            "[progress.description]{task.description}",
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TimeElapsedColumn(),
        )
        self._all = self.progress.add_task("reading", total=trainings)

    def __enter__(self) -> "Bars":
        self.progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            whole = self.progress.tasks[0].total
            self.progress.update(self._all, description="done", completed=whole)
        self.progress.stop()

    def callbacks(self, name: str) -> list[keras.callbacks.Callback]:
        """The callbacks of the next training; what `compare` asks for."""
        self.say(f"preparing {name}", completed=self._begun)
        self._begun += 1
        return [_Bar(self, name)]

    def say(self, what: str, **kwargs: Any) -> None:
        """Says what is going on now."""
        self.progress.update(self._all, description=what, **kwargs)


class _Bar(keras.callbacks.Callback):
    """Moves the bar of one training with every epoch."""

    def __init__(self, bars: Bars, name: str) -> None:
        super().__init__()
        self.bars, self.name = bars, name

    def on_train_begin(self, logs: dict | None = None) -> None:
        del logs
        self.bars.say(f"training {self.name}")
        self.task = self.bars.progress.add_task(self.name, total=self.bars.epochs)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        del logs
        self.bars.progress.update(self.task, completed=epoch + 1)

    def on_train_end(self, logs: dict | None = None) -> None:
        del logs
        self.bars.say(f"measuring {self.name}")
