"""Greedy pretraining: against NumPy, in place, larger than memory, resumable."""

import itertools
import json
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
from keras_sae.models.data_adapter import array_dataset
from keras_sae.pretraining import _sources
from keras_sae.pretraining._adam import FusedAdam, fused
from keras_sae.pretraining._sources import Rows
from keras_sae.regularizers import L1


def _stack(units=(5, 3), **kwargs):
    settings = {"output_activation": "sigmoid", "centering": False, **kwargs}
    sigmoids = {"activation": "sigmoid", "code_activation": "sigmoid"}
    return models.stacked((6,), units, **sigmoids, **settings)


def _data(rng, samples=32, size=6):
    return rng.random((samples, size), dtype="float32")


class _Watch(keras.callbacks.Callback):
    """Keeps what `fit` was called with, level by level."""

    def __init__(self):
        super().__init__()
        self.models, self.epochs, self.weights = [], [], []

    def on_train_begin(self, logs=None):
        self.models.append(self.model)
        self.epochs.append([])

    def on_epoch_end(self, epoch, logs=None):
        self.epochs[-1].append(epoch)


class _StoppedError(Exception):
    pass


class _StopAt(_Watch):
    """Interrupts a level at the end of an epoch."""

    def __init__(self, level, epoch):
        super().__init__()
        self.at = (level, epoch)

    def on_epoch_begin(self, epoch, logs=None):
        if (len(self.models) - 1, epoch) == self.at:
            raise _StoppedError


def _descend(h, W, b, V, c, epochs, rate, factor, target=None):
    """Full-batch gradient descent on mse + L1 of one level, by hand, in float64."""
    target = h if target is None else target
    for _ in range(epochs):
        code = sigmoid(h @ W + b)
        rebuilt = sigmoid(code @ V + c)
        slope = 2 * (rebuilt - target) / h.size * rebuilt * (1 - rebuilt)
        back = slope @ V.T + factor * np.sign(code) / len(h)
        back = back * code * (1 - code)
        V, c = V - rate * code.T @ slope, c - rate * slope.sum(axis=0)
        W, b = W - rate * h.T @ back, b - rate * back.sum(axis=0)
    return W, b, V, c


def _dense_of(level):
    code = next(x for x in level.encode if isinstance(x, layers.SparseDense))
    output = next(x for x in level.decode if isinstance(x, keras.layers.Dense))
    return [to_numpy(w) for w in (code.kernel, code.bias, output.kernel, output.bias)]


def test_each_level_descends_as_by_hand(rng):
    x = _data(rng)
    model = _stack(sparsity=L1(0.01))
    expected = [_dense_of(level) for level in model.levels]
    pretraining.greedy(
        model,
        x,
        [4, 3],
        batch_size=32,
        optimizer=keras.optimizers.SGD(0.5),
        verbose=0,
    )
    below = x.astype("float64")
    for level, epochs, start in zip(model.levels, [4, 3], expected, strict=True):
        trained = _descend(below, *start, epochs, 0.5, 0.01)
        for one, other in zip(_dense_of(level), trained, strict=True):
            np.testing.assert_allclose(one, other, atol=2e-6)
        below = sigmoid(below @ trained[0] + trained[1])


def test_a_level_is_trained_on_the_clean_code_of_the_level_below(rng):
    x = _data(rng)
    model = _stack(corruption=layers.MaskingNoise(0.5, seed=1))
    watch = _Watch()
    pretraining.greedy(model, x, 1, batch_size=32, callbacks=[watch], verbose=0)
    first, second = watch.models
    assert any(isinstance(x, layers.MaskingNoise) for x in first.encoder.layers)
    assert not any(isinstance(x, layers.MaskingNoise) for x in second.encoder.layers)
    code = first.encoder.predict(x, verbose=0)
    np.testing.assert_allclose(
        second.encoder.predict(code, verbose=0), model.encode(x), atol=1e-6
    )
    level = model.levels[0].encode[-1]
    by_hand = sigmoid(x @ to_numpy(level.kernel) + to_numpy(level.bias))
    np.testing.assert_allclose(code, by_hand, atol=1e-6)


def test_several_corruptions_are_one_layer(rng):
    """As a model in its place: of one alone, it is that one."""
    noise, x = layers.MaskingNoise(0.5, seed=1), _data(rng)
    found = []
    for corruption in (noise, keras.Sequential([noise]), None):
        keras.utils.set_random_seed(0)  # of the order of the samples
        model = _stack(corruption=corruption)
        for level in model.levels:
            for layer in (level.encode[-1], level.decode[0]):
                layer.kernel.assign(0.1 * np.ones(layer.kernel.shape))
        pretraining.greedy(model, x, 20, 16, keras.optimizers.SGD(1.0), verbose=0)
        found.append(model.encode(x))
    np.testing.assert_array_equal(found[0], found[1])
    assert np.abs(found[0] - found[2]).max() > 1e-4


def test_the_code_below_is_computed_once_a_level(rng, monkeypatch):
    calls = []
    predict = keras.Model.predict_on_batch
    monkeypatch.setattr(
        keras.Model,
        "predict_on_batch",
        lambda self, *args, **kwargs: (
            calls.append(self.name) or predict(self, *args, **kwargs)
        ),
    )
    model = _stack((5, 4, 3))
    pretraining.greedy(model, _data(rng), 3, batch_size=32, verbose=0)
    assert len(calls) == 2  # a batch a level, and not for the innermost one


def test_only_the_level_under_way_is_trained(rng):
    model = _stack((5, 4, 3))
    snapshots = []

    class Snapshot(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if BACKEND == "jax":  # the variables are written back after the epoch
                self.model.jax_state_sync()
            snapshots.append([_dense_of(level) for level in model.levels])

    pretraining.greedy(
        model, _data(rng), 1, batch_size=32, callbacks=[Snapshot()], verbose=0
    )
    snapshots.append([_dense_of(level) for level in model.levels])
    for step in range(3):
        for level in range(3):
            pairs = zip(snapshots[step][level], snapshots[step + 1][level], strict=True)
            moved = any(not np.array_equal(a, b) for a, b in pairs)
            assert moved == (level == step)


def test_epochs_losses_optimizers_and_callbacks_one_a_level(rng):
    watches = [_Watch(), _Watch()]
    histories = pretraining.greedy(
        _stack(),
        _data(rng),
        [2, 3],
        batch_size=16,
        optimizer=["sgd", keras.optimizers.Adam(0.01)],
        loss=["binary_crossentropy", "mse"],
        callbacks=[[watch] for watch in watches],
        validation_data=_data(rng, 8),
        verbose=0,
    )
    assert [len(h.epoch) for h in histories] == [2, 3]
    assert all("val_explained_variance" in h.history for h in histories)
    first, second = (watch.models[0] for watch in watches)
    assert isinstance(first.optimizer, keras.optimizers.SGD)
    assert isinstance(second.optimizer, keras.optimizers.Adam)
    assert (first.loss, second.loss) == ("binary_crossentropy", "mse")
    # A crossentropy in nats a value starts near log 2, a squared error far below.
    assert histories[0].history["loss"][0] > 0.5 > histories[1].history["loss"][0]


def test_an_optimizer_passed_is_not_touched(rng):
    optimizer = keras.optimizers.Adam(0.02)
    watch = _Watch()
    model, x = _stack(), _data(rng)
    pretraining.greedy(model, x, 1, 16, optimizer, callbacks=[watch], verbose=0)
    assert not optimizer.built
    used = [stage.optimizer for stage in watch.models]
    assert len({id(x) for x in [optimizer, *used]}) == 3
    for fresh in used:
        assert float(to_numpy(fresh.learning_rate)) == pytest.approx(0.02)
        assert int(to_numpy(fresh.iterations)) == 2


def test_the_models_own_compilation_is_left_as_it_was(rng):
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


@pytest.mark.skipif(BACKEND == "torch", reason="Keras has one step a call there.")
@pytest.mark.parametrize("pretrain", [pretraining.greedy, pretraining.boltzmann])
def test_levels_run_as_many_steps_a_call_as_the_model(rng, pretrain):
    x, watch = _data(rng), _Watch()

    def trained(**options):
        keras.utils.set_random_seed(0)
        model = _stack()
        model.compile("sgd", **options)
        pretrain(model, x, 2, batch_size=8, callbacks=[watch], verbose=0)
        return weights_of(model)

    many = {"tensorflow": 32, "jax": 1}[BACKEND]
    assert_same_weights(trained(), trained(steps_per_execution=3))
    taken = [level.steps_per_execution for level in watch.models]
    assert taken == [many, many, 3, 3]


class _Counts(keras.callbacks.Callback):
    """Counts the steps it is shown."""

    def __init__(self):
        super().__init__()
        self.steps = 0

    def on_train_batch_end(self, batch, logs=None):
        self.steps += 1


def _lambda_count(counts):
    return keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: counts.on_train_batch_end(batch)
    )


@pytest.mark.parametrize("pretrain", [pretraining.greedy, pretraining.boltzmann])
@pytest.mark.parametrize("as_callback", [lambda counts: counts, _lambda_count])
def test_a_callback_that_looks_at_steps_sees_each(rng, pretrain, as_callback):
    counts = _Counts()
    x, callbacks = _data(rng), [as_callback(counts)]
    pretrain(_stack(), x, 2, batch_size=8, callbacks=callbacks, verbose=0)
    assert counts.steps == 2 * 2 * 4
    # Those of one level leave the other alone.
    callbacks = [[], [as_callback(counts)]]
    pretrain(_stack(), x, 2, batch_size=8, callbacks=callbacks, verbose=0)
    assert counts.steps == 3 * 2 * 4


@pytest.mark.skipif(BACKEND == "torch", reason="Keras has one step a call there.")
@pytest.mark.parametrize("pretrain", [pretraining.greedy, pretraining.boltzmann])
def test_weights_and_logs_do_not_depend_on_the_steps_a_call(rng, pretrain):
    x = _data(rng, 31)  # and a last batch of another size

    def trained(callbacks):
        keras.utils.set_random_seed(0)
        model, held_out = _stack(), x[:9]
        histories = pretrain(
            model, x, 3, 4, callbacks=callbacks, validation_data=held_out, verbose=0
        )
        return weights_of(model), [history.history for history in histories]

    many, logs = trained([])
    one, expected = trained([_Counts()])
    assert_same_weights(many, one)
    assert logs == expected


def test_an_array_is_not_copied_to_be_looked_at(rng):
    x = _data(rng)
    assert _sources.open_source(x, x.shape[1:], 8) is x


@pytest.mark.parametrize("samples", [1, 15, 16, 17, 32, 39])
def test_codes_of_an_array_are_made_in_batches_of_one_size(rng, samples, monkeypatch):
    """Of eight times the batch size, or of all samples; each row its own code."""
    sizes = set()
    encode_batch = _sources._encode_batch

    def record(encoder, batch):
        sizes.add(len(batch))
        return encode_batch(encoder, batch)

    monkeypatch.setattr(_sources, "_encode_batch", record)
    encoder, x = _stack().encoder, _data(rng, samples)
    codes = _sources.encode(encoder, x, 2, path=None)
    assert sizes == {min(16, samples)}
    np.testing.assert_allclose(codes, to_numpy(encoder(x)), atol=1e-6)


@tensorflow_only
def test_the_codes_of_a_level_are_trained_on_where_they_lie(rng):
    codes = _sources.encode(_stack().encoder, _data(rng), 8, path=None)
    writer = codes.view()
    writer.flags.writeable = True
    batches = array_dataset([codes], 8)
    writer[...] = 7
    assert all((batch.numpy() == 7).all() for (batch,) in batches)


def _adam_settings():
    schedule = keras.optimizers.schedules.CosineDecay(0.05, 6)
    return {
        "plain": {},
        "constants": {"learning_rate": 0.1, "beta_1": 0.5, "beta_2": 0.9},
        "epsilon": {"epsilon": 0.3},
        "schedule": {"learning_rate": schedule},
        "decay": {"weight_decay": 0.1},
        "clipped": {"clipnorm": 0.1},
        "averaged": {"use_ema": True, "ema_momentum": 0.5},
        "accumulated": {"gradient_accumulation_steps": 3},
        "amsgrad": {"amsgrad": True},
    }


@pytest.mark.parametrize("name", _adam_settings())
def test_levels_get_kerass_own_adam_but_for_rounding(rng, name):
    settings = _adam_settings()[name]
    start = rng.standard_normal((7, 3)).astype("float32")
    slopes = rng.standard_normal((8, 7, 3)).astype("float32")
    slopes[4] = 0  # and momentum alone

    def states(make):
        weight, adam = keras.Variable(start), make(keras.optimizers.Adam(**settings))
        for slope in slopes:
            adam.apply([keras.ops.convert_to_tensor(slope)], [weight])
        return [to_numpy(v) for v in [weight, *adam.variables]]

    # Some ulps a step: TensorFlow's operation multiplies and adds in one go.
    for one, other in zip(states(fused), states(lambda adam: adam), strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-5, atol=2e-6)


@tensorflow_only
@pytest.mark.parametrize("amsgrad", [False, True])
def test_a_weight_is_moved_by_one_operation(rng, amsgrad):
    watch = _Watch()
    x, adam = _data(rng), keras.optimizers.Adam(amsgrad=amsgrad)
    pretraining.greedy(_stack(), x, 1, 8, adam, callbacks=[watch], verbose=0)
    for level in watch.models:
        step = tf_operations(level, x if level is watch.models[0] else x[:, :5])
        moved = step.count("ResourceApplyAdam")
        assert moved == (0 if amsgrad else len(level.trainable_variables))


def tf_operations(model, x):
    """The kinds of operations in one training step of a model."""
    import tensorflow as tf

    step = tf.function(lambda: model.train_step(tf.constant(x)))
    return [
        operation.type
        for operation in step.get_concrete_function().graph.get_operations()
    ]


@tensorflow_only
def test_adam_of_sparse_gradients_is_kerass_own():
    import tensorflow as tf

    slope = tf.IndexedSlices(tf.constant([[2.0, -1.0]]), tf.constant([1]), (3, 2))

    def moved(adam):
        weight = keras.Variable(np.ones((3, 2), "float32"))
        adam.apply([slope], [weight])
        return to_numpy(weight)

    one, other = moved(fused(keras.optimizers.Adam())), moved(keras.optimizers.Adam())
    np.testing.assert_array_equal(one, other)


def test_only_adam_itself_is_replaced():
    class Own(keras.optimizers.Adam):
        pass

    for optimizer in (Own(), keras.optimizers.AdamW(), keras.optimizers.Nadam()):
        assert fused(optimizer) is optimizer
    adam = keras.optimizers.Adam(0.02)
    assert fused(adam).get_config() == adam.get_config()


def test_a_level_saved_by_a_callback_is_loaded(rng, tmp_path):
    path = tmp_path / "level.keras"
    saver = keras.callbacks.ModelCheckpoint(path)
    x, model = _data(rng), _stack()
    pretraining.greedy(model, x, 2, 8, callbacks=[[saver], []], verbose=0)
    level = keras.saving.load_model(path)
    # On PyTorch Keras has an Adam of its own, which is left as it is.
    kept = keras.optimizers.Adam if BACKEND == "torch" else FusedAdam
    assert isinstance(level.optimizer, kept)
    assert int(to_numpy(level.optimizer.iterations)) == 8
    level.fit(x, batch_size=8, verbose=0)


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


@pytest.mark.parametrize("activation", ["relu", "silu", "mish", "tanh", "linear"])
def test_a_code_of_any_range_is_rebuilt(rng, activation):
    model = models.deep((6,), (5, 3), activation=activation)
    x = 4 * rng.standard_normal((512, 6)).astype("float32")  # to the ends of the range
    histories = pretraining.greedy(model, x, 2, batch_size=64, verbose=0)
    assert len(histories) == 2


def test_pretraining_lowers_the_error_of_the_unrolled_model(rng):
    factors = rng.standard_normal((256, 2)) @ rng.standard_normal((2, 6))
    x = (1 / (1 + np.exp(-2 * factors))).astype("float32")
    model = _stack((6, 4))
    model.compile("adam")
    before = model.evaluate(x, verbose=0)[0]
    pretraining.greedy(model, x, 40, 64, keras.optimizers.Adam(0.05), verbose=0)
    assert model.evaluate(x, verbose=0)[0] < before / 3


def test_batch_normalisation_and_a_decoder_of_another_range(rng):
    model = models.deep((6,), (5, 3), batch_normalization=True)
    pretraining.greedy(model, _data(rng), 1, batch_size=16, verbose=0)


@pytest.mark.parametrize("activation", ["sigmoid", "tanh"])
def test_a_code_behind_batch_normalisation_has_no_range(rng, activation):
    """In few steps the moving averages hardly move, and the codes stay in range."""
    model = models.stacked(
        (12,), (10, 6), activation=activation, batch_normalization=True
    )
    x = rng.random((512, 12), dtype="float32")
    histories = pretraining.greedy(model, x, 20, batch_size=16, verbose=0)
    encode = keras.Sequential([keras.layers.Input((12,)), *model.levels[0].encode])
    code = encode.predict(x, verbose=0)
    assert code.min() < -1 or code.max() > 1  # or this has shown nothing
    assert len(histories[1].epoch) == 20


def test_labels_are_no_part_of_what_is_rebuilt(rng):
    x = _data(rng)
    with pytest.raises(ValueError, match=r"a tuple of 2\. Pass the first"):
        pretraining.greedy(_stack((5, 4)), (x, np.arange(len(x)) % 2), 1, verbose=0)


def test_no_optimizer(rng):
    with pytest.raises(ValueError, match="`optimizer` must be"):
        pretraining.greedy(_stack((5, 4)), _data(rng), 1, optimizer=None, verbose=0)


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


of_pytorch = pytest.mark.skipif(
    keras.config.backend() != "torch", reason="runs on the PyTorch backend only"
)


@pytest.mark.parametrize(
    "kind", ["dataset", "pydataset", "memmap", pytest.param("loader", marks=of_pytorch)]
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
    held_out = _stream(kind, x[:8], tmp_path) if kind != "memmap" else x[:8]
    histories = pretraining.greedy(
        other, stream, 1, validation_data=held_out, **settings
    )
    for a, b in zip(weights_of(one), weights_of(other), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    assert all("val_loss" in history.history for history in histories)


def test_rows_on_disk_are_all_seen_each_epoch_in_a_new_order():
    rows = Rows(np.arange(10.0)[:, None], 4, shuffle=True)
    seen = []
    for _ in range(3):
        parts = [rows[i][0][:, 0].tolist() for i in range(len(rows))]
        assert [len(part) for part in parts] == [4, 4, 2]
        assert sorted(itertools.chain(*parts)) == list(range(10))
        seen.append(parts)
        rows.on_epoch_end()
    assert seen[0] != seen[1] != seen[2]
    still = Rows(np.arange(10.0)[:, None], 4, shuffle=False)
    still.on_epoch_end()
    assert still[1][0][:, 0].tolist() == [4, 5, 6, 7]


def test_a_stream_of_pairs_gives_the_first_level_its_target(rng):
    import tensorflow as tf

    clean = _data(rng)
    noisy = np.clip(clean + 0.1, 0, 1)
    data = tf.data.Dataset.from_tensor_slices((noisy, clean)).batch(32)
    model = _stack()
    first = _dense_of(model.levels[0])
    rate = keras.optimizers.SGD(0.5)
    pretraining.greedy(model, data, 2, optimizer=rate, verbose=0)
    # By hand, the slope is of the clean target.
    trained = _descend(noisy, *first, 2, 0.5, 0.0, target=clean)
    for one, other in zip(_dense_of(model.levels[0]), trained, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-6)


_BIG = """
import resource, sys
import numpy as np
import keras
from keras_sae import models, pretraining

SAMPLES, SIZE, WIDTH = 210_000, 256, 256  # 205 MiB of data, as much of codes


class Stream(keras.utils.PyDataset):
    def __len__(self):
        return SAMPLES // 500

    def __getitem__(self, i):
        rng = np.random.default_rng(i)
        return (rng.random((500, SIZE), dtype="float32"),)


def build():
    return models.deep((SIZE,), (WIDTH, 4), activation="sigmoid")


def data_size():
    line = next(x for x in open("/proc/self/status") if x.startswith("VmData"))
    return int(line.split()[1]) * 1024


class Small(Stream):
    def __len__(self):
        return 2


pretraining.greedy(build(), Small(), 1, 500, verbose=0)  # what the libraries need
limit = data_size() + 150 * 2**20
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
try:
    np.ones((SAMPLES, SIZE), "float32")
except MemoryError:
    print("too large for memory")
histories = pretraining.greedy(build(), Stream(), 1, 500, verbose=0)
print(len(histories), "levels")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is that of Linux")
def test_data_and_codes_may_be_larger_than_memory():
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(_BIG)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split("\n")[:2] == ["too large for memory", "2 levels"]


# Two devices made of one processor, which TensorFlow allows before its first use only.
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
    return model.get_weights()


for optimizer in (keras.optimizers.SGD(0.5), keras.optimizers.Adam(epsilon=1e-3)):
    both = [trained(pretraining.greedy, s, optimizer=optimizer) for s in (None, two)]
    print(all(np.allclose(one, other, atol=1e-5) for one, other in zip(*both)))
print(all(np.isfinite(w).all() for w in trained(pretraining.boltzmann, two)))

with two.scope():
    model = models.shallow((6,), 5)
    model.compile("sgd")
    model.fit(x, batch_size=16, epochs=2, verbose=0)
mean = model.encoder.get_layer("center").mean.numpy()
print(np.allclose(mean, x.mean(axis=0), atol=1e-6))
"""


@tensorflow_only
def test_levels_are_trained_across_replicas():
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(_REPLICAS)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == ["True"] * 4


# Interruptions.


def _resumable(rng_seed=0, **kwargs):
    keras.utils.set_random_seed(rng_seed)
    x = _data(np.random.default_rng(0))
    model = _stack((5, 4))

    def go(**more):
        settings = {"optimizer": "adam", "verbose": 0, **kwargs, **more}
        return pretraining.greedy(model, x, 3, batch_size=32, **settings)

    return model, go


def test_a_call_that_was_cut_off_goes_on_where_it_was(tmp_path):
    whole, go = _resumable()
    expected = go()
    _, go = _resumable(directory=tmp_path / "run")
    with pytest.raises(_StoppedError):
        go(callbacks=[_StopAt(1, 2)])
    assert (tmp_path / "run" / "level-0.npz").exists()
    again, go = _resumable(directory=tmp_path / "run")
    for weight in again.weights:  # a new process begins with other weights
        weight.assign(to_numpy(weight) * 0 + 0.3)
    watch = _Watch()
    histories = go(callbacks=[watch])
    assert watch.epochs == [[2]]  # the first level is not trained again
    for a, b in zip(weights_of(whole), weights_of(again), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    for one, other in zip(expected, histories, strict=True):
        assert other.epoch == one.epoch == [0, 1, 2]
        np.testing.assert_allclose(
            other.history["loss"], one.history["loss"], rtol=1e-4
        )
    names = sorted(path.name for path in (tmp_path / "run").iterdir())
    assert names == ["level-0.npz", "level-1.npz", "settings.json"]


def test_codes_that_a_killed_run_left_are_cleared_away(tmp_path):
    _, go = _resumable(directory=tmp_path / "run")
    with pytest.raises(_StoppedError):
        go(callbacks=[_StopAt(1, 2)])
    left = tmp_path / "run" / ".unfinished-of_a_killed_run"
    left.mkdir()
    (left / "train-0").write_bytes(b"codes")
    go()
    assert not left.exists()


@pytest.mark.skipif(
    keras.config.backend() == "jax", reason="JAX has no float64 unless it is told to"
)
def test_weights_are_kept_in_their_own_precision(tmp_path):
    from keras_sae.pretraining._progress import Progress

    def make():
        layer = keras.layers.Dense(5, dtype="float64")
        return keras.Sequential([keras.layers.Input((6,), dtype="float64"), layer])

    model = make()
    for weight in model.weights:
        weight.assign(to_numpy(weight) + np.pi)
    progress = Progress(tmp_path / "run", {})
    progress.save(0, model, {"epoch": [], "history": {}})
    again = make()
    progress.load(0, again)
    assert_same_weights(weights_of(model), weights_of(again))


def test_a_finished_call_is_not_repeated(tmp_path):
    model, go = _resumable(directory=tmp_path / "run")
    first = go()
    before = weights_of(model)
    watch = _Watch()
    again = go(callbacks=[watch])
    assert watch.epochs == []
    assert_same_weights(before, weights_of(model))
    assert [h.history for h in again] == [h.history for h in first]


def test_a_level_cut_off_before_it_was_kept_is_kept_now(tmp_path, monkeypatch):
    from keras_sae.pretraining._progress import Progress

    def fail(*args):
        raise _StoppedError

    _, go = _resumable(directory=tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(Progress, "save", fail)
        with pytest.raises(_StoppedError):
            go()
    _, go = _resumable(directory=tmp_path / "run")
    watch = _Watch()
    histories = go(callbacks=[watch])
    assert watch.epochs == [[], [0, 1, 2]]
    assert histories[0].epoch == [0, 1, 2]


def test_a_backup_cut_off_in_the_middle_is_survived(tmp_path):
    _, go = _resumable(directory=tmp_path / "run")
    with pytest.raises(_StoppedError):
        go(callbacks=[_StopAt(0, 2)])
    (tmp_path / "run" / "level-0" / "training_metadata.json").write_text("")
    assert [h.epoch for h in _resumable(directory=tmp_path / "run")[1]()] == [
        [0, 1, 2]
    ] * 2


@pytest.mark.parametrize(
    "change", [{"optimizer": "sgd"}, {"loss": "mae"}, {"sparsity": "l1"}]
)
def test_the_folder_of_another_pretraining_is_an_error(tmp_path, change):
    _, go = _resumable(directory=tmp_path / "run")
    go()
    sparsity = change.pop("sparsity", None)
    model, x = _stack((5, 4), sparsity=sparsity), _data(np.random.default_rng(0))
    settings = {"directory": tmp_path / "run", "verbose": 0, **change}
    with pytest.raises(ValueError, match=r"another model, data or\s+settings"):
        pretraining.greedy(model, x, 3, batch_size=32, **settings)
    settings = {"directory": tmp_path / "run", "verbose": 0}
    with pytest.raises(ValueError, match="data was"):
        pretraining.greedy(_stack((5, 4)), x[::-1], 3, batch_size=32, **settings)


def test_other_held_out_data_is_another_pretraining(tmp_path):
    """Its figures are in the logs, and a callback may stop by them."""
    held_out = _data(np.random.default_rng(1))
    _, go = _resumable(directory=tmp_path / "run", validation_data=held_out)
    first = go()
    assert [h.history for h in go()] == [h.history for h in first]
    for other in (held_out[::-1], None, (held_out, held_out)):
        with pytest.raises(ValueError, match="validation_data was"):
            go(validation_data=other)


def test_a_folder_of_other_files_is_an_error(tmp_path):
    (tmp_path / "letter.txt").write_text("dear")
    _, go = _resumable(directory=tmp_path)
    with pytest.raises(ValueError, match="not of a pretraining"):
        go()
    _, go = _resumable(directory=tmp_path / "letter.txt")
    with pytest.raises(ValueError, match="which is a file"):
        go()


def test_settings_are_readable(tmp_path):
    _, go = _resumable(directory=tmp_path / "run")
    go()
    settings = json.loads((tmp_path / "run" / "settings.json").read_text())
    assert settings["method"] == "greedy"
    assert settings["epochs"] == [3, 3]
    assert settings["optimizer"][0]["class_name"] == "Adam"


# Progress.


def test_levels_are_announced(rng, capsys):
    pretraining.greedy(_stack(), _data(rng), 1, batch_size=16, verbose=2)
    out = capsys.readouterr().out
    assert "Level 1 of 2: 6 -> 5" in out
    assert "Level 2 of 2: 5 -> 3" in out
    pretraining.greedy(_stack(), _data(rng), 1, batch_size=16, verbose=0)
    assert capsys.readouterr().out == ""


# Bad input.


def _bad(method, match, model=None, x=None, epochs=1, **kwargs):
    x = _data(np.random.default_rng(0)) if x is None else x
    model = _stack() if model is None else model
    before = weights_of(model) if isinstance(model, keras.Model) else None
    settings = {"batch_size": 16, "verbose": 0, **kwargs}
    with pytest.raises(ValueError, match=match):
        method(model, x, epochs, **settings)
    if before is not None:
        assert_same_weights(before, weights_of(model))


both = pytest.mark.parametrize(
    "method", [pretraining.greedy, pretraining.boltzmann], ids=["greedy", "boltzmann"]
)


@both
def test_models_without_levels_are_refused(method):
    _bad(method, "nothing to pretrain", models.variational((6,), (5,), 2))
    _bad(method, "nothing to pretrain", models.convolutional((8, 8, 1), (2, 3)))
    plain = keras.Sequential([keras.Input((6,)), keras.layers.Dense(6)])
    _bad(method, "must be a `keras_sae", plain)
    _bad(method, "must be a `keras_sae", "model")


@both
@pytest.mark.parametrize(
    "loss",
    [
        "sparse_categorical_crossentropy",
        keras.losses.categorical_crossentropy,
        keras.losses.SparseCategoricalCrossentropy(),
        ["categorical_crossentropy"],
        keras.losses.CategoricalGeneralizedCrossEntropy(),
        "circle",
    ],
)
def test_a_model_compiled_for_classes_is_refused(method, loss):
    model = _stack()
    model.compile("adam", loss)
    _bad(method, "something else", model)


def test_a_loss_of_classes_is_refused(rng):
    with pytest.raises(ValueError, match=r"not with a class. Received: loss="):
        pretraining.greedy(_stack(), _data(rng), 1, loss="categorical_crossentropy")


@both
def test_a_frozen_model_has_nothing_to_pretrain(method):
    model = _stack()
    model.trainable = False
    _bad(method, "none of its weights is trainable.*Set `trainable = True`", model)


def test_a_level_that_cannot_be_trained_is_refused_before_any_is(rng):
    """Winners take all of a batch, which one sample is none of."""
    watch = _Watch()
    model = _stack(sparsity=[None, layers.LifetimeSparsity(0.1)])
    with pytest.raises(ValueError, match="`LifetimeSparsity` chooses over the samples"):
        pretraining.greedy(model, _data(rng), 1, 1, callbacks=[watch], verbose=0)
    assert not watch.models


@pytest.mark.parametrize("there", [True, False])
def test_a_refusal_leaves_no_folder(rng, tmp_path, there):
    """What is mended is another call: it may have the same folder."""
    folder, x = tmp_path / "run", _data(rng)
    if there:
        folder.mkdir()
    options = {"directory": folder, "verbose": 0}
    for call in (
        lambda: pretraining.greedy(_stack(), x * 3, 1, 16, **options),
        lambda: pretraining.boltzmann(_stack(), x * 3, 1, 16, **options),
        lambda: pretraining.greedy(
            _stack(), x, 1, 16, validation_data=(x, x[:, :3]), **options
        ),
    ):
        with pytest.raises(ValueError, match=r"Received"):
            call()
        assert folder.exists() is there
        assert not there or list(folder.iterdir()) == []
    pretraining.greedy(_stack(), x, 1, 16, **options)
    with pytest.raises(ValueError, match=r"Received"):
        pretraining.greedy(_stack(), x, 2, 16, **options)
    assert (folder / "level-0.npz").exists()


def test_a_file_of_other_values_is_another_pretraining(rng, tmp_path):
    """A `numpy.memmap` is streamed, but its values can be told."""

    def go(values):
        path = tmp_path / "x.bin"
        values.tofile(path)
        x = np.memmap(path, "float32", "r", shape=values.shape)
        folder = {"directory": tmp_path / "run", "verbose": 0}
        return pretraining.greedy(_stack(), x, 1, 16, **folder)

    values = _data(rng)
    first = go(values)
    assert [h.history for h in go(values)] == [h.history for h in first]
    with pytest.raises(ValueError, match="data was"):
        go(values / 2)


@both
def test_callbacks_that_are_none(method):
    _bad(method, "`callbacks` must be a list", _stack(), callbacks="early")


@both
@pytest.mark.parametrize("epochs", [0, -1, 1.5, None, [1], [1, 2, 3], [1, 0], True])
def test_epochs_are_positive_and_one_a_level(method, epochs):
    _bad(method, "epochs", epochs=epochs)


@both
def test_lists_have_one_entry_a_level(method):
    _bad(method, "callbacks", callbacks=[[]])
    _bad(method, "batch_size", batch_size=0)
    rate = "optimizer" if method is pretraining.greedy else "learning_rate"
    _bad(method, rate, **{rate: [0.1, 0.1, 0.1]})


class Again:
    """Starts again, but Keras cannot fit it."""

    def __init__(self, x):
        self.x = x

    def __iter__(self):
        return iter([self.x])


@both
def test_data_that_cannot_be_trained_on_is_refused(method):
    x = _data(np.random.default_rng(0))
    broken = x.copy()
    broken[3, 2] = np.nan
    _bad(method, "shape", x=x[:, :5])
    _bad(method, "no samples", x=x[:0])
    _bad(method, "finite", x=broken)
    _bad(method, "fewer samples", batch_size=64)
    _bad(method, r"\[0, 1\]", x=x * 3)
    _bad(method, "starts again", x=(batch for batch in [x]))
    _bad(method, "starts again", x=3)
    _bad(method, "starts again", x=Again(x))
    _bad(method, "no batches", x=_Batches(x[:0]))
    _bad(method, "shape", x=_Batches(x[:, :5]))
    _bad(method, "finite", x=_Batches(broken))


@both
def test_endless_and_integer_datasets_are_refused(method):
    import tensorflow as tf

    x = _data(np.random.default_rng(0))
    data = tf.data.Dataset.from_tensor_slices(x).batch(16)
    _bad(method, "never ends", x=data.repeat())
    _bad(method, "integers", x=data.map(lambda v: tf.cast(v * 255, tf.uint8)))


def test_an_output_that_cannot_reach_its_code_is_refused():
    outer = layers.SparseDense(5, "tanh")
    inner = layers.SparseDense(3, "tanh")
    encoder = keras.Sequential([keras.Input((6,)), outer, inner])
    back = [keras.layers.Dense(5, "sigmoid"), keras.layers.Dense(6)]
    decoder = keras.Sequential([keras.Input((3,)), *back])
    model = models.Autoencoder(encoder, decoder)
    _bad(pretraining.greedy, r"'tanh' takes values in \[-1, 1\]", model)


def test_a_level_that_diverges_says_so(tmp_path):
    x = _data(np.random.default_rng(0))
    model = models.deep((6,), (5, 3), activation="linear")
    rate = keras.optimizers.SGD(1e20)
    settings = {"directory": tmp_path / "run", "verbose": 0, "optimizer": rate}
    with pytest.raises(ValueError, match="Level 0 diverged"):
        pretraining.greedy(model, x, 9, 16, **settings)
    assert not (tmp_path / "run" / "level-0").exists()
