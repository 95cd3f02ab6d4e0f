"""Tests of `activations.splice` and of the edits of a code, over all kinds of model."""

import keras
import numpy as np
import pytest
from activation_models import CASES, functional, plain, sequential, transformer
from contracts import each
from helpers import BACKEND, to_numpy, weights_of

from keras_sae import activations, layers, models


def copying(width: int) -> models.Autoencoder:
    """Return an autoencoder whose reconstruction is its input, by identity matrices."""
    model = models.shallow((width,), width, activation="linear", centering=False)
    eye, zeros = np.eye(width, dtype="float32"), np.zeros(width, "float32")
    model.encoder.set_weights([eye, zeros, zeros])
    model.decoder.set_weights([eye, zeros])
    return model


def assert_equal(found, expected) -> None:
    if BACKEND == "jax":
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)
    else:
        np.testing.assert_array_equal(found, expected)


@keras.saving.register_keras_serializable("tests")
def double(code):
    return 2 * code


# Contract over all kinds of model.


@each(CASES)
def test_splice_of_a_copy_changes_nothing(case):
    model, x = case.make(), case.inputs()
    expected = plain(model(x))
    spliced = activations.splice(model, case.layer, copying(case.width))
    assert_equal(plain(spliced(x)), expected)
    predicted = model.predict_on_batch(x)
    assert_equal(spliced.predict_on_batch(x), predicted)
    np.testing.assert_array_equal(plain(model(x)), expected)
    hooked = {"call", "quantized_call"}
    for layer in activations.layer_paths(model).values():
        assert not hooked & set(vars(layer))


@each(CASES)
def test_autoencoder_replaces_the_output(case):
    model, x = case.make(), case.inputs()
    autoencoder = models.shallow((case.width,), 5, layers.TopK(2))

    def reconstruct(outputs):
        rows = keras.ops.reshape(outputs, (-1, case.width))
        return keras.ops.reshape(autoencoder(rows), outputs.shape)

    with activations.intercept(case.layer, reconstruct, model):
        expected = plain(model(x))
    spliced = activations.splice(model, case.layer, autoencoder)
    np.testing.assert_allclose(plain(spliced(x)), expected, rtol=1e-4, atol=1e-5)
    found = spliced.predict(x, batch_size=4, verbose=0)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@each(CASES)
def test_edit_that_changes_no_code_changes_no_bit(case):
    model, x = case.make(), case.inputs()
    autoencoder = models.shallow((case.width,), 5, layers.TopK(2))
    for edit in (None, activations.scale({1: 1.0}), lambda code: code):
        spliced = activations.splice(model, case.layer, autoencoder, edit, error=True)
        assert_equal(spliced.predict_on_batch(x), model.predict_on_batch(x))


@each(CASES)
def test_saved_model_is_loaded(case, tmp_path):
    model, x = case.make(), case.inputs()
    autoencoder = models.shallow((case.width,), 5, layers.TopK(2))
    edit = activations.clamp({0: 2.0, 3: 1.0})
    spliced = activations.splice(model, case.layer, autoencoder, edit, error=True)
    expected = plain(spliced(x))
    spliced.save(tmp_path / "spliced.keras")
    loaded = keras.saving.load_model(tmp_path / "spliced.keras")
    np.testing.assert_allclose(plain(loaded(x)), expected, rtol=1e-5, atol=1e-6)
    assert len(loaded.weights) == len(model.weights) + len(autoencoder.weights)
    np.testing.assert_allclose(
        plain(loaded.base(x)), plain(model(x)), rtol=1e-5, atol=1e-6
    )


@each(CASES)
def test_evaluate_has_the_loss_and_metrics_of_the_model(case):
    model, x = case.make(), case.inputs()
    y = np.zeros(plain(model(x)).shape[:-1])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, metrics=["accuracy"])
    expected = model.evaluate(x, y, verbose=0, return_dict=True)
    spliced = activations.splice(model, case.layer, copying(case.width))
    found = spliced.evaluate(x, y, verbose=0, return_dict=True)
    assert found.keys() == expected.keys()
    np.testing.assert_allclose(list(found.values()), list(expected.values()), rtol=1e-5)


# Details.


def test_edits_change_the_code():
    code = np.arange(12.0, dtype="float32").reshape(3, 4)
    ablated = plain(activations.ablate([1, 3])(code))
    np.testing.assert_array_equal(ablated, code * [1, 0, 1, 0])
    expected = code.copy()
    expected[:, 2] = -5
    clamped = plain(activations.clamp({2: -5.0})(code))
    np.testing.assert_array_equal(clamped, expected)
    scaled = plain(activations.scale({0: 3.0, 1: 0.5})(code))
    np.testing.assert_array_equal(scaled, code * [3, 0.5, 1, 1])


def test_edited_splice_is_the_decoded_edited_code():
    model, x = sequential(), CASES["sequential"].inputs()
    autoencoder = models.shallow((6,), 10, layers.TopK(3))
    hidden = activations.capture(model, "hidden", x)
    head = model.get_layer("head")
    codes = autoencoder.encode(hidden)
    edited = codes * np.where(np.arange(10) == np.argmax(codes.mean(0)), 0, 1)
    unit = int(np.argmax(codes.mean(axis=0)))
    for error in (False, True):
        output = autoencoder.decode(edited.astype("float32"))
        if error:
            output = hidden + output - autoencoder.decode(codes)
        expected = output @ to_numpy(head.kernel) + to_numpy(head.bias)
        edit = activations.ablate([unit])
        spliced = activations.splice(model, "hidden", autoencoder, edit, error)
        np.testing.assert_allclose(plain(spliced(x)), expected, rtol=1e-4, atol=1e-5)


def test_function_as_an_edit_is_saved(tmp_path):
    model, x = sequential(), CASES["sequential"].inputs()
    spliced = activations.splice(model, "hidden", copying(6), double)
    spliced.save(tmp_path / "a.keras")
    loaded = keras.saving.load_model(tmp_path / "a.keras")
    np.testing.assert_allclose(plain(loaded(x)), plain(spliced(x)), rtol=1e-6)
    with activations.intercept("hidden", double, model):
        np.testing.assert_allclose(plain(spliced.base(x)), plain(loaded(x)), rtol=1e-5)


def test_lambda_as_an_edit_is_not_saved(tmp_path):
    spliced = activations.splice(sequential(), "hidden", copying(6), lambda code: code)
    with pytest.raises(ValueError, match="lambda as `edit` cannot be saved"):
        spliced.save(tmp_path / "a.keras")


def test_two_layers_are_spliced():
    model, x = functional(), CASES["functional"].inputs()
    once = activations.splice(model, "conv", copying(4), error=True)
    twice = activations.splice(once, "hidden", copying(6))
    assert_equal(plain(twice(x)), plain(model(x)))


def test_weights_are_shared_and_not_doubled():
    model, autoencoder = sequential(), copying(6)
    spliced = activations.splice(model, "hidden", autoencoder)
    assert len(spliced.weights) == len(model.weights) + len(autoencoder.weights)
    x = CASES["sequential"].inputs()
    spliced.predict_on_batch(x)
    output = autoencoder.decoder.get_layer("output")
    output.bias.assign(np.ones(6))
    with activations.intercept("hidden", lambda v: v + 1, model):
        expected = plain(model(x))
    np.testing.assert_allclose(spliced.predict_on_batch(x), expected, rtol=1e-5)


def test_penalties_of_the_autoencoder_are_not_in_the_loss():
    model, x = sequential(), CASES["sequential"].inputs()
    model.compile("adam", "mse")
    autoencoder = models.shallow((6,), 9, "l1", kernel_regularizer="l2")
    spliced = activations.splice(model, "hidden", autoencoder)
    y = np.zeros((6, 3), "float32")
    expected = np.mean(plain(spliced(x)) ** 2)
    assert spliced.evaluate(x, y, verbose=0) == pytest.approx(expected, rel=1e-5)


def test_loss_terms_of_the_model_are_in_the_loss():
    dense = keras.layers.Dense(6, kernel_regularizer="l2", activity_regularizer="l1")
    model = keras.Sequential([keras.Input((5,)), dense, keras.layers.Dense(3)])
    model.compile("adam", "mse")
    x, y = CASES["sequential"].inputs(), np.zeros((6, 3), "float32")
    spliced = activations.splice(model, dense, copying(6))
    expected = model.evaluate(x, y, verbose=0)
    assert spliced.evaluate(x, y, verbose=0) == pytest.approx(expected, rel=1e-5)


def test_splice_runs_the_autoencoder_in_inference_mode():
    model, x = sequential(), CASES["sequential"].inputs()
    autoencoder = models.shallow((6,), 9, "l1", corruption=layers.MaskingNoise(0.5))
    weights = weights_of(autoencoder)
    spliced = activations.splice(model, "hidden", autoencoder)
    np.testing.assert_array_equal(plain(spliced(x, training=True)), plain(spliced(x)))
    for before, after in zip(weights, weights_of(autoencoder), strict=True):
        np.testing.assert_array_equal(before, after)


def test_masks_pass_through_the_splice():
    inputs = keras.Input((None,), dtype="int32")
    x = keras.layers.Embedding(11, 8, mask_zero=True)(inputs)
    x = keras.layers.Dense(8, name="dense")(x)
    model = keras.Model(inputs, keras.layers.GlobalAveragePooling1D()(x))
    tokens = np.array([[3, 4, 5, 0], [1, 2, 0, 0]], "int32")
    spliced = activations.splice(model, "dense", copying(8))
    assert_equal(plain(spliced(tokens)), plain(model(tokens)))


def test_mixed_precision_keeps_the_dtype():
    keras.config.set_dtype_policy("mixed_bfloat16")
    model, x = sequential(), CASES["sequential"].inputs()
    keras.config.set_dtype_policy("float32")
    spliced = activations.splice(model, "hidden", copying(6))
    assert spliced(x).dtype == model(x).dtype
    np.testing.assert_array_equal(to_numpy(spliced(x)), to_numpy(model(x)))


def test_compiled_model_is_saved_and_loaded(tmp_path):
    model, x = sequential(), CASES["sequential"].inputs()
    y = np.zeros((6, 3), "float32")
    model.compile("adam", "mse", metrics=["mae"])
    model.fit(x, y, verbose=0)
    spliced = activations.splice(model, "hidden", copying(6))
    expected = spliced.evaluate(x, y, verbose=0, return_dict=True)
    spliced.save(tmp_path / "a.keras")
    loaded = keras.saving.load_model(tmp_path / "a.keras")
    found = loaded.evaluate(x, y, verbose=0, return_dict=True)
    assert found == pytest.approx(expected, rel=1e-5)
    assert sorted(found) == ["loss", "mae"]


def test_damaged_config_is_named():
    model = activations.splice(sequential(), "hidden", copying(6))
    config = model.get_config()
    del config["autoencoder"]
    with pytest.raises(ValueError, match=r"`SplicedModel` cannot be created.*autoenc"):
        activations.SplicedModel.from_config(config)


def test_metrics_of_the_model_keep_their_state():
    model, x = sequential(), CASES["sequential"].inputs()
    metric = keras.metrics.MeanAbsoluteError("mae")
    model.compile("adam", "mse", metrics=[metric])
    y = np.zeros((6, 3), "float32")
    model.evaluate(x, y, verbose=0)
    before = float(metric.result())
    spliced = activations.splice(model, "hidden", copying(6), activations.ablate([0]))
    spliced.evaluate(x, y, verbose=0)
    assert float(metric.result()) == before


def test_saved_model_artifact_has_the_outputs(tmp_path):
    import tensorflow as tf

    model, x = functional(), CASES["functional"].inputs()
    autoencoder = models.shallow((6,), 9, layers.TopK(2))
    spliced = activations.splice(model, "hidden", autoencoder, activations.ablate([1]))
    spliced.export(tmp_path / "artifact")
    artifact = tf.saved_model.load(str(tmp_path / "artifact"))
    found = artifact.signatures["serving_default"](tf.constant(x))
    np.testing.assert_allclose(
        found["output_0"], plain(spliced(x)), rtol=1e-4, atol=1e-5
    )


@pytest.mark.skipif(BACKEND != "tensorflow", reason="Keras exports from TensorFlow")
def test_model_of_tokens_is_exported(tmp_path):
    import tensorflow as tf

    model, x = transformer(), CASES["block"].inputs()
    spliced = activations.splice(model, "block_1", copying(8))
    spliced.export(tmp_path / "artifact", verbose=False)
    artifact = tf.saved_model.load(str(tmp_path / "artifact"))
    found = artifact.serve(tf.constant(x))
    np.testing.assert_allclose(found, plain(model(x)), rtol=1e-4, atol=1e-5)


# Errors.


def test_fit_is_refused():
    spliced = activations.splice(sequential(), "hidden", copying(6))
    for train in (spliced.fit, spliced.train_on_batch):
        with pytest.raises(ValueError, match="cannot be trained"):
            train(np.ones((2, 5)), np.ones((2, 3)))


@pytest.mark.parametrize("shape", [(7,), (6, 6, 1)])
def test_autoencoder_of_another_width_is_an_error(shape):
    with pytest.raises(ValueError, match=r"rows of the layer's width.*'hidden'"):
        activations.splice(sequential(), "hidden", models.shallow(shape, 4))


def test_width_of_a_subclassed_model_is_checked_in_the_call():
    case = CASES["subclassed"]
    spliced = activations.splice(case.make(), "encode", models.shallow((7,), 4))
    with pytest.raises(ValueError, match="rows of the layer's width"):
        spliced(case.inputs())


def test_splice_rejects_a_model_that_is_not_an_autoencoder():
    with pytest.raises(ValueError, match=r"a `keras_sae.models.Autoencoder`"):
        activations.splice(sequential(), "hidden", sequential())


def test_model_that_was_not_adapted_is_an_error():
    autoencoder = models.shallow((6,), 4, "l1", scaling=True)
    with pytest.raises(ValueError, match="Call `adapt"):
        activations.splice(sequential(), "hidden", autoencoder)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: activations.ablate([-1]), "counted from 0"),
        (lambda: activations.ablate([1, 1]), "different units"),
        (lambda: activations.ablate([0.5]), "indices"),
        (lambda: activations.clamp({0: np.nan}), "finite"),
        (lambda: activations.scale({0: np.inf}), "finite"),
        (lambda: activations.Edit([0, 1], [2.0]), "1 values for 2 units"),
    ],
)
def test_bad_edit_is_an_error(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_edit_of_a_missing_unit_is_an_error():
    edit = activations.clamp({2: 1.0, 6: 1.0})
    with pytest.raises(ValueError, match=r"only change the 6 units.*unit 6"):
        activations.splice(sequential(), "hidden", copying(6), edit)
