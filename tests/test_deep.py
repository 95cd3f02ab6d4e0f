"""Deep and stacked models against NumPy."""

import pickle
from functools import partial

import keras
import numpy as np
import pytest
from helpers import (
    kl_penalty,
    l1_penalty,
    sigmoid,
    to_numpy,
)

from keras_sae import layers, models
from keras_sae.regularizers import L1, KLDivergence

D = 6
CLOSE = {"rtol": 1e-4, "atol": 1e-5}  # float32 products through four layers


def relu(z):
    return np.maximum(z, 0)


@pytest.fixture
def x(rng):
    return rng.uniform(size=(8, D)).astype("float32")


def dense_weights(model, side):
    return [
        [to_numpy(v) for v in layer.trainable_weights]
        for layer in side.layers
        if layer.trainable_weights
    ]


def test_deep_applies_its_layers_in_order(x):
    model = models.deep(
        (D,), (5, 4, 3), "kl", activation="tanh", output_activation="sigmoid"
    )
    (w1, b1), (w2, b2), (w3, b3) = dense_weights(model, model.encoder)
    code = sigmoid(np.tanh(np.tanh(x @ w1 + b1) @ w2 + b2) @ w3 + b3)
    np.testing.assert_allclose(to_numpy(model.encoder(x)), code, **CLOSE)
    (v3, c3), (v2, c2), (v1, c1) = dense_weights(model, model.decoder)
    reconstruct = sigmoid(np.tanh(np.tanh(code @ v3 + c3) @ v2 + c2) @ v1 + c1)
    np.testing.assert_allclose(to_numpy(model(x)), reconstruct, **CLOSE)
    assert [v1.shape, v2.shape, v3.shape] == [(5, 6), (4, 5), (3, 4)]


def test_tied_decoder_uses_transposed_kernels(x):
    model = models.deep((D,), (5, 4), tied=True)
    (w1, b1), (w2, b2) = dense_weights(model, model.encoder)
    c2, c1 = (
        to_numpy(layer.bias)
        for layer in model.decoder.layers
        if isinstance(layer, layers.TiedDense)
    )
    code = relu(relu(x @ w1 + b1) @ w2 + b2)
    reconstruct = relu(code @ w2.T + c2) @ w1.T + c1
    np.testing.assert_allclose(to_numpy(model(x)), reconstruct, **CLOSE)
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


@pytest.mark.parametrize(
    "make",
    [
        lambda: models.deep((2, 3, 1), (5, 4, 3), L1(0.01), tied=True),
        lambda: models.stacked((D,), (5, 4), L1(0.01), tied=True),
    ],
    ids=["deep", "stacked"],
)
def test_layers_stay_tied_after_saving_and_cloning(make, tmp_path):
    model = make()
    copies = loaded_cloned_and_unpickled(model, tmp_path)
    for again in (model, *copies):
        kernels = [layer.kernel for layer in again.sparse_layers]
        tied = [layer.kernel for layer in tied_layers(again)[::-1]]
        assert len(tied) == len(kernels) > 1
        assert all(a is b for a, b in zip(tied, kernels, strict=True))


def test_penalties_of_all_layers_are_summed(x):
    regularizers = [L1(0.5), None, KLDivergence(0.2, 0.7)]
    model = models.deep((D,), (5, 4, 3), regularizers, centering=False)
    (w1, b1), (w2, b2), (w3, b3) = dense_weights(model, model.encoder)
    first = relu(x @ w1 + b1)
    code = sigmoid(relu(first @ w2 + b2) @ w3 + b3)
    expected = l1_penalty(first, 0.5) + kl_penalty(code.mean(axis=0), 0.2, 0.7)
    model.compile(jit_compile=False)
    logs = model.test_on_batch(x, return_dict=True)
    assert logs["sparsity_loss"] == pytest.approx(expected, rel=1e-4)


def test_single_sparsity_is_for_the_code_in_deep_and_for_all_levels_in_stacked():
    def sparsities(model):
        return [layer.sparsity is not None for layer in model.sparse_layers]

    assert sparsities(models.deep((D,), (5, 4, 3), "l1")) == [False, False, True]
    assert sparsities(models.stacked((D,), (5, 4), "l1")) == [True, True]
    assert sparsities(models.stacked((D,), (5, 4), [None, "l1"])) == [False, True]


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
def test_kernel_regularizer_applies_to_every_kernel(x, make, count):
    model = make((D,), kernel_regularizer=keras.regularizers.L2(0.1))
    kernels = [v for v in model.trainable_weights if v.name.endswith("kernel")]
    assert len(kernels) == count
    decay = 0.1 * sum((to_numpy(v) ** 2).sum() for v in kernels)
    model.compile(jit_compile=False)
    logs = model.test_on_batch(x, return_dict=True)
    assert logs["loss"] - logs["reconstruction_loss"] == pytest.approx(decay, rel=1e-5)


def test_batch_normalization_follows_hidden_layers():
    model = models.deep((D,), (5, 4), "l1", batch_normalization=True)
    names = [layer.name for layer in (*model.encoder.layers, *model.decoder.layers)]
    assert [n for n in names if n.endswith("norm")] == [
        "encode_1_norm",
        "decode_2_norm",
    ]
    assert names[names.index("encode_1_norm") - 1] == "encode_1"
    assert names[names.index("decode_2_norm") - 1] == "decode_2"


@pytest.mark.parametrize("tied", [False, True])
def test_dictionaries_of_all_layers_keep_unit_norm(x, tied):
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


def test_tied_initialization_starts_with_transposes():
    model = models.deep((D,), (5, 4, 3), tied_initialization=True)
    mirrors = [model.decoder.get_layer(f"decode_{n}") for n in (2, 3)]
    for layer, mirror in zip(
        model.sparse_layers, [model.decoder.get_layer("output"), *mirrors], strict=True
    ):
        np.testing.assert_array_equal(to_numpy(layer.kernel), to_numpy(mirror.kernel).T)
