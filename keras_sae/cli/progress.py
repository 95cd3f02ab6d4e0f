"""Progress bars: one over all trainings, and one per training."""

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import keras


@contextmanager
def progress_bars(
    trainings: int, epochs: int
) -> Iterator[Callable[[str], list[keras.callbacks.Callback]]]:
    """Show progress, and yield a function from a name to the callbacks of its training.

    The first bar counts finished trainings. Its spinner also turns during pretraining
    and evaluation. Each training adds a bar of its epochs.
    """
    from rich import progress

    columns = [progress.SpinnerColumn(), progress.TextColumn("{task.description}")]
    columns += [progress.BarColumn(), progress.MofNCompleteColumn()]
    with progress.Progress(*columns, progress.TimeElapsedColumn()) as bars:
        total = bars.add_task("reading", total=trainings)
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
        bars.update(total, description="done", completed=trainings)
