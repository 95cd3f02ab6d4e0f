"""Deep, stacked and convolutional models against NumPy."""

import pickle
from functools import partial

import keras
import numpy as np
import pytest
from helpers import (
    assert_same_weights,
    kl_penalty,
    l1_penalty,
    sigmoid,
    to_numpy,
    weights_of,
)

from keras_sae import layers, models
from keras_sae.regularizers import L1, KLDivergence

D, IMAGE = 6, (5, 7, 2)
CLOSE = {"rtol": 1e-4, "atol": 1e-5}  # float32 products through four layers


def relu(z):
    return np.maximum(z, 0)


@pytest.fixture
def x(rng):
    return rng.uniform(size=(8, D)).astype("float32")


@pytest.fixture
def images(rng):
    return rng.uniform(size=(4, *IMAGE)).astype("float32")


def mean_of_convolution(filters):
    convolution = keras.layers.Conv2D(filters, 3, padding="same", activation="relu")
    return keras.Sequential([convolution, keras.layers.GlobalAveragePooling2D()])


def adapted(model):
    model.adapt(data(model))
    return model


def prepared(model):
    """A model on data of unit size, whose weights start as atoms."""
    options = {"unit_norm": True, "tied_initialization": True, "scaling": True}
    return adapted(model(**options))


FAMILIES = {
    "deep": lambda: models.deep((D,), (5, 4, 3), KLDivergence(0.1, 0.01)),
    "deep-each": lambda: models.deep((D,), [5, 4, 3], [L1(0.1), None, "kl"]),
    "deep-tied": lambda: models.deep((2, 3, 1), (5, 4, 3), L1(0.01), tied=True),
    "deep-norm": lambda: models.deep((D,), (5, 4), "l1", batch_normalization=True),
    "deep-contractive": lambda: models.deep((D,), (5, 4), contractive=0.1),
    "deep-noise": lambda: models.deep(
        (D,), (5, 4), corruption=layers.SaltAndPepperNoise(0.2)
    ),
    "stacked": lambda: models.stacked((D,), (5, 4), "kl"),
    "stacked-tied": lambda: models.stacked((D,), (5, 4), L1(0.01), tied=True),
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
    "variational": lambda: models.variational((D,), (5, 4), 3),
    "variational-l1": lambda: models.variational((D,), (5, 4), 3, sparsity=L1(0.01)),
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
# Parts of the loss, where they are more than the reconstruction's and one beside it.
SEVERAL = {
    FAMILIES["variational-l1"]: 3,
    FAMILIES["variational-contractive"]: 3,
    FAMILIES["variational-atoms-l1"]: 3,
    FAMILIES["variational-gated"]: 4,
    FAMILIES["variational-nested"]: 3,
}
families = pytest.mark.parametrize("make", FAMILIES.values(), ids=FAMILIES)


def data(model, samples: int = 8) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.uniform(size=(samples, *model.sample_shape)).astype("float32")


# What every family does.


@families
def test_it_comes_back(make, tmp_path):
    model = make()
    x = data(model)
    model.compile(keras.optimizers.Adam(0.01), jit_compile=False)
    model.train_on_batch(x)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    for again in (loaded, clone, pickle.loads(pickle.dumps(model))):
        assert type(again) is type(model)
        assert len(again.weights) == len(model.weights)
        assert_same_weights(weights_of(model), weights_of(again))
        np.testing.assert_allclose(to_numpy(again(x)), to_numpy(model(x)), rtol=1e-5)
        assert again.get_config().keys() == model.get_config().keys()
    model.reset_metrics()
    logs = [m.test_on_batch(x, return_dict=True) for m in (model, loaded)]
    assert logs[0] == pytest.approx(logs[1], rel=1e-5)


@families
def test_a_fit_logs_the_parts_of_its_loss(make):
    model = make()
    x = data(model)
    model(x)
    extra = bool(model.losses)
    model.compile("adam")
    logs = model.fit(x, validation_data=x, batch_size=4, verbose=0).history
    assert np.isfinite([values[0] for values in logs.values()]).all()
    names = ("reconstruction", "sparsity", "auxiliary", "kl")
    parts = [logs[f"val_{n}_loss"][0] for n in names if f"val_{n}_loss" in logs]
    assert logs["val_loss"][0] == pytest.approx(sum(parts), rel=1e-5)
    assert len(parts) == SEVERAL.get(make, 1 + extra)
    assert model.encode(x).shape == (8, model.encoder.output_shape[-1])
    assert model.predict(x, verbose=0).shape == x.shape


@families
def test_precision(make):
    keras.config.set_dtype_policy("mixed_float16")
    model = make()
    model.compile("sgd", jit_compile=False)
    logs = model.train_on_batch(data(model), return_dict=True)
    assert np.isfinite(list(logs.values())).all(), logs


# Dense families.


def dense_weights(model, side):
    return [
        [to_numpy(v) for v in layer.trainable_weights]
        for layer in side.layers
        if layer.trainable_weights
    ]


def test_deep_is_the_chain_of_its_layers(x):
    model = models.deep(
        (D,), (5, 4, 3), "kl", activation="tanh", output_activation="sigmoid"
    )
    (w1, b1), (w2, b2), (w3, b3) = dense_weights(model, model.encoder)
    code = sigmoid(np.tanh(np.tanh(x @ w1 + b1) @ w2 + b2) @ w3 + b3)
    np.testing.assert_allclose(to_numpy(model.encoder(x)), code, **CLOSE)
    (v3, c3), (v2, c2), (v1, c1) = dense_weights(model, model.decoder)
    rebuilt = sigmoid(np.tanh(np.tanh(code @ v3 + c3) @ v2 + c2) @ v1 + c1)
    np.testing.assert_allclose(to_numpy(model(x)), rebuilt, **CLOSE)
    assert [v1.shape, v2.shape, v3.shape] == [(5, 6), (4, 5), (3, 4)]


def test_a_tied_model_decodes_with_the_transposes(x):
    model = models.deep((D,), (5, 4), tied=True)
    (w1, b1), (w2, b2) = dense_weights(model, model.encoder)
    c2, c1 = (
        to_numpy(layer.bias)
        for layer in model.decoder.layers
        if isinstance(layer, layers.TiedDense)
    )
    code = relu(relu(x @ w1 + b1) @ w2 + b2)
    rebuilt = relu(code @ w2.T + c2) @ w1.T + c1
    np.testing.assert_allclose(to_numpy(model(x)), rebuilt, **CLOSE)
    # Two kernels and four biases.
    assert len(model.trainable_weights) == 6


def tied_layers(model):
    return [x for x in model.decoder.layers if isinstance(x, layers.TiedDense)]


def loaded_cloned_and_unpickled(model, folder):
    model.save(folder / "model.keras")
    return [
        keras.saving.load_model(folder / "model.keras"),
        keras.models.clone_model(model),
        pickle.loads(pickle.dumps(model)),
    ]


@pytest.mark.parametrize("make", [FAMILIES["deep-tied"], FAMILIES["stacked-tied"]])
def test_tied_layers_stay_tied(make, tmp_path):
    model = make()
    copies = loaded_cloned_and_unpickled(model, tmp_path)
    for again in (model, *copies):
        kernels = [layer.kernel for layer in again.sparse_layers]
        tied = [layer.kernel for layer in tied_layers(again)[::-1]]
        assert len(tied) == len(kernels) > 1
        assert all(a is b for a, b in zip(tied, kernels, strict=True))


def test_penalties_of_every_layer_are_added(x):
    regularizers = [L1(0.5), None, KLDivergence(0.2, 0.7)]
    model = models.deep((D,), (5, 4, 3), regularizers, centering=False)
    (w1, b1), (w2, b2), (w3, b3) = dense_weights(model, model.encoder)
    first = relu(x @ w1 + b1)
    code = sigmoid(relu(first @ w2 + b2) @ w3 + b3)
    expected = l1_penalty(first, 0.5) + kl_penalty(code.mean(axis=0), 0.2, 0.7)
    model.compile(jit_compile=False)
    logs = model.test_on_batch(x, return_dict=True)
    assert logs["sparsity_loss"] == pytest.approx(expected, rel=1e-4)


def test_a_single_sparsity_is_the_code_s_in_deep_and_everyone_s_in_stacked():
    def kinds(model):
        return [getattr(x.sparsity, "regularizer", None) for x in model.sparse_layers]

    penalty = L1(0.1)
    assert kinds(models.deep((D,), (5, 4, 3), penalty)) == [None, None, penalty]
    assert kinds(models.stacked((D,), (5, 4), penalty)) == [penalty, penalty]
    assert kinds(models.stacked((D,), (5, 4), [None, penalty])) == [None, penalty]


@pytest.mark.parametrize(
    ("make", "count"),
    [
        (partial(models.shallow, units=4), 2),
        (partial(models.shallow, units=4, tied=True), 1),
        (partial(models.deep, units=(5, 4)), 4),
        (partial(models.deep, units=(5, 4), tied=True), 2),
    ],
    ids=["shallow", "shallow-tied", "deep", "deep-tied"],
)
def test_weight_decay_is_on_every_kernel(x, make, count):
    model = make((D,), kernel_regularizer=keras.regularizers.L2(0.1))
    kernels = [v for v in model.trainable_weights if v.name == "kernel"]
    assert len(kernels) == count
    decay = 0.1 * sum((to_numpy(v) ** 2).sum() for v in kernels)
    model.compile(jit_compile=False)
    logs = model.test_on_batch(x, return_dict=True)
    assert logs["loss"] - logs["reconstruction_loss"] == pytest.approx(decay, rel=1e-5)


def test_batch_normalisation_is_between_the_layers():
    model = FAMILIES["deep-norm"]()
    names = [layer.name for layer in (*model.encoder.layers, *model.decoder.layers)]
    assert [n for n in names if n.endswith("norm")] == [
        "encode_1_norm",
        "decode_2_norm",
    ]
    assert names[names.index("encode_1_norm") - 1] == "encode_1"
    assert names[names.index("decode_2_norm") - 1] == "decode_2"


@pytest.mark.parametrize("tied", [False, True])
def test_atoms_of_every_layer_stay_at_unit_norm(x, tied):
    model = models.deep((D,), (5, 4, 3), "l1", tied=tied, unit_norm=True)

    def norms():
        kernels = [to_numpy(layer.kernel) for layer in model.sparse_layers]
        rest = model.decoder.layers
        others = [to_numpy(v.kernel) for v in rest if hasattr(v, "kernel")]
        kernels = [kernel.T for kernel in kernels] if tied else others
        assert len(kernels) == 3
        return np.concatenate([np.linalg.norm(kernel, axis=1) for kernel in kernels])

    np.testing.assert_allclose(norms(), 1, rtol=1e-5)
    model.compile(keras.optimizers.Adam(0.05))
    model.fit(x, epochs=3, verbose=0)
    np.testing.assert_allclose(norms(), 1, rtol=1e-5)


def test_every_layer_may_start_as_the_transpose_of_its_mirror():
    model = models.deep((D,), (5, 4, 3), tied_initialization=True)
    mirrors = [model.decoder.get_layer(f"decode_{n}") for n in (2, 3)]
    for layer, mirror in zip(
        model.sparse_layers, [model.decoder.get_layer("output"), *mirrors], strict=True
    ):
        np.testing.assert_array_equal(to_numpy(layer.kernel), to_numpy(mirror.kernel).T)


SCALED = {
    "deep": partial(models.deep, (D,), (5, 4)),
    "variational": partial(models.variational, (D,), 5, 2, centering=True),
    "convolutional": partial(models.convolutional, IMAGE, (4, 3), centering=True),
}


@pytest.mark.parametrize("make", SCALED.values(), ids=SCALED)
def test_scaling_a_model_is_scaling_its_data(make):
    x = 50 * data(make())
    # Centred by the mean of each value, or of each channel of an image.
    axes = tuple(range(x.ndim - 1))
    rms = np.sqrt(((x - x.mean(axis=axes)) ** 2).mean())

    def rebuilt(data, **kwargs):
        keras.utils.set_random_seed(0)
        model = make(**kwargs)
        model.adapt(data)
        return model.predict(data, verbose=0)

    by_hand = rebuilt(x / rms) * rms
    np.testing.assert_allclose(rebuilt(x, scaling=True), by_hand, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("make", SCALED.values(), ids=SCALED)
def test_one_batch_does_not_undo_what_was_adapted_to(make):
    model = make()
    x = 3 + data(model, 2000)
    model.adapt(x)
    model.compile("sgd", jit_compile=False)
    model.train_on_batch(x[:20] + 1)
    # A hundredth of the samples, one further up.
    expected = x.mean(axis=tuple(range(x.ndim - 1))) + 1 / 101
    center = to_numpy(model.encoder.get_layer("center").mean)
    np.testing.assert_allclose(center, expected, atol=0.01)


@pytest.mark.parametrize("make", SCALED.values(), ids=SCALED)
def test_a_bounded_output_is_not_scaled(make):
    with pytest.raises(ValueError, match=r"`scaling`.*'tanh', whose values.*'linear'"):
        make(scaling=True, output_activation="tanh")


def test_an_activation_behind_a_convolution_has_no_centre_in_its_bias():
    code = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(3)])
    code.build((None, 4, 4, 1))
    up = [keras.layers.Dense(16), keras.layers.Reshape((4, 4, 1))]
    last = [keras.layers.Conv2D(1, 3, padding="same"), keras.layers.ReLU()]
    decoder = keras.Sequential([keras.Input((3,)), *up, *last])
    model = models.Autoencoder(code, decoder)
    model.adapt(data(model))
    np.testing.assert_array_equal(to_numpy(last[0].bias), 0)


def test_a_deep_model_s_scale_may_not_be_forgotten(x):
    model = models.stacked((D,), (5, 4), "l1", scaling=True)
    model.compile()
    with pytest.raises(ValueError, match=r"Call `adapt\(\)` before"):
        model.fit(x, verbose=0)


# Levels.

DENSE = ["deep", "deep-tied", "deep-norm", "deep-noise", "stacked", "stacked-tied"]
DENSE += ["deep-atoms", "deep-atoms-tied", "stacked-atoms"]


def apply(chain, x):
    for layer in chain:
        x = layer(x)
    return x


@pytest.mark.parametrize("name", DENSE)
def test_levels_are_the_model_in_parts(name, tmp_path):
    model = FAMILIES[name]()
    model.save(tmp_path / "model.keras")
    copies = [keras.saving.load_model(tmp_path / "model.keras")]
    copies.append(keras.models.clone_model(model))
    for again in (model, *copies):
        code = x = data(again)
        widths = []
        for level in again.levels:
            code = apply(level.encode, code)
            widths.append(code.shape[-1])
        np.testing.assert_allclose(
            to_numpy(code), to_numpy(again.encoder(x)), rtol=1e-6
        )
        assert widths == [layer.units for layer in again.sparse_layers]
        for level in again.levels[::-1]:
            code = apply(level.decode, code)
        np.testing.assert_allclose(to_numpy(code), to_numpy(again(x)), rtol=1e-5)


def test_levels_of_a_shallow_model():
    [level] = models.shallow((2, 3), 4, tied=True).levels
    [_] = models.shallow((2, 3), 4, layers.TopK(2)).levels  # a kernel stored by rows
    assert [layer.name for layer in level.encode] == ["flatten", "center", "code"]
    assert [layer.name for layer in level.decode] == ["output", "reshape"]


def test_levels_of_plain_keras_models():
    encoder = keras.Sequential(
        [keras.Input((D,)), keras.layers.Dense(5, "relu"), keras.layers.Dense(4)]
    )
    decoder = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(5, "relu"), keras.layers.Dense(D)]
    )
    assert len(models.Autoencoder(encoder, decoder).levels) == 2


def lopsided():
    encoder = models.deep((D,), (5, 4)).encoder
    return models.Autoencoder(encoder, models.shallow((D,), 4).decoder)


@pytest.mark.parametrize(
    "make", [FAMILIES["convolutional"], FAMILIES["variational"], lopsided]
)
def test_other_models_have_no_levels(make):
    model = make()
    with pytest.raises(ValueError, match=r"`levels`.*mirror.*stacked") as error:
        _ = model.levels
    assert f"model={model.name!r}" in str(error.value)


def test_a_frozen_layer_keeps_its_running_mean_after_loading(x, tmp_path):
    model = models.shallow((D,), 8, KLDivergence(0.1, momentum=0.5))
    model.encoder.get_layer("code").trainable = False
    model.compile("adam", jit_compile=False)
    model.fit(x, verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    clone = keras.models.clone_model(model)
    clone.compile("adam", jit_compile=False)
    for frozen in (model, again, clone):
        penalty = frozen.sparse_layers[-1].sparsity
        before = to_numpy(penalty.running_mean)
        frozen.fit(x, verbose=0)
        np.testing.assert_array_equal(before, to_numpy(penalty.running_mean))


# Bad input.

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
def test_no_layers(factory, shape, units):
    with pytest.raises(ValueError, match=r"`units`.*each layer.*Received: units="):
        factory(shape, units)


@factories
@pytest.mark.parametrize("width", [0, -3, 2.5, "4", None, True])
def test_bad_widths(factory, shape, width):
    with pytest.raises(ValueError, match=r"`units\[1\]`.*positive integer") as error:
        factory(shape, (5, width))
    assert repr(width) in str(error.value)


@factories
@pytest.mark.parametrize("entries", [["l1"], ["l1", None, "l1"], []])
def test_wrong_numbers_of_sparsities(factory, shape, entries):
    message = rf"`sparsity`.*one entry per layer.*{len(entries)} entries for 2 layers"
    with pytest.raises(ValueError, match=message):
        factory(shape, (5, 4), entries)


@factories
def test_widths_may_come_from_a_generator(factory, shape):
    assert factory(shape, (width for width in (5, 4))).encoder.output_shape == (None, 4)


@factories
@pytest.mark.parametrize("bad", [(), (None, 3, 1), (0, 3, 1), None, (2.5,), "6"])
def test_unknown_sizes(factory, shape, bad):
    with pytest.raises(ValueError, match=r"`input_shape`.*known.*Received") as error:
        factory(bad, (5, 4))
    assert repr(bad) in str(error.value)


def test_a_divergence_on_relu_layers_is_refused_with_a_way_out():
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
def test_a_sparsity_of_the_decoder_is_the_innermost(factory, shape, sparsity):
    with pytest.raises(ValueError, match="sparsity of the innermost layer"):
        factory(shape, (4, 3), [sparsity, None])
    factory(shape, (4, 3), [None, sparsity])


@pytest.mark.parametrize(("factory", "shape"), [(models.deep, (D,)), CONVOLUTIONAL])
def test_a_batch_of_one_is_too_small_at_every_level(factory, shape):
    model = factory(shape, (4, 3), [layers.BatchTopK(2), None])
    model.compile("sgd")
    with pytest.raises(ValueError, match="a batch of at least 2"):
        model.fit(np.ones((4, *shape), "float32"), batch_size=1, verbose=0)


def test_adapt_sets_the_mean_if_the_decoder_has_no_bias(rng):
    x = rng.normal(3, 1, size=(9, 2, 3)).astype("float32")
    chain = [keras.Input((2, 3)), keras.layers.Flatten(), layers.Centering()]
    encoder = keras.Sequential([*chain, layers.SparseDense(6)])
    decoder = keras.Sequential([keras.Input((6,)), keras.layers.Reshape((2, 3))])
    model = models.Autoencoder(encoder, decoder)
    model.adapt(x)
    mean = to_numpy(encoder.layers[1].mean)
    np.testing.assert_allclose(mean, x.reshape(9, 6).mean(axis=0), rtol=1e-5)
