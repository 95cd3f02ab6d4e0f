"""Arrays as TensorFlow datasets, and what is prepared before training starts."""

import gc
import inspect
import weakref
from functools import partial

import keras
import numpy as np
import pytest
from helpers import tensorflow_only, weights_of

from keras_sae import models
from keras_sae.models.data_adapter import array_dataset

SHAPE, UNITS = (6, 6), 8
SAMPLES, BATCH = 20, 8  # The last batch has 4 samples.


def make():
    model = models.shallow(SHAPE, UNITS, "l1")
    model.compile("adam", jit_compile=False)
    return model


@pytest.fixture
def x(rng):
    return rng.uniform(size=(SAMPLES, *SHAPE)).astype("float32")


@pytest.mark.parametrize(
    "settings",
    [
        {"batch_size": BATCH, "initial_epoch": 1, "validation": True},
        {"validation": True, "validation_batch_size": 5},
        {"batch_size": 5, "target": True},
    ],
    ids=["validation", "default-batch", "target"],
)
def test_fit_equals_keras_fit_for_arrays(x, rng, settings):
    settings = dict(settings)
    target = x[::-1].copy() if settings.pop("target", False) else None
    if settings.pop("validation", False):
        validation_data = rng.uniform(size=(13, *SHAPE)).astype("float32")
        settings["validation_data"] = (validation_data,)

    def train(fit):
        keras.utils.set_random_seed(3)
        model = make()
        history = fit(model)(x, target, epochs=3, verbose=0, **settings)
        return weights_of(model), history.history

    weights, logs = train(lambda model: model.fit)
    expected_weights, expected_logs = train(
        lambda model: partial(keras.Model.fit, model)
    )
    assert logs == expected_logs
    for weight, expected in zip(weights, expected_weights, strict=True):
        np.testing.assert_array_equal(weight, expected)


@pytest.fixture
def keras_fit_arguments(monkeypatch):
    """Replace `keras.Model.fit` by a function that records its arguments."""
    calls = []

    def record(self, **kwargs):
        calls.append(kwargs)

    record.__signature__ = inspect.signature(keras.Model.fit)
    monkeypatch.setattr(keras.Model, "fit", record)
    return calls


@tensorflow_only
def test_arrays_become_a_dataset_without_autotuning(x, keras_fit_arguments):
    make().fit(x, batch_size=BATCH, epochs=2)
    arguments = keras_fit_arguments.pop()
    data = arguments.pop("x")
    assert data.options().autotune.enabled is False
    assert data.cardinality().numpy() == 3
    assert data.element_spec[0].shape == (None, *SHAPE)
    assert arguments == {
        "y": None,
        "batch_size": None,
        "epochs": 2,
        "shuffle": False,
        "validation_batch_size": BATCH,
    }
    rows = np.concatenate([batch.numpy() for (batch,) in data])
    assert not np.array_equal(rows, x)
    np.testing.assert_array_equal(np.sort(rows, axis=0), np.sort(x, axis=0))


@pytest.mark.parametrize(
    "settings",
    [
        {"shuffle": False},
        {"shuffle": "batch"},
        {"steps_per_epoch": 2},
        {"validation_split": 0.5},
    ],
    ids=str,
)
def test_keras_gets_the_array_with_arguments_that_datasets_lack(
    x, settings, keras_fit_arguments
):
    make().fit(x, batch_size=BATCH, **settings)
    arguments = keras_fit_arguments.pop()
    assert arguments.pop("x") is x
    assert arguments == {"y": None, "batch_size": BATCH, **settings}


@tensorflow_only
def test_batch_size_is_static_if_it_divides_the_samples(x):
    (spec,) = array_dataset([x], 5).element_spec
    assert spec.shape == (5, *SHAPE)


@tensorflow_only
@pytest.mark.parametrize(
    "change",
    [
        np.asfortranarray,
        lambda array: array[::-1],
        lambda array: np.broadcast_to(array[:1], (6, 2)),
        lambda array: array.astype("int64"),
        lambda array: array.astype("float16"),
    ],
    ids=["fortran", "reversed", "broadcast", "int64", "float16"],
)
def test_dataset_has_the_rows_of_any_array(change):
    array = change(np.arange(12, dtype="float32").reshape(6, 2))
    rows = np.concatenate([batch.numpy() for (batch,) in array_dataset([array], 4)])
    assert rows.dtype == array.dtype
    order = np.argsort(array[:, 0])
    np.testing.assert_array_equal(rows[np.argsort(rows[:, 0])], array[order])


@tensorflow_only
def test_memory_is_released_when_fit_returns(x):
    # TensorFlow reads an array in place if its address is a multiple of 64 bytes.
    buffer = np.empty(x.nbytes + 64, "uint8")
    start = -buffer.ctypes.data % 64
    array = buffer[start : start + x.nbytes].view("float32").reshape(x.shape)
    array[...] = x
    memory = weakref.ref(array.base)
    model = make()
    gc.disable()
    try:
        model.fit(array, batch_size=BATCH, verbose=0)
        del array, buffer
        keras.ops.zeros(1) + 1  # TensorFlow releases buffers with the next operation.
        assert memory() is None
    finally:
        gc.enable()


@tensorflow_only
def test_training_step_is_traced_once(x):
    model = make()
    traces, step = [], model.train_step
    model.train_step = lambda data: (traces.append(1), step(data))[1]
    model.fit(x, batch_size=BATCH, epochs=2, verbose=0)
    assert len(traces) == 1


def on_disk(path, array):
    array.tofile(path)
    return np.memmap(path, array.dtype, "r", shape=array.shape)


@pytest.mark.parametrize("shuffle", [False, True])
def test_arrays_on_disk_train_as_in_memory(x, tmp_path, shuffle):
    weight = np.linspace(0, 2, SAMPLES).astype("float32")
    x_disk = on_disk(tmp_path / "x", x.astype("float64"))
    y_disk = on_disk(tmp_path / "y", x[::-1].copy())
    # One batch, so that the order does not matter.
    options = {"batch_size": SAMPLES, "shuffle": shuffle, "verbose": 0}
    options |= {"sample_weight": weight, "epochs": 2}
    results = []
    for inputs, targets in ((x, x[::-1].copy()), (x_disk, y_disk)):
        keras.utils.set_random_seed(0)
        model = make()
        data = (inputs, targets, weight)
        history = model.fit(inputs, targets, validation_data=data, **options).history
        evaluated = model.evaluate(inputs, targets, sample_weight=weight, verbose=0)
        code = model.encode(inputs)
        results.append((*history.values(), evaluated, code, model.decode(code)))
    for found, expected in zip(*results, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


@tensorflow_only
def test_arrays_on_disk_are_read_in_batches(x, tmp_path):
    sizes = []

    class Watched(np.memmap):
        def __getitem__(self, index):
            found = super().__getitem__(index)
            sizes.append(len(found))
            return found

    data = on_disk(tmp_path / "x", x).view(Watched)
    model = make()
    model.fit(data, batch_size=BATCH, validation_data=data, verbose=0)
    model.evaluate(data, batch_size=BATCH, verbose=0)
    model.predict(data, batch_size=BATCH, verbose=0)
    model.encode(data, batch_size=BATCH)
    assert sizes
    assert max(sizes) == BATCH
