"""The layers against NumPy, and what they refuse."""

import math
import warnings

import keras
import numpy as np
import pytest
from helpers import kl_penalty, l1_penalty, sigmoid, to_numpy, total

from keras_sae import layers, models
from keras_sae.regularizers import L1, KLDivergence


@pytest.fixture
def x(rng):
    return rng.normal(size=(7, 12)).astype("float32")


def numpy_code(layer, x, activation):
    kernel, bias = to_numpy(layer.kernel), to_numpy(layer.bias)
    return activation(x.astype("float64") @ kernel + bias)


# SparseDense.


@pytest.mark.parametrize(
    ("name", "activation"),
    [
        ("relu", lambda z: np.maximum(z, 0)),
        ("sigmoid", sigmoid),
        ("tanh", np.tanh),
        ("linear", lambda z: z),
    ],
)
def test_sparse_dense_is_an_affine_map_and_an_activation(x, name, activation):
    layer = layers.SparseDense(5, name, bias_initializer="normal")
    # A float32 product over 12 numbers.
    np.testing.assert_allclose(
        to_numpy(layer(x)), numpy_code(layer, x, activation), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("sparsity", ["l1", L1(0.1), KLDivergence(0.2)])
def test_a_soft_penalty_leaves_the_code_alone(x, sparsity):
    layer = layers.SparseDense(5, sparsity=sparsity)
    function = {"relu": lambda z: np.maximum(z, 0), "sigmoid": sigmoid}
    expected = numpy_code(layer_after(layer, x), x, function[layer.activation.__name__])
    np.testing.assert_allclose(to_numpy(layer(x)), expected, rtol=1e-5, atol=1e-6)


def layer_after(layer, x):
    layer(x)
    return layer


def test_without_bias(x):
    layer = layers.SparseDense(5, "linear", use_bias=False)
    np.testing.assert_allclose(
        to_numpy(layer(x)), x @ to_numpy(layer.kernel), rtol=1e-5, atol=1e-6
    )
    assert layer.bias is None


@pytest.mark.parametrize(
    ("sparsity", "expected"),
    [
        (None, "relu"),
        ("l1", "relu"),
        (L1(0.1), "relu"),
        ("kl", "sigmoid"),
        (KLDivergence(0.1), "sigmoid"),
        (keras.regularizers.L2(0.1), "relu"),
    ],
)
def test_auto_activation(sparsity, expected):
    assert layers.SparseDense(5, sparsity=sparsity).activation.__name__ == expected


def test_a_given_activation_stands():
    assert layers.SparseDense(5, "softplus", "l1").activation.__name__ == "softplus"


@pytest.mark.parametrize("target", [0.01, 0.05, 0.3])
def test_auto_bias_starts_a_sigmoid_at_its_target(target):
    layer = layers.SparseDense(5, sparsity=KLDivergence(target))
    code = to_numpy(layer(np.zeros((2, 3), "float32")))
    np.testing.assert_allclose(code, target, rtol=1e-6)


@pytest.mark.parametrize(
    "settings",
    [
        {"sparsity": "l1"},
        {"sparsity": None},
        {"sparsity": "kl", "activation": "tanh"},
        {"sparsity": "kl", "bias_initializer": "zeros"},
    ],
)
def test_bias_is_zero_elsewhere(settings):
    layer = layers.SparseDense(5, **settings)
    layer.build((None, 3))
    np.testing.assert_array_equal(to_numpy(layer.bias), 0)


def test_names_configs_and_objects_mean_the_same(x):
    config = keras.saving.serialize_keras_object(L1(1e-4))
    values = []
    for sparsity in ["l1", config, L1(1e-4)]:
        keras.utils.set_random_seed(3)
        layer = layers.SparseDense(5, sparsity=sparsity)
        layer(x)
        values.append(total(layer.losses))
    assert values[0] == values[1] == values[2] > 0


@pytest.mark.parametrize("activation", ["relu", "linear", "softplus", "gelu", "elu"])
def test_kl_on_an_unbounded_activation_is_refused(activation):
    with pytest.raises(ValueError, match="needs a bounded activation") as error:
        layers.SparseDense(5, activation, "kl")
    message = str(error.value)
    assert f"activation={activation!r}" in message
    assert "sigmoid" in message  # how to mend it


@pytest.mark.parametrize("activation", ["sigmoid", "hard_sigmoid", "softmax", "relu6"])
def test_kl_on_a_bounded_activation_is_taken(activation):
    layers.SparseDense(5, activation, "kl")


@pytest.mark.parametrize("activation", ["tanh", "softsign"])
def test_kl_rescales_an_activation_between_minus_one_and_one(x, activation):
    regularizer = KLDivergence(0.2, 0.5)
    layer = layers.SparseDense(5, activation, regularizer)
    code = to_numpy(layer(x))
    mean = ((code + 1) / 2).mean(axis=0)
    assert total(layer.losses) == pytest.approx(kl_penalty(mean, 0.2, 0.5), rel=1e-5)


@pytest.mark.parametrize(
    ("regularizer", "expected"),
    [
        (keras.regularizers.L1(0.1), lambda h: l1_penalty(h, 0.1)),
        (keras.regularizers.L2(0.1), lambda h: 0.1 * (h**2).sum() / len(h)),
        (
            keras.regularizers.L1L2(0.1, 0.2),
            lambda h: l1_penalty(h, 0.1) + 0.2 * (h**2).sum() / len(h),
        ),
    ],
    ids=["L1", "L2", "L1L2"],
)
def test_keras_regularizers_stand_in(x, regularizer, expected):
    layer = layers.SparseDense(5, "tanh", regularizer)
    code = to_numpy(layer(x))
    assert total(layer.losses) == pytest.approx(expected(code), rel=1e-5)


def test_scale_weighs_the_penalty(x):
    layer = layers.SparseDense(5, sparsity=L1(0.1))
    layer(x)
    full = total(layer.losses)
    layer.sparsity.coefficient.assign(0.25)
    layer(x)
    assert total(layer.losses[-1:]) == pytest.approx(full / 4, rel=1e-6)


def test_kernel_regularizer_and_constraint(x):
    layer = layers.SparseDense(
        5, kernel_regularizer=keras.regularizers.L2(0.1), kernel_constraint="unit_norm"
    )
    layer(x)
    expected = 0.1 * (to_numpy(layer.kernel) ** 2).sum()
    assert total(layer.losses) == pytest.approx(expected, rel=1e-5)
    assert isinstance(layer.kernel.constraint, keras.constraints.UnitNorm)


def test_silent_counts_steps_without_activation():
    layer = layers.SparseDense(2, "relu", kernel_initializer="identity")
    on, off = [[1.0, 1.0]], [[1.0, -1.0]]  # the second unit is off in the latter
    counts = []
    for rows in [off + off, off, on + off, off]:
        layer(np.array(rows, "float32"), training=True)
        counts.append(to_numpy(layer.steps_since_active).tolist())
    assert counts == [[0, 1], [0, 2], [0, 0], [0, 1]]


def test_silent_counts_in_training_only(x):
    layer = layers.SparseDense(
        3, "relu", bias_initializer=keras.initializers.Constant(-99)
    )
    layer(x)
    layer(x, training=False)
    assert to_numpy(layer.steps_since_active).tolist() == [0, 0, 0]


@pytest.mark.parametrize("units", [0, -1, 2.5, "8", True])
def test_bad_units(units):
    with pytest.raises(ValueError, match=r"`units`.*positive integer") as error:
        layers.SparseDense(units)
    assert f"units={units!r}" in str(error.value)


@pytest.mark.parametrize(
    ("name", "nearest"), [("l2", "l1"), ("kll", "kl"), ("KL", "kl")]
)
def test_an_unknown_sparsity_names_the_nearest(name, nearest):
    with pytest.raises(ValueError, match="Unknown sparsity") as error:
        layers.SparseDense(5, sparsity=name)
    message = str(error.value)
    assert repr(name) in message
    assert name == "KL" or f"Did you mean {nearest!r}" in message
    assert "l1" in message
    assert "kl" in message


@pytest.mark.parametrize("sparsity", [3, L1, [L1(0.1)]])
def test_a_thing_that_is_no_sparsity(sparsity):
    with pytest.raises(
        ValueError, match="`sparsity` must be a `keras_sae.layers.Sparsity`"
    ):
        layers.SparseDense(5, sparsity=sparsity)


def test_unknown_width_is_refused():
    with pytest.raises(ValueError, match=r"last axis.*\(None, None\)"):
        layers.SparseDense(5).build((None, None))


def test_a_sparsity_layer_is_copied(x):
    """A layer with state belongs to one model, so two layers never share it."""
    given = layers.ActivityPenalty(L1(0.1))
    one, two = (layers.SparseDense(5, sparsity=given) for _ in range(2))
    one(x), two(x)
    assert one.sparsity is not two.sparsity
    assert len(one.losses) == 1


# Centering.


def test_centering_learns_the_mean_of_all_samples(rng):
    data = rng.normal(3.0, 2.0, size=(23, 4)).astype("float32")
    layer = layers.Centering()
    for start in range(0, 23, 5):  # the last batch has 3
        outputs = layer(data[start : start + 5], training=True)
    mean = data.astype("float64").mean(axis=0)
    np.testing.assert_allclose(to_numpy(layer.mean), mean, rtol=1e-5)
    np.testing.assert_allclose(to_numpy(outputs), data[20:] - mean, atol=1e-5)
    np.testing.assert_allclose(to_numpy(layer(data)), data - mean, atol=1e-5)


def test_centering_is_fixed_at_inference(x):
    layer = layers.Centering()
    np.testing.assert_array_equal(to_numpy(layer(x)), x)
    np.testing.assert_array_equal(to_numpy(layer.mean), 0)


def test_centering_adapts(rng):
    data = rng.normal(3.0, 2.0, size=(6, 5, 4))
    layer = layers.Centering()
    layer.adapt(data)
    expected = data.reshape(-1, 4).mean(axis=0)
    np.testing.assert_allclose(to_numpy(layer.mean), expected, rtol=1e-6)
    assert float(layer.count) == 30


# TiedDense.


@pytest.fixture
def source(x):
    return layer_after(layers.SparseDense(5, name="source"), x)


@pytest.mark.parametrize(
    ("name", "activation"), [(None, lambda z: z), ("sigmoid", sigmoid)]
)
def test_tied_dense_uses_the_transpose(source, rng, name, activation):
    code = rng.normal(size=(3, 5)).astype("float32")
    layer = layers.TiedDense(source, name, bias_initializer="normal")
    outputs = to_numpy(layer(code))
    kernel, bias = to_numpy(source.kernel), to_numpy(layer.bias)
    np.testing.assert_allclose(
        outputs, activation(code @ kernel.T + bias), rtol=1e-5, atol=1e-6
    )


def test_tied_dense_follows_its_source(source):
    layer = layers.TiedDense(source, use_bias=False)
    code = np.eye(5, dtype="float32")
    source.kernel.assign(2 * to_numpy(source.kernel))
    np.testing.assert_allclose(to_numpy(layer(code)), to_numpy(source.kernel).T)


def test_tied_dense_ties_to_a_keras_dense(x):
    source = layer_after(keras.layers.Dense(5), x)
    layer = layers.TiedDense(source)
    layer(np.eye(5, dtype="float32"))
    assert layer.kernel is source.kernel


@pytest.mark.parametrize(
    "unbuilt", [layers.SparseDense(5), keras.layers.Flatten()], ids=["unbuilt", "none"]
)
def test_tied_dense_needs_a_built_kernel(unbuilt):
    with pytest.raises(ValueError, match="`tied_to` must be a built layer"):
        layers.TiedDense(unbuilt)


def test_tied_dense_needs_a_kernel_as_keras_stores_it():
    source = layers.SparseDense(4, transposed_kernel=True)
    source.build((None, 4))
    with pytest.raises(ValueError, match="Create it with transposed_kernel=False"):
        layers.TiedDense(source)


def test_tied_dense_needs_inputs_of_the_code_s_width(source):
    with pytest.raises(ValueError, match=r"must have 5 features.*\(3, 4\)"):
        layers.TiedDense(source)(np.ones((3, 4), "float32"))


def test_a_name_alone_is_not_enough():
    with pytest.raises(ValueError, match=r"`output_dim` is required.*tied_to='code'"):
        layers.TiedDense("code")


def test_tying_finds_layers_by_name(source):
    config = layers.TiedDense(source).get_config()
    with layers.tying([source]):
        layer = layers.TiedDense.from_config(config)
        layer.build((None, 5))
    assert layer.kernel is source.kernel


def test_tying_nests_and_ends(source):
    other = layers.SparseDense(5, name="other")
    other.build((None, 12))
    config = layers.TiedDense(other).get_config()
    with layers.tying([other]), layers.tying([source]):
        layer = layers.TiedDense.from_config(config)
        layer.build((None, 5))
    assert layer.kernel is other.kernel
    with pytest.warns(UserWarning, match="loaded without the layer 'other'"):
        layers.TiedDense.from_config(config).build((None, 5))


def plain_tied_model():
    """A tied pair in a model that is none of ours."""
    inputs = keras.Input((12,))
    code = layers.SparseDense(5, name="code")
    hidden = code(inputs)
    return keras.Model(inputs, layers.TiedDense(code, name="output")(hidden))


def test_loading_outside_an_autoencoder_warns_and_keeps_the_values(x, tmp_path):
    model = plain_tied_model()
    model.save(tmp_path / "model.keras")
    # Not `pytest.warns`: it raises again what others warn of while they load.
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        again = keras.saving.load_model(tmp_path / "model.keras")
    messages = [str(warning.message) for warning in caught]
    assert any("loaded without the layer 'code'" in message for message in messages)
    np.testing.assert_allclose(to_numpy(again(x)), to_numpy(model(x)), rtol=1e-6)


def test_loading_an_autoencoder_does_not_warn(tmp_path):
    models.shallow((12,), 5, tied=True).save(tmp_path / "model.keras")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*loaded without the layer")
        again = keras.saving.load_model(tmp_path / "model.keras")
    assert again.get_layer("decoder").get_layer("output").kernel is (
        again.sparse_layers[0].kernel
    )


# ActivityPenalty.


def test_penalty_rescales_for_a_divergence_only():
    code = np.full((4, 2), -0.5, "float32")
    for regularizer, expected in [
        (KLDivergence(0.25, 1.0), 0.0),  # (-0.5 + 1) / 2 is the target
        (L1(1.0), 1.0),
    ]:
        layer = layers.ActivityPenalty(regularizer, bounds=(-1.0, 1.0))
        np.testing.assert_array_equal(to_numpy(layer(code)), code)
        assert total(layer.losses) == expected


def test_logit_is_the_bias_of_the_target():
    layer = layers.SparseDense(3, sparsity=KLDivergence(0.05))
    layer.build((None, 2))
    expected = math.log(0.05 / 0.95)
    np.testing.assert_allclose(to_numpy(layer.bias), expected, rtol=1e-6)
