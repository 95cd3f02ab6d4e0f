"""Convolutional autoencoders and tied convolutions against NumPy and Keras."""

import pickle

import keras
import numpy as np
import pytest
from helpers import kl_penalty, l1_penalty, to_numpy

from keras_sae import layers, models
from keras_sae.regularizers import L1, KLDivergence

IMAGE = (5, 7, 2)
CLOSE = {"rtol": 1e-4, "atol": 1e-5}  # float32 products through four layers


@pytest.fixture
def images(rng):
    return rng.uniform(size=(4, *IMAGE)).astype("float32")


@pytest.fixture(scope="module", params=[False, True], ids=["free", "unit-norm"])
def tied_model(request):
    """A trained model with tied kernels, and the images that it was trained on."""
    x = np.random.default_rng(0).uniform(size=(4, *IMAGE)).astype("float32")
    sparsity, unit_norm = L1(0.01), request.param
    model = models.convolutional(
        IMAGE, (4, 3, 2), sparsity, tied=True, unit_norm=unit_norm
    )
    model.compile(keras.optimizers.Adam(0.01), jit_compile=False)
    for _ in range(2):
        model.train_on_batch(x)
    return model, x, unit_norm


# The shapes.


@pytest.mark.parametrize(
    "shape", [(8, 8, 1), (7, 9, 1), (1, 5, 3), (28, 28, 1), (13, 2, 2)]
)
def test_decoder_restores_any_image_size(shape):
    model = models.convolutional(shape, (2, 3, 4))
    assert model.decoder.output_shape == (None, *shape)
    assert tuple(model(np.zeros((1, *shape), "float32")).shape) == (1, *shape)


def test_a_published_architecture_has_its_published_shapes():
    """Filters 16, 32, 64 and 30, their mean, and 30 units: Géron, chapter 17."""
    convolution = keras.layers.Conv2D(30, 3, padding="same", activation="relu")
    mean = keras.layers.GlobalAveragePooling2D()
    pooling = keras.Sequential([convolution, mean])
    model = models.convolutional(
        (28, 28, 1), (16, 32, 64, 30), pooling=pooling, centering=False
    )
    shapes = [tuple(layer.output.shape[1:]) for layer in model.encoder.layers]
    assert shapes == [
        *[(28, 28, 1), (28, 28, 16), (14, 14, 16), (14, 14, 32), (7, 7, 32)],
        *[(7, 7, 64), (4, 4, 64), (30,), (30,)],
    ]
    kinds = [type(layer).__name__ for layer in model.decoder.layers[1:]]
    assert kinds.count("Conv2DTranspose") == 3
    assert kinds[-1] == "Conv2DTranspose"  # its activation bounds the output


@pytest.fixture
def channels_first():
    keras.config.set_image_data_format("channels_first")
    yield
    keras.config.set_image_data_format("channels_last")


def test_channels_first_is_refused(channels_first):
    with pytest.raises(ValueError, match=r"'channels_first'.*set_image_data_format"):
        models.convolutional(IMAGE, (4, 3))


def test_loaded_model_ignores_the_configured_data_format(
    tied_model, tmp_path, channels_first
):
    model, x, _ = tied_model
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(to_numpy(loaded(x)), to_numpy(model(x)), **CLOSE)


def test_dense_models_flatten_in_the_order_of_numpy(images, channels_first):
    """A unit that reads one pixel reads the same pixel under any configuration."""
    model = models.shallow(IMAGE, 70, activation="linear", centering=True)
    model.sparse_layers[0].kernel.assign(np.eye(70))
    x = images.reshape(4, 70)
    np.testing.assert_allclose(model.encode(images), x, rtol=1e-6)
    model.adapt(images)
    np.testing.assert_allclose(model.encode(images), x - x.mean(axis=0), atol=1e-6)


def test_penalties_of_feature_maps_are_added(images):
    regularizers = [L1(0.5), KLDivergence(0.2, 0.7)]
    model = models.convolutional(IMAGE, (4, 3), regularizers)
    maps = keras.Model(model.encoder.input, model.encoder.get_layer("encode_1").output)
    first, code = to_numpy(maps(images)), to_numpy(model.encoder(images))
    expected = l1_penalty(first, 0.5) + kl_penalty(code.mean(axis=0), 0.2, 0.7)
    model.compile(jit_compile=False)
    logs = model.test_on_batch(images, return_dict=True)
    assert logs["sparsity_loss"] == pytest.approx(expected, rel=1e-4)


# Initialization and unit norm.


def test_dictionary_starts_transposed_and_stays_at_unit_norm(images):
    options = {"unit_norm": True, "tied_initialization": True}
    model = models.convolutional(IMAGE, (4, 3), layers.TopK(1), **options)
    [code], dense = model.sparse_layers, model.decoder.get_layer("decode_2")
    np.testing.assert_array_equal(to_numpy(code.kernel), to_numpy(dense.kernel).T)
    model.compile(keras.optimizers.Adam(0.05), jit_compile=False)
    for _ in range(3):
        model.train_on_batch(images)
    norms = np.linalg.norm(to_numpy(dense.kernel), axis=1)
    np.testing.assert_allclose(norms, 1, rtol=1e-5)


def test_adapt_sets_the_output_bias_to_the_channel_means(images):
    model = models.convolutional(IMAGE, (4, 3), centering=True)
    x = images + np.array([3.0, 7.0], "float32")
    model.adapt(x)
    means = x.mean(axis=(0, 1, 2))
    output, center = (
        model.decoder.get_layer("output"),
        model.encoder.get_layer("center"),
    )
    np.testing.assert_allclose(to_numpy(output.bias), means, rtol=1e-5)
    np.testing.assert_allclose(to_numpy(center.mean), means, rtol=1e-5)


# Tied convolutions.


def correlation(x, kernel):
    """Return the convolution of stride 1 by its definition, with zero padding."""
    side = kernel.shape[0] // 2
    padded = np.pad(x, ((0, 0), (side, side), (side, side), (0, 0)))
    out = np.zeros((*x.shape[:3], kernel.shape[3]))
    for i, j in np.ndindex(*kernel.shape[:2]):
        part = padded[:, i : i + x.shape[1], j : j + x.shape[2]]
        out += part @ kernel[i, j]
    return out


def built_convolution(**kwargs):
    convolution = keras.layers.Conv2D(4, 3, **kwargs)
    convolution.build((None, *IMAGE))
    return convolution


def test_tied_convolution_is_the_transposed_map(rng):
    """`<conv(x), h> = <x, conv^T(h)>` for all `x` and `h`."""
    source = built_convolution(padding="same")
    layer = layers.TiedConv2DTranspose(source, padding="same", use_bias=False)
    x, h = rng.normal(size=(2, *IMAGE)), rng.normal(size=(2, 5, 7, 4))
    back = to_numpy(layer(h.astype("float32")))
    assert layer.kernel is source.kernel
    left = (correlation(x, to_numpy(source.kernel)) * h).sum(axis=(1, 2, 3))
    np.testing.assert_allclose((x * back).sum(axis=(1, 2, 3)), left, rtol=1e-4)


@pytest.mark.parametrize("activation", ["linear", "tanh"])
def test_tied_convolution_equals_conv2d_transpose_with_its_kernel(rng, activation):
    source = built_convolution()
    options = {"strides": 2, "padding": "same", "activation": activation}
    tied = layers.TiedConv2DTranspose(source, bias_initializer="ones", **options)
    plain = keras.layers.Conv2DTranspose(2, 3, bias_initializer="ones", **options)
    h = rng.normal(size=(2, 3, 4, 4)).astype("float32")
    plain.build(h.shape)
    plain.kernel.assign(source.kernel)
    np.testing.assert_allclose(to_numpy(tied(h)), to_numpy(plain(h)), rtol=1e-5)


def test_kernels_stay_tied_after_saving_cloning_and_pickling(tied_model, tmp_path):
    model, x, unit_norm = tied_model
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    unpickled = pickle.loads(pickle.dumps(model))
    for again in (model, loaded, unpickled, keras.models.clone_model(model)):
        up = [x for x in again.encoder.layers if hasattr(x, "kernel")]
        down = [x for x in again.decoder.layers if hasattr(x, "kernel")][::-1]
        assert len(up) == len(down) > 1
        assert all(a.kernel is b.kernel for a, b in zip(up, down, strict=True))
        # A kernel and two biases per layer.
        assert len(again.trainable_weights) == 3 * len(up)
    for again in (loaded, unpickled):
        np.testing.assert_allclose(to_numpy(again(x)), to_numpy(model(x)), **CLOSE)
    if unit_norm:
        code = to_numpy(model.sparse_layers[-1].kernel)
        np.testing.assert_allclose(np.linalg.norm(code, axis=0), 1, rtol=1e-5)


def test_decoder_loaded_alone_keeps_its_values_and_warns(tied_model, tmp_path):
    model, x, _ = tied_model
    model.decoder.save(tmp_path / "decoder.keras")
    with pytest.warns(UserWarning, match="loaded without the layer"):
        decoder = keras.saving.load_model(tmp_path / "decoder.keras")
    code = model.encode(x)
    np.testing.assert_allclose(
        to_numpy(decoder(code)), to_numpy(model.decoder(code)), **CLOSE
    )


# Bad input.


def test_layers_that_cannot_be_tied_to_are_refused():
    dense = keras.layers.Dense(3)
    dense.build((None, 4))
    with pytest.raises(ValueError, match="built layer with a kernel of 4 dimensions"):
        layers.TiedConv2DTranspose(dense)
    with pytest.raises(ValueError, match=r"`keras\.layers\.Conv2D` with groups=1"):
        layers.TiedConv2DTranspose(built_convolution(groups=2))


@pytest.mark.parametrize("argument", ["tied", "tied_initialization"])
def test_pooling_excludes_tied_kernels(argument):
    pooling = keras.layers.GlobalAveragePooling2D()
    with pytest.raises(
        ValueError, match=rf"`{argument}`.*pooling. reduces .* values to 4.*pooling"
    ):
        models.convolutional(IMAGE, (4, 3), pooling=pooling, **{argument: True})


@pytest.mark.parametrize("pooling", ["average", keras.layers.Flatten])
def test_pooling_must_be_a_layer(pooling):
    with pytest.raises(ValueError, match=r"`pooling`.*GlobalAveragePooling2D"):
        models.convolutional(IMAGE, (4, 3), pooling=pooling)


@pytest.mark.parametrize("shape", [(6,), (5, 7), (3, 5, 7, 1)])
def test_input_shape_must_have_three_entries(shape):
    with pytest.raises(ValueError, match=r"`input_shape`.*height, width, channels"):
        models.convolutional(shape, (4, 3))


def test_units_must_have_two_entries():
    with pytest.raises(ValueError, match=r"`units`.*at least 2"):
        models.convolutional(IMAGE, 4)
