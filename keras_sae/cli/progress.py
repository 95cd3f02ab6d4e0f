"""Progress bars for a sequence of training runs."""

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import keras


@contextmanager
def progress_bars(
    runs: int, epochs: int
) -> Iterator[Callable[[str], list[keras.callbacks.Callback]]]:
    """Show progress bars, and yield a function that returns the callbacks of a run.

    The first bar counts finished training runs. Its spinner also turns during
    pretraining and evaluation. Each training run adds a bar that counts epochs.
    """
    from rich import progress

    columns = [progress.SpinnerColumn(), progress.TextColumn("{task.description}")]
    columns += [progress.BarColumn(), progress.MofNCompleteColumn()]
    with progress.Progress(*columns, progress.TimeElapsedColumn()) as bars:
        total = bars.add_task("reading", total=runs)
        started = itertools.count()

        def callbacks(name: str) -> list[keras.callbacks.Callback]:
            bars.update(total, description=f"preparing {name}", completed=next(started))
            bar = bars.add_task(name, total=epochs, visible=False)
            training, evaluating = f"training {name}", f"evaluating {name}"
            callback = keras.callbacks.LambdaCallback(
                on_train_begin=lambda _: bars.update(total, description=training),
                on_epoch_begin=lambda *_: bars.update(bar, visible=True),
                on_epoch_end=lambda epoch, _: bars.update(bar, completed=epoch + 1),
                on_train_end=lambda _: bars.update(total, description=evaluating),
            )
            return [callback]

        yield callbacks
        bars.update(total, description="done", completed=runs)
