"""The model's logs against NumPy on its own outputs, and what it refuses."""

import gc
import weakref
from functools import partial

import keras
import numpy as np
import pandas as pd
import pytest
from helpers import (
    BACKEND,
    assert_same_weights,
    kl_penalty,
    l1_penalty,
    tensorflow_only,
    to_numpy,
    weights_of,
)

from keras_sae import layers, models
from keras_sae.datasets.feeding import aligned, feed
from keras_sae.regularizers import L1, KLDivergence

SHAPE = (6, 6)
UNITS = 8
SAMPLES, BATCH = 20, 8  # the last batch has 4

SPARSITIES = {
    "none": None,
    "l1": L1(0.01),
    "kl": KLDivergence(0.1, 0.02),
}
# What each log must hold, and nothing else.
COMMON = {"loss", "reconstruction_loss", "explained_variance"}
NAMES = {
    "none": COMMON | {"l0"},
    "l1": COMMON | {"l0", "sparsity_loss"},
    "kl": COMMON | {"expected_l0", "sparsity_loss"},
}
PENALTIES = {
    "none": lambda code: 0.0,
    "l1": lambda code: l1_penalty(code, 0.01),
    "kl": lambda code: kl_penalty(code.mean(axis=0), 0.1, 0.02),
}
families = pytest.mark.parametrize("name", SPARSITIES)


def make(name="l1", optimizer="adam", compile_with=None, **kwargs):
    model = models.shallow(SHAPE, UNITS, SPARSITIES[name], **kwargs)
    model.compile(optimizer, jit_compile=False, **(compile_with or {}))
    return model


@pytest.fixture
def x(rng):
    return rng.uniform(size=(SAMPLES, *SHAPE)).astype("float32")


@pytest.fixture
def other(rng):
    """Held out data of another size, whose last batch is uneven too."""
    return rng.uniform(size=(13, *SHAPE)).astype("float32")


def batches(array, size=BATCH):
    return [array[start : start + size] for start in range(0, len(array), size)]


def figures(model, x, name, target=None) -> dict[str, float]:
    """Every figure of the log, computed in float64 from the model's outputs."""
    target = x if target is None else target
    r, code = to_numpy(model(x)), to_numpy(model.encoder(x))
    target = target.astype("float64")
    penalties = [PENALTIES[name](part) * len(part) for part in batches(code)]
    logs = {
        "reconstruction_loss": ((target - r) ** 2).mean(),
        "sparsity_loss": sum(penalties) / len(x),
        "explained_variance": 1
        - ((target - r) ** 2).sum() / ((target - target.mean(axis=0)) ** 2).sum(),
        "l0": (code != 0).sum(axis=1).mean(),
        "expected_l0": code.sum(axis=1).mean(),
    }
    logs["loss"] = logs["reconstruction_loss"] + logs["sparsity_loss"]
    return {key: value for key, value in logs.items() if key in NAMES[name]}


def assert_logs(logs, expected, prefix="") -> None:
    assert logs.keys() == {prefix + key for key in expected}
    for key, value in expected.items():
        # Means in float32 of a few hundred numbers of order 1.
        assert logs[prefix + key] == pytest.approx(value, rel=2e-5, abs=1e-6), key


# Logs.


@families
def test_evaluate_is_numpy(x, name):
    model = make(name)
    logs = model.evaluate(x, batch_size=BATCH, verbose=0, return_dict=True)
    assert_logs(logs, figures(model, x, name))


@families
def test_fit_logs_the_promised_names(x, other, name):
    history = make(name).fit(
        x, batch_size=BATCH, epochs=2, validation_data=other, verbose=0
    )
    expected = NAMES[name] | {f"val_{key}" for key in NAMES[name]}
    assert history.history.keys() == expected
    assert all(len(values) == 2 for values in history.history.values())
    assert np.isfinite(list(history.history.values())).all()


@families
def test_fit_logs_figures_of_the_whole_set(x, other, name):
    """At a rate of 0 every step sees the same model, so the epoch can be checked."""
    model = make(name, keras.optimizers.SGD(0.0), centering=False)
    history = model.fit(
        x, batch_size=BATCH, shuffle=False, validation_data=other, verbose=0
    ).history
    logs = {key: values[0] for key, values in history.items()}
    train = {key: logs[key] for key in logs if not key.startswith("val_")}
    assert_logs(train, figures(model, x, name))
    held_out = {key: logs[key] for key in logs if key.startswith("val_")}
    # Validation takes the batch size of the fit.
    assert_logs(held_out, figures(model, other, name), "val_")


@pytest.mark.parametrize("name", ["l1", "kl"])
def test_the_loss_is_the_sum_of_its_parts(x, name):
    history = make(name).fit(x, batch_size=BATCH, epochs=2, verbose=0).history
    parts = np.add(history["reconstruction_loss"], history["sparsity_loss"])
    np.testing.assert_allclose(history["loss"], parts, rtol=1e-5)


def test_weight_decay_is_the_rest_of_the_loss(x):
    model = make("l1", kernel_regularizer=keras.regularizers.L2(0.1))
    logs = model.evaluate(x, batch_size=BATCH, verbose=0, return_dict=True)
    kernels = [w for w in model.trainable_weights if w.name == "kernel"]
    decay = 0.1 * sum((to_numpy(w) ** 2).sum() for w in kernels)
    rest = logs["loss"] - logs["reconstruction_loss"] - logs["sparsity_loss"]
    assert rest == pytest.approx(decay, rel=1e-4)  # left by a subtraction


def test_tanh_codes_are_counted_from_minus_one(x):
    model = models.shallow(SHAPE, UNITS, KLDivergence(0.1, 0.02), activation="tanh")
    model.compile(jit_compile=False)
    logs = model.test_on_batch(x, return_dict=True)
    expected = ((model.encode(x) + 1) / 2).sum(axis=1).mean()
    assert logs["expected_l0"] == pytest.approx(expected, rel=1e-5)


@families
def test_train_and_test_on_batch_log_the_same_names(x, name):
    model = make(name)
    assert model.train_on_batch(x, return_dict=True).keys() == NAMES[name]
    model.reset_metrics()
    logs = model.test_on_batch(x[:BATCH], return_dict=True)
    assert_logs(logs, figures(model, x[:BATCH], name))


def test_metrics_and_losses_given_to_compile(x):
    model = make(
        "kl",
        compile_with={"loss": "binary_crossentropy", "metrics": ["mae"]},
        output_activation="sigmoid",
    )
    logs = model.evaluate(x, batch_size=BATCH, verbose=0, return_dict=True)
    r = to_numpy(model(x))
    entropy = -(x * np.log(r) + (1 - x) * np.log(1 - r)).mean()
    assert logs["mae"] == pytest.approx(np.abs(x - r).mean(), rel=1e-5)
    assert logs["reconstruction_loss"] == pytest.approx(entropy, rel=1e-5)
    assert logs.keys() == NAMES["kl"] | {"mae"}


def test_evaluate_returns_a_list_by_default(x):
    model = make()
    values = model.evaluate(x, batch_size=BATCH, verbose=0)
    assert len(values) == len(model.metrics_names)
    assert values[0] == pytest.approx(figures(model, x, "l1")["loss"], rel=1e-5)


def test_logs_do_not_leak_from_one_call_to_the_next(x, other):
    model = make()
    first = model.evaluate(x, batch_size=BATCH, verbose=0, return_dict=True)
    model.evaluate(other, batch_size=BATCH, verbose=0)
    again = model.evaluate(x, batch_size=BATCH, verbose=0, return_dict=True)
    assert first == again


@pytest.mark.skipif(BACKEND == "torch", reason="Keras has no such steps on PyTorch")
def test_several_steps_per_execution(x):
    model = make(compile_with={"steps_per_execution": 2})
    logs = model.evaluate(x, batch_size=BATCH, verbose=0, return_dict=True)
    assert_logs(logs, figures(model, x, "l1"))


def assert_trains_as_keras(build, x, target, **settings):
    def trained(fit):
        keras.utils.set_random_seed(3)
        model = build()
        history = fit(model)(x, target, epochs=3, verbose=0, **settings)
        return weights_of(model), history.history

    ours, logs = trained(lambda model: model.fit)
    theirs, expected = trained(lambda model: partial(keras.Model.fit, model))
    assert logs == expected
    for weight, same in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(weight, same)


@pytest.mark.parametrize(
    "settings",
    [
        {"batch_size": BATCH},
        {"batch_size": BATCH, "initial_epoch": 1, "validation": True},
        {"validation": True, "validation_batch_size": 5},
        {"batch_size": 1},
        {"batch_size": 5},
        {"batch_size": BATCH, "target": True},
    ],
)
def test_fit_trains_as_keras_does_from_the_array(x, other, settings):
    """Batches, order and logs are the same, whatever way the array takes."""
    settings = dict(settings)
    target = x[::-1].copy() if settings.pop("target", False) else None
    if settings.pop("validation", False):
        settings["validation_data"] = (other,)

    assert_trains_as_keras(make, x, target, **settings)


def test_a_classifier_trains_as_keras_does_from_the_arrays(x):
    def build():
        model = models.classifier(make(), 3)
        model.compile("adam", jit_compile=False)
        return model

    assert_trains_as_keras(build, x, np.arange(SAMPLES) % 3, batch_size=BATCH)


@tensorflow_only
def test_fit_of_an_array_does_not_tune_its_batches(x, monkeypatch):
    """The tuning of tf.data would hold up the end of an epoch."""
    seen = []

    def fit(self, data, y, batch_size, **kwargs):
        seen.append((data, y, batch_size, kwargs))

    model = make()
    monkeypatch.setattr(keras.Model, "fit", fit)
    model.fit(x, batch_size=BATCH, epochs=2)
    data, y, batch_size, kwargs = seen.pop()
    assert data.options().autotune.enabled is False
    assert data.cardinality().numpy() == 3
    assert data.element_spec[0].shape == (None, *SHAPE)
    assert (y, batch_size) == (None, None)
    assert kwargs == {"epochs": 2, "shuffle": False, "validation_batch_size": BATCH}
    rows = np.concatenate([batch.numpy() for (batch,) in data])
    assert not np.array_equal(rows, x)
    np.testing.assert_array_equal(np.sort(rows, axis=0), np.sort(x, axis=0))


@tensorflow_only
def test_batches_of_one_size_have_it_in_their_spec(x):
    (spec,) = feed([x], 5).element_spec
    assert spec.shape == (5, *SHAPE)


def rows_of(dataset):
    rows = np.concatenate([batch.numpy() for (batch,) in dataset])
    return rows[np.argsort(rows[:, 0])]


@tensorflow_only
def test_what_is_written_to_an_array_later_does_not_reach_its_batches():
    array = aligned((6, 2))
    array[...] = np.arange(12).reshape(6, 2)
    dataset, kept = feed([array], 4), array.copy()
    array[...] = -1
    np.testing.assert_array_equal(rows_of(dataset), kept)


@tensorflow_only
def test_an_aligned_array_that_is_read_only_is_not_copied():
    array = aligned((6, 2))
    writer = array.view()
    array[...] = 0
    array.flags.writeable = False
    dataset = feed([array], 4)
    writer[...] = kept = np.arange(12).reshape(6, 2)
    np.testing.assert_array_equal(rows_of(dataset), kept)
    del array, writer
    np.testing.assert_array_equal(rows_of(dataset), kept)


@tensorflow_only
def test_memory_of_an_array_is_free_as_soon_as_the_fit_is_over(x):
    array = aligned(x.shape)
    array[...] = x
    memory = weakref.ref(array.base)
    model = make()
    gc.disable()  # which would find it at some time or other
    try:
        model.fit(read_only(array), batch_size=BATCH, verbose=0)
        del array
        assert memory() is None
    finally:
        gc.enable()


def read_only(array):
    array.flags.writeable = False
    return array


def off_by_a_row(array):
    longer = aligned((len(array) + 1, *array.shape[1:]))
    longer[1:] = array
    return read_only(longer[1:])


@tensorflow_only
@pytest.mark.parametrize(
    "lay",
    [
        read_only,  # the owner itself, so no view of it may be written to
        np.asfortranarray,
        lambda array: array[::-1],
        off_by_a_row,
        lambda array: read_only(np.broadcast_to(array[:1], (6, 2))),
        lambda array: array.astype(">f4"),
        lambda array: array.astype("int64"),
        lambda array: array.astype("uint8"),
        lambda array: to_numpy(keras.ops.cast(array, "bfloat16")),
    ],
)
def test_batches_of_an_array_however_it_lies(lay):
    array = lay(np.arange(12, dtype="float32").reshape(6, 2))
    rows = rows_of(feed([array], 4))
    assert rows.dtype == array.dtype.newbyteorder("=")
    np.testing.assert_array_equal(rows, array[np.argsort(array[:, 0])])


@pytest.mark.parametrize(
    "settings",
    [
        {"shuffle": False},
        {"shuffle": "batch"},
        {"steps_per_epoch": 2},
        {"validation_split": 0.5},
    ],
)
def test_fit_leaves_to_keras_what_a_dataset_cannot_have(x, settings, monkeypatch):
    seen = []
    model = make()
    monkeypatch.setattr(
        keras.Model, "fit", lambda self, *args, **kwargs: seen.append((args, kwargs))
    )
    model.fit(x, batch_size=BATCH, **settings)
    (data, *rest), kwargs = seen.pop()
    assert data is x
    assert (rest, kwargs) == ([None, BATCH], settings)


def test_sample_weights_weigh_the_reconstruction_only(x):
    flat = x.reshape(SAMPLES, 36)
    model = models.shallow((36,), UNITS, SPARSITIES["l1"])
    model.compile(jit_compile=False)
    weight = np.linspace(0.0, 2.0, SAMPLES).astype("float32")
    logs = model.evaluate(
        flat, flat, batch_size=BATCH, sample_weight=weight, verbose=0, return_dict=True
    )
    expected = figures(model, flat, "l1")
    error = ((flat - to_numpy(model(flat))) ** 2).mean(axis=1)
    # Keras divides by the number of samples, not by the sum of the weights.
    data = (weight * error).mean()
    assert logs["reconstruction_loss"] == pytest.approx(data, rel=1e-5)
    assert logs["loss"] == pytest.approx(data + expected["sparsity_loss"], rel=1e-5)
    for key in ("sparsity_loss", "explained_variance", "l0"):
        assert logs[key] == pytest.approx(expected[key], rel=1e-5)


@pytest.mark.parametrize("target", [True, False])
def test_sample_weights_need_no_target(x, target):
    """Half of the samples weigh nothing: the same as their being left out."""
    weight = np.repeat([2.0, 0.0], SAMPLES // 2).astype("float32")
    y = x if target else None
    model = make(centering=False)  # whose mean would move in the step
    alone = model.evaluate(x[: SAMPLES // 2], verbose=0, return_dict=True)
    expected = alone["reconstruction_loss"]
    options = {"batch_size": SAMPLES, "verbose": 0}
    for given in (
        model.evaluate(x, y, sample_weight=weight, return_dict=True, **options),
        model.evaluate(x, y, SAMPLES, 0, weight, return_dict=True),
        model.fit(x, y, sample_weight=weight, **options).history,
    ):
        found = np.ravel(given["reconstruction_loss"])[0]
        assert found == pytest.approx(expected, rel=1e-5)
    logs = model.fit(x, validation_data=(x, y, weight), **options).history
    alone = model.evaluate(x[: SAMPLES // 2], verbose=0, return_dict=True)
    assert logs["val_reconstruction_loss"][0] == pytest.approx(
        alone["reconstruction_loss"], rel=1e-5
    )


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (np.ones(3), r"one number for each sample. Received: shape \(3,\)"),
        (np.full(SAMPLES, np.nan), "must be finite"),
        (np.array(["1"] * SAMPLES), "one number for each sample"),
        (1.0, "one number for each sample"),
        (np.ones((SAMPLES, 2)), r"one number.*Expected\s+shape"),
        ([1.0] * SAMPLES, r"must be one array.*numpy\.asarray\(sample_weight\)"),
    ],
)
def test_weights_that_weigh_no_samples(x, weight, message):
    model = make()
    before = [np.array(w) for w in model.get_weights()]
    for call in (
        lambda: model.fit(x, sample_weight=weight, verbose=0),
        lambda: model.evaluate(x, sample_weight=weight, verbose=0),
        lambda: model.fit(x, validation_data=(x, None, weight), verbose=0),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    for was, now in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(was, now)


def test_arguments_of_fit_by_position_are_those_by_name(x):
    """`validation_data` is the eighth: what is refused by name is refused there."""
    keras.utils.set_random_seed(0)
    by_name = make().fit(x, epochs=2, verbose=0, validation_data=x).history
    keras.utils.set_random_seed(0)
    given = make().fit(x, None, None, 2, 0, None, 0.0, x).history
    assert by_name == given
    with pytest.raises(ValueError, match="must be finite"):
        make().fit(x, None, None, 2, 0, None, 0.0, x * np.nan)
    with pytest.raises(TypeError, match="multiple values"):
        make().fit(x, None, None, 2, epochs=3)


@pytest.mark.parametrize("shape", [(6,), (6, 1)])
@pytest.mark.parametrize("image", [(6, 6), (6, 6, 1)])
def test_sample_weights_of_images(x, shape, image):
    """Six weights for six images of 6x6 must weigh images, not their columns."""
    model = models.shallow(image, UNITS, "l1")
    model.compile("adam", jit_compile=False)
    x, weight = x[:6].reshape(6, *image), np.arange(6, dtype="float32")
    options = {"sample_weight": weight.reshape(shape), "verbose": 0}
    logs = model.evaluate(x, x, return_dict=True, **options)
    error = ((x - to_numpy(model(x))) ** 2).reshape(6, -1).mean(axis=1)
    expected = (weight * error).mean()
    assert logs["reconstruction_loss"] == pytest.approx(expected, rel=1e-5)


def test_weights_of_either_shape_one_after_the_other(x):
    """A step that was traced for weights of one shape cannot take the other."""
    model = make()
    model.compile(keras.optimizers.SGD(0.0))
    weight = np.arange(len(x), dtype="float32")
    for given in (weight[:, None], weight, weight[:, None]):
        logs = model.fit(x, sample_weight=given, verbose=0).history
        held_out = model.evaluate(x, sample_weight=given, verbose=0, return_dict=True)
        assert logs["loss"][-1] == pytest.approx(held_out["loss"], rel=1e-4)


@pytest.mark.parametrize("shape", [(SAMPLES, 6), (SAMPLES, 6, 1), (SAMPLES, 1, 1)])
def test_weights_of_rows_of_images(x, shape):
    """As Keras has them: the loss of an image is one number a row and column."""
    model = make()
    weight = np.random.default_rng(0).random(shape, dtype="float32")
    options = {"verbose": 0, "return_dict": True, "batch_size": SAMPLES}
    logs = model.evaluate(x, sample_weight=weight, **options)
    error = ((x - to_numpy(model(x))) ** 2).mean(axis=-1)
    expected = (weight.reshape(SAMPLES, -1) * error).mean()
    assert logs["reconstruction_loss"] == pytest.approx(expected, rel=1e-5)


def test_targets_and_values_that_keras_would_choke_on(x):
    model = make()
    with pytest.raises(ValueError, match=r"`y` must be one array.*numpy\.asarray\(y\)"):
        model.fit(x, x.tolist(), verbose=0)
    with pytest.raises(ValueError, match=r"finite as float32.*Rescale"):
        model.fit(x.astype("float64") * 1e39, verbose=0)


@pytest.mark.parametrize("sparsity", ["l1", "top_k", "batch_top_k"])
def test_a_frozen_encoder_has_the_same_codes(x, sparsity):
    """Its mean and threshold too, as with `keras.layers.BatchNormalization`."""
    model = models.shallow(x.shape[1:], 32, sparsity)
    model.compile(keras.optimizers.Adam(1e-2), jit_compile=False)
    model.fit(x, epochs=3, batch_size=8, verbose=0)
    model.encoder.trainable = False
    model.compile(keras.optimizers.Adam(1e-2), jit_compile=False)
    codes, rebuilt = model.encode(x), model.predict(x, verbose=0)
    model.fit(x / 2, epochs=2, batch_size=8, verbose=0)
    np.testing.assert_array_equal(model.encode(x), codes)
    assert np.abs(model.predict(x, verbose=0) - rebuilt).max() > 1e-4


class CountingDense(keras.layers.Dense):
    calls = 0

    def call(self, inputs):
        CountingDense.calls += 1
        return super().call(inputs)


def test_one_forward_pass_a_step(x):
    encoder = keras.Sequential([keras.Input((36,)), CountingDense(UNITS, "relu")])
    decoder = keras.Sequential([keras.Input((UNITS,)), CountingDense(36)])
    model = models.Autoencoder(encoder, decoder)
    model.compile("sgd", run_eagerly=True, jit_compile=False)
    flat = x.reshape(SAMPLES, 36)
    model.train_on_batch(flat)  # what is built on first use
    CountingDense.calls = 0
    model.train_on_batch(flat)
    assert CountingDense.calls == 2  # the encoder's and the decoder's
    model.test_on_batch(flat)
    assert CountingDense.calls == 4


# Inputs of `fit`.


def tf_dataset(*arrays):
    import tensorflow as tf

    data = arrays[0] if len(arrays) == 1 else arrays
    return tf.data.Dataset.from_tensor_slices(data).batch(BATCH)


FORMS = {
    "fit(x)": lambda x: {"x": x, "batch_size": BATCH},
    "fit(x, x)": lambda x: {"x": x, "y": x, "batch_size": BATCH},
    "fit(dataset of x)": lambda x: {"x": tf_dataset(x)},
    "fit(dataset of (x, x))": lambda x: {"x": tf_dataset(x, x)},
}


def test_all_forms_of_fit_are_the_same(x):
    results = {}
    for form, arguments in FORMS.items():
        keras.utils.set_random_seed(5)
        model = make()
        history = model.fit(**arguments(x), shuffle=False, epochs=2, verbose=0).history
        results[form] = (history, weights_of(model))
    history, weights = results["fit(x)"]
    for form, (other_history, other_weights) in results.items():
        assert other_history.keys() == history.keys(), form
        for key, values in history.items():
            np.testing.assert_allclose(other_history[key], values, rtol=1e-5)
        for one, two in zip(weights, other_weights, strict=True):
            np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-6)


def test_all_forms_of_evaluate_are_the_same(x):
    model = make()
    expected = figures(model, x, "l1")
    for arguments in FORMS.values():
        logs = model.evaluate(**arguments(x), verbose=0, return_dict=True)
        assert_logs(logs, expected)


def test_a_target_of_the_input_s_shape_is_taken(x, rng):
    noisy = (x + rng.normal(0, 0.1, size=x.shape)).astype("float32")
    model = make()
    logs = model.evaluate(noisy, x, batch_size=BATCH, verbose=0, return_dict=True)
    assert_logs(logs, figures(model, noisy, "l1", target=x))


@tensorflow_only
def test_a_step_is_traced_once(x):
    """The trace is most of what a short fit costs, and variables would double it."""
    labels = np.arange(SAMPLES) % 2
    autoencoder, classifier = make("l1"), models.classifier(make("l1"), 2)
    classifier.compile("adam")
    for model, target in ((autoencoder, None), (classifier, labels)):
        traces, step = [], model.train_step
        model.train_step = lambda data, t=traces, s=step: (t.append(1), s(data))[1]
        model.fit(x, target, batch_size=BATCH, epochs=2, verbose=0)
        assert len(traces) == 1


def test_fit_trains(x):
    model = make("l1", keras.optimizers.Adam(0.01))
    before = model.evaluate(x, batch_size=BATCH, verbose=0, return_dict=True)
    model.fit(x, batch_size=BATCH, epochs=15, verbose=0)
    after = model.evaluate(x, batch_size=BATCH, verbose=0, return_dict=True)
    assert after["loss"] < 0.5 * before["loss"]


def test_compile_needs_nothing(x):
    model = models.shallow(SHAPE, UNITS)
    model.compile()
    assert isinstance(model.optimizer, keras.optimizers.Adam)
    assert model.loss == "mse"


# Shapes.


@pytest.mark.parametrize("shape", [(12,), (6, 6), (4, 4, 1), (2, 3, 2)])
def test_shapes(rng, shape):
    x = rng.uniform(size=(5, *shape)).astype("float32")
    model = models.shallow(shape, UNITS, "l1")
    assert tuple(model(x).shape) == x.shape
    code = model.encode(x)
    assert isinstance(code, np.ndarray)
    assert code.shape == (5, UNITS)
    decoded = model.decode(code)
    assert isinstance(decoded, np.ndarray)
    # Another call of the same float32 products.
    np.testing.assert_allclose(decoded, to_numpy(model(x)), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(code, to_numpy(model.encoder(x)), rtol=1e-5, atol=1e-6)


def test_predict_is_the_reconstruction(x):
    model = make()
    predicted = model.predict(x, batch_size=BATCH, verbose=0)
    np.testing.assert_allclose(predicted, to_numpy(model(x)), rtol=1e-5, atol=1e-6)


@tensorflow_only
@pytest.mark.parametrize("pair", [False, True])
def test_encode_and_predict_take_a_dataset(x, pair):
    model = make()
    data = tf_dataset(x, np.arange(SAMPLES)) if pair else tf_dataset(x)
    np.testing.assert_allclose(model.encode(data), model.encode(x), rtol=1e-5)
    np.testing.assert_allclose(
        model.predict(data, verbose=0), model.predict(x, verbose=0), rtol=1e-5
    )


OF_DATASETS = {
    "of-dicts": (lambda d: d.map(lambda x: {"image": x}), "each of them one tensor"),
    "single-samples": (lambda d: d.unbatch(), r"Use `dataset\.batch\(32\)`"),
    "of-unknown-rank": (lambda d: of_unknown_rank(d), r"tf\.ensure_shape"),
}


def of_unknown_rank(data):
    import tensorflow as tf

    spec = tf.TensorSpec(None, "float32")
    return tf.data.Dataset.from_generator(lambda: iter(data), output_signature=spec)


@pytest.mark.parametrize(("form", "message"), OF_DATASETS.values(), ids=OF_DATASETS)
def test_datasets_that_are_none_of_batches(x, form, message):
    model = make()
    before = weights_of(model)
    data = form(tf_dataset(x))
    for call in (
        lambda: model.fit(data, verbose=0),
        lambda: model.evaluate(data, verbose=0),
        lambda: model.predict(data, verbose=0),
        lambda: model.encode(data),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    assert_same_weights(before, weights_of(model))


@tensorflow_only
def test_targets_in_a_dataset_that_does_not_say_their_shape(x):
    import tensorflow as tf

    def pairs(target):
        return lambda: ((batch, target(batch)) for batch in (x, x))

    spec = tf.TensorSpec((None, *SHAPE)), tf.TensorSpec(None)
    unknown = tf.data.Dataset.from_generator(pairs(lambda b: b), output_signature=spec)
    named = tf_dataset(x).map(lambda x: (x, {"image": x}))
    model = make()
    for data in (unknown, named):
        with pytest.raises(ValueError, match=r"its target has.*tf\.ensure_shape"):
            model.fit(data, verbose=0)


@pytest.mark.parametrize(
    ("decoder", "low", "high"),
    [
        ([keras.layers.Dense(36, "sigmoid"), keras.layers.Reshape(SHAPE)], 0, 1),
        ([keras.layers.Dense(36), keras.layers.Reshape(SHAPE)], None, None),
        (
            [
                keras.layers.Dense(36, "sigmoid"),
                keras.layers.Reshape(SHAPE),
                keras.layers.Rescaling(2.0, -1.0),
            ],
            None,
            None,
        ),
    ],
    ids=["bounded", "linear", "rescaled"],
)
def test_the_range_of_the_output_is_that_of_its_last_layer(x, decoder, low, high):
    encoder = [keras.layers.Input(SHAPE), keras.layers.Flatten(), keras.layers.Dense(8)]
    model = models.Autoencoder(
        keras.Sequential(encoder),
        keras.Sequential([keras.layers.Input((8,)), *decoder]),
    )
    model.compile()
    if low is None:
        model.check_data(2 * x - 1)
        return
    with pytest.raises(ValueError, match=rf"\[{low}, {high}\]"):
        model.check_data(2 * x - 1)


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize(
    "sparsity",
    [
        L1(1e-2),
        layers.Gated(1e-2),
        layers.Matryoshka(layers.TopK(2, auxiliary=None), [4, UNITS]),
        layers.TopK(2, auxiliary=layers.AuxK(2, dead_after=1)),
    ],
    ids=lambda sparsity: type(sparsity).__name__,
)
def test_a_loop_of_ones_own_finds_every_term_of_the_loss(x, sparsity, compiled):
    model = models.shallow(SHAPE, UNITS, sparsity)
    model.sparse_layers[0].steps_since_active.assign(np.arange(UNITS) % 3.0)
    twin = keras.models.clone_model(model)
    twin.set_weights(model.get_weights())
    model.compile(keras.optimizers.SGD(0.0), jit_compile=False)
    expected = model.train_on_batch(x, return_dict=True)["loss"]
    if compiled:
        twin.compile(keras.optimizers.SGD(0.0))
    found = to_numpy(twin(x, training=True))
    own = np.mean((found - x) ** 2) + sum(to_numpy(term) for term in twin.losses)
    assert own == pytest.approx(float(expected), rel=1e-5)
    count = len(twin.losses)
    twin(x)  # at inference there is the penalty alone, as before
    assert len(twin.losses) <= count


@pytest.mark.parametrize("location", ["mean", "geometric_median"])
def test_fit_goes_on_from_what_adapt_has_set(rng, location):
    """The mean of more data is their mean; of a median nothing can go on."""
    x = rng.normal(size=(64, 3)).astype("float32") ** 2
    model = models.shallow((3,), 4)
    model.compile(keras.optimizers.SGD(0.0), jit_compile=False)
    model.adapt(x, location)
    before = to_numpy(model.encoder.get_layer("center").mean)
    model.fit(x + 1, epochs=1, batch_size=16, verbose=0)
    after = to_numpy(model.encoder.get_layer("center").mean)
    expected = x.mean(axis=0) + 0.5 if location == "mean" else before
    np.testing.assert_allclose(after, expected, rtol=1e-5)
    again = keras.models.clone_model(model)
    again.set_weights(model.get_weights())
    np.testing.assert_allclose(again.encode(x), model.encode(x), rtol=1e-5)


@pytest.mark.parametrize(
    ("sparsity", "activation", "name"),
    [
        (layers.TopK(2), "sigmoid", "l0"),
        (layers.LifetimeSparsity(0.5), "sigmoid", "l0"),
        (L1(0.1), "sigmoid", "expected_l0"),
        (None, "sigmoid", "expected_l0"),
        (None, "relu", "l0"),
    ],
)
def test_a_code_that_is_chosen_is_counted(x, sparsity, activation, name):
    model = models.shallow(SHAPE, UNITS, sparsity, activation=activation)
    model.compile(jit_compile=False)
    logs = model.evaluate(x, verbose=0, return_dict=True)
    assert {"l0", "expected_l0"} & logs.keys() == {name}
    if isinstance(sparsity, layers.TopK):
        assert logs["l0"] == 2


def test_adapt_wants_an_array_that_varies(x):
    model = make(output_activation="linear", scaling=True)
    before = weights_of(model)
    with pytest.raises(ValueError, match=r"must be one array here.*Received"):
        model.adapt(tf_dataset(x))
    with pytest.raises(ValueError, match="does not vary"):
        model.adapt(np.ones_like(x))
    assert_same_weights(before, weights_of(model))


# A table of pandas is looked at as an array is.

TABLES = {
    "NaN": (lambda x: x.where(x > 0.1), "must be finite"),
    "bytes": (lambda x: (x * 255).astype("uint8"), "holds integers"),
    "text": (lambda x: x.astype(str), "must hold real numbers"),
    "other-width": (lambda x: x.iloc[:, :7], r"must have shape \(samples, 36\)"),
}


@pytest.fixture
def table(x):
    return pd.DataFrame(x.reshape(SAMPLES, 36))


def test_a_table_is_its_values(table):
    model = models.shallow((36,), UNITS)
    model.compile(jit_compile=False)
    values = table.to_numpy()
    np.testing.assert_array_equal(model.encode(table), model.encode(values))
    options = {"verbose": 0, "return_dict": True}
    assert model.evaluate(table, **options) == model.evaluate(values, **options)
    assert np.isfinite(model.fit(table, verbose=0).history["loss"]).all()


@pytest.mark.parametrize(("change", "message"), TABLES.values(), ids=TABLES)
def test_bad_tables(table, change, message):
    model = models.shallow((36,), UNITS)
    model.compile(jit_compile=False)
    model.fit(table, verbose=0)
    before, bad = weights_of(model), change(table)
    for call in (
        lambda: model.fit(bad, verbose=0),
        lambda: model.fit(table, validation_data=bad, verbose=0),
        lambda: model.evaluate(bad, verbose=0),
        lambda: model.predict(bad, verbose=0),
        lambda: model.encode(bad),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    assert_same_weights(before, weights_of(model))


def test_a_symbolic_call():
    outputs = make()(keras.Input(SHAPE))
    assert tuple(outputs.shape) == (None, *SHAPE)


def test_parts_that_do_not_fit():
    encoder = keras.Sequential([keras.Input((6,)), keras.layers.Dense(4)])
    decoder = keras.Sequential([keras.Input((3,)), keras.layers.Dense(6)])
    with pytest.raises(ValueError, match=r"`decoder`.*\(None, 4\).*\(None, 3\)"):
        models.Autoencoder(encoder, decoder)


# Labels given as targets: refused everywhere, and nothing is trained.


def labels_and_forms():
    y = np.arange(SAMPLES)
    one_hot = np.eye(10, dtype="float32")[y % 10]
    column = y.reshape(-1, 1).astype("float32")
    return {"integers": y, "one-hot": one_hot, "column": column}


CALLS = {
    "fit": lambda m, x, y: m.fit(x, y, batch_size=BATCH, verbose=0),
    "evaluate": lambda m, x, y: m.evaluate(x, y, batch_size=BATCH, verbose=0),
    "validation_data": lambda m, x, y: m.fit(
        x, batch_size=BATCH, validation_data=(x, y), verbose=0
    ),
    "train_on_batch": lambda m, x, y: m.train_on_batch(x, y),
    "test_on_batch": lambda m, x, y: m.test_on_batch(x, y),
    "fit-dataset": lambda m, x, y: m.fit(tf_dataset(x, y), verbose=0),
    "evaluate-dataset": lambda m, x, y: m.evaluate(tf_dataset(x, y), verbose=0),
    "validation-dataset": lambda m, x, y: m.fit(
        x, batch_size=BATCH, validation_data=tf_dataset(x, y), verbose=0
    ),
    "fit-generator": lambda m, x, y: m.fit(generator(x, y), shuffle=False, verbose=0),
    "fit-PyDataset": lambda m, x, y: m.fit(Pairs(x, y), verbose=0),
}


def generator(x, y):
    for start in range(0, SAMPLES, BATCH):
        yield x[start : start + BATCH], y[start : start + BATCH]


class Pairs(keras.utils.PyDataset):
    def __init__(self, x, y):
        super().__init__()
        self.x, self.y = x, y

    def __len__(self):
        return 2

    def __getitem__(self, index):
        part = slice(index * BATCH, (index + 1) * BATCH)
        return self.x[part], self.y[part]


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_labels_are_refused(x, call):
    model = make()
    before = weights_of(model)
    with pytest.raises(ValueError, match="labels"):
        call(model, x, np.arange(SAMPLES))
    assert_same_weights(before, weights_of(model))


@pytest.mark.parametrize("kind", labels_and_forms())
def test_labels_of_every_kind_are_refused(x, kind):
    model = make()
    y = labels_and_forms()[kind]
    with pytest.raises(ValueError, match="labels") as error:
        model.fit(x, y, batch_size=BATCH, verbose=0)
    message = str(error.value)
    assert f"y.shape={y.shape}" in message
    assert f"x.shape={x.shape}" in message
    assert "fit(x)" in message


# Bad data.


def with_value(x, value):
    x = x.copy()
    x[3, 2, 1] = value
    return x


BAD = {
    "bytes": (lambda x: (x * 255).astype("uint8"), r"integers.*uint8.*/ 255"),
    "nan": (lambda x: with_value(x, np.nan), r"finite.*NaN"),
    "inf": (lambda x: with_value(x, np.inf), r"finite.*infinity"),
    "-inf": (lambda x: with_value(x, -np.inf), r"finite.*infinity"),
    "empty": (lambda x: x[:0], r"no samples.*\(0, 6, 6\)"),
    "rank": (lambda x: x[..., None], r"shape \(samples, 6, 6\).*\(20, 6, 6, 1\)"),
    "flat": (lambda x: x.reshape(SAMPLES, -1), r"shape \(samples, 6, 6\).*\(20, 36\)"),
    "size": (lambda x: x[:, :5], r"shape \(samples, 6, 6\).*\(20, 5, 6\)"),
    "few": (lambda x: x[:5], "fewer samples.*5 samples and batch_size=8"),
}
bad_data = pytest.mark.parametrize(("spoil", "message"), BAD.values(), ids=BAD)


@bad_data
def test_fit_refuses(x, spoil, message):
    model = make()
    before = weights_of(model)
    with pytest.raises(ValueError, match=f"`x`.*{message}"):
        model.fit(spoil(x), batch_size=BATCH, verbose=0)
    assert_same_weights(before, weights_of(model))


@bad_data
def test_evaluate_encode_and_validation_refuse(x, spoil, message):
    if "fewer" in message:
        return  # a batch that is not full is no fault there
    model = make()
    before = weights_of(model)
    for call in (
        lambda: model.evaluate(spoil(x), batch_size=BATCH, verbose=0),
        lambda: model.encode(spoil(x)),
        lambda: model.fit(
            x, batch_size=BATCH, validation_data=(spoil(x), spoil(x)), verbose=0
        ),
        lambda: model.fit(x, batch_size=BATCH, validation_data=spoil(x), verbose=0),
    ):
        with pytest.raises(ValueError, match=f"`x`.*{message}"):
            call()
    assert_same_weights(before, weights_of(model))


def test_a_bad_target_is_refused_too(x):
    with pytest.raises(ValueError, match="finite"):
        make().fit(x, with_value(x, np.nan), batch_size=BATCH, verbose=0)


def test_a_dataset_of_bytes_is_refused(x):
    with pytest.raises(ValueError, match=r"integers.*uint8"):
        make().fit(tf_dataset((x * 255).astype("uint8")), verbose=0)


def test_a_dataset_of_another_shape_is_refused(x):
    with pytest.raises(ValueError, match=r"shape \(samples, 6, 6\)"):
        make().fit(tf_dataset(x[:, :5]), verbose=0)


def test_data_beyond_the_output_activation(x):
    model = make(output_activation="sigmoid")
    with pytest.raises(ValueError, match=r"\[0, 1\].*255.*/|[Dd]ivide") as error:
        model.fit(x * 255, batch_size=BATCH, verbose=0)
    assert "output_activation='linear'" in str(error.value)


@pytest.mark.parametrize("shape", [(), (0,), (6, None), (6, -1), (2.5,), "66"])
def test_bad_input_shapes(shape):
    with pytest.raises(ValueError, match=r"`input_shape`.*Received") as error:
        models.shallow(shape, UNITS)
    assert f"input_shape={shape!r}" in str(error.value)


# The shallow model.


@pytest.mark.parametrize("tied", [False, True])
def test_atoms_have_unit_norm_under_l1(x, tied):
    model = make("l1", keras.optimizers.Adam(0.01), tied=tied)

    def norms():
        return np.linalg.norm(
            model.decode(np.eye(UNITS)) - model.decode(np.zeros((1, UNITS))),
            axis=(1, 2),
        )

    np.testing.assert_allclose(norms(), 1, rtol=1e-4)
    model.fit(x, batch_size=BATCH, epochs=2, verbose=0)
    np.testing.assert_allclose(norms(), 1, rtol=1e-4)


@pytest.mark.parametrize("name", ["none", "kl"])
def test_atoms_are_free_where_the_scale_does_not_matter(name):
    kernel = to_numpy(make(name).decoder.get_layer("output").kernel)
    assert np.ptp(np.linalg.norm(kernel, axis=1)) > 1e-2


def test_an_input_shape_may_be_a_number():
    assert models.shallow(12, UNITS).sample_shape == (12,)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"x": [np.zeros((8, 6, 6), "float32")]}, "must be one array"),
        ({"class_weight": {0: 1.0}}, "an autoencoder has none"),
        ({"batch_size": 0}, "`batch_size` must be a positive integer"),
        ({"x": np.zeros((8, 6, 6), "complex64")}, "must hold real numbers"),
        ({"x": np.full((8, 6, 6), "a")}, "must hold real numbers"),
        ({"validation_data": [np.zeros((8, 6, 6)), np.zeros(8)]}, "holds labels"),
        ({"y": list(range(8))}, "holds labels"),
    ],
)
def test_what_keras_would_take_or_garble_is_refused(arguments, message):
    model = models.shallow((6, 6), 8, "l1")
    model.compile()
    with pytest.raises(ValueError, match=message):
        model.fit(**{"x": np.zeros((8, 6, 6), "float32"), "verbose": 0, **arguments})


def test_tensors_are_looked_at_as_arrays_are():
    model = models.shallow((6, 6), 8, "l1")
    model.compile()
    x = keras.ops.convert_to_tensor(np.full((8, 6, 6), np.nan, "float32"))
    with pytest.raises(ValueError, match="must be finite"):
        model.fit(x, verbose=0)


def test_one_batch_is_looked_at_too():
    model = models.shallow((6, 6), 8, "l1")
    model.compile()
    with pytest.raises(ValueError, match="holds integers"):
        model.train_on_batch(np.full((8, 6, 6), 255, "uint8"))
    with pytest.raises(ValueError, match="holds integers"):
        model.predict(np.full((8, 6, 6), 255, "uint8"), verbose=0)


def test_a_wrong_shape_leaves_the_model_whole():
    model = models.shallow((6, 6), 8, "l1")
    before = model.get_weights()
    for call in (model.predict, model.encode):
        with pytest.raises(ValueError, match="must have shape"):
            call(np.zeros((3, 5, 6), "float32"))
    with pytest.raises(ValueError, match="must have shape"):
        model.decode(np.zeros((3, 5), "float32"))
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
