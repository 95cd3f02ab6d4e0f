"""The bars of the command line count trainings and epochs."""

import pytest

from keras_sae.cli._bars import Bars


def _states(bars):
    return [(t.description, t.completed, t.total) for t in bars.progress.tasks]


def test_they_count_trainings_and_their_epochs():
    with Bars(trainings=2, epochs=3) as bars:
        assert _states(bars) == [("reading", 0, 2)]
        (first,) = bars.callbacks("L1")
        assert _states(bars) == [("preparing L1", 0, 2)]
        first.on_train_begin()
        first.on_epoch_end(1)
        assert _states(bars) == [("training L1", 0, 2), ("L1", 2, 3)]
        first.on_train_end()
        (second,) = bars.callbacks("KL")
        second.on_train_begin()
        assert _states(bars)[0] == ("training KL", 1, 2)
    assert _states(bars)[0] == ("done", 2, 2)


def test_what_failed_is_not_called_done():
    with pytest.raises(RuntimeError), Bars(trainings=1, epochs=3) as bars:
        raise RuntimeError
    assert _states(bars) == [("reading", 0, 1)]
    assert not bars.progress.live.is_started
