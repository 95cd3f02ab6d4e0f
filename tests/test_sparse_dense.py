"""Tests of `SparseDense`, its `sparsity` argument and `ActivityPenalty`."""

import keras
import numpy as np
import pytest
from helpers import kl_penalty, l1_penalty, sigmoid, to_numpy, total

from keras_sae import layers
from keras_sae.regularizers import L1, KLDivergence

ACTIVATIONS = {
    "relu": lambda z: np.maximum(z, 0),
    "sigmoid": sigmoid,
    "tanh": np.tanh,
    "linear": lambda z: z,
}


@pytest.fixture
def x(rng):
    return rng.normal(size=(7, 12)).astype("float32")


def assert_affine_code(layer, x) -> None:
    """Compare the output of a built layer with `activation(x W + b)`."""
    activation = ACTIVATIONS[layer.activation.__name__]
    pre_activations = x.astype("float64") @ to_numpy(layer.kernel)
    if layer.bias is not None:
        pre_activations += to_numpy(layer.bias)
    # A float32 product over 12 numbers.
    expected = activation(pre_activations)
    np.testing.assert_allclose(to_numpy(layer(x)), expected, rtol=1e-5, atol=1e-6)


# Values.


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_code_is_the_activation_of_an_affine_map(x, activation):
    layer = layers.SparseDense(5, activation, bias_initializer="normal")
    layer.build(x.shape)
    assert_affine_code(layer, x)


def test_bias_is_optional(x):
    layer = layers.SparseDense(5, "linear", use_bias=False)
    layer.build(x.shape)
    assert layer.bias is None
    assert_affine_code(layer, x)


@pytest.mark.parametrize("sparsity", ["l1", KLDivergence(0.2)], ids=["l1", "kl"])
def test_regularizers_leave_the_code_unchanged(x, sparsity):
    layer = layers.SparseDense(5, sparsity=sparsity)
    layer.build(x.shape)
    assert_affine_code(layer, x)


def test_kernel_regularizer_and_constraint_are_applied(x):
    layer = layers.SparseDense(
        5, kernel_regularizer=keras.regularizers.L2(0.1), kernel_constraint="unit_norm"
    )
    layer(x)
    expected = 0.1 * (to_numpy(layer.kernel) ** 2).sum()
    assert total(layer.losses) == pytest.approx(expected, rel=1e-5)
    assert isinstance(layer.kernel.constraint, keras.constraints.UnitNorm)


# Automatic activation and bias.


@pytest.mark.parametrize(
    ("sparsity", "expected"),
    [
        (None, "relu"),
        ("l1", "relu"),
        ("kl", "sigmoid"),
        ("gated", "linear"),
        (keras.regularizers.L2(0.1), "relu"),
    ],
)
def test_auto_activation_is_that_of_the_sparsity(sparsity, expected):
    assert layers.SparseDense(5, sparsity=sparsity).activation.__name__ == expected


def test_a_given_activation_is_kept():
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
def test_bias_starts_at_zero_otherwise(settings):
    layer = layers.SparseDense(5, **settings)
    layer.build((None, 3))
    np.testing.assert_array_equal(to_numpy(layer.bias), 0)


# The sparsity argument.


def test_name_config_and_object_are_equivalent(x):
    config = keras.saving.serialize_keras_object(L1(1e-4))
    values = []
    for sparsity in ["l1", config, L1(1e-4)]:
        keras.utils.set_random_seed(3)
        layer = layers.SparseDense(5, sparsity=sparsity)
        layer(x)
        values.append(total(layer.losses))
    assert values[0] == values[1] == values[2] > 0


def test_layers_do_not_share_a_sparsity(x):
    """The state of a sparsity belongs to one layer."""
    given = layers.ActivityPenalty(L1(0.1))
    one, two = (layers.SparseDense(5, sparsity=given) for _ in range(2))
    one(x), two(x)
    assert one.sparsity is not two.sparsity
    assert len(one.losses) == 1


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
def test_keras_regularizers_are_accepted(x, regularizer, expected):
    layer = layers.SparseDense(5, "tanh", regularizer)
    code = to_numpy(layer(x))
    assert total(layer.losses) == pytest.approx(expected(code), rel=1e-5)


def test_coefficient_multiplies_the_penalty(x):
    layer = layers.SparseDense(5, sparsity=L1(0.1))
    layer(x)
    full = total(layer.losses)
    layer.sparsity.coefficient.assign(0.25)
    layer(x)
    assert total(layer.losses[-1:]) == pytest.approx(full / 4, rel=1e-6)


@pytest.mark.parametrize(
    ("name", "hint"),
    [("l2", "Did you mean 'l1'"), ("kll", "Did you mean 'kl'"), ("KL", "")],
)
def test_unknown_sparsities_are_refused_with_the_known_names(name, hint):
    with pytest.raises(ValueError, match="Unknown sparsity") as error:
        layers.SparseDense(5, sparsity=name)
    for part in (repr(name), hint, "kl, l1"):
        assert part in str(error.value)


@pytest.mark.parametrize("sparsity", [3, L1, [L1(0.1)]])
def test_objects_that_are_no_sparsity_are_refused(sparsity):
    with pytest.raises(ValueError, match=r"`sparsity` must be a `keras_sae\.layers\.S"):
        layers.SparseDense(5, sparsity=sparsity)


# KL divergence and activations.


@pytest.mark.parametrize("activation", ["relu", "linear", "softplus", "gelu", "elu"])
def test_kl_refuses_activations_without_bounds(activation):
    with pytest.raises(ValueError, match="needs a bounded activation") as error:
        layers.SparseDense(5, activation, "kl")
    assert f"activation={activation!r}" in str(error.value)
    assert "Use activation='sigmoid'" in str(error.value)


@pytest.mark.parametrize("activation", ["sigmoid", "hard_sigmoid", "softmax", "relu6"])
def test_kl_accepts_bounded_activations(activation):
    layers.SparseDense(5, activation, "kl")


@pytest.mark.parametrize("activation", ["tanh", "softsign"])
def test_kl_rescales_activations_between_minus_one_and_one(x, activation):
    layer = layers.SparseDense(5, activation, KLDivergence(0.2, 0.5))
    code = to_numpy(layer(x))
    mean = ((code + 1) / 2).mean(axis=0)
    assert total(layer.losses) == pytest.approx(kl_penalty(mean, 0.2, 0.5), rel=1e-5)


def test_activity_penalty_rescales_the_code_for_a_divergence_only():
    code = np.full((4, 2), -0.5, "float32")
    for regularizer, expected in [
        (KLDivergence(0.25, 1.0), 0.0),  # (-0.5 + 1) / 2 is the target
        (L1(1.0), 1.0),
    ]:
        layer = layers.ActivityPenalty(regularizer, bounds=(-1.0, 1.0))
        np.testing.assert_array_equal(to_numpy(layer(code)), code)
        assert total(layer.losses) == expected


# Steps since a unit was active.


def test_steps_since_active_counts_training_steps():
    layer = layers.SparseDense(2, "relu", kernel_initializer="identity")
    on, off = [[1.0, 1.0]], [[1.0, -1.0]]  # the second unit is inactive in `off`
    counts = []
    for rows in [off + off, off, on + off, off]:
        layer(np.array(rows, "float32"), training=True)
        counts.append(to_numpy(layer.steps_since_active).tolist())
    assert counts == [[0, 1], [0, 2], [0, 0], [0, 1]]


def test_steps_since_active_is_unchanged_at_inference(x):
    layer = layers.SparseDense(
        3, "relu", bias_initializer=keras.initializers.Constant(-99)
    )
    layer.build(x.shape)
    layer(x)
    layer(x, training=False)
    assert to_numpy(layer.steps_since_active).tolist() == [0, 0, 0]


# Shapes.


@pytest.mark.parametrize("units", [0, -1, 2.5, "8", True])
def test_units_must_be_a_positive_integer(units):
    with pytest.raises(ValueError, match=r"`units`.*positive integer") as error:
        layers.SparseDense(units)
    assert f"units={units!r}" in str(error.value)


def test_last_axis_of_the_inputs_must_be_known():
    with pytest.raises(ValueError, match=r"last dimension.*\(None, None\)"):
        layers.SparseDense(5).build((None, None))
