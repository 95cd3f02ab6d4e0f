"""Tests of the training step and the logs of `Autoencoder` against NumPy."""

import keras
import numpy as np
import pytest
from helpers import BACKEND, kl_penalty, l1_penalty, to_numpy

from keras_sae import layers, metrics, models
from keras_sae.regularizers import L1, KLDivergence

SHAPE, UNITS = (6, 6), 8
SAMPLES, BATCH = 20, 8  # The last batch has 4 samples.

SPARSITIES = {"none": None, "l1": L1(0.01), "kl": KLDivergence(0.1, 0.02)}
PENALTIES = {
    "none": lambda code: 0.0,
    "l1": lambda code: l1_penalty(code, 0.01),
    "kl": lambda code: kl_penalty(code.mean(axis=0), 0.1, 0.02),
}
COMMON = {"loss", "reconstruction_loss", "explained_variance"}
NAMES = {
    "none": COMMON | {"l0"},
    "l1": COMMON | {"l0", "sparsity_loss"},
    "kl": COMMON | {"expected_l0", "effective_l0", "sparsity_loss"},
}
every_sparsity = pytest.mark.parametrize("name", SPARSITIES)


def make(name="l1", optimizer="adam", compile_with=None, **kwargs) -> keras.Model:
    model = models.shallow(SHAPE, UNITS, SPARSITIES[name], **kwargs)
    model.compile(optimizer, jit_compile=False, **(compile_with or {}))
    return model


@pytest.fixture
def x(rng):
    return rng.uniform(size=(SAMPLES, *SHAPE)).astype("float32")


@pytest.fixture
def x_val(rng):
    """Validation data of another size; the last batch has 5 samples."""
    return rng.uniform(size=(13, *SHAPE)).astype("float32")


def expected_logs(model, x, name, target=None) -> dict[str, float]:
    """Compute every log in float64 from the outputs of the model."""
    target = (x if target is None else target).astype("float64")
    reconstruction, code = to_numpy(model(x)), to_numpy(model.encoder(x))
    error = (target - reconstruction) ** 2
    batches = [code[start : start + BATCH] for start in range(0, len(x), BATCH)]
    penalty = sum(PENALTIES[name](batch) * len(batch) for batch in batches) / len(x)
    variance = (target - target.mean(axis=0)) ** 2
    logs = {
        "loss": error.mean() + penalty,
        "reconstruction_loss": error.mean(),
        "sparsity_loss": penalty,
        "explained_variance": 1 - error.sum() / variance.sum(),
        "l0": (code != 0).sum(axis=1).mean(),
        "expected_l0": code.sum(axis=1).mean(),
        # Of few batches, only the first one is measured.
        "effective_l0": metrics.effective_l0(batches[0], model.dictionary()),
    }
    return {key: value for key, value in logs.items() if key in NAMES[name]}


def assert_logs(logs, expected) -> None:
    assert logs.keys() == expected.keys()
    for key, value in expected.items():
        # float32 means of a few hundred numbers of order 1.
        assert logs[key] == pytest.approx(value, rel=2e-5, abs=1e-6), key


# Logs.


@every_sparsity
def test_evaluate_equals_numpy(x, name):
    model = make(name)
    logs = model.evaluate(x, batch_size=BATCH, verbose=0, return_dict=True)
    assert_logs(logs, expected_logs(model, x, name))


@every_sparsity
def test_fit_logs_the_parts_of_the_loss(x, x_val, name):
    model = make(name)
    fit = model.fit(x, batch_size=BATCH, epochs=2, validation_data=x_val, verbose=0)
    history = fit.history
    assert history.keys() == NAMES[name] | {f"val_{key}" for key in NAMES[name]}
    assert all(len(values) == 2 for values in history.values())
    assert np.isfinite(list(history.values())).all()
    for prefix in ("", "val_"):
        penalty = history.get(f"{prefix}sparsity_loss", [0.0, 0.0])
        parts = np.add(history[f"{prefix}reconstruction_loss"], penalty)
        np.testing.assert_allclose(history[f"{prefix}loss"], parts, rtol=1e-5)


@every_sparsity
def test_logs_of_an_epoch_are_those_of_the_whole_set(x, x_val, name):
    # With a learning rate of 0, every step sees the same model.
    model = make(name, keras.optimizers.SGD(0.0), centering=False)
    history = model.fit(
        x, batch_size=BATCH, shuffle=False, validation_data=x_val, verbose=0
    ).history
    assert_logs(
        {key: history[key][0] for key in NAMES[name]}, expected_logs(model, x, name)
    )
    assert_logs(
        {key: history[f"val_{key}"][0] for key in NAMES[name]},
        expected_logs(model, x_val, name),
    )


@every_sparsity
def test_train_on_batch_and_test_on_batch_log_the_same_names(x, name):
    model = make(name)
    assert model.train_on_batch(x, return_dict=True).keys() == NAMES[name]
    model.reset_metrics()
    logs = model.test_on_batch(x[:BATCH], return_dict=True)
    assert_logs(logs, expected_logs(model, x[:BATCH], name))


def test_weight_decay_is_part_of_the_loss(x):
    model = make("l1", kernel_regularizer=keras.regularizers.L2(0.1))
    logs = model.evaluate(x, batch_size=BATCH, verbose=0, return_dict=True)
    kernels = [w for w in model.trainable_weights if w.name.endswith("kernel")]
    decay = 0.1 * sum((to_numpy(w) ** 2).sum() for w in kernels)
    rest = logs["loss"] - logs["reconstruction_loss"] - logs["sparsity_loss"]
    assert rest == pytest.approx(decay, rel=1e-4)  # A difference has fewer digits.


def test_expected_l0_of_tanh_codes_is_counted_from_minus_one(x):
    model = models.shallow(SHAPE, UNITS, KLDivergence(0.1, 0.02), activation="tanh")
    model.compile(jit_compile=False)
    logs = model.test_on_batch(x, return_dict=True)
    expected = ((model.encode(x) + 1) / 2).sum(axis=1).mean()
    assert logs["expected_l0"] == pytest.approx(expected, rel=1e-5)


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
def test_l0_is_logged_for_codes_with_zeros(x, sparsity, activation, name):
    model = models.shallow(SHAPE, UNITS, sparsity, activation=activation)
    model.compile(run_eagerly=True)
    logs = model.evaluate(x, verbose=0, return_dict=True)
    assert {"l0", "expected_l0"} & logs.keys() == {name}
    if isinstance(sparsity, layers.TopK):
        assert logs["l0"] == 2


def test_loss_and_metrics_of_compile_are_used(x):
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


def test_compile_has_defaults():
    model = models.shallow(SHAPE, UNITS)
    model.compile()
    assert isinstance(model.optimizer, keras.optimizers.Adam)
    assert model.loss == "mse"


def test_evaluate_returns_a_list_by_default(x):
    model = make()
    values = model.evaluate(x, batch_size=BATCH, verbose=0)
    assert len(values) == len(model.metrics_names)
    assert values[0] == pytest.approx(expected_logs(model, x, "l1")["loss"], rel=1e-5)


def test_logs_do_not_depend_on_earlier_calls(x, x_val):
    model = make()
    first = model.evaluate(x, batch_size=BATCH, verbose=0, return_dict=True)
    model.evaluate(x_val, batch_size=BATCH, verbose=0)
    again = model.evaluate(x, batch_size=BATCH, verbose=0, return_dict=True)
    assert first == again


@pytest.mark.skipif(BACKEND == "torch", reason="Keras has no such steps on PyTorch")
def test_logs_do_not_depend_on_steps_per_execution(x):
    model = make(compile_with={"steps_per_execution": 2})
    logs = model.evaluate(x, batch_size=BATCH, verbose=0, return_dict=True)
    assert_logs(logs, expected_logs(model, x, "l1"))


def test_a_target_other_than_the_input_is_reconstructed(x, rng):
    noisy = (x + rng.normal(0, 0.1, size=x.shape)).astype("float32")
    model = make()
    logs = model.evaluate(noisy, x, batch_size=BATCH, verbose=0, return_dict=True)
    assert_logs(logs, expected_logs(model, noisy, "l1", target=x))


# Training.


def test_fit_reduces_the_loss(x):
    model = make("l1", keras.optimizers.Adam(0.01))
    before = model.evaluate(x, batch_size=BATCH, verbose=0, return_dict=True)
    model.fit(x, batch_size=BATCH, epochs=15, verbose=0)
    after = model.evaluate(x, batch_size=BATCH, verbose=0, return_dict=True)
    assert after["loss"] < 0.5 * before["loss"]


@pytest.mark.parametrize("sparsity", ["l1", "batch_top_k"])
def test_codes_of_a_frozen_encoder_are_unchanged(x, sparsity):
    """Centre and threshold are frozen as in `keras.layers.BatchNormalization`."""
    model = models.shallow(SHAPE, 32, sparsity)
    model.compile(keras.optimizers.Adam(1e-2))
    model.fit(x, epochs=3, batch_size=BATCH, verbose=0)
    model.encoder.trainable = False
    model.compile(keras.optimizers.Adam(1e-2))
    codes, reconstruction = model.encode(x), model.predict(x, verbose=0)
    model.fit(x / 2, epochs=2, batch_size=BATCH, verbose=0)
    np.testing.assert_array_equal(model.encode(x), codes)
    assert np.abs(model.predict(x, verbose=0) - reconstruction).max() > 1e-4


class CountingDense(keras.layers.Dense):
    calls = 0

    def call(self, inputs):
        CountingDense.calls += 1
        return super().call(inputs)


def test_a_step_runs_one_forward_pass(x):
    encoder = keras.Sequential([keras.Input((36,)), CountingDense(UNITS, "relu")])
    decoder = keras.Sequential([keras.Input((UNITS,)), CountingDense(36)])
    model = models.Autoencoder(encoder, decoder)
    model.compile("sgd", run_eagerly=True, jit_compile=False)
    flat = x.reshape(SAMPLES, 36)
    model.train_on_batch(flat)  # Keras builds its metrics in the first step.
    CountingDense.calls = 0
    model.train_on_batch(flat)
    assert CountingDense.calls == 2  # one of the encoder, one of the decoder
    model.test_on_batch(flat)
    assert CountingDense.calls == 4


MATRYOSHKA = layers.Matryoshka(layers.TopK(2, auxiliary=None), [4, UNITS])


@pytest.mark.parametrize(
    ("sparsity", "compiled"),
    [
        (L1(1e-2), False),
        (layers.Gated(1e-2), False),
        (layers.TopK(2, auxiliary=layers.AuxK(2, dead_after=1)), False),
        (MATRYOSHKA, False),
        (MATRYOSHKA, True),
    ],
    ids=["l1", "gated", "aux_k", "matryoshka", "matryoshka-compiled"],
)
def test_custom_training_loops_find_every_loss(x, sparsity, compiled):
    model = models.shallow(SHAPE, UNITS, sparsity)
    model.sparse_layers[0].steps_since_active.assign(np.arange(UNITS) % 3.0)
    twin = keras.models.clone_model(model)
    twin.set_weights(model.get_weights())
    model.compile(keras.optimizers.SGD(0.0), jit_compile=False)
    expected = model.train_on_batch(x, return_dict=True)["loss"]
    if compiled:
        twin.compile(keras.optimizers.SGD(0.0))
    reconstruction = to_numpy(twin(x, training=True))
    losses = sum(to_numpy(loss) for loss in twin.losses)
    found = np.mean((reconstruction - x) ** 2) + losses
    assert found == pytest.approx(float(expected), rel=1e-5)
    count = len(twin.losses)
    twin(x)  # Auxiliary losses are computed in training only.
    assert len(twin.losses) <= count


WITH_DECODER = {
    "aux_k": lambda: layers.TopK(4, auxiliary=layers.AuxK(1, dead_after=5)),
    "aux_k-dense": lambda: layers.TopK(4, auxiliary=layers.AuxK(dead_after=5)),
    "matryoshka": lambda: layers.Matryoshka(layers.TopK(4), widths=(8, 16)),
    "gated": lambda: layers.Gated(),
}


@pytest.mark.parametrize("make", WITH_DECODER.values(), ids=WITH_DECODER)
def test_auxiliary_losses_do_not_change_batch_statistics(rng, make):
    """Batch normalization in the decoder counts each batch once."""
    x = rng.normal(1, 2, size=(64, 12)).astype("float32")
    settings = {"batch_normalization": True, "centering": False}
    model = models.deep((12,), (10, 32), [None, make()], **settings)
    code = model.sparse_layers[-1]
    code.bias.assign(np.repeat([-99.0, 0.0], 16))  # Half of the units are dead.
    code.steps_since_active.assign(np.repeat([9.0, 0.0], 16))
    model.compile(keras.optimizers.SGD(0.0))
    [norm] = [
        layer
        for layer in model.decoder.layers
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
    before_norm = keras.Model(model.decoder.input, norm.input)
    batch_mean = to_numpy(before_norm(model.encoder(x, training=True))).mean(axis=0)
    initial = to_numpy(norm.moving_mean)
    logs = model.train_on_batch(x, return_dict=True)
    assert logs["auxiliary_loss"] > 0
    expected = norm.momentum * initial + (1 - norm.momentum) * batch_mean
    np.testing.assert_allclose(to_numpy(norm.moving_mean), expected, atol=1e-5)


# Shapes.


@pytest.mark.parametrize("shape", [(12,), (6, 6), (4, 4, 1), (2, 3, 2)])
def test_outputs_have_the_shapes_of_input_and_code(rng, shape):
    x = rng.uniform(size=(5, *shape)).astype("float32")
    model = models.shallow(shape, UNITS, "l1")
    code = model.encode(x)
    assert isinstance(code, np.ndarray)
    assert code.shape == (5, UNITS)
    decoded = model.decode(code)
    assert isinstance(decoded, np.ndarray)
    reconstruction = to_numpy(model(x))
    assert reconstruction.shape == x.shape
    # Separate calls of the same float32 products.
    close = {"rtol": 1e-5, "atol": 1e-6}
    np.testing.assert_allclose(code, to_numpy(model.encoder(x)), **close)
    np.testing.assert_allclose(decoded, reconstruction, **close)
    predicted = model.predict(x, batch_size=2, verbose=0)
    np.testing.assert_allclose(predicted, reconstruction, **close)


def test_a_model_can_be_called_on_a_symbolic_input():
    outputs = make()(keras.Input(SHAPE))
    assert tuple(outputs.shape) == (None, *SHAPE)


def test_decoder_must_match_the_encoder():
    encoder = keras.Sequential([keras.Input((6,)), keras.layers.Dense(4)])
    decoder = keras.Sequential([keras.Input((3,)), keras.layers.Dense(6)])
    with pytest.raises(ValueError, match=r"`decoder`.*\(None, 4\).*\(None, 3\)"):
        models.Autoencoder(encoder, decoder)


# Shapes and types of parts, data and losses.

DENSE, INPUT, CONV = keras.layers.Dense, keras.Input, keras.layers.Conv2D


class Unbuilt(keras.Model):
    def call(self, x):
        return x


PARTS = {
    "subclassed": (lambda: Unbuilt(), "functional Keras model"),
    "unbuilt": (lambda: keras.Sequential([DENSE(4)]), r"starts with a `keras\.Input`"),
    "sizes": (
        lambda: keras.Sequential([INPUT((None, None, 3)), CONV(4, 3)]),
        "Set all sizes",
    ),
    "steps": (
        lambda: keras.Sequential([INPUT((None, 6)), DENSE(4)]),
        "TimeDistributed",
    ),
}


@pytest.mark.parametrize(("make_encoder", "message"), PARTS.values(), ids=PARTS)
def test_encoders_of_other_kinds_are_refused_with_a_way_out(make_encoder, message):
    decoder = keras.Sequential([INPUT((4,)), DENSE(6)])
    with pytest.raises(ValueError, match=rf"`encoder` must.*{message}"):
        models.Autoencoder(make_encoder(), decoder)


def test_decoders_without_an_input_are_refused():
    encoder = keras.Sequential([INPUT((6,)), DENSE(4)])
    with pytest.raises(ValueError, match="`decoder` must be a functional"):
        models.Autoencoder(encoder, keras.Sequential([DENSE(6)]))


def test_a_model_of_vectors_is_applied_to_sequences(rng):
    model = models.shallow((6,), UNITS, layers.TopK(3))
    inputs = keras.Input((5, 6))
    whole = keras.Model(inputs, keras.layers.TimeDistributed(model)(inputs))
    x = rng.random((4, 5, 6), dtype="float32")
    expected = model.predict(x.reshape(20, 6), verbose=0).reshape(4, 5, 6)
    np.testing.assert_allclose(whole.predict(x, verbose=0), expected, atol=1e-6)


def test_input_and_output_make_a_functional_model(x):
    model = make()
    mean = keras.ops.mean(model.output, axis=(1, 2))
    outer = keras.Model(model.input, mean)
    expected = to_numpy(model(x)).mean(axis=(1, 2))
    np.testing.assert_allclose(to_numpy(outer(x)), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("sparsity", "pair"),
    [
        (layers.TopK(3), False),
        (layers.BatchTopK(3), True),
        (layers.Matryoshka(layers.TopK(3)), True),
    ],
    ids=["top_k", "batch_top_k-target", "matryoshka-target"],
)
def test_windows_of_unknown_batch_and_length_train(rng, sparsity, pair):
    import tensorflow as tf

    x = rng.normal(size=(20, 16, 2)).astype("float32")
    spec = tf.TensorSpec((None, None, 2), tf.float32)

    def batches():
        for i in range(0, 20, 8):
            yield (x[i : i + 8], x[i : i + 8]) if pair else x[i : i + 8]

    data = tf.data.Dataset.from_generator(
        batches, output_signature=(spec, spec) if pair else spec
    ).apply(tf.data.experimental.assert_cardinality(3))
    keras.utils.set_random_seed(0)
    model = models.shallow((16, 2), 40, sparsity)
    model.compile("sgd", jit_compile=False)
    logs = model.fit(data, shuffle=False, verbose=0).history
    keras.utils.set_random_seed(0)
    other = models.shallow((16, 2), 40, sparsity)
    other.compile("sgd", run_eagerly=True)
    expected = other.fit(x, batch_size=8, shuffle=False, verbose=0).history
    assert logs["loss"] == pytest.approx(expected["loss"], rel=1e-5)


POLICIES = ["float16", "bfloat16", "float64", "mixed_float16"]


@pytest.mark.filterwarnings("ignore:Explicitly requested dtype float64")  # of JAX
@pytest.mark.parametrize("sparsity", ["l1", "kl", layers.TopK(2), layers.Gated()])
@pytest.mark.parametrize("policy", [*POLICIES, "floatx-float64", "floatx-float16"])
def test_losses_of_every_policy_add_up(rng, policy, sparsity):
    x = rng.random((32, 10), dtype="float32")
    default = keras.config.floatx()
    try:
        if policy.startswith("floatx-"):
            keras.config.set_floatx(policy.removeprefix("floatx-"))
        else:
            keras.config.set_dtype_policy(policy)
        decay = keras.regularizers.L2(1e-3)
        model = models.shallow((10,), 8, sparsity, kernel_regularizer=decay)
        model.compile(keras.optimizers.SGD(0.0), run_eagerly=True)
        logs = model.train_on_batch(x, return_dict=True)
    finally:
        keras.config.set_floatx(default)
        keras.config.set_dtype_policy(default)
    weights = [w for w in model.trainable_weights if w.name.endswith("kernel")]
    decay = 1e-3 * sum((to_numpy(w) ** 2).sum() for w in weights)
    parts = [value for name, value in logs.items() if name.endswith("_loss")]
    assert logs["loss"] == pytest.approx(sum(parts) + decay, rel=0.02)


def test_units_of_a_code_with_axes_are_active_at_every_position(rng):
    inputs, codes = keras.Input((5, 6)), keras.Input((5, UNITS))
    code = layers.SparseDense(UNITS, sparsity=layers.TopK(2))(inputs)
    output = keras.layers.Dense(6)
    decoder = keras.Model(codes, output(codes))
    model = models.Autoencoder(keras.Model(inputs, code), decoder)
    rows = np.repeat(to_numpy(output.kernel)[:, None], 5, axis=1)
    np.testing.assert_allclose(model.dictionary(), rows, atol=1e-5)
    classifier = models.classifier(model, 3)
    classifier.compile("sgd", "sparse_categorical_crossentropy", jit_compile=False)
    x = rng.normal(size=(6, 5, 6)).astype("float32")
    classifier.fit(x, np.arange(6) % 3, verbose=0)
    assert classifier.predict(x, verbose=0).shape == (6, 3)


def test_names_of_columns_and_label_survive_saving(tmp_path):
    model = models.shallow((2,), 3, "l1")
    model.columns, model.label = ["height", "age"], "kind"
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    for again in (loaded, keras.models.clone_model(loaded)):
        assert (list(again.columns), again.label) == (["height", "age"], "kind")


@pytest.mark.skipif(BACKEND != "jax", reason="only JAX runs steps without side effects")
def test_steps_without_side_effects_forget_the_losses_of_the_step_before(rng):
    """An old loss may have the `id` of a new one."""
    model = models.shallow((6,), 8, layers.Gated(0.1))
    model.compile("sgd", run_eagerly=True)
    x = rng.normal(size=(10, 6)).astype("float32")
    for _ in range(3):
        model._loss_ids.add(-1)
        model.train_on_batch(x, x)
        assert len(model._loss_ids - {-1}) == len(model._loss_ids) == 1
