"""Data that `fit`, `evaluate`, `predict` and `encode` accept and refuse."""

import keras
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from helpers import (
    assert_same_weights,
    tensorflow_only,
    to_numpy,
    weights_of,
)

from keras_sae import layers, models

SHAPE, UNITS = (6, 6), 8
SAMPLES, BATCH = 20, 8  # The last batch has 4 samples.


def make(shape=SHAPE, optimizer="sgd", **kwargs):
    model = models.shallow(shape, UNITS, "l1", **kwargs)
    model.compile(optimizer, jit_compile=False)
    return model


@pytest.fixture
def x(rng):
    return rng.uniform(size=(SAMPLES, *SHAPE)).astype("float32")


@pytest.fixture
def table(x):
    return pd.DataFrame(x.reshape(SAMPLES, 36))


def tf_dataset(*arrays):
    import tensorflow as tf

    data = arrays[0] if len(arrays) == 1 else arrays
    return tf.data.Dataset.from_tensor_slices(data).batch(BATCH)


def generator(*arrays):
    for start in range(0, SAMPLES, BATCH):
        yield tuple(array[start : start + BATCH] for array in arrays)


class Batches(keras.utils.PyDataset):
    def __init__(self, *arrays):
        super().__init__()
        self.batches = list(generator(*arrays))

    def __len__(self):
        return len(self.batches)

    def __getitem__(self, index):
        return self.batches[index]


# Accepted data.

FORMS = {
    "x": lambda x: {"x": x, "batch_size": BATCH},
    "x-target": lambda x: {"x": x, "y": x, "batch_size": BATCH},
    "list-of-one": lambda x: {"x": [x], "y": [x], "batch_size": BATCH},
    "tensor": lambda x: {"x": keras.ops.convert_to_tensor(x), "batch_size": BATCH},
    "dataset": lambda x: {"x": tf_dataset(x)},
    "dataset-target": lambda x: {"x": tf_dataset(x, x)},
    "PyDataset": lambda x: {"x": Batches(x)},
    "PyDataset-target": lambda x: {"x": Batches(x, x)},
}


@pytest.fixture(scope="module")
def trained_on_array():
    keras.utils.set_random_seed(5)
    x = np.random.default_rng(0).uniform(size=(SAMPLES, *SHAPE)).astype("float32")
    model = make()
    history = model.fit(x, batch_size=BATCH, shuffle=False, verbose=0).history
    evaluated = model.evaluate(x, batch_size=BATCH, verbose=0, return_dict=True)
    return history, evaluated, weights_of(model)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_fit_and_evaluate_give_the_same_for_every_form_of_data(
    x, form, trained_on_array
):
    keras.utils.set_random_seed(5)
    model = make()
    history = model.fit(**form(x), shuffle=False, verbose=0).history
    evaluated = model.evaluate(**form(x), verbose=0, return_dict=True)
    expected_history, expected, weights = trained_on_array
    assert history.keys() == expected_history.keys()
    for key, values in expected_history.items():
        np.testing.assert_allclose(history[key], values, rtol=1e-5)
    for key, value in expected.items():
        assert evaluated[key] == pytest.approx(value, rel=1e-5)
    for weight, other in zip(weights_of(model), weights, strict=True):
        np.testing.assert_allclose(weight, other, rtol=1e-5, atol=1e-6)


def test_fit_and_evaluate_accept_generators(x):
    model = make()
    model.fit(generator(x, x), steps_per_epoch=3, shuffle=False, verbose=0)
    logs = model.evaluate(generator(x), steps=3, verbose=0, return_dict=True)
    assert logs == pytest.approx(
        model.evaluate(x, batch_size=BATCH, verbose=0, return_dict=True), rel=1e-5
    )


def test_fit_accepts_fewer_samples_than_a_batch(x):
    history = make().fit(x[:5], batch_size=BATCH, verbose=0).history
    assert np.isfinite(history["loss"]).all()


def test_fit_accepts_a_validation_split(x):
    history = make().fit(x, validation_split=0.25, verbose=0).history
    assert np.isfinite(history["val_loss"]).all()


@pytest.mark.parametrize("dtype", ["bool", "uint8", "float16", "float64"])
def test_fit_accepts_binary_data_and_every_float_type(x, dtype):
    history = make().fit((x > 0.5).astype(dtype), verbose=0).history
    assert np.isfinite(history["loss"]).all()


def test_other_byte_orders_are_read_as_the_same_numbers(x, trained_on_array):
    keras.utils.set_random_seed(5)
    model, swapped = make(), x.astype(">f4")
    model.fit(swapped, swapped, batch_size=BATCH, shuffle=False, verbose=0)
    for weight, other in zip(weights_of(model), trained_on_array[2], strict=True):
        np.testing.assert_allclose(weight, other, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(model.encode(swapped), model.encode(x))
    np.testing.assert_array_equal(
        model.predict(swapped, verbose=0), model.predict(x, verbose=0)
    )


def test_masked_arrays_without_masked_values_are_accepted(x):
    model, masked = make(), np.ma.masked_array(x)
    np.testing.assert_array_equal(model.encode(masked), model.encode(x))
    model.fit(masked, verbose=0)


def test_tensors_of_pytorch_in_bfloat16_are_accepted(x):
    torch = pytest.importorskip("torch")
    tensor = torch.from_numpy(x).to(torch.bfloat16)
    model = make()
    expected = model.encode(tensor.float().numpy())
    np.testing.assert_array_equal(model.encode(tensor), expected)
    assert np.isfinite(model.fit(tensor, verbose=0).history["loss"]).all()


def test_fit_trains_on_tables_as_on_their_values(table):
    model = make((36,))
    values = table.to_numpy()
    np.testing.assert_array_equal(model.encode(table), model.encode(values))
    options = {"verbose": 0, "return_dict": True}
    expected = model.evaluate(values, **options)
    assert model.evaluate(table, **options) == pytest.approx(expected, rel=1e-5)
    assert np.isfinite(model.fit(table, verbose=0).history["loss"]).all()


def test_fit_accepts_arguments_by_position(x):
    def fit(*args, **kwargs):
        keras.utils.set_random_seed(0)
        return make().fit(x, *args, **kwargs).history

    by_name = fit(epochs=2, verbose=0, validation_data=x)
    assert by_name == fit(None, None, 2, 0, None, 0.0, x)
    with pytest.raises(ValueError, match="must be finite"):
        fit(None, None, 2, 0, None, 0.0, x * np.nan)
    with pytest.raises(TypeError, match="multiple values"):
        fit(None, None, 2, epochs=3)


@tensorflow_only
@pytest.mark.parametrize("pair", [False, True], ids=["x", "x-labels"])
def test_encode_and_predict_accept_datasets(x, pair):
    model = make()
    data = tf_dataset(x, np.arange(SAMPLES)) if pair else tf_dataset(x)
    np.testing.assert_allclose(model.encode(data), model.encode(x), rtol=1e-5)
    predicted = model.predict(data, verbose=0)
    np.testing.assert_allclose(predicted, model.predict(x, verbose=0), rtol=1e-5)


# Sample weights.


@pytest.mark.parametrize("target", [True, False])
def test_sample_weights_need_no_target(x, target):
    """Samples of weight 0 count as if they were left out."""
    weight = np.repeat([2.0, 0.0], SAMPLES // 2).astype("float32")
    y = x if target else None
    model = make(optimizer=keras.optimizers.SGD(0.0), centering=False)
    alone = model.evaluate(x[: SAMPLES // 2], verbose=0, return_dict=True)
    options = {"batch_size": SAMPLES, "verbose": 0}
    logs = model.fit(
        x, y, sample_weight=weight, validation_data=(x, y, weight), **options
    ).history
    for value in (
        logs["reconstruction_loss"][0],
        logs["val_reconstruction_loss"][0],
        model.evaluate(x, y, sample_weight=weight, return_dict=True, **options)[
            "reconstruction_loss"
        ],
        model.evaluate(x, y, SAMPLES, 0, weight, return_dict=True)[
            "reconstruction_loss"
        ],
    ):
        assert value == pytest.approx(alone["reconstruction_loss"], rel=1e-5)


@pytest.mark.parametrize("shape", [(6,), (6, 1)])
@pytest.mark.parametrize("image", [(6, 6), (6, 6, 1)])
def test_one_weight_per_image_weighs_images(x, shape, image):
    """Six weights of six images of 6x6 pixels must not weigh columns."""
    model = make(image)
    x, weight = x[:6].reshape(6, *image), np.arange(6, dtype="float32")
    options = {"sample_weight": weight.reshape(shape), "verbose": 0}
    logs = model.evaluate(x, x, return_dict=True, **options)
    error = ((x - to_numpy(model(x))) ** 2).reshape(6, -1).mean(axis=1)
    expected = (weight * error).mean()
    assert logs["reconstruction_loss"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("shape", [(SAMPLES, 6), (SAMPLES, 6, 1), (SAMPLES, 1, 1)])
def test_weights_may_differ_per_row_of_an_image(x, shape):
    model = make()
    weight = np.random.default_rng(0).random(shape, dtype="float32")
    options = {"verbose": 0, "return_dict": True, "batch_size": SAMPLES}
    logs = model.evaluate(x, sample_weight=weight, **options)
    error = ((x - to_numpy(model(x))) ** 2).mean(axis=-1)
    expected = (weight.reshape(SAMPLES, -1) * error).mean()
    assert logs["reconstruction_loss"] == pytest.approx(expected, rel=1e-5)


# Labels given as targets.

CALLS = {
    "fit": lambda m, x, y: m.fit(x, y, batch_size=BATCH, verbose=0),
    "evaluate": lambda m, x, y: m.evaluate(x, y, batch_size=BATCH, verbose=0),
    "validation_data": lambda m, x, y: m.fit(
        x, batch_size=BATCH, validation_data=(x, y), verbose=0
    ),
    "validation_list": lambda m, x, y: m.fit(x, validation_data=[x, y], verbose=0),
    "train_on_batch": lambda m, x, y: m.train_on_batch(x, y),
    "test_on_batch": lambda m, x, y: m.test_on_batch(x, y),
    "fit-dataset": lambda m, x, y: m.fit(tf_dataset(x, y), verbose=0),
    "evaluate-dataset": lambda m, x, y: m.evaluate(tf_dataset(x, y), verbose=0),
    "validation-dataset": lambda m, x, y: m.fit(
        x, batch_size=BATCH, validation_data=tf_dataset(x, y), verbose=0
    ),
    "fit-generator": lambda m, x, y: m.fit(generator(x, y), shuffle=False, verbose=0),
    "fit-PyDataset": lambda m, x, y: m.fit(Batches(x, y), verbose=0),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_labels_are_refused_as_targets(x, call):
    model = make()
    before = weights_of(model)
    with pytest.raises(ValueError, match="contains labels"):
        call(model, x, np.arange(SAMPLES))
    assert_same_weights(before, weights_of(model))


@pytest.mark.parametrize(
    "labels",
    [
        np.eye(10, dtype="float32")[np.arange(SAMPLES) % 10],
        np.arange(SAMPLES, dtype="float32")[:, None],
        list(range(SAMPLES)),
    ],
    ids=["one-hot", "column", "list"],
)
def test_labels_of_every_form_are_refused_with_both_shapes(x, labels):
    with pytest.raises(ValueError, match="contains labels") as error:
        make().fit(x, labels, batch_size=BATCH, verbose=0)
    message = str(error.value)
    assert f"y.shape={np.shape(labels)}, x.shape={x.shape}" in message
    assert "`fit(x)`" in message


# Data that would train a wrong model.


def with_value(x, value):
    x = x.copy()
    x[3, 2, 1] = value
    return x


BAD = {
    "bytes": (lambda x: (x * 255).astype("uint8"), r"floating.*uint8.*/ 255"),
    "complex": (lambda x: x.astype("complex64"), r"floating-point.*complex64"),
    "nan": (lambda x: with_value(x, np.nan), "must be finite"),
    "inf": (lambda x: with_value(x, np.inf), "must be finite"),
    "-inf": (lambda x: with_value(x, -np.inf), "must be finite"),
    "overflow": (lambda x: x.astype("float64") * 1e39, "finite in float32"),
    "empty": (lambda x: x[:0], r"at least one sample.*\(0, 6, 6\)"),
    "rank": (lambda x: x[..., None], r"shape \('samples', 6, 6\).*\(20, 6, 6, 1\)"),
    "flat": (lambda x: x.reshape(SAMPLES, -1), r"\('samples', 6, 6\).*\(20, 36\)"),
    "size": (lambda x: x[:, :5], r"shape \('samples', 6, 6\).*\(20, 5, 6\)"),
    "counts": (lambda x: (x * 9000).astype("int64"), r"int64.*numpy\.log1p\(x\)"),
    "text": (lambda x: x.astype(str), "Encode the values as numbers"),
    "rows": (lambda x: np.array([x[0], x[1, :3]], object), "pad rows"),
    "masked": (lambda x: np.ma.masked_less(x, 0.1), r"masked values.*filled\(0\)"),
    "sparse": (lambda x: scipy.sparse.csr_array(x[0]), r"csr_array.*x\.toarray\(\)"),
}


@pytest.mark.parametrize(("spoil", "message"), BAD.values(), ids=BAD)
def test_bad_arrays_are_refused_and_leave_the_model_unchanged(x, spoil, message):
    model = make()
    before, bad = weights_of(model), spoil(x)
    for call in (
        lambda: model.fit(bad, batch_size=BATCH, verbose=0),
        lambda: model.fit(x, validation_data=(bad, bad), verbose=0),
        lambda: model.fit(x, validation_data=bad, verbose=0),
        lambda: model.evaluate(bad, verbose=0),
        lambda: model.train_on_batch(bad),
        lambda: model.predict(bad, verbose=0),
        lambda: model.encode(bad),
    ):
        with pytest.raises(ValueError, match=f"`x`.*{message}"):
            call()
    assert_same_weights(before, weights_of(model))
    model.fit(x, verbose=0)


STREAMS = {
    "PyDataset": lambda x: Batches(x),
    "generator": lambda x: generator(x),
    "dataset": lambda x: tf_dataset(x),
    "DataLoader": lambda x: data_loader(x),
}


def data_loader(x):
    torch = pytest.importorskip("torch")
    dataset = torch.utils.data.TensorDataset(torch.from_numpy(x))
    return torch.utils.data.DataLoader(dataset, batch_size=BATCH)


@pytest.mark.parametrize("stream", STREAMS.values(), ids=STREAMS)
@pytest.mark.parametrize("kind", ["bytes", "nan", "size", "range", "masked"])
def test_the_first_batch_of_every_stream_is_checked(x, stream, kind):
    if kind == "range":
        bad, message = 255 * x, r"must lie in \[0, 1\]"
    else:
        spoil, message = BAD[kind]
        bad = spoil(x)
    if kind == "size":
        message = r"shape \('samples', 6, 6\).*\(8, 5, 6\)"
    if kind == "nan":
        bad[:BATCH] = np.nan
    if kind == "masked" and stream not in (STREAMS["PyDataset"], STREAMS["generator"]):
        pytest.skip("a tensor has no mask")
    model = make(output_activation="sigmoid")
    before = weights_of(model)
    for call in (
        lambda: model.fit(stream(bad), verbose=0),
        lambda: model.fit(x, validation_data=stream(bad), verbose=0),
        lambda: model.evaluate(stream(bad), verbose=0),
    ):
        with pytest.raises(ValueError, match=f"`x`.*{message}"):
            call()
    assert_same_weights(before, weights_of(model))
    if kind != "range":
        with pytest.raises(ValueError, match=f"`x`.*{message}"):
            model.encode(stream(bad))


@pytest.mark.filterwarnings("ignore:Your input ran out of data")  # of a generator
@pytest.mark.parametrize("stream", STREAMS.values(), ids=STREAMS)
def test_every_stream_is_read_from_its_first_batch(x, stream):
    model = make()
    expected = model.encode(x)
    np.testing.assert_allclose(model.encode(stream(x)), expected, atol=1e-6)
    decoded = model.decode(expected)
    np.testing.assert_allclose(model.decode(stream(expected)), decoded, atol=1e-6)
    model.adapt(stream(x))
    center = to_numpy(model.encoder.get_layer("center").mean)
    np.testing.assert_allclose(center, x.reshape(SAMPLES, -1).mean(axis=0), rtol=1e-5)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (iter(()), "at least one batch"),
        (({"image": np.ones((2, 6, 6))} for _ in range(2)), "each is a single tensor"),
        ({"image": np.ones((2, 6, 6))}, "must be an array"),
        ([[0.5] * 36] * 4, r"list.*numpy\.asarray\(x, 'float32'\)"),
        (None, "must be an array"),
    ],
    ids=["empty", "dicts", "dict", "list", "none"],
)
def test_other_data_is_refused(data, message):
    with pytest.raises(ValueError, match=message):
        make().fit(data, verbose=0)


@tensorflow_only
def test_rows_of_different_lengths_are_refused():
    import tensorflow as tf

    rows = tf.ragged.constant([[0.1, 0.2], [0.3]])
    with pytest.raises(ValueError, match=r"Pad the rows.*`x\.to_tensor\(\)`"):
        models.shallow((2,), 3).encode(rows)


@tensorflow_only
def test_numpy_views_of_tfds_are_refused_with_a_way_out(x):
    import tensorflow_datasets as tfds

    with pytest.raises(ValueError, match="pass `dataset`"):
        make().encode(tfds.as_numpy(tf_dataset(x)))


@tensorflow_only
def test_images_with_labels_from_a_folder_are_refused_with_a_way_out(tmp_path):
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        keras.utils.save_img(tmp_path / label / "0.png", np.zeros((6, 6, 1)))
    load = keras.utils.image_dataset_from_directory
    options = {"image_size": (6, 6), "color_mode": "grayscale", "verbose": False}
    model = make((6, 6, 1))
    with pytest.raises(ValueError, match="`labels=None` in"):
        model.fit(load(tmp_path, **options), verbose=0)
    model.fit(load(tmp_path, labels=None, **options), verbose=0)


def test_codes_of_a_wrong_width_are_refused():
    model = make()
    with pytest.raises(ValueError, match=r"shape \('samples', 8\)"):
        model.decode(np.zeros((3, 5), "float32"))
    assert model.decode(np.zeros((3, UNITS), "float32")).shape == (3, *SHAPE)


def test_bad_targets_are_refused(x):
    with pytest.raises(ValueError, match="`y` must be finite"):
        make().fit(x, with_value(x, np.nan), batch_size=BATCH, verbose=0)


def test_bad_tensors_are_refused(x):
    with pytest.raises(ValueError, match="must be finite"):
        make().fit(keras.ops.convert_to_tensor(x * np.nan), verbose=0)


TABLES = {
    "nan": (lambda x: x.where(x > 0.1), "must be finite"),
    "bytes": (
        lambda x: (x * 255).astype("uint8"),
        "must contain floating-point numbers",
    ),
    "text": (lambda x: x.astype(str), "Encode the values as numbers"),
    "width": (lambda x: x.iloc[:, :7], r"must have shape \('samples', 36\)"),
}


@pytest.mark.parametrize(("change", "message"), TABLES.values(), ids=TABLES)
def test_bad_tables_are_refused(table, change, message):
    with pytest.raises(ValueError, match=message):
        make((36,)).fit(change(table), verbose=0)


def of_unknown_rank(data):
    import tensorflow as tf

    spec = tf.TensorSpec(None, "float32")
    return tf.data.Dataset.from_generator(lambda: iter(data), output_signature=spec)


DATASETS = {
    "dicts": (lambda d: d.map(lambda x: {"image": x}), "each is a single tensor"),
    "samples": (lambda d: d.unbatch(), r"`dataset\.batch\(32\)`"),
    "width": (lambda d: d.map(lambda x: x[:, :5]), r"shape \('samples', 6, 6\)"),
    "bytes": (lambda d: d.map(lambda x: to_bytes(255 * x)), "floating-point.*uint8"),
}


def to_bytes(x):
    import tensorflow as tf

    return tf.cast(x, "uint8")


@pytest.mark.parametrize(("change", "message"), DATASETS.values(), ids=DATASETS)
def test_bad_datasets_are_refused_and_leave_the_model_unchanged(x, change, message):
    model = make()
    before, data = weights_of(model), change(tf_dataset(x))
    for call in (
        lambda: model.fit(data, verbose=0),
        lambda: model.fit(x, validation_data=data, verbose=0),
        lambda: model.evaluate(data, verbose=0),
        lambda: model.predict(data, verbose=0),
        lambda: model.encode(data),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    assert_same_weights(before, weights_of(model))
    model.fit(x, verbose=0)


@tensorflow_only
def test_keras_reports_datasets_of_unknown_rank(x):
    with pytest.raises(ValueError, match=r"rank|shape"):
        make().fit(of_unknown_rank(tf_dataset(x)), verbose=0)


# The range of the output.


@pytest.mark.parametrize(
    ("last", "bounded"),
    [
        ([keras.layers.Dense(36, "sigmoid"), keras.layers.Reshape(SHAPE)], True),
        ([keras.layers.Dense(36), keras.layers.Reshape(SHAPE)], False),
        (
            [
                keras.layers.Dense(36, "sigmoid"),
                keras.layers.Reshape(SHAPE),
                keras.layers.Rescaling(2.0, -1.0),
            ],
            False,
        ),
    ],
    ids=["sigmoid", "linear", "rescaled"],
)
def test_targets_must_be_in_the_range_of_the_last_layer(x, last, bounded):
    encoder = [keras.layers.Input(SHAPE), keras.layers.Flatten(), keras.layers.Dense(8)]
    decoder = [keras.layers.Input((8,)), *last]
    model = models.Autoencoder(keras.Sequential(encoder), keras.Sequential(decoder))
    if not bounded:
        model.check_data(2 * x - 1)
        return
    with pytest.raises(ValueError, match=r"`x` must lie in \[0, 1\]"):
        model.check_data(2 * x - 1)
    model.check_data(2 * x - 1, x)
    with pytest.raises(ValueError, match=r"`y` must lie in \[0, 1\]"):
        model.check_data(x, 2 * x - 1)


def test_values_beyond_the_output_activation_are_refused_with_a_way_out(x):
    model = make(output_activation="sigmoid")
    with pytest.raises(ValueError, match=r"\[0, 1\].*divide by 255") as error:
        model.fit(x * 255, batch_size=BATCH, verbose=0)
    assert "output_activation='linear'" in str(error.value)


# Batches and scales.

FACTORIES = {
    "shallow": lambda s: models.shallow(SHAPE, UNITS, s),
    "deep": lambda s: models.deep(SHAPE, (UNITS, 4), [s, None]),
    "convolutional": lambda s: models.convolutional((*SHAPE, 1), (UNITS, 4), [s, None]),
}


@pytest.mark.parametrize("factory", FACTORIES.values(), ids=FACTORIES)
def test_batches_too_small_for_a_sparsity_are_refused(x, factory):
    model = factory(layers.BatchTopK(2))
    model.compile("sgd", jit_compile=False)
    x = x.reshape(-1, *model.sample_shape)
    for call in (
        lambda: model.fit(x, batch_size=1, verbose=0),
        lambda: model.fit(x[:1], verbose=0),
        lambda: model.train_on_batch(x[:1]),
    ):
        with pytest.raises(ValueError, match=r"must be at least 2.*batch_size=1"):
            call()


def test_static_batch_size_of_a_dataset_is_checked(x):
    model = models.shallow(SHAPE, UNITS, layers.BatchTopK(2))
    model.compile("sgd")
    data = tf_dataset(x).unbatch().batch(1, drop_remainder=True)
    with pytest.raises(ValueError, match="must be at least 2"):
        model.fit(data, verbose=0)


@pytest.mark.parametrize(
    "factory",
    [
        lambda: models.shallow(SHAPE, UNITS, "l1", scaling=True),
        lambda: models.stacked(SHAPE, (5, 4), "l1", scaling=True),
    ],
    ids=["shallow", "stacked"],
)
def test_adapt_must_come_before_fit_with_scaling(x, factory):
    model = factory()
    model.compile("sgd")
    for call in (model.fit, model.train_on_batch, model.evaluate):
        with pytest.raises(ValueError, match=r"Call `adapt\(\)` before `fit\(\)`"):
            call(x)
