"""The contractive penalty against automatic and numerical differentiation."""

from functools import partial

import keras
import numpy as np
import pytest
from helpers import BACKEND, gradient, sigmoid, to_numpy, total

from keras_sae import layers, models
from keras_sae.models.contractive import ContractivePenalty
from keras_sae.types import Tensor

FACTOR = 0.3
# Finite differences would step across the kinks of the piecewise linear ones.
# Automatic differentiation takes a side there, as the penalty does.
ACTIVATIONS = [
    "linear",
    "relu",
    "relu6",
    "leaky_relu",
    "elu",
    "selu",
    "sigmoid",
    "hard_sigmoid",
    "tanh",
    "softplus",
    "softsign",
    "exponential",
    "silu",
    "gelu",
]


class DoubledDense(keras.layers.Dense):
    """A subclass of `Dense` with another derivative."""

    def call(self, inputs: Tensor) -> Tensor:
        """Return twice the outputs of `Dense`."""
        return 2 * super().call(inputs)


class DoubledFlatten(keras.layers.Flatten):
    """A subclass of `Flatten` with another derivative."""

    def call(self, inputs: Tensor) -> Tensor:
        """Return twice the outputs of `Flatten`."""
        return 2 * super().call(inputs)


@keras.saving.register_keras_serializable("test_contractive")
class DoubledPenalty(layers.ActivityPenalty):
    """A penalty that changes the code."""

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        """Return twice the inputs."""
        return 2 * super().call(inputs, training=training)


def expected(encoder: keras.Model, x: np.ndarray) -> float:
    """Return the mean squared norm of the Jacobian, by the gradient of each unit."""
    norms = np.zeros(len(x))
    for unit in range(encoder.output_shape[-1]):
        rows = gradient(lambda v, unit=unit: keras.ops.sum(encoder(v)[:, unit]), x)
        norms += np.square(rows).reshape(len(x), -1).sum(axis=1)
    return float(norms.mean())


def random_encoder(seed: int) -> keras.Model:
    """Return an encoder of random layers, all of which are accepted."""
    rng = np.random.default_rng(seed)
    keras.utils.set_random_seed(seed)

    def some(*choices):
        return choices[rng.integers(len(choices))]

    def dense(units):
        kind = some(keras.layers.Dense, layers.UnitNormDense, layers.SparseDense)
        options = {"use_bias": some(True, False), "bias_initializer": "normal"}
        if kind is layers.SparseDense:
            options["transposed_kernel"] = some(True, False)
            options["sparsity"] = some(None, "l1", keras.regularizers.L2(0.1))
        return kind(units, some(*ACTIVATIONS), **options)

    shape = some((6,), (3, 2), (3, 1, 2))
    corruptions = [keras.layers.Dropout, keras.layers.GaussianDropout]
    corruptions += [keras.layers.GaussianNoise, layers.MaskingNoise]
    corruptions += [layers.SaltAndPepperNoise]
    if len(shape) == 2:
        corruptions.append(keras.layers.SpatialDropout1D)
    chain = [some(*corruptions)(0.2), keras.layers.Reshape((2, 3))]
    chain = [layer for layer in chain if some(True, False)]
    h = x = keras.Input(shape)
    for layer in [layers.Centering(), *chain, keras.layers.Flatten(), layers.Scaling()]:
        h = layer(h)
    for width in rng.integers(1, 7, size=rng.integers(1, 4)):
        h = dense(int(width))(h)
        if some(True, False):
            linear = [layers.Centering(), layers.Scaling(inverse=True)]
            linear += [keras.layers.GaussianNoise(0.1), layers.ActivityPenalty("l1")]
            h = some(*linear)(h)
    ending = some("plain", "sampling", "sampling of two")
    if ending == "sampling":
        h = layers.Sampling()(dense(4)(h))
    elif ending == "sampling of two":
        h = layers.Sampling()(keras.layers.Concatenate()([dense(2)(h), dense(2)(h)]))
    encoder = keras.Model(x, h)
    for layer in encoder.layers:
        if isinstance(layer, layers.Centering):
            layer.mean.assign(rng.normal(size=layer.mean.shape))
        if isinstance(layer, layers.Scaling):
            layer.rms.assign(rng.uniform(0.5, 2.0))
    return encoder


def penalty(encoder: keras.Model, x: np.ndarray, training: bool = False) -> float:
    return float(to_numpy(ContractivePenalty(encoder)(x, training=training)[1]))


@pytest.fixture
def x(rng):
    return rng.normal(size=(5, 6)).astype("float32")


# The value.


@pytest.mark.parametrize("seed", range(25 if BACKEND == "tensorflow" else 5))
def test_penalty_of_any_accepted_encoder_equals_the_automatic_jacobian(seed):
    encoder = random_encoder(seed)
    x = np.random.default_rng(seed).normal(size=(3, *encoder.input_shape[1:]))
    x = x.astype("float32")
    value = expected(encoder, x)
    assert penalty(encoder, x) == pytest.approx(value, rel=2e-4, abs=1e-10)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_penalty_of_one_layer_equals_the_automatic_jacobian(activation, x):
    model = models.shallow((6,), 4, activation=activation, contractive=FACTOR)
    model(x)
    # A float32 sum of squares over 6 x 4 numbers.
    assert total(model.losses) == pytest.approx(
        FACTOR * expected(model.encoder, x), rel=2e-5
    )


@pytest.mark.parametrize("units", [(5, 4), (3, 7, 5, 4)])
@pytest.mark.parametrize("activation", ["relu", "elu", "silu"])
def test_penalty_of_a_deep_encoder_equals_the_automatic_jacobian(units, activation, x):
    model = models.deep((6,), units, activation=activation, code_activation="tanh")
    assert penalty(model.encoder, x) == pytest.approx(
        expected(model.encoder, x), rel=5e-5
    )


@pytest.mark.parametrize("sparsity", [None, "l1", "kl"])
@pytest.mark.parametrize("units", [(5,), (7, 5)])
def test_penalty_of_a_variational_encoder_is_that_of_the_mean(units, sparsity, x):
    model = models.variational((6,), units, 3, sparsity=sparsity, activation="elu")
    assert penalty(model.encoder, x) == pytest.approx(
        expected(model.encoder, x), rel=5e-5
    )


def test_penalty_of_images_equals_the_automatic_jacobian(rng):
    x = rng.normal(size=(3, 2, 3, 1)).astype("float32")
    model = models.deep((2, 3, 1), (5, 4), activation="gelu")
    assert penalty(model.encoder, x) == pytest.approx(
        expected(model.encoder, x), rel=5e-5
    )


@pytest.mark.parametrize("make", [models.shallow, models.deep])
def test_penalty_is_of_the_unscaled_input(make, x):
    model = make((6,), 4, activation="sigmoid", scaling=True)
    model.adapt(x * 30)
    assert penalty(model.encoder, x * 30) == pytest.approx(
        expected(model.encoder, x * 30), rel=5e-5
    )


def test_penalty_multiplies_several_scalings(x):
    scalings = [layers.Scaling(), layers.Scaling()]
    encoder = keras.Sequential([keras.Input((6,)), *scalings, layers.SparseDense(4)])
    for layer, rms in zip(scalings, (3.0, 0.5), strict=True):
        layer.rms.assign(rms)
    assert penalty(encoder, x) == pytest.approx(expected(encoder, x), rel=5e-5)


def test_penalty_of_one_sigmoid_layer_equals_the_closed_form(x):
    model = models.shallow((6,), 4, activation="sigmoid", bias_initializer="normal")
    kernel, bias = (to_numpy(v) for v in model.sparse_layers[0].trainable_weights)
    h = sigmoid(x @ kernel + bias)
    value = (h * (1 - h)) ** 2 @ (kernel**2).sum(axis=0)
    assert penalty(model.encoder, x) == pytest.approx(value.mean(), rel=1e-5)


def test_penalty_equals_finite_differences(x):
    """Two layers in float64 NumPy. Each input moves a little."""
    model = models.deep((6,), (5, 4), "kl", activation="tanh")
    w1, b1, w2, b2 = (
        to_numpy(v) for layer in model.sparse_layers for v in layer.trainable_weights
    )

    def code(v):
        return sigmoid(np.tanh(v @ w1 + b1) @ w2 + b2)

    step, norm = 1e-5, 0.0
    for i in range(6):
        move = step * np.eye(6)[i]
        slope = (code(x + move) - code(x - move)) / (2 * step)
        norm += (slope**2).sum(axis=1).mean()
    assert penalty(model.encoder, x) == pytest.approx(norm, rel=1e-5)


def test_penalty_is_a_mean_over_the_batch(x):
    encoder = models.deep((6,), (5, 4)).encoder
    value = penalty(encoder, x)
    assert value > 0
    assert penalty(encoder, np.tile(x, (3, 1))) == pytest.approx(value, rel=1e-5)


@pytest.mark.parametrize(
    "noise", [layers.MaskingNoise, keras.layers.Dropout, keras.layers.GaussianNoise]
)
def test_penalty_is_taken_at_the_corrupted_input(noise, x):
    options = {"activation": "silu", "centering": False}
    model = models.deep((6,), (5, 4), corruption=noise(0.5, seed=3), **options)
    corrupted = to_numpy(noise(0.5, seed=3)(x, training=True)).astype("float32")
    assert not np.array_equal(corrupted, x)
    clean = models.deep((6,), (5, 4), **options)
    clean.set_weights([v for v in model.get_weights() if v.dtype.kind == "f"])
    assert penalty(model.encoder, x, training=True) == pytest.approx(
        penalty(clean.encoder, corrupted), rel=5e-5
    )


# Training.


def test_gradient_is_that_of_the_closed_form(x):
    """One step of SGD moves the kernel by the gradient of the penalty alone.

    The decoder is zero, so the reconstruction has no gradient to the encoder.
    """
    model = models.shallow((6,), 4, activation="sigmoid", contractive=FACTOR)
    for weight in model.decoder.trainable_weights:
        weight.assign(np.zeros(weight.shape))
    model.compile(keras.optimizers.SGD(1.0), jit_compile=False)
    layer = model.sparse_layers[0]
    kernel = to_numpy(layer.kernel)
    centered = to_numpy(model.encoder.get_layer("center")(x, training=True))

    def value(w):
        h = sigmoid(centered @ w)
        return FACTOR * ((h * (1 - h)) ** 2 @ (w**2).sum(axis=0)).mean()

    gradient, step = np.zeros_like(kernel), 1e-5
    for index in np.ndindex(kernel.shape):
        move = np.zeros_like(kernel)
        move[index] = step
        gradient[index] = (value(kernel + move) - value(kernel - move)) / (2 * step)
    center = model.encoder.get_layer("center")
    center.count.assign(0.0 * to_numpy(center.count))  # as before its first batch
    model.train_on_batch(x)
    moved = kernel - to_numpy(layer.kernel)
    np.testing.assert_allclose(moved, gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "make",
    [
        partial(models.shallow, (6,), 4, "l1", activation="sigmoid"),
        partial(models.variational, (6,), 5, 3),
    ],
    ids=["shallow", "variational"],
)
def test_penalty_is_logged_as_auxiliary_loss(make, x):
    model = make(contractive=FACTOR)
    model.compile(keras.optimizers.SGD(0.0))
    logs = model.fit(x, validation_data=x, verbose=0, batch_size=5).history
    logs = {name: values[0] for name, values in logs.items()}
    for prefix in ("", "val_"):
        parts = ("reconstruction", "sparsity", "auxiliary", "kl")
        terms = [logs.get(f"{prefix}{part}_loss", 0.0) for part in parts]
        assert logs[f"{prefix}loss"] == pytest.approx(sum(terms), rel=1e-5)
    assert logs["val_auxiliary_loss"] == pytest.approx(
        FACTOR * expected(model.encoder, x), rel=5e-5
    )


def test_training_with_the_penalty_shrinks_the_jacobian(rng):
    x = rng.uniform(size=(64, 8)).astype("float32")
    norms = {}
    for factor in (0.0, 1.0):
        keras.utils.set_random_seed(0)
        model = models.shallow((8,), 6, activation="sigmoid", contractive=factor)
        model.compile(keras.optimizers.Adam(0.05))
        for _ in range(15):
            model.train_on_batch(x)
        norms[factor] = penalty(model.encoder, x)
    assert norms[1.0] < 0.2 * norms[0.0]


@pytest.mark.parametrize("policy", ["mixed_float16", "bfloat16"])
@pytest.mark.parametrize(
    "make",
    [
        partial(models.deep, (6,), (5, 4), "kl"),
        partial(models.variational, (6,), 5, 4, activation="silu"),
    ],
    ids=["deep", "variational"],
)
def test_penalty_is_float32_under_any_policy(policy, make, x):
    keras.config.set_dtype_policy(policy)
    model = make(contractive=FACTOR)
    model(x)
    assert all(
        keras.backend.standardize_dtype(v.dtype) == "float32" for v in model.losses
    )
    model.compile("sgd", jit_compile=False)
    assert np.isfinite(list(model.train_on_batch(x, return_dict=True).values())).all()


# Encoders that are refused.

IMAGE, CODE = (4, 4, 2), keras.layers.Dense(4)


@pytest.mark.parametrize(
    ("inner", "shape", "named"),
    [
        ([layers.SparseDense(5), keras.layers.Dropout(0.5), CODE], (6,), "Dropout"),
        ([layers.SparseDense(6), keras.layers.LayerNormalization()], (6,), "LayerNorm"),
        ([layers.SparseDense(5, sparsity=layers.TopK(2))], (6,), "sparsity=TopK"),
        ([keras.layers.Softmax(), CODE], (6,), "Softmax"),
        ([DoubledDense(4, name="double")], (6,), r"'double' \(DoubledDense\)"),
        ([keras.layers.Dense(3, name="d")], IMAGE, r"'d' \(Dense\) with inputs of sha"),
        ([keras.layers.Conv2D(2, 3), keras.layers.Flatten(), CODE], IMAGE, "Conv2D"),
        ([keras.layers.GlobalAveragePooling2D(), CODE], IMAGE, "GlobalAveragePooling"),
        ([keras.layers.Flatten()], IMAGE, "has no dense layer"),
        ([DoubledFlatten(name="f"), CODE], IMAGE, r"'f' \(DoubledFlatten\)"),
        (
            [layers.SparseDense(5, sparsity=DoubledPenalty("l1"))],
            (6,),
            "=DoubledPenalty",
        ),
    ],
)
def test_other_layers_are_refused_by_name(inner, shape, named):
    copies = [type(layer).from_config(layer.get_config()) for layer in inner]
    encoder = keras.Sequential([keras.Input(shape), *copies])
    with pytest.raises(ValueError, match=rf"`contractive` requires.*{named}"):
        ContractivePenalty(encoder)


def test_batch_normalization_is_refused():
    with pytest.raises(ValueError, match=r"`contractive`.*BatchNormalization"):
        models.deep((6,), (5, 4), contractive=0.1, batch_normalization=True)


def test_two_inputs_of_a_layer_are_refused():
    x = keras.Input((4,))
    both = keras.layers.Add(name="both")([layers.SparseDense(3)(x)] * 2)
    with pytest.raises(ValueError, match=r"`contractive`.*'both' \(Add\)"):
        ContractivePenalty(keras.Model(x, both))


@pytest.mark.parametrize("activation", ["softmax", "mish"])
def test_unknown_activations_are_refused_by_name(activation):
    with pytest.raises(ValueError, match=rf"`contractive`.*'code'.*'{activation}'"):
        models.shallow((6,), 4, activation=activation, contractive=0.1)
    models.shallow((6,), 4, activation=activation)


@pytest.mark.parametrize("factor", [-1, float("nan"), "1"])
def test_factor_must_be_a_finite_number(factor):
    with pytest.raises(ValueError, match=r"`contractive`.*finite number >= 0"):
        models.shallow((6,), 4, contractive=factor)
