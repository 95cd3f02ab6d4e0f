"""The model's logs against NumPy on its own outputs, and what it refuses."""

import keras
import numpy as np
import pytest
from helpers import (
    BACKEND,
    kl_penalty,
    l1_penalty,
    to_numpy,
)

from keras_sae import layers, models
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


def test_a_target_of_the_input_s_shape_is_taken(x, rng):
    noisy = (x + rng.normal(0, 0.1, size=x.shape)).astype("float32")
    model = make()
    logs = model.evaluate(noisy, x, batch_size=BATCH, verbose=0, return_dict=True)
    assert_logs(logs, figures(model, noisy, "l1", target=x))


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


# A table of pandas is looked at as an array is.


def test_a_symbolic_call():
    outputs = make()(keras.Input(SHAPE))
    assert tuple(outputs.shape) == (None, *SHAPE)


def test_parts_that_do_not_fit():
    encoder = keras.Sequential([keras.Input((6,)), keras.layers.Dense(4)])
    decoder = keras.Sequential([keras.Input((3,)), keras.layers.Dense(6)])
    with pytest.raises(ValueError, match=r"`decoder`.*\(None, 4\).*\(None, 3\)"):
        models.Autoencoder(encoder, decoder)


# Labels given as targets: refused everywhere, and nothing is trained.


# Bad data.


# The shallow model.
