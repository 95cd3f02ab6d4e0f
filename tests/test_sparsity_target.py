"""Tests of the callback `SparsityTarget` on digits."""

import re
import warnings

import keras
import numpy as np
import pytest
from helpers import to_numpy

from keras_sae import callbacks, datasets, layers, metrics, models, regularizers

slow = pytest.mark.slow


@pytest.fixture(scope="module")
def digits():
    (x, _), _ = datasets.load_data("digits")
    return x


def make(sparsity, units=128, learning_rate=3e-3) -> keras.Model:
    model = models.shallow((8, 8, 1), units, sparsity)
    model.compile(keras.optimizers.Adam(learning_rate))
    return model


def fit(model, data, l0, *callbacks_, epochs=15, **options):
    """Train towards a target, and return the history."""
    steer = callbacks.SparsityTarget(l0)
    options = {"batch_size": 64, "verbose": 0, "epochs": epochs, **options}
    return model.fit(data, callbacks=[steer, *callbacks_], **options).history


def coefficients(model) -> list[float]:
    found = [x for x in model._flatten_layers() if isinstance(x, layers.Sparsity)]
    return [float(to_numpy(x.coefficient)) for x in found if x.has_penalty]


def warnings_of(function) -> list[str]:
    """Return the warnings of the callback while `function` runs.

    `pytest.warns` would raise the warnings of other packages again.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        function()
    messages = [str(warning.message) for warning in caught]
    return [message for message in messages if "SparsityTarget" in message]


# The target.


@pytest.mark.parametrize(
    ("sparsity", "target"),
    [
        pytest.param(regularizers.L1(1e-4), 10, id="l1-light"),
        pytest.param(regularizers.L1(1e-1), 10, id="l1-heavy", marks=slow),
        pytest.param(layers.Gated(1e-3), 12, id="gated", marks=slow),
        pytest.param(
            layers.JumpReLU(1e-3, threshold=0.1, bandwidth=0.1), 6, id="jump_relu-light"
        ),
        pytest.param(
            layers.JumpReLU(1.0, threshold=0.1, bandwidth=0.1),
            12,
            id="jump_relu-heavy",
            marks=slow,
        ),
        pytest.param(
            layers.Matryoshka(layers.JumpReLU(1e-3, bandwidth=0.1), (32, 128)),
            12,
            id="matryoshka",
            marks=slow,
        ),
    ],
)
def test_l0_ends_at_the_target(digits, sparsity, target):
    model = make(sparsity)
    history = fit(model, digits, target)
    assert history["l0"][-1] == pytest.approx(target, rel=0.05)
    assert metrics.l0(model.encode(digits)) == pytest.approx(target, rel=0.05)
    # The coefficient of a `JumpReLU` is 0 after the fit.
    pushes_both_ways = isinstance(sparsity, layers.JumpReLU | layers.Matryoshka)
    expected = 0 if pushes_both_ways else history["sparsity_scale"][-1]
    assert coefficients(model) == [pytest.approx(expected)]


def test_code_that_is_never_zero_is_measured_by_effective_l0(digits):
    """A KL divergence cannot bring it to 6, and the warning says where it ended."""
    model = make(regularizers.KLDivergence(0.02, 1e-2))
    (warning,) = warnings_of(lambda: fit(model, digits, 6))
    effective = metrics.effective_l0(model.encode(digits), model.dictionary())
    assert effective > 20
    measured = float(re.search(r"an L0 of ([\d.]+),", warning)[1])
    assert measured == pytest.approx(effective, rel=0.05)
    assert coefficients(model)[0] > 1e-3  # It was raised all the time.


def test_initial_epoch_does_not_change_the_controller(digits):
    histories = []
    for first in (0, 285):
        keras.utils.set_random_seed(0)
        model = make("l1", units=32)
        options = {"initial_epoch": first, "epochs": first + 2}
        assert warnings_of(
            lambda m=model, o=options: histories.append(fit(m, digits[:320], 10, **o))
        )
    scales = [history["sparsity_scale"] for history in histories]
    np.testing.assert_allclose(*scales, rtol=1e-4)


class StopAt(keras.callbacks.Callback):
    def __init__(self, epoch):
        super().__init__()
        self.epoch = epoch

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.epoch:
            raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("sparsity", "target_first"),
    [
        ("l1", True),
        pytest.param("l1", False, marks=slow),
        pytest.param(layers.JumpReLU(1.0, bandwidth=0.1), True, marks=slow),
        (layers.JumpReLU(1.0, bandwidth=0.1), False),
    ],
)
def test_a_resumed_fit_stays_at_the_target(digits, sparsity, target_first, tmp_path):
    model = make(sparsity)

    def fit(*others):
        steer = callbacks.SparsityTarget(12)
        backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
        both = [steer, backup] if target_first else [backup, steer]
        options = {"batch_size": 64, "epochs": 20, "verbose": 0}
        return model.fit(digits, callbacks=[*both, *others], **options).history

    with pytest.raises(KeyboardInterrupt):
        fit(StopAt(15))
    history = fit()
    assert len(history["l0"]) == 5
    np.testing.assert_allclose(history["l0"], 12, rtol=0.1)
    assert history["l0"][-1] == pytest.approx(12, rel=0.05)


def test_coefficient_of_jump_relu_is_saved_as_zero(digits, tmp_path):
    model = make(layers.JumpReLU(1.0, bandwidth=0.1), units=64)
    save = keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}.keras")
    history = fit(model, digits, 12, save, epochs=3, batch_size=32)
    assert np.abs(history["sparsity_scale"]).min() > 0
    for epoch in (1, 2, 3):
        saved = keras.saving.load_model(tmp_path / f"{epoch}.keras")
        assert coefficients(saved) == [0]


# The warning.


def test_a_missed_target_is_warned_of(digits):
    model = make("l1", units=32, learning_rate=1e-3)
    [message] = warnings_of(lambda: fit(model, digits, 40, epochs=2))
    assert "more than 5% off its target. Received: l0=40" in message


def test_the_warning_depends_on_the_last_steps_and_not_on_the_epoch(digits):
    """In a single epoch, the mean is far from a target that is finally reached."""
    model = make("l1", units=32, learning_rate=5e-3)
    histories = []
    data = np.tile(digits, (15, 1, 1, 1))
    assert not warnings_of(lambda: histories.append(fit(model, data, 6, epochs=1)))
    assert abs(histories[0]["l0"][0] / 6 - 1) > 0.1
    assert metrics.l0(model.encode(digits)) == pytest.approx(6, rel=0.05)


@pytest.mark.filterwarnings("ignore:__array__ implementation")  # from Keras
def test_an_l0_that_is_nan_is_warned_of():
    steer = callbacks.SparsityTarget(6)
    steer.set_model(make("l1", units=8))
    steer.set_params({"steps": 4, "epochs": 1})
    steer.on_train_begin()
    steer._final_l0 = float("nan")
    with pytest.warns(UserWarning, match="ended at an L0 of nan"):
        steer.on_train_end()


# Datasets of unknown length. Keras warns after the first epoch that the data ended.


def without_length(data, repeats=1):
    import tensorflow as tf

    dataset = tf.data.Dataset.from_tensor_slices(data).repeat(repeats)
    dataset = dataset.shuffle(2000, seed=0).batch(64)
    return dataset.filter(lambda x: True)


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
def test_target_is_reached_on_data_of_unknown_length(digits):
    history = fit(make("l1"), without_length(digits), 10, batch_size=None)
    assert history["l0"][-1] == pytest.approx(10, rel=0.05)


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
@pytest.mark.parametrize(
    "sparsity",
    ["l1", pytest.param(layers.JumpReLU(bandwidth=0.1), marks=slow)],
    ids=["l1", "jump_relu"],
)
def test_target_is_reached_in_one_long_epoch_of_unknown_length(digits, sparsity):
    """The number of steps is estimated again during the epoch."""
    model = make(sparsity, units=64)
    fit(model, without_length(digits, 40), 8, epochs=1, batch_size=None)
    assert metrics.l0(model.encode(digits)) == pytest.approx(8, rel=0.05)


# Refused models and arguments.


@pytest.mark.parametrize("sparsity", [None, layers.TopK(4)])
def test_models_without_a_soft_penalty_are_refused(digits, sparsity):
    with pytest.raises(ValueError, match="needs a model with a soft penalty"):
        fit(make(sparsity, units=32), digits, 4)


def test_layers_with_a_target_of_their_own_are_refused(digits):
    model = make(layers.JumpReLU(target_l0=8), units=32)
    with pytest.raises(ValueError, match=r"Received: l0=4, and .* with target_l0=8"):
        fit(model, digits, 4)


def test_models_that_do_not_log_l0_are_refused(digits):
    code = layers.SparseDense(8, "relu", "l1")
    model = keras.Sequential([keras.Input((64,)), code, keras.layers.Dense(64)])
    model.compile("sgd", "mse")
    x = digits.reshape(-1, 64)
    with pytest.raises(ValueError, match="needs `l0` or `effective_l0` in the logs"):
        model.fit(x, x, verbose=0, callbacks=[callbacks.SparsityTarget(4)])


@pytest.mark.parametrize("l0", [0, -1, float("nan"), "4"])
def test_target_must_be_a_positive_number(l0):
    with pytest.raises(ValueError, match="`l0` must be a finite number > 0"):
        callbacks.SparsityTarget(l0)
