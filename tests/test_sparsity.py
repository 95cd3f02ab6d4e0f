"""Tests of `layers.Sparsity` with a user's own class, and of every sparsity."""

import inspect
from pathlib import Path

import keras
import numpy as np
import pytest
from helpers import BACKEND, tensorflow_only, to_numpy
from keras import ops

import keras_sae
from keras_sae import (
    callbacks,
    datasets,
    export,
    layers,
    metrics,
    models,
    regularizers,
    tuning,
)
from keras_sae.layers import aux_k

PACKAGE = Path(keras_sae.__file__).parent


@keras.saving.register_keras_serializable("tests")
class SoftThreshold(layers.Sparsity):
    """A user's own sparsity: only `call` is overridden."""

    def call(self, inputs, training=None):
        return ops.relu(inputs - 0.1)


@keras.saving.register_keras_serializable("tests")
class SquaredActivation(layers.Sparsity):
    """A user's own sparsity with a penalty."""

    has_penalty = True

    def call(self, inputs, training=None):
        self.add_penalty(ops.mean(ops.sum(ops.square(inputs), axis=-1)), inputs)
        return inputs


@pytest.fixture(scope="module")
def x():
    return np.random.default_rng(0).random((64, 12), dtype="float32")


@pytest.fixture(scope="module")
def fitted(x):
    """A model with a user's sparsity on both levels, and its history."""
    keras.utils.set_random_seed(0)
    sparsities = [SquaredActivation(), SoftThreshold()]
    model = models.deep((12,), (16, 8), sparsities)
    model.compile("adam")
    warmup = callbacks.SparsityWarmup(1)
    history = model.fit(x, epochs=2, batch_size=16, verbose=0, callbacks=[warmup])
    return model, history.history


def test_custom_sparsity_computes_the_code(fitted, x):
    model, history = fitted
    code_layer = model.encoder.get_layer("code")
    inputs = keras.Model(model.encoder.input, code_layer.input)(x)
    expected = to_numpy(code_layer.pre_activations(inputs)).clip(0) - 0.1
    np.testing.assert_allclose(model.encode(x), expected.clip(0), atol=1e-6)
    assert np.isfinite(history["loss"]).all()
    assert history["l0"][-1] == pytest.approx((expected > 0).sum(1).mean(), rel=0.1)


def test_custom_penalty_is_logged_and_warmed_up(fitted, x):
    model, history = fitted
    assert history["sparsity_scale"] == [0.5, 1.0]
    hidden = to_numpy(
        keras.Model(model.encoder.input, model.encoder.get_layer("encode_1").output)(x)
    )
    logs = model.evaluate(x, verbose=0, return_dict=True)
    assert logs["sparsity_loss"] == pytest.approx(
        np.square(hidden).sum(axis=1).mean(), rel=1e-5
    )
    assert logs["loss"] == pytest.approx(
        logs["reconstruction_loss"] + logs["sparsity_loss"], rel=1e-5
    )


def test_custom_sparsity_survives_saving(fitted, x, tmp_path):
    model, _ = fitted
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(
        loaded.predict(x, verbose=0), model.predict(x, verbose=0)
    )
    assert isinstance(loaded.sparse_layers[-1].sparsity, SoftThreshold)


@tensorflow_only
def test_custom_sparsity_is_exported(fitted, x, tmp_path):
    import tensorflow as tf

    model, _ = fitted
    path = export.export_saved_model(model, tmp_path / "sae", warmup=False)
    encode = tf.saved_model.load(str(path)).signatures["encode"]
    np.testing.assert_allclose(
        encode(x=tf.constant(x))["code"].numpy(), model.encode(x), atol=1e-6
    )


def test_a_layer_that_is_no_sparsity_is_refused():
    with pytest.raises(ValueError, match=r"Derive the layer from `keras_sae.layers.Sp"):
        models.shallow((12,), 8, keras.layers.ReLU())


@pytest.mark.parametrize("factory", [models.shallow, models.deep])
def test_a_sparsity_is_copied_once(factory, monkeypatch):
    copies = []
    from_config = layers.TopK.from_config

    def counted(config):
        copies.append(config)
        return from_config(config)

    monkeypatch.setattr(layers.TopK, "from_config", counted)
    sparsity = layers.TopK(2)
    model = factory((12,), 8, sparsity)
    assert len(copies) == 1
    assert model.sparse_layers[-1].sparsity is not sparsity


def own_frames() -> int:
    """Return the number of frames on the stack that are in files of the package."""
    return sum(
        PACKAGE in Path(frame.filename).parents for frame in inspect.stack(context=0)
    )


@tensorflow_only
def test_few_frames_lie_between_fit_and_a_loss_term(x, monkeypatch):
    depths = {}

    def counting(cls, method):
        original = getattr(cls, method)

        def wrapped(self, *args, **kwargs):
            # The frame of `original` itself is one of ours and not yet on the stack.
            depths.setdefault(cls.__name__, own_frames() + 1)
            return original(self, *args, **kwargs)

        monkeypatch.setattr(cls, method, wrapped)

    counting(regularizers.L1, "__call__")
    counting(aux_k.AuxK, "_loss_of_dead_units")
    aux = layers.AuxK(1, dead_after=1)
    for sparsity in ("l1", layers.TopK(2, auxiliary=aux)):
        model = models.shallow((12,), 8, sparsity)
        model.compile("adam")
        model.fit(x, verbose=0)
    # The term of `AuxK` is computed inside a conditional.
    assert depths == {"L1": 6, "AuxK": 7}, BACKEND


@pytest.mark.parametrize(
    ("sparsity", "firing_probability", "steps", "bound"),
    [
        # One sample in eleven has more than three features, so not all are needed.
        (layers.TopK(3), 0.15, 150, 0.95),
        # Three features per sample on average, which is what BatchTopK assumes.
        (layers.BatchTopK(3), 0.25, 150, 0.99),
        (layers.Gated(0.1), 0.15, 600, 0.99),
        (layers.JumpReLU(1e-2, bandwidth=0.2, threshold=0.1), 0.15, 150, 0.93),
        (layers.Matryoshka(layers.BatchTopK(2), widths=(6, 12)), 0.15, 150, 0.93),
    ],
    ids=["top_k", "batch_top_k", "gated", "jump_relu", "matryoshka"],
)
def test_known_features_are_recovered(sparsity, firing_probability, steps, bound):
    task = datasets.superposition(12, 12, firing_probability)
    model = models.shallow((12,), 12, sparsity)
    model.compile(keras.optimizers.Adam(3 / steps))
    model.fit(task.dataset(512 * steps, batch_size=512), verbose=0)
    # A random dictionary scores 0.6 here.
    assert metrics.recovery_score(task.features, model.dictionary()) > bound


@tensorflow_only
@pytest.mark.parametrize(
    "sparsities",
    [
        [layers.TopK(3, auxiliary=layers.AuxK(dead_after=1))],
        [layers.Matryoshka(layers.BatchTopK(3))],
        [layers.JumpReLU(), layers.LifetimeSparsity(0.1), layers.Gated()],
    ],
    ids=["top_k", "matryoshka", "others"],
)
def test_training_steps_compile_with_xla(sparsities, rng):
    x = rng.normal(size=(96, 12)).astype("float32")
    model = models.deep((12,), [24] * len(sparsities), sparsities, activation="auto")
    model.compile(keras.optimizers.Adam(0.01), jit_compile=True)
    loss = model.fit(x, batch_size=32, epochs=3, verbose=0).history["loss"]
    assert loss[-1] < loss[0]


@pytest.mark.slow
def test_custom_sparsity_is_searched_by_the_tuner(x, tmp_path):
    hypermodel = tuning.SparsityHyperModel(
        "shallow", input_shape=(12,), units=8, sparsity=SoftThreshold()
    )
    tuner = tuning.search(hypermodel, x, x, 1, 1, max_l0=8, progress=False)
    model = tuning.best_model(tuner, x, tmp_path / "best.keras", verbose=0)
    assert isinstance(model.sparse_layers[-1].sparsity, SoftThreshold)
