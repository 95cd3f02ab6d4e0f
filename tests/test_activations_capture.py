"""Tests of `activations.capture`."""

import keras
import numpy as np
import pytest
from activation_models import (
    CASES,
    Subclassed,
    functional,
    plain,
    sequential,
    transformer,
)
from contracts import each
from helpers import BACKEND, tensorflow_only

from keras_sae import activations


def by_intercept(model, layer, x) -> list[np.ndarray]:
    """Return the outputs of all calls of a layer in one eager call of a model."""
    found = []

    def keep(outputs):
        found.append(plain(outputs))
        return outputs

    with activations.intercept(layer, keep, model):
        model(x, training=False)
    return found


@each(CASES)
def test_outputs_are_those_of_the_layer(case):
    model, x = case.make(), case.inputs(samples=7)
    expected = by_intercept(model, case.layer, x)[0]
    found = activations.capture(model, case.layer, x, batch_size=3)
    assert found.shape == expected.shape
    assert found.shape[-1] == case.width
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_outputs_equal_a_model_that_ends_at_the_layer():
    model, x = functional(), CASES["functional"].inputs(50)
    part = keras.Model(model.input, model.get_layer("conv").output)
    expected = part.predict(x, batch_size=16, verbose=0)
    found = activations.capture(model, "conv", x, batch_size=16)
    np.testing.assert_array_equal(found, expected)


def test_several_layers_give_a_dict_in_one_pass():
    model, x = functional(), CASES["functional"].inputs()
    layers = ["conv", model.get_layer("hidden"), "conv"]
    found = activations.capture(model, layers, x)
    assert list(found) == ["conv", "hidden"]
    for name, array in found.items():
        expected = activations.capture(model, name, x)
        np.testing.assert_allclose(array, expected, rtol=1e-6)


def test_model_runs_no_further_than_the_layer():
    calls = []

    class Count(keras.layers.Layer):
        def call(self, inputs):
            calls.append(1)
            return inputs

    layers = [keras.layers.Dense(2, name="hidden"), Count()]
    model = keras.Sequential([keras.Input((3,)), *layers])
    calls.clear()
    activations.capture(model, "hidden", np.ones((4, 3)))
    assert not calls
    plain(model(np.ones((1, 3))))
    assert calls


def test_model_is_traced_once_for_batches_of_one_size():
    traces = []

    class Trace(keras.layers.Layer):
        def call(self, inputs):
            traces.append(1)
            return inputs

    model = keras.Sequential([keras.Input((3,)), Trace(name="trace")])
    traces.clear()
    activations.capture(model, "trace", np.ones((40, 3)), batch_size=4)
    assert len(traces) == (10 if BACKEND == "torch" else 1)


def test_later_call_of_a_layer_is_chosen():
    model, x = CASES["called-twice"].make(), CASES["called-twice"].inputs()
    first, second = by_intercept(model, "twice", x)
    for call, expected in enumerate((first, second)):
        found = activations.capture(model, "twice", x, call=call)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match=r"call=2 for 'twice'.* called 2 times"):
        activations.capture(model, "twice", x, call=2)


def test_inference_mode():
    layers = [keras.layers.Dropout(0.5, name="drop"), keras.layers.Dense(2)]
    model = keras.Sequential([keras.Input((3,)), *layers])
    x = np.ones((4, 3), "float32")
    np.testing.assert_array_equal(activations.capture(model, "drop", x), x)


def test_metrics_of_a_compiled_model_are_not_needed():
    class NoConfig(keras.metrics.Mean):
        def get_config(self):
            raise NotImplementedError

    model, x = sequential(), np.ones((2, 5), "float32")
    model.compile("adam", "mse", metrics=[NoConfig()])
    assert activations.capture(model, "hidden", x).shape == (2, 6)


def test_compiled_functions_of_the_model_are_untouched():
    model, x = sequential(), np.ones((2, 5), "float32")
    expected = model.predict_on_batch(x)
    function = model.predict_function
    activations.capture(model, "hidden", x)
    assert model.predict_function is function
    np.testing.assert_array_equal(model.predict_on_batch(x), expected)


# Forms of data.


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 3

    def __getitem__(self, index):
        return CASES["sequential"].inputs()[2 * index : 2 * index + 2], np.zeros(2)


def tf_dataset(x):
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices((x, np.zeros(len(x)))).batch(4)


FORMS = {
    "array": lambda x: x,
    "float64": lambda x: x.astype("float64"),
    "tensor": keras.ops.convert_to_tensor,
    "dataset": tf_dataset,
    "py-dataset": lambda x: Batches(),
    "generator": lambda x: (x[n : n + 2] for n in (0, 2, 4)),
    "list-of-pairs": lambda x: iter([[x[:3], np.zeros(3)], [x[3:], np.zeros(3)]]),
}


@each(FORMS)
def test_every_form_of_data_gives_the_same(case):
    model, x = sequential(), CASES["sequential"].inputs()
    expected = activations.capture(model, "hidden", x)
    found = activations.capture(model, "hidden", case(x))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_models_with_several_inputs():
    a, b = keras.Input((2,), name="a"), keras.Input((3,), name="b")
    joined = keras.layers.Concatenate(name="joined")([a, b])
    x = {"a": np.ones((5, 2), "float32"), "b": np.zeros((5, 3), "float32")}
    both = np.concatenate(list(x.values()), axis=1)
    by_name = keras.Model({"a": a, "b": b}, joined)
    found = activations.capture(by_name, "joined", x, batch_size=2)
    np.testing.assert_array_equal(found, both)
    by_order = keras.Model([a, b], joined)
    found = activations.capture(by_order, "joined", list(x.values()), batch_size=2)
    np.testing.assert_array_equal(found, both)


def test_bfloat16_outputs_are_float32_arrays():
    keras.config.set_dtype_policy("mixed_bfloat16")
    model, x = sequential(), CASES["sequential"].inputs()
    found = activations.capture(model, "hidden", x)
    assert found.dtype == "float32"
    np.testing.assert_array_equal(found, found.astype("float32"))


# Errors.

BAD = {
    "empty": (lambda x: x[:0], "same number of samples, at least 1"),
    "no-batches": (lambda x: iter(()), "no batches"),
    "scalar": (lambda x: np.float32(1), "samples on the first axis"),
    "objects": (lambda x: np.array([[1], [1, 2]], object), "arrays of numbers"),
    "number": (lambda x: 3, "as for `predict`"),
    "text": (lambda x: "abc", "as for `predict`"),
}


@each(BAD)
def test_bad_data_is_an_error(case):
    make, message = case
    with pytest.raises(ValueError, match=message):
        activations.capture(sequential(), "hidden", make(np.ones((2, 5))))


class Endless(keras.utils.PyDataset):
    num_batches = None

    def __getitem__(self, index):
        return np.ones((2, 5))


@each({"dataset": lambda: tf_dataset(np.ones((8, 5))).repeat(), "py-dataset": Endless})
def test_endless_data_is_an_error(case):
    with pytest.raises(ValueError, match=r"must be finite.*never ends"):
        activations.capture(sequential(), "hidden", case())


@tensorflow_only
def test_numpy_view_of_tfds_is_read_as_batches():
    import tensorflow_datasets as tfds

    model, x = sequential(), np.arange(40, dtype="float32").reshape(8, 5) / 40
    view = tfds.as_numpy(tf_dataset(x))
    captured = activations.capture(model, "hidden", view)
    expected = activations.capture(model, "hidden", x)
    np.testing.assert_allclose(captured, expected, rtol=1e-6)


@tensorflow_only
def test_ragged_tensor_is_an_error():
    import tensorflow as tf

    x = tf.ragged.constant([[1.0], [1.0, 2.0]])
    with pytest.raises(ValueError, match="Pad ragged data"):
        activations.capture(sequential(), "hidden", x)


def test_arrays_of_different_lengths_are_an_error():
    with pytest.raises(ValueError, match=r"same number of samples.*\[2, 3\]"):
        activations.capture(sequential(), "hidden", [np.ones((2, 5)), np.ones(3)])


def test_outputs_of_different_shapes_are_an_error():
    batches = iter([np.ones((2, 4), "int32"), np.ones((2, 5), "int32")])
    with pytest.raises(ValueError, match=r"shapes \(4, 8\) and \(5, 8\)"):
        activations.capture(transformer(), "block_0", batches)


@pytest.mark.parametrize("batch_size", [3, 6])
def test_output_without_an_axis_of_samples_is_an_error(batch_size):
    class AddPositions(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.positions = keras.layers.Embedding(4, 5)

        def call(self, inputs):
            return inputs + self.positions(keras.ops.arange(4))

    model = keras.Sequential([keras.Input((4, 5)), AddPositions()])
    x = np.ones((6, 4, 5), "float32")
    with pytest.raises(ValueError, match=r"positions' must have the samples.*\(4, 5\)"):
        activations.capture(model, "positions", x, batch_size=batch_size)


def test_layer_that_is_not_called_is_an_error():
    class Unused(keras.Model):
        def __init__(self):
            super().__init__()
            self.unused = keras.layers.ReLU()

        def call(self, inputs):
            return inputs

    model, x = Unused(), np.ones((2, 5), "float32")
    model(x)
    with pytest.raises(ValueError, match="is called 0 times"):
        activations.capture(model, "unused", x)


def test_a_negative_call_is_an_error():
    with pytest.raises(ValueError, match=r"at least 0.*Received: call=-1"):
        activations.capture(sequential(), "hidden", np.ones((2, 5)), call=-1)


@pytest.mark.skipif(BACKEND != "jax", reason="the first step can be captured")
def test_cell_of_an_rnn_is_an_error():
    inputs = keras.Input((4, 5))
    rnn = keras.layers.RNN(keras.layers.LSTMCell(3, name="cell"), name="rnn")
    model = keras.Model(inputs, rnn(inputs))
    with pytest.raises(ValueError, match="Capture the layer that contains it"):
        activations.capture(model, "rnn/cell", np.ones((2, 4, 5), "float32"))


def test_model_that_was_not_built_is_an_error():
    model = Subclassed(name="own")
    with pytest.raises(ValueError, match=r"must be built.*Call it on a batch"):
        activations.capture(model, "encode", np.ones((4, 5)))
