"""Greedy pretraining: equal to NumPy, in place, larger than memory, resumable."""

import functools
import itertools
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest
from helpers import (
    BACKEND,
    assert_same_weights,
    sigmoid,
    tensorflow_only,
    to_numpy,
    weights_of,
)

from keras_sae import layers, models, pretraining
from keras_sae.models.data_adapter import DiskBatches
from keras_sae.regularizers import L1

both = pytest.mark.parametrize(
    "method", [pretraining.greedy, pretraining.boltzmann], ids=["greedy", "boltzmann"]
)
not_torch = pytest.mark.skipif(
    BACKEND == "torch", reason="PyTorch runs one step per execution."
)


def _stack(units=(5, 3), **kwargs):
    settings = {"output_activation": "sigmoid", "centering": False, **kwargs}
    sigmoids = {"activation": "sigmoid", "code_activation": "sigmoid"}
    return models.stacked((6,), units, **sigmoids, **settings)


def _data(rng, samples=32, size=6):
    return rng.random((samples, size), dtype="float32")


class _Recorder(keras.callbacks.Callback):
    """Record which models are trained, and for which epochs."""

    def __init__(self):
        super().__init__()
        self.models, self.epochs = [], []

    def on_train_begin(self, logs=None):
        self.models.append(self.model)
        self.epochs.append([])

    def on_epoch_end(self, epoch, logs=None):
        self.epochs[-1].append(epoch)


def _gradient_descent(h, W, b, V, c, epochs, rate, factor, target=None):
    """Full-batch gradient descent on mse + L1 of one level, in float64."""
    target = h if target is None else target
    for _ in range(epochs):
        code = sigmoid(h @ W + b)
        output = sigmoid(code @ V + c)
        slope = 2 * (output - target) / h.size * output * (1 - output)
        back = slope @ V.T + factor * np.sign(code) / len(h)
        back = back * code * (1 - code)
        V, c = V - rate * code.T @ slope, c - rate * slope.sum(axis=0)
        W, b = W - rate * h.T @ back, b - rate * back.sum(axis=0)
    return W, b, V, c


def _dense_weights(level):
    code = next(x for x in level.encode if isinstance(x, layers.SparseDense))
    output = next(x for x in level.decode if isinstance(x, keras.layers.Dense))
    return [to_numpy(w) for w in (code.kernel, code.bias, output.kernel, output.bias)]


# Training.


def test_levels_equal_gradient_descent_in_numpy(rng):
    x = _data(rng)
    model = _stack(sparsity=L1(0.01))
    expected = [_dense_weights(level) for level in model.levels]
    pretraining.greedy(model, x, [4, 3], 32, keras.optimizers.SGD(0.5), verbose=0)
    below = x.astype("float64")
    for level, epochs, initial in zip(model.levels, [4, 3], expected, strict=True):
        trained = _gradient_descent(below, *initial, epochs, 0.5, 0.01)
        for one, other in zip(_dense_weights(level), trained, strict=True):
            np.testing.assert_allclose(one, other, atol=2e-6)
        below = sigmoid(below @ trained[0] + trained[1])


def test_codes_below_are_computed_without_corruption(rng):
    x = _data(rng)
    model = _stack(corruption=layers.MaskingNoise(0.5, seed=1))
    recorder = _Recorder()
    pretraining.greedy(model, x, 1, batch_size=32, callbacks=[recorder], verbose=0)
    first, second = recorder.models
    assert any(isinstance(x, layers.MaskingNoise) for x in first.encoder.layers)
    assert not any(isinstance(x, layers.MaskingNoise) for x in second.encoder.layers)
    code = to_numpy(first.encoder(x, training=False))
    layer = model.levels[0].encode[-1]
    expected = sigmoid(x @ to_numpy(layer.kernel) + to_numpy(layer.bias))
    np.testing.assert_allclose(code, expected, atol=1e-6)
    code = to_numpy(second.encoder(code, training=False))
    np.testing.assert_allclose(code, model.encode(x), atol=1e-6)


def test_one_level_is_trained_at_a_time(rng):
    model = _stack((5, 4, 3))
    snapshots = []

    class Snapshot(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if BACKEND == "jax":  # variables are written back after the epoch
                self.model.jax_state_sync()
            snapshots.append([_dense_weights(level) for level in model.levels])

    pretraining.greedy(model, _data(rng), 1, 32, callbacks=[Snapshot()], verbose=0)
    snapshots.append([_dense_weights(level) for level in model.levels])
    for step in range(3):
        for level in range(3):
            pairs = zip(snapshots[step][level], snapshots[step + 1][level], strict=True)
            moved = any(not np.array_equal(a, b) for a, b in pairs)
            assert moved == (level == step)


def test_lists_give_one_value_per_level(rng):
    recorders = [_Recorder(), _Recorder()]
    histories = pretraining.greedy(
        _stack(),
        _data(rng),
        [2, 3],
        batch_size=16,
        optimizer=["sgd", keras.optimizers.Adam(0.01)],
        loss=["binary_crossentropy", "mse"],
        callbacks=[[recorder] for recorder in recorders],
        validation_data=_data(rng, 8),
        verbose=0,
    )
    assert [len(h.epoch) for h in histories] == [2, 3]
    assert all("val_explained_variance" in h.history for h in histories)
    first, second = (recorder.models[0] for recorder in recorders)
    assert isinstance(first.optimizer, keras.optimizers.SGD)
    assert isinstance(second.optimizer, keras.optimizers.Adam)
    assert (first.loss, second.loss) == ("binary_crossentropy", "mse")
    # A crossentropy in nats per value starts near log 2, a squared error far below.
    assert histories[0].history["loss"][0] > 0.5 > histories[1].history["loss"][0]


def test_each_level_gets_a_copy_of_the_optimizer(rng):
    optimizer, recorder = keras.optimizers.Adam(0.02), _Recorder()
    x = _data(rng)
    pretraining.greedy(_stack(), x, 1, 16, optimizer, callbacks=recorder, verbose=0)
    assert not optimizer.built
    used = [level.optimizer for level in recorder.models]
    assert len({id(one) for one in [optimizer, *used]}) == 3
    for copy in used:
        assert float(to_numpy(copy.learning_rate)) == pytest.approx(0.02)
        assert int(to_numpy(copy.iterations)) == 2


def test_compilation_of_the_model_is_unchanged(rng):
    x, model = _data(rng), _stack()
    model.compile(keras.optimizers.Adam(0.01), "mae")
    model.fit(x, batch_size=16, verbose=0)
    optimizer = model.optimizer
    state = [np.array(to_numpy(v)) for v in optimizer.variables]
    pretraining.greedy(model, x, 1, batch_size=16, verbose=0)
    assert model.optimizer is optimizer
    assert model.loss == "mae"
    for before, after in zip(state, optimizer.variables, strict=True):
        np.testing.assert_array_equal(before, to_numpy(after))
    model.fit(x, batch_size=16, verbose=0)
    assert int(to_numpy(optimizer.iterations)) == 4


@not_torch
@both
def test_steps_per_execution_changes_neither_weights_nor_logs(rng, method, monkeypatch):
    x = _data(rng, 31)  # the last batch is smaller
    used = []
    fit = keras.Model.fit

    @functools.wraps(fit)
    def record(self, *args, **kwargs):
        used.append(self.steps_per_execution)
        return fit(self, *args, **kwargs)

    monkeypatch.setattr(keras.Model, "fit", record)

    def train(callbacks, **options):
        keras.utils.set_random_seed(0)
        model = _stack()
        model.compile("sgd", **options)
        histories = method(
            model, x, 3, 4, callbacks=callbacks, validation_data=x[:9], verbose=0
        )
        return weights_of(model), [history.history for history in histories]

    weights, logs = train([])
    for callbacks, options in (([_Recorder()], {}), ([], {"steps_per_execution": 3})):
        other_weights, other_logs = train(callbacks, **options)
        assert_same_weights(weights, other_weights)
        assert logs == other_logs
    many = {"tensorflow": 32, "jax": 1}[BACKEND]
    assert used == [many, many, 1, 1, 3, 3]


@pytest.mark.parametrize("batch_normalization", [False, True])
@pytest.mark.parametrize("activation", ["relu", "silu", "tanh", "linear"])
def test_outputs_of_factory_models_reach_their_codes(
    rng, activation, batch_normalization
):
    options = {"activation": activation, "batch_normalization": batch_normalization}
    x = 4 * rng.standard_normal((64, 6)).astype("float32")
    model = models.deep((6,), (5, 3), **options)
    assert len(pretraining.greedy(model, x, 1, batch_size=64, verbose=0)) == 2


def test_pretraining_lowers_the_error_of_the_whole_model(rng):
    factors = rng.standard_normal((256, 2)) @ rng.standard_normal((2, 6))
    x = (1 / (1 + np.exp(-2 * factors))).astype("float32")
    model = _stack((6, 4))
    model.compile("adam")
    before = model.evaluate(x, verbose=0)[0]
    pretraining.greedy(model, x, 40, 64, keras.optimizers.Adam(0.05), verbose=0)
    assert model.evaluate(x, verbose=0)[0] < before / 3


def test_pretrained_models_save_clone_and_stay_tied(rng, tmp_path):
    x, model = _data(rng), _stack(tied=True)
    pretraining.greedy(model, x, 2, batch_size=16, verbose=0)
    for level in model.levels:
        tied = next(x for x in level.decode if isinstance(x, layers.TiedDense))
        code = next(x for x in level.encode if isinstance(x, layers.SparseDense))
        assert tied.kernel is code.kernel
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(
        again.predict(x, verbose=0), model.predict(x, verbose=0), atol=1e-6
    )
    clone = keras.models.clone_model(model)
    assert [w.shape for w in clone.weights] == [w.shape for w in model.weights]


def test_levels_are_announced_unless_verbose_is_0(rng, capsys):
    pretraining.greedy(_stack(), _data(rng), 1, batch_size=16, verbose=2)
    out = capsys.readouterr().out
    assert "Level 1 of 2: 6 -> 5" in out
    assert "Level 2 of 2: 5 -> 3" in out
    pretraining.greedy(_stack(), _data(rng), 1, batch_size=16, verbose=0)
    assert capsys.readouterr().out == ""


# Streams.


class _Batches(keras.utils.PyDataset):
    def __init__(self, x, size=16):
        super().__init__()
        self.x, self.size = x, size

    def __len__(self):
        return -(-len(self.x) // self.size)

    def __getitem__(self, i):
        return (self.x[i * self.size : (i + 1) * self.size],)


def _stream(kind, x, tmp_path):
    if kind == "dataset":
        import tensorflow as tf

        return tf.data.Dataset.from_tensor_slices(x).batch(40)
    if kind == "memmap":
        x.tofile(tmp_path / "x.bin")
        return np.memmap(tmp_path / "x.bin", "float32", "r", shape=x.shape)
    if kind == "loader":
        from torch import from_numpy
        from torch.utils.data import DataLoader, TensorDataset

        return DataLoader(TensorDataset(from_numpy(x)), batch_size=40)
    return _Batches(x, 40)


torch_only = pytest.mark.skipif(BACKEND != "torch", reason="needs the PyTorch backend")


@pytest.mark.parametrize(
    "kind", ["dataset", "pydataset", "memmap", pytest.param("loader", marks=torch_only)]
)
def test_a_stream_trains_like_the_array(rng, tmp_path, kind):
    x = _data(rng, 40)
    settings = {"optimizer": keras.optimizers.SGD(0.1), "verbose": 0, "batch_size": 40}
    keras.utils.set_random_seed(0)
    one = _stack()
    pretraining.greedy(one, x, 1, **settings)
    keras.utils.set_random_seed(0)
    other = _stack()
    stream = _stream(kind, x, tmp_path)
    held_out = x[:8] if kind == "memmap" else _stream(kind, x[:8], tmp_path)
    histories = pretraining.greedy(
        other, stream, 1, validation_data=held_out, **settings
    )
    for a, b in zip(weights_of(one), weights_of(other), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    assert all("val_loss" in history.history for history in histories)


def test_disk_batches_hold_all_samples_in_a_new_order_per_epoch():
    batches = DiskBatches([np.arange(10.0)[:, None]], 4, shuffle=True)
    epochs = []
    for _ in range(3):
        parts = [batches[i][0][:, 0].tolist() for i in range(len(batches))]
        assert [len(part) for part in parts] == [4, 4, 2]
        assert sorted(itertools.chain(*parts)) == list(range(10))
        epochs.append(parts)
        batches.on_epoch_end()
    assert epochs[0] != epochs[1] != epochs[2]
    fixed = DiskBatches([np.arange(10.0)[:, None]], 4, shuffle=False)
    fixed.on_epoch_end()
    assert fixed[1][0][:, 0].tolist() == [4, 5, 6, 7]


def test_a_stream_of_pairs_gives_the_first_level_its_target(rng):
    import tensorflow as tf

    clean = _data(rng)
    noisy = np.clip(clean + 0.1, 0, 1)
    data = tf.data.Dataset.from_tensor_slices((noisy, clean)).batch(32)
    model = _stack()
    first = _dense_weights(model.levels[0])
    sgd = keras.optimizers.SGD(0.5)
    pretraining.greedy(model, data, 2, optimizer=sgd, verbose=0)
    trained = _gradient_descent(noisy, *first, 2, 0.5, 0.0, target=clean)
    for one, other in zip(_dense_weights(model.levels[0]), trained, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-6)


_LARGE_DATA = """
import resource
import numpy as np
import keras
from keras_sae import models, pretraining

SAMPLES, SIZE = 140_000, 256  # 137 MiB of data, as much of codes


class Stream(keras.utils.PyDataset):
    steps = SAMPLES // 500

    def __len__(self):
        return self.steps

    def __getitem__(self, i):
        return (np.random.default_rng(i).random((500, SIZE), dtype="float32"),)


def train(steps):
    stream = Stream()
    stream.steps = steps
    model = models.deep((SIZE,), (SIZE, 4), activation="sigmoid")
    return pretraining.greedy(model, stream, 1, 500, verbose=0)


train(2)  # memory of the libraries
status = open("/proc/self/status").read().split("VmData:")[1]
limit = int(status.split()[0]) * 1024 + 120 * 2**20
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
try:
    np.ones((SAMPLES, SIZE), "float32")
except MemoryError:
    print("too large for memory")
print(len(train(Stream.steps)), "levels")
"""


def _run(script, *arguments):
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)],
        capture_output=True,
        text=True,
    )


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the limit is that of Linux")
def test_data_and_codes_may_be_larger_than_memory():
    done = _run(_LARGE_DATA)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split("\n")[:2] == ["too large for memory", "2 levels"]


# Two devices of one processor, which TensorFlow allows only before its first use.
_REPLICAS = """
import contextlib
import keras
import numpy as np
import tensorflow as tf
from keras_sae import models, pretraining

halves = [tf.config.LogicalDeviceConfiguration()] * 2
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, halves)
x = np.random.default_rng(0).random((64, 6), dtype="float32")
two = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


def trained(pretrain, strategy, **options):
    keras.utils.set_random_seed(0)
    with strategy.scope() if strategy else contextlib.nullcontext():
        model = models.stacked((6,), (5, 3), activation="sigmoid",
            code_activation="sigmoid", output_activation="sigmoid", centering=False)
        pretrain(model, x, 2, 16, verbose=0, **options)
    return model.encoder.get_weights() + model.decoder.get_weights()


for optimizer in (keras.optimizers.SGD(0.5), keras.optimizers.Adam(epsilon=1e-3)):
    both = [trained(pretraining.greedy, s, optimizer=optimizer) for s in (None, two)]
    print(all(np.allclose(one, other, atol=1e-5) for one, other in zip(*both)))
print(all(np.isfinite(w).all() for w in trained(pretraining.boltzmann, two)))
"""


@pytest.mark.slow
@tensorflow_only
def test_replicas_train_the_same_levels_as_one_device():
    done = _run(_REPLICAS)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == ["True"] * 3


# Bad input.


def _refused(method, match, model=None, x=None, epochs=1, **kwargs):
    x = _data(np.random.default_rng(0)) if x is None else x
    model = _stack() if model is None else model
    before = weights_of(model) if isinstance(model, keras.Model) else None
    settings = {"batch_size": 16, "verbose": 0, **kwargs}
    with pytest.raises(ValueError, match=match):
        method(model, x, epochs, **settings)
    if before is not None:
        assert_same_weights(before, weights_of(model))


@both
def test_models_without_levels_are_refused(method):
    plain = keras.Sequential([keras.Input((6,)), keras.layers.Dense(6)])
    others = [
        models.variational((6,), (5,), 2),
        models.convolutional((8, 8, 1), (2, 3)),
        plain,
        "model",
    ]
    for model in others:
        _refused(method, "`model` must be an autoencoder of dense layers", model)


def test_batches_too_small_for_a_sparsity_are_refused_before_training(rng):
    recorder = _Recorder()
    model = _stack(sparsity=[None, layers.LifetimeSparsity(0.1)])
    with pytest.raises(ValueError, match="`LifetimeSparsity`"):
        pretraining.greedy(model, _data(rng), 1, 1, callbacks=[recorder], verbose=0)
    assert not recorder.models


@both
@pytest.mark.parametrize("epochs", [0, 1.5, None, [1], [1, 2, 3], [1, 0], True])
def test_epochs_must_be_positive_and_one_per_level(method, epochs):
    _refused(method, "epochs", epochs=epochs)


@both
def test_other_arguments_are_checked(method):
    _refused(method, "callbacks", callbacks=[[]])
    _refused(method, "batch_size", batch_size=0)
    name = "optimizer" if method is pretraining.greedy else "learning_rate"
    _refused(method, name, **{name: [0.1, 0.1, 0.1]})


def test_an_optimizer_is_required():
    _refused(pretraining.greedy, "`optimizer` must be", optimizer=None)


@both
def test_invalid_data_are_refused(method):
    import tensorflow as tf
    import tensorflow_datasets as tfds

    x = _data(np.random.default_rng(0))
    broken = x.copy()
    broken[3, 2] = np.nan
    _refused(method, "tuple. Pass data without labels", x=(x, np.arange(len(x))))
    _refused(method, "shape", x=x[:, :5])
    _refused(method, "at least one sample", x=x[:0])
    _refused(method, "finite", x=broken)
    _refused(method, r"\[0, 1\]", x=x * 3)
    _refused(method, r"`validation_data` must lie in \[0, 1\]", validation_data=x * 3)
    _refused(method, "read once per epoch", x=(batch for batch in [x]))
    _refused(method, "must be an array, or batches", x=3)
    _refused(method, "at least one batch", x=_Batches(x[:0]))
    _refused(method, "shape", x=_Batches(x[:, :5]))
    _refused(method, "finite", x=_Batches(broken))
    data = tf.data.Dataset.from_tensor_slices(x).batch(16)
    _refused(method, "never ends", x=data.repeat())
    _refused(method, "tfds.as_numpy", x=tfds.as_numpy(data))
    images = data.map(lambda v: tf.cast(v * 255, tf.uint8))
    _refused(method, "floating-point numbers", x=images)


def test_an_output_that_cannot_reach_its_code_is_refused():
    outer = layers.SparseDense(5, "tanh")
    inner = layers.SparseDense(3, "tanh")
    encoder = keras.Sequential([keras.Input((6,)), outer, inner])
    back = [keras.layers.Dense(5, "sigmoid"), keras.layers.Dense(6)]
    decoder = keras.Sequential([keras.Input((3,)), *back])
    model = models.Autoencoder(encoder, decoder)
    _refused(pretraining.greedy, r"codes in \[-1, 1\]", model)
