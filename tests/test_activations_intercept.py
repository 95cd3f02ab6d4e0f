"""Tests of `activations.intercept`, and of the paths of layers."""

import threading

import keras
import numpy as np
import pytest
from activation_models import CASES, Block, nested, plain, sequential, transformer
from contracts import each

from keras_sae import activations


def state(model) -> list:
    """Return the attributes of each layer, to find what is left on one."""
    layers = [model, *activations.layer_paths(model).values()]
    return [{key: id(value) for key, value in vars(x).items()} for x in layers]


@each(CASES)
def test_function_replaces_the_output(case):
    model, x = case.make(), case.inputs()
    before = plain(model(x))
    shapes = []

    def zero(outputs):
        shapes.append(tuple(outputs.shape))
        return keras.ops.zeros_like(outputs)

    with activations.intercept(case.layer, zero, model):
        inside = plain(model(x))
    assert shapes[0][-1] == case.width
    assert not np.allclose(inside, before)
    np.testing.assert_array_equal(plain(model(x)), before)


@each(CASES)
def test_model_is_unchanged_afterwards(case):
    model, x = case.make(), case.inputs()
    before, attributes = plain(model(x)), state(model)
    layer = activations.layer_paths(model)[case.layer]
    with activations.intercept(layer, lambda outputs: outputs):
        np.testing.assert_array_equal(plain(model(x)), before)
    assert state(model) == attributes
    assert "call" not in vars(layer)


def test_nothing_is_left_after_an_error():
    model, x = sequential(), np.ones((2, 5), "float32")
    model(x)
    attributes = state(model)

    def fail(outputs):
        raise RuntimeError("wrong")

    def run():
        with activations.intercept("hidden", fail, model):
            model(x)

    with pytest.raises(RuntimeError, match="wrong"):
        run()
    assert state(model) == attributes


def test_nested_contexts_act_in_the_order_of_entry():
    layer = keras.layers.Identity()
    x = np.ones((1, 2), "float32")
    with activations.intercept(layer, lambda v: v + 1):
        with activations.intercept(layer, lambda v: v * 10):
            assert plain(layer(x)).tolist() == [[20.0, 20.0]]
        assert plain(layer(x)).tolist() == [[2.0, 2.0]]
    assert plain(layer(x)).tolist() == [[1.0, 1.0]]


def test_other_threads_are_not_intercepted():
    layer, found = keras.layers.Identity(), []
    x = np.ones((1, 2), "float32")
    with activations.intercept(layer, lambda v: v + 1):
        thread = threading.Thread(target=lambda: found.append(plain(layer(x))))
        thread.start()
        thread.join()
        assert plain(layer(x)).tolist() == [[2.0, 2.0]]
    assert found[0].tolist() == [[1.0, 1.0]]


def test_call_set_on_the_instance_is_kept():
    layer = keras.layers.Identity()
    own = vars(layer)["call"] = lambda inputs: inputs * 3
    with activations.intercept(layer, lambda v: v + 1):
        assert plain(layer(np.ones((1, 1), "float32"))).tolist() == [[4.0]]
    assert vars(layer)["call"] is own


@pytest.mark.parametrize("traced_before", [True, False])
def test_predict_of_a_given_model_is_traced_anew(traced_before):
    model, x = sequential(), np.ones((2, 5), "float32")
    expected = plain(model(x))
    if traced_before:
        model.predict_on_batch(x)
    function = model.predict_function
    with activations.intercept("hidden", keras.ops.zeros_like, model):
        inside = model.predict_on_batch(x)
    np.testing.assert_allclose(inside, np.tile(plain(model.layers[1].bias), (2, 1)))
    assert model.predict_function is function
    np.testing.assert_allclose(model.predict_on_batch(x), expected, rtol=1e-6)


@pytest.mark.parametrize("traced_before", [True, False])
def test_evaluate_of_a_given_model_is_traced_anew(traced_before):
    model, x = sequential(), np.ones((2, 5), "float32")
    model.compile("sgd", "mse")
    expected = np.mean(plain(model(x)) ** 2)
    y = np.zeros((2, 3), "float32")
    if traced_before:
        assert model.evaluate(x, y, verbose=0) == pytest.approx(expected, rel=1e-5)
    for value in (1.0, 2.0):
        change = {1.0: keras.ops.ones_like, 2.0: lambda v: 2 * keras.ops.ones_like(v)}
        kernel, bias = (plain(weight) for weight in model.layers[1].weights)
        inside = np.mean((value * kernel.sum(axis=0) + bias) ** 2)
        with activations.intercept("hidden", change[value], model):
            assert model.evaluate(x, y, verbose=0) == pytest.approx(inside, rel=1e-5)
    assert model.evaluate(x, y, verbose=0) == pytest.approx(expected, rel=1e-5)
    assert "test_step" not in vars(model)


def test_nested_contexts_of_a_given_model_are_traced_anew():
    model, x = sequential(), np.ones((2, 5), "float32")
    model.compile("sgd", "mse")
    expected, attributes = model.predict_on_batch(x), set(vars(model))
    kernel, bias = (plain(weight) for weight in model.layers[1].weights)
    with activations.intercept("hidden", keras.ops.ones_like, model):
        with activations.intercept("hidden", lambda v: 2 * v, model):
            inside = model.predict_on_batch(x)
        outside = model.predict_on_batch(x)
    for found, value in ((inside, 2), (outside, 1)):
        row = value * kernel.sum(axis=0) + bias
        np.testing.assert_allclose(found, np.tile(row, (2, 1)), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(model.predict_on_batch(x), expected)
    assert set(vars(model)) == attributes


def test_only_the_first_of_several_outputs_is_replaced():
    lstm = keras.layers.LSTM(3, return_state=True)
    x = np.ones((2, 4, 5), "float32")
    before = [plain(v) for v in lstm(x)]
    with activations.intercept(lstm, lambda v: 2 * v):
        after = [plain(v) for v in lstm(x)]
    np.testing.assert_allclose(after[0], 2 * before[0], rtol=1e-6)
    np.testing.assert_array_equal(after[1], before[1])
    np.testing.assert_array_equal(after[2], before[2])


def test_replaced_output_keeps_its_mask():
    model = transformer()
    masks = []

    class Probe(keras.layers.Layer):
        def call(self, inputs, mask=None):
            masks.append(None if mask is None else plain(mask))
            return inputs

    x = np.array([[3, 4, 0]], "int32")
    block = model.get_layer("block_0")
    with activations.intercept(block, lambda v: 2 * v):
        probe = Probe()
        probe.supports_masking = True
        probe(block(model.get_layer("embedding")(x)))
    assert masks[0].tolist() == [[True, True, False]]


def test_quantized_layer_is_intercepted():
    model, x = sequential(), np.ones((2, 5), "float32")
    model.get_layer("hidden").quantize("int8")
    with activations.intercept("hidden", keras.ops.zeros_like, model):
        inside = plain(model(x))
    np.testing.assert_allclose(inside, np.tile(plain(model.layers[1].bias), (2, 1)))


# Paths.


def test_paths_of_every_kind():
    assert list(activations.layer_paths(nested())) == [
        "inner",
        "head",
        "inner/hidden",
        "inner/last",
    ]
    block = list(activations.layer_paths(Block(4)))
    assert {"attention", "norm", "feed_forward/0", "feed_forward/1"} <= set(block)
    assert "attention/query_dense" in activations.layer_paths(transformer().layers[2])
    own = list(activations.layer_paths(CASES["subclassed"].make()))
    assert own == ["encode", "drop", "heads/first", "twice"]


@pytest.mark.parametrize("name", ["block_0/attention", "block_0", "embedding"])
def test_layer_is_found_by_path_tail_and_object(name):
    model = keras.Sequential([transformer()])
    path = f"lm/{name}"
    layer = activations.layer_paths(model)[path]
    for key in (name, path, layer):
        with activations.intercept(key, keras.ops.zeros_like, model):
            assert "call" in vars(layer)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("hiden", "'inner/hidden'"),
        ("inner/hiden", "Use one of these paths: 'inner/hidden'"),
        ("xyz", "'inner', 'head'"),
        (keras.layers.Dense(2, name="last"), "is not a layer of the model 'outer'"),
    ],
)
def test_unknown_layer_lists_the_nearest_paths(layer, message):
    with pytest.raises(ValueError, match=message):
        activations.intercept(layer, lambda v: v, nested()).__enter__()


def test_ambiguous_name_lists_the_paths():
    with pytest.raises(ValueError, match=r"several layers.*'block_0/norm', 'block_1/n"):
        activations.intercept("norm", lambda v: v, transformer()).__enter__()


def test_name_without_a_model_is_an_error():
    with pytest.raises(ValueError, match="if `model` is None"):
        activations.intercept("hidden", lambda v: v).__enter__()


def test_layer_with_a_dict_of_outputs_is_an_error():
    class Pair(keras.layers.Layer):
        def call(self, inputs):
            return {"a": inputs}

    layer = Pair()
    with (
        activations.intercept(layer, lambda v: v),
        pytest.raises(ValueError, match="returns a dict"),
    ):
        layer(np.ones((1, 1), "float32"))
