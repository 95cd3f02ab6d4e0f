"""The norm of the Jacobian against automatic and numerical differentiation."""

from functools import partial

import keras
import numpy as np
import pytest
from helpers import BACKEND, sigmoid, to_numpy, total

from keras_sae import layers, models
from keras_sae.models import _slopes
from keras_sae.models._contraction import Contraction

FACTOR = 0.3
# Piecewise linear ones have no derivative at their kinks, where a finite
# difference would step across; automatic differentiation takes a side as we do.
ACTIVATIONS = sorted(f.__name__ for f in [*_slopes.SLOPES, *_slopes.SLOPES_BY_INPUT])


class Twice(keras.layers.Dense):
    """A dense layer's subclass that is none."""

    def call(self, inputs):
        """Returns twice what it would."""
        return 2 * super().call(inputs)


def jacobian(function, x: np.ndarray) -> np.ndarray:
    """`d function(x) / dx` for one sample: shape (outputs, inputs)."""
    if BACKEND == "jax":
        import jax

        return to_numpy(jax.jacobian(lambda v: function(v[None])[0])(x))
    if BACKEND == "torch":
        import torch

        x = keras.ops.convert_to_tensor(x)
        return to_numpy(
            torch.autograd.functional.jacobian(lambda v: function(v[None])[0], x)
        )
    import tensorflow as tf

    x = tf.convert_to_tensor(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        code = function(x[None])[0]
    return to_numpy(tape.jacobian(code, x))


def expected(model, x: np.ndarray) -> float:
    jacobians = [jacobian(model.encoder, sample) for sample in x]
    return FACTOR * float(np.mean([(j**2).sum() for j in jacobians]))


def penalty(model, x: np.ndarray) -> float:
    """What the model adds to the loss, which is all that it adds here."""
    model(x)
    return total(model.losses)


@pytest.fixture
def x(rng):
    return rng.normal(size=(5, 6)).astype("float32")


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_one_layer(activation, x):
    model = models.shallow((6,), 4, activation=activation, contractive=FACTOR)
    # A float32 sum of squares over 6 x 4 numbers.
    assert penalty(model, x) == pytest.approx(expected(model, x), rel=2e-5)


@pytest.mark.parametrize("units", [(5, 4), (7, 5, 4), (3, 7, 5, 4)])
@pytest.mark.parametrize("activation", ["sigmoid", "relu", "elu", "silu"])
def test_deep(units, activation, x):
    model = models.deep(
        (6,), units, activation=activation, code_activation="tanh", contractive=FACTOR
    )
    assert penalty(model, x) == pytest.approx(expected(model, x), rel=5e-5)


@pytest.fixture
def images(rng):
    return rng.normal(size=(3, 5, 7, 2)).astype("float32")


@pytest.mark.parametrize("units", [(3, 4), (4, 3, 5)])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"activation": "silu", "kernel_size": 2},
        {"activation": "tanh", "pooling": keras.layers.GlobalAveragePooling2D()},
        {"sparsity": ["l1", "kl"], "activation": "softplus", "centering": True},
    ],
)
def test_convolutional(units, options, images):
    options = {"code_activation": "sigmoid", **options}
    if isinstance(options.get("sparsity"), list):
        options["sparsity"] = ["l1"] * (len(units) - 1) + ["kl"]
    model = models.convolutional((5, 7, 2), units, contractive=FACTOR, **options)
    model(images)
    [contraction] = model._losses  # the model's own, the penalties are layers'
    assert float(to_numpy(contraction)) == pytest.approx(
        expected(model, images), rel=5e-5
    )


def test_of_equal_values_the_first_of_a_window_counts():
    """A picture without contrast: every value of a window is the largest."""
    model = models.convolutional((4, 4, 1), (1, 1), kernel_size=1, contractive=FACTOR)
    convolution, code = model.encoder.layers[1], model.sparse_layers[-1]
    convolution.set_weights([np.ones((1, 1, 1, 1)), np.ones(1)])
    code.kernel.assign(np.ones((4, 1)))
    # One place of each of the four windows, with a derivative of 1.
    assert penalty(model, np.ones((2, 4, 4, 1), "float32")) == pytest.approx(FACTOR * 4)


@pytest.mark.parametrize("sparsity", [None, "l1", "kl"])
@pytest.mark.parametrize("units", [(5,), (7, 5)])
def test_variational(units, sparsity, x):
    model = models.variational(
        (6,), units, 3, sparsity=sparsity, activation="elu", contractive=FACTOR
    )
    model(x)
    [contraction] = model._losses
    assert float(to_numpy(contraction)) == pytest.approx(expected(model, x), rel=5e-5)
    logs = fitted(model, x)
    assert logs["auxiliary_loss"] > 0
    assert logs["kl_loss"] > 0


def test_of_a_code_behind_convolutions_alone(images):
    chain = [keras.Input((5, 7, 2)), keras.layers.Conv2D(2, 3, activation="tanh")]
    encoder = keras.Sequential([*chain, keras.layers.Flatten()])
    decoder = keras.Sequential(
        [keras.Input((30,)), keras.layers.Dense(70), keras.layers.Reshape((5, 7, 2))]
    )
    model = models.Autoencoder(encoder, decoder, contractive=FACTOR)
    assert penalty(model, images) == pytest.approx(expected(model, images), rel=5e-5)


def fitted(model, x) -> dict[str, float]:
    """The logs of one batch that changes nothing."""
    model.compile(keras.optimizers.SGD(0.0))
    logs = model.fit(x, verbose=0, batch_size=len(x)).history
    return {name: values[0] for name, values in logs.items()}


def test_a_dense_layer_of_every_place(rng):
    x = rng.normal(size=(3, 4, 2)).astype("float32")
    chain = [keras.Input((4, 2)), keras.layers.Dense(3, "tanh"), keras.layers.Flatten()]
    encoder = keras.Sequential([*chain, layers.SparseDense(5, "sigmoid")])
    decoder = keras.Sequential(
        [keras.Input((5,)), keras.layers.Dense(8), keras.layers.Reshape((4, 2))]
    )
    model = models.Autoencoder(encoder, decoder, contractive=FACTOR)
    assert penalty(model, x) == pytest.approx(expected(model, x), rel=5e-5)


def test_closed_form_of_one_sigmoid_layer(x):
    model = models.shallow(
        (6,), 4, activation="sigmoid", contractive=FACTOR, bias_initializer="normal"
    )
    kernel, bias = (to_numpy(v) for v in model.sparse_layers[0].trainable_weights)
    h = sigmoid(x @ kernel + bias)
    value = (h * (1 - h)) ** 2 @ (kernel**2).sum(axis=0)
    assert penalty(model, x) == pytest.approx(FACTOR * value.mean(), rel=1e-5)


def test_by_finite_differences(x):
    """Two layers in float64 NumPy, each input moved a little."""
    model = models.deep((6,), (5, 4), "kl", activation="tanh", contractive=FACTOR)
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
    model(x)
    [contraction] = model._losses  # the model's own, the penalty is a layer's
    assert float(to_numpy(contraction)) == pytest.approx(FACTOR * norm, rel=1e-5)


def test_the_gradient_is_that_of_the_closed_form(x):
    """A step of SGD at rate 1 moves the kernel by the gradient of the penalty alone.

    Through a decoder of zeros no gradient of the reconstruction gets to it.
    """
    model = models.shallow((6,), 4, activation="sigmoid", contractive=FACTOR)
    for weight in model.decoder.trainable_weights:
        weight.assign(np.zeros(weight.shape))
    model.compile(keras.optimizers.SGD(1.0), jit_compile=False)
    layer = model.sparse_layers[0]
    kernel = to_numpy(layer.kernel)
    center = to_numpy(model.encoder.get_layer("center")(x, training=True))

    def value(w):
        h = sigmoid(center @ w)
        return FACTOR * ((h * (1 - h)) ** 2 @ (w**2).sum(axis=0)).mean()

    gradient, step = np.zeros_like(kernel), 1e-5
    for index in np.ndindex(kernel.shape):
        move = np.zeros_like(kernel)
        move[index] = step
        gradient[index] = (value(kernel + move) - value(kernel - move)) / (2 * step)
    model.encoder.get_layer("center").count.assign(0.0)  # as before its first batch
    model.train_on_batch(x)
    moved = kernel - to_numpy(layer.kernel)
    np.testing.assert_allclose(moved, gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("make", [models.shallow, models.deep])
def test_of_data_that_are_scaled(make, x):
    model = make((6,), 4, activation="sigmoid", contractive=FACTOR, scaling=True)
    model.adapt(x * 30)
    assert penalty(model, x * 30) == pytest.approx(expected(model, x * 30), rel=5e-5)


def test_a_dropout_of_the_input_is_a_corruption(x):
    options = {"activation": "silu", "contractive": FACTOR, "centering": False}
    noise = keras.layers.Dropout(0.5, seed=3)
    model = models.deep((6,), (5, 4), corruption=noise, **options)
    damaged = to_numpy(keras.layers.Dropout(0.5, seed=3)(x, training=True))
    assert (damaged == 0).any()
    model(x, training=True)
    clean = models.deep((6,), (5, 4), **options)
    clean.set_weights([v for v in model.get_weights() if v.dtype.kind == "f"])
    assert total(model.losses) == pytest.approx(
        penalty(clean, damaged.astype("float32")), rel=5e-5
    )


def test_scales_are_multiplied(x):
    scales = [layers.Scaling(), layers.Scaling()]
    chain = [keras.Input((6,)), *scales, layers.SparseDense(4, "tanh")]
    decoder = keras.Sequential([keras.Input((4,)), keras.layers.Dense(6)])
    model = models.Autoencoder(keras.Sequential(chain), decoder, contractive=FACTOR)
    for layer, rms in zip(scales, (3.0, 0.5), strict=True):
        layer.rms.assign(rms)
    assert penalty(model, x) == pytest.approx(expected(model, x), rel=5e-5)


def test_a_dropout_inside_is_refused():
    inside = keras.Sequential(
        [
            keras.Input((6,)),
            layers.SparseDense(5),
            keras.layers.Dropout(0.5),
            layers.SparseDense(4),
        ]
    )
    decoder = keras.Sequential([keras.Input((4,)), keras.layers.Dense(6)])
    with pytest.raises(ValueError, match="a Dropout"):
        models.Autoencoder(inside, decoder, contractive=0.1)


def test_it_does_not_see_the_batch_size(x):
    once, thrice = (models.deep((6,), (5, 4), contractive=FACTOR) for _ in range(2))
    thrice.set_weights(once.get_weights())
    value = penalty(once, x)
    assert value > 0
    assert penalty(thrice, np.tile(x, (3, 1))) == pytest.approx(value, rel=1e-5)


def test_in_a_fit(x):
    model = models.shallow((6,), 4, "l1", activation="sigmoid", contractive=FACTOR)
    model.compile(keras.optimizers.SGD(0.0))
    logs = model.fit(x, validation_data=x, verbose=0, batch_size=5).history
    logs = {name: values[0] for name, values in logs.items()}
    parts = ("reconstruction_loss", "sparsity_loss", "auxiliary_loss")
    for prefix in ("", "val_"):
        whole = sum(logs[prefix + part] for part in parts)
        assert logs[f"{prefix}loss"] == pytest.approx(whole, rel=1e-5)
        assert logs[f"{prefix}auxiliary_loss"] > 0


def test_it_contracts(rng):
    x = rng.uniform(size=(64, 8)).astype("float32")
    norms = {}
    for factor in (0.0, 1.0):
        keras.utils.set_random_seed(0)
        model = models.shallow((8,), 6, activation="sigmoid", contractive=factor)
        model.compile(keras.optimizers.Adam(0.05), jit_compile=False)
        for _ in range(15):
            model.train_on_batch(x)
        norms[factor] = float(to_numpy(Contraction(model.encoder)(x)[1]))
    assert norms[1.0] < 0.2 * norms[0.0]


@pytest.mark.parametrize("policy", ["mixed_float16", "bfloat16"])
@pytest.mark.parametrize(
    "make",
    [
        partial(models.deep, (6,), (5, 4), "kl"),
        partial(models.variational, (6,), 5, 4, activation="silu"),
        partial(models.convolutional, (2, 3, 1), (5, 4), activation="gelu"),
    ],
)
def test_precision(policy, make, x):
    keras.config.set_dtype_policy(policy)
    model = make(contractive=FACTOR)
    x = x.reshape(5, *model.sample_shape)
    model(x)
    assert all(
        keras.backend.standardize_dtype(v.dtype) == "float32" for v in model.losses
    )
    model.compile("sgd", jit_compile=False)
    assert np.isfinite(list(model.train_on_batch(x, return_dict=True).values())).all()


def test_with_corruption_the_jacobian_is_at_the_damaged_input(x):
    model = models.shallow(
        (6,),
        4,
        activation="sigmoid",
        contractive=FACTOR,
        corruption=layers.MaskingNoise(0.5, seed=3),
        centering=False,
    )
    damaged = to_numpy(layers.MaskingNoise(0.5, seed=3)(x, training=True))
    model(x, training=True)
    clean = models.shallow(
        (6,), 4, activation="sigmoid", contractive=FACTOR, centering=False
    )
    clean.set_weights(model.get_weights())
    assert total(model.losses) == pytest.approx(
        penalty(clean, damaged.astype("float32")), rel=1e-5
    )


@pytest.mark.parametrize("activation", ["softmax", "log_softmax", "sparsemax"])
def test_activations_without_a_known_slope(activation):
    with pytest.raises(ValueError, match=r"`contractive`.*Jacobian") as error:
        models.shallow((6,), 4, activation=activation, contractive=0.1)
    assert f"activation={activation!r}" in str(error.value)
    models.shallow((6,), 4, activation=activation)  # without it, welcome


def test_batch_normalisation_has_no_jacobian_of_a_sample():
    with pytest.raises(ValueError, match=r"`contractive`.*BatchNormalization"):
        models.deep((6,), (5, 4), contractive=0.1, batch_normalization=True)


@pytest.mark.parametrize(
    ("inside", "named"),
    [
        ([keras.layers.LayerNormalization()], "a LayerNormalization"),
        ([layers.SparseDense(4, sparsity=layers.TopK(2))], "sparsity=TopK"),
        ([keras.layers.Flatten()], "no dense or convolutional layer"),
        ([Twice(4)], "a Twice"),
    ],
)
def test_other_layers_have_no_known_jacobian(inside, named):
    encoder = keras.Sequential([keras.Input((4,)), *inside])
    decoder = keras.Sequential([keras.Input((4,)), keras.layers.Dense(4)])
    with pytest.raises(ValueError, match=rf"`contractive`.*{named}"):
        models.Autoencoder(encoder, decoder, contractive=0.1)


@pytest.mark.parametrize(
    "layer",
    [
        keras.layers.Conv2D(3, 3, strides=2),
        keras.layers.Conv2D(4, 3, groups=2),
        keras.layers.Conv2D(3, 2, dilation_rate=2),
        keras.layers.MaxPooling2D(3, strides=2),
        keras.layers.MaxPooling2D(2),  # 5 x 4 leaves a row
        keras.layers.MaxPooling2D(2, padding="same", data_format="channels_first"),
        keras.layers.Flatten(data_format="channels_first"),
    ],
)
def test_convolutions_without_a_known_jacobian(layer):
    chain = [keras.Input((5, 4, 2)), keras.layers.Conv2D(2, 1), layer]
    encoder = keras.Sequential([*chain, keras.layers.Flatten(), layers.SparseDense(3)])
    decoder = keras.Sequential(
        [keras.Input((3,)), keras.layers.Dense(40), keras.layers.Reshape((5, 4, 2))]
    )
    named = rf"`contractive`.*{type(layer).__name__} (with|whose) "
    with pytest.raises(ValueError, match=named):
        models.Autoencoder(encoder, decoder, contractive=0.1)


def of(shape: tuple[int, ...], *inside, units: int = 3):
    """A contractive model of images whose encoder has these layers, then a dense."""
    outer = [keras.layers.Flatten(), layers.SparseDense(units, "tanh")]
    encoder = keras.Sequential([keras.Input(shape), *inside, *outer])
    size = int(np.prod(shape))
    back = [keras.layers.Dense(size), keras.layers.Reshape(shape)]
    decoder = keras.Sequential([keras.Input((units,)), *back])
    return models.Autoencoder(encoder, decoder, contractive=FACTOR)


@pytest.mark.parametrize(
    "pooling",
    [
        partial(keras.layers.MaxPooling2D, 3, padding="same"),
        partial(keras.layers.MaxPooling2D, (1, 3), padding="same"),
        partial(keras.layers.GlobalAveragePooling2D, keepdims=True),
    ],
)
@pytest.mark.parametrize("side", [4, 5, 6])
def test_pooling(pooling, side, rng):
    x = rng.normal(size=(3, side, side, 2)).astype("float32")
    model = of((side, side, 2), keras.layers.Conv2D(3, 2, activation="elu"), pooling())
    assert penalty(model, x) == pytest.approx(expected(model, x), rel=5e-5)


@pytest.mark.parametrize(
    "layer", [keras.layers.GlobalAveragePooling2D, keras.layers.MaxPooling2D]
)
def test_pooling_of_the_input_is_refused(layer):
    with pytest.raises(ValueError, match=rf"`contractive`.*a {layer.__name__}, before"):
        of((4, 4, 2), layer())


def test_one_layer_at_two_sizes(rng):
    x = rng.normal(size=(2, 12, 12, 1)).astype("float32")
    pool, code = keras.layers.MaxPooling2D(2), layers.SparseDense(2, "tanh")
    inputs = keras.Input((12, 12, 1))
    maps = pool(pool(keras.layers.Conv2D(2, 1)(inputs)))
    encoder = keras.Model(inputs, code(keras.layers.Flatten()(maps)))
    back = [keras.layers.Dense(144), keras.layers.Reshape((12, 12, 1))]
    decoder = keras.Sequential([keras.Input((2,)), *back])
    model = models.Autoencoder(encoder, decoder, contractive=FACTOR)
    assert penalty(model, x) == pytest.approx(expected(model, x), rel=5e-5)


def test_a_code_of_maps_is_refused():
    maps = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Conv2D(1, 1)])
    back = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Conv2D(1, 1)])
    with pytest.raises(ValueError, match=r"`contractive`.*a code of no vectors"):
        models.Autoencoder(maps, back, contractive=FACTOR)


def test_images_whatever_keras_is_configured_to_take(images):
    keras.config.set_image_data_format("channels_first")
    try:
        model = models.convolutional(
            (5, 7, 2), (3, 4), activation="tanh", contractive=FACTOR
        )
        assert penalty(model, images) == pytest.approx(
            expected(model, images), rel=5e-5
        )
    finally:
        keras.config.set_image_data_format("channels_last")


def test_a_code_of_two_inputs_is_refused():
    x = keras.Input((4,))
    both = keras.layers.Add(name="both")([layers.SparseDense(3)(x)] * 2)
    decoder = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4)])
    with pytest.raises(ValueError, match=r"`contractive`.*'both' of 2 inputs"):
        models.Autoencoder(keras.Model(x, both), decoder, contractive=0.1)


@pytest.mark.parametrize("factor", [-1, float("nan"), "1"])
def test_bad_factors(factor):
    with pytest.raises(ValueError, match=r"`contractive`.*finite number >= 0"):
        models.shallow((6,), 4, contractive=factor)
