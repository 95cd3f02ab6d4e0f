"""Tests of the penalties against float64 NumPy on the output of the layer."""

import keras
import numpy as np
import pytest
from helpers import (
    BACKEND,
    gradient,
    kl_penalty,
    kl_slope,
    l1_penalty,
    sigmoid,
    to_numpy,
    total,
)

from keras_sae import layers, models
from keras_sae.regularizers import L1, KLDivergence

UNITS = 5
POLICIES = ["float32", "mixed_float16", "mixed_bfloat16", "bfloat16"]
PENALTIES = {
    "l1": (L1(0.5), "relu", lambda code: l1_penalty(code, 0.5)),
    "kl": (
        KLDivergence(0.2, 0.7),
        "sigmoid",
        lambda code: kl_penalty(code.mean(axis=0), 0.2, 0.7),
    ),
}
penalties = pytest.mark.parametrize(
    ("regularizer", "activation", "expected"), PENALTIES.values(), ids=PENALTIES
)


def assert_penalty(value: float, expected: float, units: int = UNITS) -> None:
    """Allow the error of float32 sums: 1e-5 relative plus 1e-6 per unit."""
    assert abs(value - expected) <= 1e-5 * abs(expected) + 1e-6 * units


def dense(regularizer, activation, **kwargs) -> keras.layers.Dense:
    return keras.layers.Dense(
        UNITS, activation, activity_regularizer=regularizer, **kwargs
    )


def sparse_dense(regularizer, activation, **kwargs) -> layers.SparseDense:
    return layers.SparseDense(UNITS, activation, regularizer, **kwargs)


both_layers = pytest.mark.parametrize("make", [dense, sparse_dense])


# Values.


@both_layers
@pytest.mark.parametrize("policy", POLICIES)
@penalties
def test_layer_adds_the_penalty_in_float32(
    rng, regularizer, activation, expected, policy, make
):
    layer = make(regularizer, activation, dtype=policy)
    code = to_numpy(layer(rng.normal(size=(16, 12)).astype("float32")))
    assert len(layer.losses) == 1
    assert keras.backend.standardize_dtype(layer.losses[0].dtype) == "float32"
    assert_penalty(total(layer.losses), expected(code))


@both_layers
@penalties
def test_repeating_the_batch_does_not_change_the_penalty(
    rng, regularizer, activation, expected, make
):
    layer = make(regularizer, activation)
    x = rng.normal(size=(4, 12)).astype("float32")
    layer(x)
    once = total(layer.losses)
    for times in (2, 8, 64):
        layer(np.tile(x, (times, 1)))
        assert_penalty(total(layer.losses[-1:]), once)


def test_l1_sums_over_all_axes_but_the_first(rng):
    code = rng.normal(size=(4, 3, 2, UNITS)).astype("float32")
    assert float(L1(0.5)(code)) / 4 == pytest.approx(l1_penalty(code, 0.5), rel=1e-5)


def test_l1_does_not_overflow_in_float16():
    code = keras.ops.full((512, 1024), 8.0, dtype="float16")
    assert float(L1(1.0)(code)) / 512 == pytest.approx(8 * 1024, rel=1e-6)


@pytest.mark.parametrize("target", [0.01, 0.05, 0.5, 0.95])
def test_kl_equals_numpy_for_all_means(target):
    means = np.array([1e-4, 0.003, 0.01, 0.05, 0.3, 0.5, 0.9, 0.97, 0.999], "float32")
    expected = kl_penalty(means, target)
    assert_penalty(
        float(KLDivergence(target, 1.0).penalty(means)), expected, len(means)
    )


@pytest.mark.parametrize("target", [0.01, 0.05, 0.1, 0.3])
@pytest.mark.parametrize("off", [0.0, 1e-6, 1e-4, 1e-2, 0.099, 0.101])
def test_kl_equals_numpy_near_its_target(target, off):
    code = np.full((8, UNITS), target * (1 + off), "float32")
    expected = kl_penalty(code.astype("float64").mean(axis=0), target)
    assert_penalty(float(KLDivergence(target, 1.0)(code)) / 8, expected)


@pytest.mark.parametrize("target", [2.0**-5, 0.25, 0.5])
@pytest.mark.parametrize("off", [2.0**-13, 2.0**-9, 2.0**-6, 0.09375, 0.109375])
@pytest.mark.parametrize("sign", [1, -1])
def test_kl_does_not_lose_digits_near_its_target(target, off, sign):
    # Target and mean are exact in float32, so only the formula itself has an error.
    # The difference of the logarithms would have an error of 2e-3 here.
    u = sign * off
    mean = np.array([target * (1 + u)], "float32")
    assert float(mean[0]) == target * (1 + u)
    v = -u * target / (1 - target)
    expected = target * (u - np.log1p(u)) + (1 - target) * (v - np.log1p(v))
    value = float(KLDivergence(target, 1.0).penalty(mean))
    # The float64 reference has an error of about 1e-16 / u.
    assert value == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("saturated", [0.0, 1.0])
def test_kl_of_a_saturated_mean_is_finite(saturated):
    regularizer = KLDivergence(0.05, 1.0)
    value = float(regularizer.penalty(np.array([saturated], "float32")))
    nearest = abs(saturated - 2.0**-23)  # the mean is clipped to this value
    assert value == pytest.approx(kl_penalty(np.array([nearest]), 0.05), rel=1e-5)


@pytest.mark.parametrize("saturated", [0.0, 1.0])
def test_kl_of_a_saturated_mean_has_a_finite_gradient(saturated):
    code = np.full((4, 2), saturated, "float32")
    assert np.isfinite(gradient(KLDivergence(0.05, 1.0), code)).all()


@pytest.mark.parametrize("mean", [-0.5, 1.5])
def test_kl_is_nan_for_means_outside_the_unit_interval(mean):
    assert np.isnan(float(KLDivergence().penalty(np.array([mean], "float32"))))


@pytest.mark.parametrize("regularizer", [L1(0.0), KLDivergence(0.1, 0.0)])
def test_a_factor_of_zero_turns_the_penalty_off(rng, regularizer):
    assert float(regularizer(rng.uniform(size=(3, 4)).astype("float32"))) == 0


@pytest.mark.parametrize("regularizer", [L1(0.0), L1(2), KLDivergence(0.1, 0)])
def test_values_are_float32_scalars(regularizer):
    value = regularizer(np.full((3, 4), 0.5, "float64"))
    assert keras.backend.standardize_dtype(value.dtype) == "float32"
    assert tuple(value.shape) == ()


# Gradients.


def test_gradient_of_l1_is_the_sign(rng):
    code = rng.normal(size=(6, UNITS)).astype("float32")
    np.testing.assert_array_equal(gradient(L1(0.5), code), 0.5 * np.sign(code))


@pytest.mark.parametrize("low", [0.001, 0.04, 0.3, 0.9])
def test_gradient_of_kl_is_the_closed_form(rng, low):
    code = (low + rng.uniform(0, 0.05, size=(6, UNITS))).astype("float32")
    regularizer = KLDivergence(0.05, 0.7)
    slope = 0.7 * kl_slope(code.astype("float64").mean(axis=0), 0.05)
    # Near the target the slope is a difference of float32 numbers of order 1.
    np.testing.assert_allclose(
        gradient(regularizer, code), np.tile(slope, (6, 1)), rtol=1e-5, atol=1e-5
    )


# Compiled steps.


# On PyTorch, `jit_compile` needs a C++ compiler, and Keras cannot combine steps.
COMPILED = [{"jit_compile": False}]
if BACKEND != "torch":
    COMPILED += [
        {"jit_compile": True},
        {"steps_per_execution": 2, "jit_compile": False},
    ]


@pytest.mark.parametrize("settings", COMPILED, ids=lambda x: "-".join(x))
@penalties
def test_compiled_steps_have_the_same_penalty(
    rng, regularizer, activation, expected, settings
):
    x = rng.uniform(size=(16, 12)).astype("float32")
    model = models.shallow((12,), UNITS, regularizer, activation=activation)
    model.compile(**settings)
    logs = model.evaluate(x, batch_size=4, verbose=0, return_dict=True)
    code = to_numpy(model.encoder(x))
    # Batches have equal sizes, so the mean over batches is the mean over samples.
    penalty = np.mean([expected(part) for part in np.split(code, 4)])
    assert_penalty(logs["sparsity_loss"], penalty)


@penalties
def test_keras_dense_has_the_same_penalty_in_compiled_steps(
    rng, regularizer, activation, expected
):
    x = rng.uniform(size=(8, 12)).astype("float32")
    model = keras.Sequential([keras.Input((12,)), dense(regularizer, activation)])
    model.compile(loss="mse", jit_compile=False)
    loss = model.evaluate(x, np.zeros((8, UNITS)), batch_size=4, verbose=0)
    code = to_numpy(model(x))
    penalty = np.mean([expected(part) for part in np.split(code, 2)])
    # The loss is the sum of two float32 terms of order 1.
    assert loss == pytest.approx((code**2).mean() + penalty, rel=1e-5, abs=1e-5)


# Published settings.


def network(rng, dimension, units):
    """Return input, code, reconstruction and weights of a random autoencoder."""
    x = rng.uniform(size=(20, dimension))
    w1 = rng.normal(size=(dimension, units)) / 3
    w2 = rng.normal(size=(units, dimension)) / 3
    code = sigmoid(x @ w1)
    return x, code, sigmoid(code @ w2), [w1, w2]


def keras_loss(x, code, reconstruction, regularizer, decay, weights):
    """Return the loss in Keras: `"mse"`, a penalty and L2 weight decay."""
    penalty = kl_penalty(code.mean(axis=0), regularizer.target, regularizer.factor)
    weight_decay = sum(decay * (w**2).sum() for w in weights)
    return ((x - reconstruction) ** 2).mean() + penalty + weight_decay


def test_from_ufldl_gives_a_proportional_loss(rng):
    dimension, rho, beta, decay = 30, 0.1, 3.0, 3e-3
    x, code, reconstruction, weights = network(rng, dimension, UNITS)
    published = (
        0.5 * ((x - reconstruction) ** 2).sum(axis=1).mean()
        + decay / 2 * sum((w**2).sum() for w in weights)
        + beta * kl_penalty(code.mean(axis=0), rho)
    )
    regularizer = KLDivergence.from_ufldl(rho, beta, dimension)
    ours = keras_loss(x, code, reconstruction, regularizer, decay / dimension, weights)
    assert published / ours == pytest.approx(dimension / 2, rel=1e-12)


def test_from_matlab_gives_a_proportional_loss(rng):
    dimension, proportion, weight, decay = 30, 0.05, 1.5, 1e-3
    x, code, reconstruction, weights = network(rng, dimension, UNITS)
    published = (
        ((x - reconstruction) ** 2).sum(axis=1).mean()
        + decay / 2 * sum((w**2).sum() for w in weights)
        + weight * kl_penalty(code.mean(axis=0), proportion)
    )
    regularizer = KLDivergence.from_matlab(proportion, weight, dimension)
    ours = keras_loss(
        x, code, reconstruction, regularizer, decay / (2 * dimension), weights
    )
    assert published / ours == pytest.approx(dimension, rel=1e-12)


# Running means.

MOMENTUM, TARGET, FACTOR = 0.75, 0.1, 0.3


def running_means(batches):
    """Return the running mean after each batch."""
    mean, means = np.full(batches[0].shape[1], TARGET), []
    for batch in batches:
        mean = MOMENTUM * mean + (1 - MOMENTUM) * batch.mean(axis=0)
        means.append(mean)
    return means


def make_with_momentum() -> layers.SparseDense:
    sparsity = KLDivergence(TARGET, FACTOR, momentum=MOMENTUM)
    return layers.SparseDense(UNITS, sparsity=sparsity)


def test_running_mean_follows_the_batches(rng):
    layer = make_with_momentum()
    codes, values = [], []
    for _ in range(5):
        codes.append(
            to_numpy(layer(rng.normal(size=(4, 12)).astype("float32"), training=True))
        )
        values.append(total(layer.losses[-1:]))
    means = running_means(codes)
    for value, mean in zip(values, means, strict=True):
        assert_penalty(value, kl_penalty(mean, TARGET, FACTOR))
    # float32 averages of numbers below 1.
    np.testing.assert_allclose(
        to_numpy(layer.sparsity.running_mean), means[-1], rtol=1e-6
    )


def test_running_mean_is_not_used_at_inference(rng):
    layer = make_with_momentum()
    x = rng.normal(size=(4, 12)).astype("float32")
    code = to_numpy(layer(x, training=False))
    assert_penalty(total(layer.losses), kl_penalty(code.mean(axis=0), TARGET, FACTOR))
    np.testing.assert_allclose(to_numpy(layer.sparsity.running_mean), TARGET, rtol=1e-6)


def test_gradient_of_a_running_mean_is_that_of_the_batch_mean(rng):
    """A step of SGD on the penalty alone moves the kernel by its gradient.

    By the chain rule this is `x^T (slope(running mean) / B * h (1 - h))`.
    """
    layer = make_with_momentum()
    model = keras.Sequential([keras.Input((12,)), layer])
    model.compile(keras.optimizers.SGD(1.0), loss=None, jit_compile=False)
    batches = [rng.normal(size=(4, 12)).astype("float32") for _ in range(3)]
    codes = []
    for x in batches:
        codes.append(to_numpy(model(x)))
        before = to_numpy(layer.kernel)
        model.train_on_batch(x)
        slope = FACTOR * kl_slope(running_means(codes)[-1], TARGET)
        h = codes[-1]
        expected = x.T.astype("float64") @ (slope / len(x) * h * (1 - h))
        # The difference of float32 weights of order 1 has an error of 1e-7.
        np.testing.assert_allclose(
            before - to_numpy(layer.kernel), expected, rtol=1e-4, atol=1e-6
        )


def test_fit_keeps_the_running_mean_between_steps(rng):
    sparsity = KLDivergence(TARGET, FACTOR, MOMENTUM)
    # Centering would change the codes during the fit.
    model = models.shallow((12,), UNITS, sparsity, centering=False)
    model.compile(keras.optimizers.SGD(0.0), jit_compile=False)
    x = rng.uniform(size=(16, 12)).astype("float32")
    history = model.fit(x, batch_size=4, shuffle=False, verbose=0).history
    code = to_numpy(model.encoder(x))
    means = running_means(np.split(code, 4))
    expected = np.mean([kl_penalty(mean, TARGET, FACTOR) for mean in means])
    assert_penalty(history["sparsity_loss"][0], expected)


# Arguments.


@pytest.mark.parametrize("value", [-1e-3, float("nan"), float("inf"), "1e-3", None])
@pytest.mark.parametrize("cls", [L1, KLDivergence])
def test_factor_must_be_finite_and_not_negative(cls, value):
    with pytest.raises(ValueError, match=r"`factor`.*finite number >= 0") as error:
        cls(factor=value)
    assert f"factor={value!r}" in str(error.value)


@pytest.mark.parametrize("value", [0, 1, -0.1, 1.5, float("nan"), "0.1"])
@pytest.mark.parametrize("name", ["target", "momentum"])
def test_target_and_momentum_must_be_between_0_and_1(name, value):
    with pytest.raises(ValueError, match=f"`{name}`.*between 0 and 1") as error:
        KLDivergence(**{name: value})
    assert f"{name}={value!r}" in str(error.value)


@pytest.mark.parametrize("value", [0, -3, 1.5, True, "784"])
@pytest.mark.parametrize("convert", [KLDivergence.from_ufldl, KLDivergence.from_matlab])
def test_input_dim_must_be_a_positive_integer(convert, value):
    with pytest.raises(ValueError, match=r"`input_dim`.*positive integer") as error:
        convert(0.1, 3.0, value)
    assert f"input_dim={value!r}" in str(error.value)


@pytest.mark.parametrize(
    ("convert", "name"),
    [
        (KLDivergence.from_ufldl, "beta"),
        (KLDivergence.from_matlab, "sparsity_regularization"),
    ],
)
def test_published_weights_must_not_be_negative(convert, name):
    with pytest.raises(ValueError, match=f"`{name}`.*Received: {name}=-1"):
        convert(0.1, -1, 784)


def test_momentum_requires_a_sparse_dense(rng):
    layer = dense(KLDivergence(momentum=0.9), "sigmoid")
    with pytest.raises(ValueError, match=r"`momentum`.*momentum=0\.9.*SparseDense"):
        layer(rng.normal(size=(2, 12)).astype("float32"))
