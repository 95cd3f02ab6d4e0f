"""Options of shallow models."""

import keras
import numpy as np
import pytest
from helpers import (
    to_numpy,
)

from keras_sae import models
from keras_sae.regularizers import KLDivergence

SHAPE, UNITS, BATCH = (6, 6), 8, 8


@pytest.fixture
def x(rng):
    return rng.uniform(size=(20, *SHAPE)).astype("float32")


@pytest.mark.parametrize("tied", [False, True])
def test_dictionary_keeps_unit_norm_with_l1(x, tied):
    model = models.shallow(SHAPE, UNITS, "l1", tied=tied)
    model.compile(keras.optimizers.Adam(0.01))

    def norms():
        return np.linalg.norm(
            model.decode(np.eye(UNITS)) - model.decode(np.zeros((1, UNITS))),
            axis=(1, 2),
        )

    np.testing.assert_allclose(norms(), 1, rtol=1e-4)
    model.fit(x, batch_size=BATCH, epochs=2, verbose=0)
    np.testing.assert_allclose(norms(), 1, rtol=1e-4)


@pytest.mark.parametrize("sparsity", [None, "kl"])
def test_dictionary_is_free_if_the_penalty_ignores_its_scale(sparsity):
    kernel = to_numpy(
        models.shallow(SHAPE, UNITS, sparsity).decoder.get_layer("output").kernel
    )
    assert np.ptp(np.linalg.norm(kernel, axis=1)) > 1e-2


def test_input_shape_may_be_an_integer():
    assert models.shallow(12, UNITS).sample_shape == (12,)


@pytest.mark.parametrize("shape", [(), (0,), (6, None), (6, -1), (2.5,), "66"])
def test_input_shapes_must_be_positive(shape):
    with pytest.raises(ValueError, match=r"`input_shape`.*Received") as error:
        models.shallow(shape, UNITS)
    assert f"input_shape={shape!r}" in str(error.value)


def test_frozen_layer_keeps_its_running_mean_after_loading(x, tmp_path):
    model = models.shallow(SHAPE, UNITS, KLDivergence(0.1, momentum=0.5))
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
