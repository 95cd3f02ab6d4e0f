"""Callbacks: what they set, what they report, what they revive."""

import warnings

import keras
import numpy as np
import pytest
from helpers import to_numpy

from keras_sae import callbacks, datasets, layers, metrics, models, regularizers
from keras_sae.layers import ActivityPenalty

X = np.random.default_rng(0).random((64, 12), dtype="float32")


def _model(sparsity="l1", units=8, **kwargs):
    model = models.shallow((12,), units, sparsity, **kwargs)
    model.compile(keras.optimizers.SGD(0.01))
    return model


def _kill(model, units):
    """Gives `units` a bias that no sample can overcome."""
    bias = keras.ops.convert_to_numpy(model.sparse_layers[-1].bias).copy()
    bias[units] = -1e3
    model.sparse_layers[-1].bias.assign(bias)


def test_warmup_raises_the_scale_linearly():
    model = _model()
    logs = model.fit(
        X, epochs=4, verbose=0, callbacks=[callbacks.SparsityWarmup(3)]
    ).history
    np.testing.assert_allclose(logs["sparsity_scale"], [0.25, 0.5, 0.75, 1.0])


def test_warmup_scales_the_loss():
    # At a rate of zero the code stays what it is, so the loss follows the scale.
    model = models.shallow((12,), 8, "l1", centering=False)
    model.compile(keras.optimizers.SGD(0.0))
    logs = model.fit(
        X, epochs=2, verbose=0, callbacks=[callbacks.SparsityWarmup(1)]
    ).history
    code = model.encode(X)
    full = 1e-4 * np.abs(code).sum(axis=1).mean()
    np.testing.assert_allclose(logs["sparsity_loss"], [full / 2, full], rtol=1e-4)


def test_warmup_leaves_the_full_weight_behind():
    model = _model()
    model.fit(X, epochs=2, verbose=0, callbacks=[callbacks.SparsityWarmup(1)])
    penalty = model.sparse_layers[0].sparsity
    assert isinstance(penalty, ActivityPenalty)
    assert float(penalty.coefficient) == 1.0


@pytest.mark.parametrize(
    "sparsity", [None, layers.TopK(3), layers.Matryoshka(layers.TopK(3))]
)
def test_warmup_needs_a_penalty(sparsity):
    with pytest.raises(ValueError, match="needs a model with a sparsity penalty"):
        _model(sparsity).fit(X, verbose=0, callbacks=[callbacks.SparsityWarmup(1)])


@pytest.mark.parametrize("epochs", [0, -1, 1.5, True])
def test_warmup_refuses(epochs):
    with pytest.raises(ValueError, match="`epochs` must be a positive integer"):
        callbacks.SparsityWarmup(epochs)


def test_dead_units_counts_what_never_fired():
    model = _model(units=8)
    _kill(model, [1, 5])
    logs = model.fit(
        X, epochs=2, batch_size=16, verbose=0, callbacks=[callbacks.DeadUnits()]
    ).history
    alive = (model.encode(X) != 0).any(axis=0)
    assert not alive[[1, 5]].any()
    np.testing.assert_allclose(logs["dead_units"], [1 - alive.mean()] * 2)


def test_dead_units_window_counts_steps_over_epochs():
    model = _model(units=8)
    _kill(model, [2])
    watch = callbacks.DeadUnits(window=6)
    logs = model.fit(X, epochs=2, batch_size=16, verbose=0, callbacks=[watch]).history
    # Four steps an epoch: silent for 4 after the first, for 8 after the second.
    assert logs["dead_units"][0] == 0
    assert logs["dead_units"][1] >= 1 / 8


@pytest.mark.parametrize("units", [(9, 4), (4, 9), (5, 7, 6)])
def test_of_several_layers_the_code_is_watched(units):
    model = models.deep((12,), units, "l1")
    model.compile(keras.optimizers.SGD(0.0))
    code = model.sparse_layers[-1]
    assert code.units == units[-1]
    _kill(model, [0, 2])
    logs = model.fit(X, verbose=0, callbacks=[callbacks.DeadUnits()]).history
    dead = (model.encode(X) == 0).all(axis=0).mean()
    assert dead >= 2 / units[-1]
    assert logs["dead_units"][0] == pytest.approx(dead)


def test_a_model_without_a_code_to_watch_is_refused():
    model = keras.Sequential([keras.Input((12,)), keras.layers.Dense(12)])
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="with 0 of them"):
        model.fit(X, X, verbose=0, callbacks=[callbacks.DeadUnits()])


def test_a_bounded_code_has_no_dead_units():
    model = _model(regularizers.KLDivergence(0.1))
    logs = model.fit(X, verbose=0, callbacks=[callbacks.DeadUnits()]).history
    assert logs["dead_units"] == [0.0]


@pytest.mark.parametrize(
    "sparsity",
    ["l1", layers.TopK(3), layers.JumpReLU(1e-3, threshold=0.01), layers.Gated(1e-3)],
    ids=["l1", "top_k", "jump_relu", "gated"],
)
def test_revived_units_fire_again(sparsity):
    model = _model(sparsity, units=8)
    _kill(model, [0, 3])
    if isinstance(sparsity, layers.JumpReLU | layers.Gated):
        for own, _ in model.sparse_layers[0].sparsity.per_unit_state():
            values = to_numpy(own).copy()
            values[[0, 3]] = 1e3 if isinstance(sparsity, layers.JumpReLU) else -1e3
            own.assign(values)
    watch = callbacks.DeadUnits(resample=X)
    logs = model.fit(X, epochs=3, batch_size=16, verbose=0, callbacks=[watch]).history
    assert logs["dead_units"][0] >= 2 / 8
    assert logs["dead_units"][-1] < logs["dead_units"][0]
    assert (model.encode(X)[:, [0, 3]] != 0).any(axis=0).all()


def test_no_two_units_are_revived_as_the_same():
    model = _model(units=8)
    dead = np.arange(1, 8)
    _kill(model, dead)
    watch = callbacks.DeadUnits(resample=X[:9])
    watch.set_model(model)
    watch._restart(model.sparse_layers[-1], dead)
    atoms = keras.ops.convert_to_numpy(model.decoder.layers[1].kernel)[dead]
    assert len(np.unique(atoms.round(5), axis=0)) == len(dead)


def test_a_revived_atom_is_a_residual_at_unit_norm():
    model = _model(units=8)
    _kill(model, [4])
    before = X - model.predict(X, verbose=0)
    watch = callbacks.DeadUnits(resample=X)
    watch.set_model(model)
    watch._restart(model.sparse_layers[-1], np.array([4]))
    atom = keras.ops.convert_to_numpy(model.decoder.layers[1].kernel)[4]
    directions = before / np.linalg.norm(before, axis=1, keepdims=True)
    assert np.isclose(directions @ atom, 1.0, atol=1e-5).any()


@pytest.mark.parametrize("sparsity", ["l1", layers.TopK(3)], ids=["l1", "top_k"])
def test_revival_forgets_the_moments(sparsity):
    model = models.shallow((12,), 8, sparsity)
    model.compile(keras.optimizers.Adam(1e-2))
    model.fit(X, verbose=0)
    watch = callbacks.DeadUnits(resample=X)
    watch.set_model(model)
    watch._restart(model.sparse_layers[-1], np.array([4]))
    kernel = model.sparse_layers[-1].kernel
    moments = [
        keras.ops.convert_to_numpy(v)
        for v in model.optimizer.variables
        if tuple(v.shape) == tuple(kernel.shape)
    ]
    if sparsity == "l1":
        moments = [m for m in moments if m.shape == (12, 8)]
    else:  # a row a unit, as in the decoder
        moments = [m.T for m in moments]
    assert len(moments) == (2 if sparsity == "l1" else 4)
    for moment in moments:
        assert not moment[:, 4].any()
        assert moment[:, 3].any()


def test_a_revived_unit_outlives_an_average_of_the_weights():
    """At the end of a fit Keras puts the averages in the place of the weights."""
    model = models.shallow((12,), 8, layers.TopK(2, auxiliary=None))
    adam = keras.optimizers.Adam(1e-2, use_ema=True, ema_momentum=0.99)
    model.compile(adam)
    _kill(model, [4])
    watch = callbacks.DeadUnits(resample=X)
    model.fit(X, epochs=3, batch_size=32, verbose=0, callbacks=[watch])
    atoms = keras.ops.convert_to_numpy(model.decoder.layers[1].kernel)
    # Means of unit vectors that move: a little shorter than one, no less.
    assert np.linalg.norm(atoms, axis=1).min() > 0.9


def test_a_tied_model_cannot_be_revived():
    model = _model(tied=True)
    with pytest.raises(ValueError, match="DeadUnits\\(resample=None\\)"):
        model.fit(X, verbose=0, callbacks=[callbacks.DeadUnits(resample=X)])


# SparsityTarget.


@pytest.fixture(scope="module")
def digits():
    (x, _), _ = datasets.load_data("digits")
    return x


@pytest.mark.parametrize(
    ("sparsity", "target"),
    [
        (regularizers.L1(1e-4), 10),
        (regularizers.L1(1e-1), 10),
        (layers.Gated(1e-3), 12),
        (layers.JumpReLU(1e-3, threshold=0.1, bandwidth=0.1), 6),
        (layers.JumpReLU(1.0, threshold=0.1, bandwidth=0.1), 12),
        (layers.Matryoshka(layers.JumpReLU(1e-3, bandwidth=0.1), (32, 128)), 12),
        (regularizers.KLDivergence(0.02, 1e-4), 6),
    ],
    ids=["light", "heavy", "gated", "jump", "heavy-jump", "matryoshka", "kl"],
)
def test_l0_ends_at_its_target(digits, sparsity, target):
    model = models.shallow((8, 8, 1), 128, sparsity)
    model.compile(keras.optimizers.Adam(3e-3))
    steer = callbacks.SparsityTarget(target)
    fit = model.fit(digits, epochs=15, batch_size=64, verbose=0, callbacks=[steer])
    name = "expected_l0" if "expected_l0" in fit.history else "l0"
    assert fit.history[name][-1] == pytest.approx(target, rel=0.05)
    code = model.encode(digits)
    active = code.sum(axis=1).mean() if name == "expected_l0" else metrics.l0(code)
    assert active == pytest.approx(target, rel=0.05)
    found = [x for x in model._flatten_layers() if isinstance(x, layers.Sparsity)]
    penalties = [x for x in found if x.has_penalty]
    scale = [float(to_numpy(x.coefficient)) for x in penalties]
    ended = 0 if penalties[0].persistent else fit.history["sparsity_scale"][-1]
    assert scale[0] == pytest.approx(ended)


def test_only_the_epochs_of_the_fit_count(digits):
    """`initial_epoch` numbers them; there are no fewer or more of them for that."""
    model = models.shallow((8, 8, 1), 128, "l1")
    model.compile(keras.optimizers.Adam(3e-3))
    options = {"batch_size": 64, "verbose": 0, "initial_epoch": 285, "epochs": 300}
    steer = callbacks.SparsityTarget(10)
    history = model.fit(digits, callbacks=[steer], **options).history
    assert history["l0"][-1] == pytest.approx(10, rel=0.05)


@pytest.mark.parametrize("sparsity", ["l1", layers.JumpReLU(1.0, bandwidth=0.1)])
@pytest.mark.parametrize("first", [True, False])
def test_a_fit_that_goes_on_keeps_its_target(digits, sparsity, first, tmp_path):
    """Whichever of the two callbacks comes first."""
    model = models.shallow((8, 8, 1), 128, sparsity)
    model.compile(keras.optimizers.Adam(3e-3))

    def fit(*more):
        steer = callbacks.SparsityTarget(12)
        backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
        both = [steer, backup] if first else [backup, steer]
        options = {"batch_size": 64, "epochs": 20, "verbose": 0}
        return model.fit(digits, callbacks=[*both, *more], **options).history

    with pytest.raises(KeyboardInterrupt):
        fit(_StopAt(15))
    history = fit()
    assert len(history["l0"]) == 5
    np.testing.assert_allclose(history["l0"], 12, rtol=0.1)
    assert history["l0"][-1] == pytest.approx(12, rel=0.05)


class _StopAt(keras.callbacks.Callback):
    def __init__(self, epoch):
        super().__init__()
        self.epoch = epoch

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.epoch:
            raise KeyboardInterrupt


def test_what_pushes_both_ways_is_not_saved(digits, tmp_path):
    model = models.shallow((8, 8, 1), 64, layers.JumpReLU(1.0, bandwidth=0.1))
    model.compile(keras.optimizers.Adam(3e-3))
    keep = keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}.keras")
    steer = callbacks.SparsityTarget(12)
    history = model.fit(digits, epochs=3, verbose=0, callbacks=[steer, keep]).history
    assert np.abs(history["sparsity_scale"]).min() > 0
    for epoch in (1, 2, 3):
        saved = keras.saving.load_model(tmp_path / f"{epoch}.keras")
        assert float(to_numpy(saved.sparse_layers[-1].sparsity.coefficient)) == 0


def test_a_target_that_is_missed_is_not_passed_over(digits):
    model = models.shallow((8, 8, 1), 32, "l1")
    model.compile(keras.optimizers.Adam(1e-3))
    steer = callbacks.SparsityTarget(l0=40)
    # Not `pytest.warns`, which passes on what Keras itself warns of.
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.fit(digits, epochs=2, verbose=0, callbacks=[steer])
    said = [str(w.message) for w in caught if "SparsityTarget" in str(w.message)]
    assert len(said) == 1
    assert "more than 5% off its target. Received: l0=40" in said[0]


def test_the_end_is_judged_and_not_the_last_epoch(digits):
    """In one epoch the mean of it is far off a target that its end has reached."""
    import tensorflow as tf

    model = models.shallow((8, 8, 1), 32, "l1")
    model.compile(keras.optimizers.Adam(5e-3))
    steer = callbacks.SparsityTarget(6)
    data = tf.data.Dataset.from_tensor_slices(digits).repeat(30).batch(64)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        logs = model.fit(data, verbose=0, callbacks=[steer]).history
    assert abs(logs["l0"][0] / 6 - 1) > 0.1
    assert metrics.l0(model.encode(digits)) == pytest.approx(6, rel=0.05)
    assert not [w for w in caught if "SparsityTarget" in str(w.message)]


def test_a_figure_that_is_not_a_number_is_off_the_target():
    steer = callbacks.SparsityTarget(6)
    steer.set_model(_model())
    steer.set_params({"steps": 4, "epochs": 1})
    steer.on_train_begin()
    steer._active = float("nan")
    with pytest.warns(UserWarning, match="ended at an L0 of nan"):
        steer.on_train_end()


# Keras says of the first epoch that the data have ended.
@pytest.mark.filterwarnings("ignore:Your input ran out of data")
@pytest.mark.parametrize("length", [None, 23])
def test_a_dataset_may_be_of_unknown_length(digits, length):
    import tensorflow as tf

    model = models.shallow((8, 8, 1), 128, "l1")
    model.compile(keras.optimizers.Adam(3e-3))
    data = tf.data.Dataset.from_tensor_slices(digits).shuffle(2000, seed=0).batch(64)
    data = data.filter(lambda x: True) if length is None else data
    steer = callbacks.SparsityTarget(10)
    logs = model.fit(data, epochs=15, verbose=0, callbacks=[steer]).history
    assert logs["l0"][-1] == pytest.approx(10, rel=0.05)


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
@pytest.mark.parametrize("sparsity", ["l1", layers.JumpReLU(bandwidth=0.1)])
def test_one_long_epoch_of_unknown_length(digits, sparsity):
    """Its steps are guessed anew as it goes on, so the weight is not at its limit."""
    import tensorflow as tf

    model = models.shallow((8, 8, 1), 64, sparsity)
    model.compile(keras.optimizers.Adam(3e-3))
    data = tf.data.Dataset.from_tensor_slices(digits).repeat(40).batch(64)
    steer = callbacks.SparsityTarget(8)
    model.fit(data.filter(lambda x: True), verbose=0, callbacks=[steer])
    assert metrics.l0(model.encode(digits)) == pytest.approx(8, rel=0.05)


@pytest.mark.parametrize("sparsity", [None, layers.TopK(4)])
def test_nothing_to_steer(digits, sparsity):
    model = models.shallow((8, 8, 1), 32, sparsity)
    model.compile("sgd")
    with pytest.raises(ValueError, match="needs a model with a soft penalty"):
        model.fit(digits, verbose=0, callbacks=[callbacks.SparsityTarget(4)])


def test_two_targets_of_one_layer(digits):
    model = models.shallow((8, 8, 1), 32, layers.JumpReLU(target_l0=8))
    model.compile("sgd")
    with pytest.raises(ValueError, match="Received: l0=4, and .* with target_l0=8"):
        model.fit(digits, verbose=0, callbacks=[callbacks.SparsityTarget(4)])


@pytest.mark.parametrize("l0", [0, -1, float("nan"), "4"])
def test_bad_target(l0):
    with pytest.raises(ValueError, match="`l0` must be a finite number > 0"):
        callbacks.SparsityTarget(l0)
