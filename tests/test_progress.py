"""Progress bars of the command line."""

import pytest
from rich import progress

from keras_sae.cli.progress import progress_bars


@pytest.fixture
def bars(monkeypatch):
    """Return the list of the `rich.progress.Progress` objects that are made."""
    made = []

    class Recorded(progress.Progress):
        def __init__(self, *columns):
            super().__init__(*columns)
            made.append(self)

    monkeypatch.setattr(progress, "Progress", Recorded)
    return made


def _visible(bars):
    tasks = [task for task in bars[0].tasks if task.visible]
    return [(task.description, task.completed, task.total) for task in tasks]


def test_bars_count_training_runs_and_their_epochs(bars):
    with progress_bars(runs=2, epochs=3) as callbacks:
        assert _visible(bars) == [("reading", 0, 2)]
        (first,) = callbacks("L1")
        assert _visible(bars) == [("preparing L1", 0, 2)]
        first.on_train_begin({})
        first.on_epoch_begin(1, {})
        first.on_epoch_end(1, {})
        assert _visible(bars) == [("training L1", 0, 2), ("L1", 2, 3)]
        first.on_train_end({})
        assert _visible(bars)[0] == ("evaluating L1", 0, 2)
        (second,) = callbacks("KL")
        second.on_train_begin({})
        assert _visible(bars)[0] == ("training KL", 1, 2)
    assert _visible(bars)[0] == ("done", 2, 2)


def test_bars_are_not_done_after_an_error(bars):
    with pytest.raises(RuntimeError), progress_bars(runs=1, epochs=3):
        raise RuntimeError
    assert _visible(bars) == [("reading", 0, 1)]
    assert not bars[0].live.is_started
