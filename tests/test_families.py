"""What all factories have in common: saving, logs, precision, and bad arguments."""

import copy
import functools
import pickle
from functools import partial

import keras
import numpy as np
import pytest
from helpers import (
    assert_same_weights,
    to_numpy,
    uniform_data,
    weights_of,
)

from keras_sae import layers, models
from keras_sae.regularizers import L1, KLDivergence

D, IMAGE = 6, (5, 7, 2)


def mean_of_convolution(filters):
    convolution = keras.layers.Conv2D(filters, 3, padding="same", activation="relu")
    return keras.Sequential([convolution, keras.layers.GlobalAveragePooling2D()])


def adapted(model):
    model.adapt(uniform_data(model))
    return model


def prepared(model):
    """A model on data of unit size, whose weights start as atoms."""
    options = {"unit_norm": True, "tied_initialization": True, "scaling": True}
    return adapted(model(**options))


# `tests/contracts.py` has the plain cases.
FAMILIES = {
    "deep-each": lambda: models.deep((D,), [5, 4, 3], [L1(0.1), None, "kl"]),
    "deep-norm": lambda: models.deep((D,), (5, 4), "l1", batch_normalization=True),
    "deep-contractive": lambda: models.deep((D,), (5, 4), contractive=0.1),
    "deep-noise": lambda: models.deep(
        (D,), (5, 4), corruption=layers.SaltAndPepperNoise(0.2)
    ),
    "stacked": lambda: models.stacked((D,), (5, 4), "kl"),
    "convolutional": lambda: models.convolutional(IMAGE, (4, 3, 2), L1(0.01)),
    "convolutional-tied": lambda: models.convolutional(
        IMAGE, (4, 3, 2), L1(0.01), tied=True
    ),
    "convolutional-norm": lambda: models.convolutional(
        IMAGE,
        (4, 3, 2),
        [L1(0.01), None, KLDivergence(0.1, 0.01)],
        batch_normalization=True,
        pooling=keras.layers.GlobalAveragePooling2D(),
    ),
    "convolutional-mean": lambda: models.convolutional(
        IMAGE, (4, 3, 2), L1(0.01), pooling=mean_of_convolution(2)
    ),
    "deep-atoms": lambda: prepared(
        partial(models.deep, (D,), (5, 4), layers.TopK(2, auxiliary=None))
    ),
    "deep-atoms-tied": lambda: prepared(
        partial(models.deep, (D,), (5, 4), "l1", tied=True)
    ),
    "stacked-atoms": lambda: prepared(partial(models.stacked, (D,), (5, 4), "l1")),
    "convolutional-scaled": lambda: adapted(
        models.convolutional(IMAGE, (4, 3, 2), L1(0.01), centering=True, scaling=True)
    ),
    "convolutional-atoms": lambda: prepared(
        partial(models.convolutional, IMAGE, (4, 3), layers.TopK(1, auxiliary=None))
    ),
    "convolutional-atoms-tied": lambda: prepared(
        partial(models.convolutional, IMAGE, (4, 3), "l1", tied=True)
    ),
    "variational-batch-top-k": lambda: models.variational(
        (D,), (5, 4), 3, sparsity=layers.BatchTopK(1, auxiliary=None)
    ),
    "variational-gated": lambda: models.variational((D,), 5, 3, sparsity="gated"),
    "variational-nested": lambda: models.variational(
        (D,), 5, 4, sparsity=layers.Matryoshka(layers.TopK(1), (2, 4))
    ),
    "variational-contractive": lambda: models.variational((D,), 5, 3, contractive=0.1),
    "variational-atoms": lambda: prepared(partial(models.variational, (D,), 5, 3)),
    "variational-atoms-l1": lambda: prepared(
        partial(models.variational, (D,), 5, 3, sparsity="l1")
    ),
    "variational-scaled": lambda: adapted(
        models.variational((D,), 5, 3, centering=True, scaling=True)
    ),
}


LOSS_COUNTS = {
    FAMILIES["variational-contractive"]: 3,
    FAMILIES["variational-atoms-l1"]: 3,
    FAMILIES["variational-gated"]: 4,
    FAMILIES["variational-nested"]: 3,
}


families = pytest.mark.parametrize("make", FAMILIES.values(), ids=FAMILIES)


@functools.cache
def trained(make):
    """Train the model of a family once, for the tests that only use it."""
    model = make()
    x = uniform_data(model)
    model(x)
    has_penalty = bool(model.losses)
    model.compile(keras.optimizers.Adam(0.01), jit_compile=False)
    logs = model.fit(x, validation_data=x, batch_size=4, verbose=0).history
    return model, x, logs, has_penalty


@families
def test_saved_cloned_and_pickled_models_are_equal(make, tmp_path):
    model, x, *_ = trained(make)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    expected = to_numpy(model(x))
    for again in (loaded, clone, pickle.loads(pickle.dumps(model))):
        assert type(again) is type(model)
        assert_same_weights(weights_of(model), weights_of(again))
        np.testing.assert_allclose(to_numpy(again(x)), expected, rtol=1e-5, atol=1e-7)
        assert again.get_config().keys() == model.get_config().keys()
    model.reset_metrics()
    logs = [m.test_on_batch(x, return_dict=True) for m in (model, loaded)]
    assert logs[0] == pytest.approx(logs[1], rel=1e-5)


@families
def test_logged_losses_add_up_to_the_loss(make):
    model, x, logs, has_penalty = trained(make)
    assert np.isfinite([values[0] for values in logs.values()]).all()
    names = ("reconstruction", "sparsity", "auxiliary", "kl")
    parts = [logs[f"val_{n}_loss"][0] for n in names if f"val_{n}_loss" in logs]
    assert logs["val_loss"][0] == pytest.approx(sum(parts), rel=1e-5)
    assert len(parts) == LOSS_COUNTS.get(make, 1 + has_penalty)
    assert model.encode(x).shape == (8, model.encoder.output_shape[-1])
    assert model.predict(x, verbose=0).shape == x.shape


@families
def test_half_precision_trains_with_finite_logs(make):
    keras.config.set_dtype_policy("mixed_float16")
    model = make()
    model.compile("sgd", jit_compile=False)
    logs = model.train_on_batch(uniform_data(model), return_dict=True)
    assert np.isfinite(list(logs.values())).all(), logs


@pytest.mark.parametrize("inside", ["model", "encoder"])
def test_outer_model_has_the_penalty_in_its_loss(inside):
    model = models.deep((D,), (5, 4), L1(0.3))
    x = uniform_data(model)
    inner = model if inside == "model" else model.encoder
    inputs = keras.Input((D,))
    outer = keras.Model(inputs, inner(inputs))
    outer.compile(loss="mse")
    outputs = to_numpy(inner(x))
    target = np.zeros_like(outputs)
    error = np.square(outputs).mean()
    penalty = 0.3 * np.abs(model.encode(x)).sum(axis=1).mean()
    assert penalty > 0
    loss = outer.evaluate(x, target, verbose=0)
    assert loss == pytest.approx(error + penalty, rel=1e-5)
    model.sparse_layers[-1].sparsity.coefficient.assign(0.0)
    assert outer.evaluate(x, target, verbose=0) == pytest.approx(error, rel=1e-5)


def entries(node, path=()):
    """Yield the path of every entry of nested dicts and lists."""
    children = node.items() if isinstance(node, dict) else enumerate(node)
    for key, value in children:
        yield (*path, key)
        if isinstance(value, (dict, list)):
            yield from entries(value, (*path, key))


@pytest.mark.parametrize("name", ["deep-each", "convolutional-tied", "variational-l1"])
def test_damaged_config_gives_one_short_error(name):
    """Entries are removed, or replaced by an integer or a string."""
    model = FAMILIES[name.replace("-l1", "-atoms-l1")]()
    model.compile("adam")
    saved = keras.saving.serialize_keras_object(model)
    inside = [p for p in entries(saved) if len(p) > 1 and p[0].endswith("config")]
    errors = []
    for index in np.random.default_rng(0).permutation(len(inside))[:40]:
        config, path = copy.deepcopy(saved), inside[index]
        parent = functools.reduce(lambda node, key: node[key], path[:-1], config)
        if isinstance(parent, dict) and index % 2:
            del parent[path[-1]]
        else:
            parent[path[-1]] = "x" if isinstance(parent[path[-1]], int) else 7
        try:
            keras.saving.deserialize_keras_object(config)
        except ValueError as error:
            errors.append(str(error))
    assert len(errors) > 10
    assert max(map(len, errors)) < 400, max(errors, key=len)
    assert any("cannot be created from its config" in text for text in errors)


def test_error_of_a_damaged_config_names_its_own_cause():
    saved = keras.saving.serialize_keras_object(models.deep((D,), (5, 4)))
    del saved["config"]["encoder"]["config"]["layers"][3]["config"]["units"]
    try:
        raise OSError("another error, which is being handled")
    except OSError:
        with pytest.raises(ValueError, match=r"`Autoencoder`.*argument: 'units'"):
            keras.saving.deserialize_keras_object(saved)


CONVOLUTIONAL = (models.convolutional, IMAGE)


FACTORIES = {
    "deep": (models.deep, (D,)),
    "stacked": (models.stacked, (D,)),
    "convolutional": (models.convolutional, IMAGE),
}


factories = pytest.mark.parametrize(
    ("factory", "shape"), FACTORIES.values(), ids=FACTORIES
)


@factories
@pytest.mark.parametrize("units", [(), []])
def test_empty_units_are_refused(factory, shape, units):
    with pytest.raises(ValueError, match=r"`units` must.*Received: units="):
        factory(shape, units)


@factories
@pytest.mark.parametrize("width", [0, -3, 2.5, "4", None, True])
def test_units_must_be_positive_integers(factory, shape, width):
    with pytest.raises(ValueError, match=r"`units\[1\]`.*positive integer") as error:
        factory(shape, (5, width))
    assert repr(width) in str(error.value)


@factories
@pytest.mark.parametrize("entries", [["l1"], ["l1", None, "l1"], []])
def test_sparsities_must_match_the_layers(factory, shape, entries):
    message = rf"`sparsity`.*one entry per layer.*{len(entries)} entries for 2 layers"
    with pytest.raises(ValueError, match=message):
        factory(shape, (5, 4), entries)


@factories
def test_units_may_be_a_generator(factory, shape):
    assert factory(shape, (width for width in (5, 4))).encoder.output_shape == (None, 4)


@factories
@pytest.mark.parametrize("bad", [(), (None, 3, 1), (0, 3, 1), None, (2.5,), "6"])
def test_input_shape_must_be_known(factory, shape, bad):
    with pytest.raises(ValueError, match=r"`input_shape`.*positive.*Received") as error:
        factory(bad, (5, 4))
    assert repr(bad) in str(error.value)


def test_kl_on_relu_layers_is_refused_with_a_way_out():
    with pytest.raises(ValueError, match=r"'relu'.*activation='sigmoid'"):
        models.deep((D,), (5, 4), ["kl", "kl"])
    models.deep((D,), (5, 4), ["kl", "kl"], activation="auto")


NEED_THE_DECODER = {
    "gated": "gated",
    "matryoshka": layers.Matryoshka(layers.TopK(2)),
    "both": layers.Matryoshka(layers.Gated(), widths=(1, 2)),
}


@pytest.mark.parametrize(
    "sparsity", NEED_THE_DECODER.values(), ids=NEED_THE_DECODER.keys()
)
@pytest.mark.parametrize(("factory", "shape"), [(models.deep, (D,)), CONVOLUTIONAL])
def test_sparsity_that_requires_the_decoder_must_be_innermost(factory, shape, sparsity):
    with pytest.raises(ValueError, match="sparsity of the encoder's last layer"):
        factory(shape, (4, 3), [sparsity, None])
    factory(shape, (4, 3), [None, sparsity])


@pytest.mark.parametrize("sparsity", NEED_THE_DECODER.values(), ids=NEED_THE_DECODER)
@pytest.mark.parametrize("is_nested", [False, True])
def test_sparsity_that_requires_the_decoder_must_compute_the_code(sparsity, is_nested):
    code = layers.SparseDense(4, "relu", sparsity)
    inputs = keras.Input((D,))
    outputs = code(inputs)
    if is_nested:
        outputs = keras.Model(inputs, outputs)(inputs)
    else:
        outputs = keras.layers.Reshape((4,))(outputs)
    decoder = keras.Sequential([keras.Input((4,)), keras.layers.Dense(D)])
    with pytest.raises(ValueError, match="different layer, or in a nested model"):
        models.Autoencoder(keras.Model(inputs, outputs), decoder)
