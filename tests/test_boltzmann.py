"""Restricted Boltzmann machines: equal to NumPy, enumeration and quadrature."""

import dataclasses
import itertools

import keras
import numpy as np
import pytest
from helpers import assert_same_weights, sigmoid, to_numpy, weights_of

from keras_sae import layers, models, pretraining
from keras_sae.pretraining.rbm import RBM, UNITS, ScheduledMomentum
from keras_sae.regularizers import KLDivergence

KINDS = [("sigmoid", "sigmoid"), ("sigmoid", "linear"), ("linear", "sigmoid")]
kinds = pytest.mark.parametrize(("visible", "hidden"), KINDS)

MEAN = {"sigmoid": sigmoid, "linear": lambda z: z}


def _threshold(z, _):
    """Replace sampling by a threshold, which NumPy can reproduce."""
    return keras.ops.cast(z > 0, z.dtype)


@pytest.fixture
def deterministic_units(monkeypatch):
    for name, units in UNITS.items():
        fixed = dataclasses.replace(units, sample=_threshold)
        monkeypatch.setitem(UNITS, name, fixed)


def _dbn(units=(5, 3), **kwargs):
    settings = {
        "activation": "sigmoid",
        "code_activation": "linear",
        "output_activation": "sigmoid",
        "centering": False,
        **kwargs,
    }
    return models.deep((6,), units, **settings)


def _data(rng, samples=32, size=6):
    return rng.random((samples, size), dtype="float32")


def _weights(rbm):
    return [to_numpy(w) for w in (rbm.kernel, rbm.visible_bias, rbm.hidden_bias)]


def _set(rbm, rng, size):
    rbm.build((None, size))
    for weight in rbm.trainable_weights:
        weight.assign(rng.standard_normal(weight.shape) * 0.5)


class _Recorder(keras.callbacks.Callback):
    """Record the RBMs that are trained, and their initial weights."""

    def __init__(self):
        super().__init__()
        self.rbms, self.initial = [], []

    def on_train_begin(self, logs=None):
        self.rbms.append(self.model)
        self.initial.append(_weights(self.model))


# The update.


def _textbook(v0, W, a, b, visible, hidden, steps):
    """`<v h>_0 - <v h>_k` and its two companions: Hinton's CD-k in float64."""
    h0 = MEAN[hidden](v0 @ W + b)
    z = v0 @ W + b
    for _ in range(steps):
        h = (z > 0).astype("float64")
        inputs = h @ W.T + a
        v = MEAN[visible](inputs)
        z = v @ W + b
    hk = MEAN[hidden](v @ W + b)
    n = len(v0)
    return (
        (v0.T @ h0 - v.T @ hk) / n,
        (v0 - v).mean(axis=0),
        (h0 - hk).mean(axis=0),
    )


@kinds
@pytest.mark.parametrize("steps", [1, 3])
def test_updates_equal_contrastive_divergence_in_numpy(
    rng, deterministic_units, visible, hidden, steps
):
    x = _data(rng, 12, 20)
    rbm = RBM(16, visible, hidden, cd_steps=steps, weight_decay=0.02)
    _set(rbm, rng, 20)
    expected = _weights(rbm)
    optimizer = ScheduledMomentum(0.05, initial_momentum=0.5, momentum=0.9, steps=2)
    rbm.compile(optimizer, loss=None)
    rbm.fit(x, batch_size=12, epochs=4, verbose=0)
    velocity = [0.0, 0.0, 0.0]
    for step in range(4):
        update = list(_textbook(x, *expected, visible, hidden, steps))
        update[0] = update[0] - 0.02 * expected[0]
        mu = 0.5 if step < 2 else 0.9
        velocity = [mu * m + 0.05 * g for m, g in zip(velocity, update, strict=True)]
        expected = [w + m for w, m in zip(expected, velocity, strict=True)]
    for trained, by_hand in zip(_weights(rbm), expected, strict=True):
        np.testing.assert_allclose(trained, by_hand, atol=1e-5)


@kinds
@pytest.mark.parametrize("steps", [1, 2])
def test_logs_equal_numpy(rng, deterministic_units, visible, hidden, steps):
    x = _data(rng, 12, 20)
    rbm = RBM(16, visible, hidden, cd_steps=steps)
    _set(rbm, rng, 20)
    W, a, b = _weights(rbm)
    rbm.compile(keras.optimizers.SGD(0.0), loss=None)
    history = rbm.fit(x, batch_size=12, verbose=0, validation_data=x).history
    inputs = (x @ W + b > 0) @ W.T + a
    error = ((x - MEAN[visible](inputs)) ** 2).sum(axis=1).mean()  # of the first step
    assert history["reconstruction_error"][0] == pytest.approx(error, rel=1e-5)
    assert history["val_reconstruction_error"][0] == pytest.approx(error, rel=1e-5)
    energy = to_numpy(rbm.free_energy(keras.ops.convert_to_tensor(x))).mean()
    assert history["free_energy"][0] == pytest.approx(energy, rel=1e-5)
    assert history["val_free_energy"][0] == pytest.approx(energy, rel=1e-5)
    if steps == 2:
        first, inputs = inputs, (MEAN[visible](inputs) @ W + b > 0) @ W.T + a
        assert not np.allclose(first, inputs)
    last = keras.ops.convert_to_tensor(MEAN[visible](inputs), "float32")
    expected = energy - to_numpy(rbm.free_energy(last)).mean()
    decay = 2e-4 / 2 * (W**2).sum()
    assert history["loss"][0] == pytest.approx(expected + decay, abs=1e-4)


def _energy(v, h, W, a, b, visible, hidden):
    base = {"sigmoid": lambda s: 0.0, "linear": lambda s: 0.5 * (s**2).sum()}
    pull = v @ a + h @ b + v @ W @ h
    return base[visible](v) + base[hidden](h) - pull


@kinds
def test_free_energy_is_the_sum_over_hidden_states(rng, visible, hidden):
    rbm = RBM(2, visible, hidden)
    _set(rbm, rng, 3)
    weights = _weights(rbm)
    v = rng.random((4, 3))
    axis = [0.0, 1.0] if hidden == "sigmoid" else np.linspace(-10, 10, 201)
    # A Gaussian unit's sum is an integral, less the log of sqrt(2 pi) a unit.
    cell = 0.0 if hidden == "sigmoid" else np.log(0.1) - 0.5 * np.log(2 * np.pi)
    for row in v:
        energies = [
            _energy(row, np.array(h), *weights, visible, hidden)
            for h in itertools.product(axis, repeat=2)
        ]
        expected = -(np.logaddexp.reduce(-np.array(energies)) + 2 * cell)
        row = keras.ops.convert_to_tensor(row[None], "float32")
        assert to_numpy(rbm.free_energy(row))[0] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("name", UNITS)
def test_samples_have_the_mean_and_variance_of_the_units(name):
    seed = keras.random.SeedGenerator(0)
    z = keras.ops.convert_to_tensor(np.tile([[-1.0, 0.5]], (20_000, 1)), "float32")
    first, second = (to_numpy(UNITS[name].sample(z, seed)) for _ in range(2))
    assert not np.array_equal(first, second)
    mean = MEAN[name](np.array([-1.0, 0.5]))
    np.testing.assert_allclose(first.mean(axis=0), mean, atol=0.03)
    variance = mean * (1 - mean) if name == "sigmoid" else 1.0
    np.testing.assert_allclose(first.var(axis=0), variance, atol=0.03)


# Learning.


def _bars_and_stripes():
    """The 14 patterns of 3 by 3 whose rows, or whose columns, are of one colour."""
    lines = list(itertools.product([0, 1], repeat=3))
    rows = {tuple(np.repeat(line, 3)) for line in lines}
    return np.array(sorted(rows | {tuple(np.tile(line, 3)) for line in lines}), float)


def _log_likelihood(x, W, a, b):
    """Mean log-probability of `x` in nats, by summing over all 512 patterns."""

    def minus_free_energy(v):
        return v @ a + np.logaddexp(0, v @ W + b).sum(axis=1)

    everything = np.array(list(itertools.product([0, 1], repeat=9)), float)
    log_z = np.logaddexp.reduce(minus_free_energy(everything))
    return (minus_free_energy(x) - log_z).mean()


def test_exact_likelihood_of_bars_and_stripes_increases():
    patterns = _bars_and_stripes()
    x, epochs = np.tile(patterns, (64, 1)).astype("float32"), 25
    recorder = _Recorder()
    sigmoids = {"activation": "sigmoid", "output_activation": "sigmoid"}
    model = models.shallow((3, 3, 1), 16, **sigmoids, centering=False)
    pretraining.boltzmann(
        model,
        x.reshape(-1, 3, 3, 1),
        epochs,
        batch_size=14,
        cd_steps=3,
        learning_rate=keras.optimizers.schedules.PolynomialDecay(
            0.1, 64 * epochs, 0.005
        ),
        weight_decay=0.0,
        callbacks=[recorder],
        verbose=0,
    )
    start = _log_likelihood(patterns, *recorder.initial[0])
    # The unrolled model holds the machine that was trained.
    code, output = model.levels[0].encode[-1], model.levels[0].decode[0]
    np.testing.assert_array_equal(to_numpy(output.kernel), to_numpy(code.kernel).T)
    end = _log_likelihood(
        patterns, *(to_numpy(w) for w in (code.kernel, output.bias, code.bias))
    )
    optimum = -np.log(len(patterns))
    assert len(patterns) == 14
    assert (end - start) / (optimum - start) >= 0.8


def test_sparsity_target_lowers_the_means(rng):
    x = _data(rng, 64)

    def mean(sparsity):
        model = _dbn((8,), code_activation="sigmoid")
        pretraining.boltzmann(model, x, 30, 32, sparsity=sparsity, verbose=0)
        return model.encode(x).mean()

    assert mean(KLDivergence(0.05, 2.0)) < 0.15 < mean(None)


def test_sparsity_by_name_acts_on_binary_units_only(rng):
    """The means of Gaussian units leave (0, 1), where a KL divergence is NaN."""
    recorder = _Recorder()
    histories = pretraining.boltzmann(
        _dbn(), _data(rng), 1, 16, sparsity="kl", callbacks=recorder, verbose=0
    )
    first, second = (rbm.sparsity for rbm in recorder.rbms)
    assert isinstance(first, KLDivergence)
    assert second is None
    assert all(np.isfinite(h.history["loss"]).all() for h in histories)


# The unrolled model.


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("centering", [False, True])
def test_rbms_become_encoder_and_decoder(rng, tied, centering):
    x, recorder = _data(rng), _Recorder()
    model = _dbn(tied=tied, centering=centering)
    pretraining.boltzmann(model, x, 3, batch_size=8, callbacks=[recorder], verbose=0)
    below = x.astype("float64")
    rbms = [_weights(rbm) for rbm in recorder.rbms]
    for (W, _, b), mean in zip(rbms, [sigmoid, lambda z: z], strict=True):
        below = mean(below @ W + b)
    code = model.encode(x)
    np.testing.assert_allclose(code, below, atol=1e-5)
    above = code
    for W, a, _ in rbms[::-1]:
        above = sigmoid(above @ W.T + a)
    np.testing.assert_allclose(model.decode(code), above, atol=1e-5)
    model.compile("adam")
    model.fit(x[:8], batch_size=8, verbose=0)
    expected = (len(x) * x.mean(axis=0) + 8 * x[:8].mean(axis=0)) / (len(x) + 8)
    center = [layer for layer in model.encoder.layers if layer.name == "center"]
    for layer in center:  # `fit` continues the average from the mean of the data
        np.testing.assert_allclose(to_numpy(layer.mean), expected, atol=1e-5)


def test_a_plain_dense_code_gets_the_kernel_of_its_rbm(rng):
    encoder = keras.Sequential([keras.Input((6,)), keras.layers.Dense(4, "sigmoid")])
    decoder = keras.Sequential([keras.Input((4,)), keras.layers.Dense(6, "sigmoid")])
    model, recorder = models.Autoencoder(encoder, decoder), _Recorder()
    x = _data(rng)
    pretraining.boltzmann(model, x, 1, callbacks=[recorder], verbose=0)
    W, _, b = _weights(recorder.rbms[0])
    np.testing.assert_allclose(model.encode(x), sigmoid(x @ W + b), atol=1e-5)


@pytest.mark.parametrize(
    ("initializer", "deviation"), [(None, 0.1), (keras.initializers.Zeros(), 0.0)]
)
def test_rbms_start_from_their_own_weights(rng, initializer, deviation):
    x, recorder = _data(rng), _Recorder()
    model = _dbn((400,), code_activation="sigmoid")
    options = {"kernel_initializer": initializer, "callbacks": recorder, "verbose": 0}
    pretraining.boltzmann(model, x, 1, 32, **options)
    W, a, b = recorder.initial[0]
    assert W.std() == pytest.approx(deviation, rel=0.1)
    assert not a.any()
    assert not b.any()


def test_default_learning_rate_depends_on_the_units(rng):
    x = _data(rng)

    def rates(model, learning_rate=None):
        recorder = _Recorder()
        options = {"learning_rate": learning_rate, "callbacks": recorder, "verbose": 0}
        pretraining.boltzmann(model, x, 1, 8, **options)
        optimizers = [rbm.optimizer for rbm in recorder.rbms]
        assert {optimizer.steps for optimizer in optimizers} == {5 * 4}
        return [round(float(to_numpy(one.learning_rate)), 6) for one in optimizers]

    turned = _dbn(output_activation="linear", code_activation="sigmoid")
    assert rates(turned) == [0.001, 0.1]
    assert rates(_dbn(), [0.03, None]) == [0.03, 0.001]


def test_labeled_streams_of_images_resume(rng, tmp_path):
    import tensorflow as tf

    x = _data(rng).reshape(-1, 3, 2, 1)
    stream = tf.data.Dataset.from_tensor_slices((x, np.arange(len(x)))).batch(16)
    settings = {
        "activation": "sigmoid",
        "code_activation": "linear",
        "output_activation": "sigmoid",
    }
    options = {"directory": tmp_path / "run", "validation_data": stream, "verbose": 0}
    model = models.deep((3, 2, 1), (5, 3), **settings)
    histories = pretraining.boltzmann(model, stream, [1, 2], 16, **options)
    names = {"loss", "free_energy", "reconstruction_error"}
    for history, epochs in zip(histories, [1, 2], strict=True):
        assert set(history.history) == names | {f"val_{name}" for name in names}
        assert history.epoch == list(range(epochs))
        assert np.isfinite(history.history["val_free_energy"]).all()
    again, recorder = models.deep((3, 2, 1), (5, 3), **settings), _Recorder()
    loaded = pretraining.boltzmann(
        again, stream, [1, 2], 16, callbacks=recorder, **options
    )
    assert recorder.rbms == []
    assert [h.history for h in loaded] == [h.history for h in histories]
    np.testing.assert_allclose(again.encode(x), model.encode(x), atol=1e-6)
    with pytest.raises(ValueError, match="cd_steps was 1 and is now 2"):
        pretraining.boltzmann(again, stream, [1, 2], 16, 2, **options)


def test_rbms_compute_in_float32_under_any_policy(rng):
    keras.config.set_dtype_policy("bfloat16")
    x, recorder, model = _data(rng), _Recorder(), _dbn()
    pretraining.boltzmann(model, x, 1, 16, callbacks=[recorder], verbose=0)
    assert all(rbm.compute_dtype == "float32" for rbm in recorder.rbms)
    assert np.isfinite(np.asarray(to_numpy(model(x)))).all()


def test_rbm_and_optimizer_round_trip_through_their_configs():
    rbm = RBM(4, "linear", sparsity=KLDivergence(0.1, 0.5), cd_steps=2)
    again = RBM.from_config(rbm.get_config())
    assert str(again.get_config()) == str(rbm.get_config())
    momentum = ScheduledMomentum(0.2, 0.4, 0.8, 7)
    assert ScheduledMomentum.from_config(momentum.get_config()).get_config() == (
        momentum.get_config()
    )


# Bad input.


def _refused(model, match, x=None, **kwargs):
    x = _data(np.random.default_rng(0)) if x is None else x
    before = weights_of(model)
    with pytest.raises(ValueError, match=match):
        pretraining.boltzmann(model, x, 1, 16, verbose=0, **kwargs)
    assert_same_weights(before, weights_of(model))


def test_other_activations_are_refused():
    possible = r"must be binary \(activation 'sigmoid'\) or Gaussian"
    _refused(_dbn(activation="relu"), possible)
    _refused(_dbn(code_activation="tanh"), possible)
    _refused(_dbn(output_activation="relu"), possible)
    _refused(_dbn(activation="linear"), "RBM with Gaussian units on both sides")


def test_other_layers_and_constraints_are_refused():
    _refused(_dbn(batch_normalization=True), "one dense layer")
    sigmoids = {"activation": "sigmoid", "output_activation": "sigmoid"}
    bound = models.shallow((6,), 5, "l1", **sigmoids)
    _refused(bound, "must be trainable and unconstrained")
    _refused(models.shallow((6,), 5, use_bias=False, **sigmoids), "one dense layer")


def test_data_outside_the_unit_interval_are_refused_for_binary_units():
    x = _data(np.random.default_rng(0))
    _refused(_dbn(), r"\[0, 1\]", x=x - 0.5)
    for held_out in (x - 0.5, (x + 1, x)):
        _refused(_dbn(), r"`validation_data` must lie in", validation_data=held_out)


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("cd_steps", 0),
        ("cd_steps", 1.5),
        ("momentum", 1.0),
        ("initial_momentum", -0.1),
        ("momentum_epochs", 0),
        ("weight_decay", -1.0),
        ("weight_decay", float("nan")),
        ("learning_rate", 0.0),
        ("learning_rate", np.float32(-1)),
    ],
)
def test_arguments_out_of_range_are_refused(argument, value):
    _refused(_dbn(), f"`{argument}`.*Received", **{argument: value})


def test_corruption_and_penalties_of_the_model_are_accepted(rng):
    one, other = layers.MaskingNoise(0.3), keras.layers.GaussianNoise(0.1)
    for corruption in (one, keras.Sequential([one, other])):
        model = _dbn(sparsity="kl", corruption=corruption, code_activation="sigmoid")
        pretraining.boltzmann(model, _data(rng), 1, 16, verbose=0)


def test_dropout_after_a_level_is_accepted(rng):
    inputs, codes = keras.Input((6,)), keras.Input((3,))
    hidden = keras.layers.Dense(5, "sigmoid", name="encode_1")(inputs)
    code = layers.SparseDense(3, name="code")(keras.layers.Dropout(0.1)(hidden))
    outputs = keras.layers.Dense(5, "sigmoid", name="decode_1")(codes)
    outputs = keras.layers.Dense(6, "sigmoid", name="output")(outputs)
    decoder = keras.Model(codes, outputs)
    model = models.Autoencoder(keras.Model(inputs, code), decoder)
    model.sparse_layers[0].activation = keras.activations.linear
    pretraining.boltzmann(model, _data(rng), 1, 16, verbose=0)


@pytest.mark.parametrize(
    ("sparsity", "message"),
    [
        (layers.TopK(3), "must be a penalty on the hidden means.*pretraining.greedy"),
        (KLDivergence(0.1, 0.1, momentum=0.9), "momentum=0.9.*Use momentum=None"),
        ("top", "Unknown sparsity: 'top'"),
    ],
)
def test_sparsities_other_than_penalties_are_refused(sparsity, message):
    _refused(_dbn(), message, sparsity=sparsity)


def test_frozen_layers_are_refused():
    model = _dbn()
    model.sparse_layers[0].trainable = False
    _refused(model, "level 0 with 'encode_1' frozen")
