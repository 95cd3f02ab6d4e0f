"""Tests of the fused Adam: its results, and the optimizers that it leaves alone."""

import keras
import numpy as np
import pytest
from helpers import BACKEND, shallow_weights, tensorflow_only, to_numpy

from keras_sae import models, pretraining
from keras_sae.ops import fused_adam


def fused(optimizer):
    """Return `optimizer` after `fuse`."""
    fused_adam.fuse(optimizer)
    return optimizer


def fused_operations(optimizer) -> int:
    """Return the number of fused updates in a step of a model with four weights."""
    import tensorflow as tf

    model = models.shallow((6,), 5)
    model.compile(optimizer)
    assert model.optimizer is optimizer
    step = tf.function(lambda: model.train_step(tf.ones((8, 6))))
    operations = step.get_concrete_function().graph.get_operations()
    return sum(operation.type == "ResourceApplyAdam" for operation in operations)


def _adam_settings():
    schedule = keras.optimizers.schedules.CosineDecay(0.05, 6)
    return {
        "plain": {},
        "constants": {"learning_rate": 0.1, "beta_1": 0.5, "beta_2": 0.9},
        "epsilon": {"epsilon": 0.3},
        "schedule": {"learning_rate": schedule},
        "decay": {"weight_decay": 0.1},
        "clipped": {"clipnorm": 0.1},
        "averaged": {"use_ema": True, "ema_momentum": 0.5},
        "accumulated": {"gradient_accumulation_steps": 3},
        "amsgrad": {"amsgrad": True},
    }


@pytest.mark.parametrize("name", _adam_settings())
def test_fused_adam_equals_adam_up_to_rounding(rng, name):
    settings = _adam_settings()[name]
    initial = rng.standard_normal((7, 3)).astype("float32")
    gradients = rng.standard_normal((8, 7, 3)).astype("float32")
    gradients[4] = 0  # momentum alone

    def states(adam):
        weight = keras.Variable(initial)
        for gradient in gradients:
            adam.apply([keras.ops.convert_to_tensor(gradient)], [weight])
        return [to_numpy(v) for v in [weight, *adam.variables]]

    both = fused(keras.optimizers.Adam(**settings)), keras.optimizers.Adam(**settings)
    for one, other in zip(*map(states, both), strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-5, atol=2e-6)


@tensorflow_only
def test_fused_adam_applies_sparse_gradients_as_adam_does():
    import tensorflow as tf

    gradient = tf.IndexedSlices(tf.constant([[2.0, -1.0]]), tf.constant([1]), (3, 2))

    def updated(adam):
        weight = keras.Variable(np.ones((3, 2), "float32"))
        adam.apply([gradient], [weight])
        return to_numpy(weight)

    np.testing.assert_array_equal(
        updated(fused(keras.optimizers.Adam())), updated(keras.optimizers.Adam())
    )


@tensorflow_only
def test_only_the_update_of_adam_is_replaced():
    class Own(keras.optimizers.Adam):
        def update_step(self, *args):
            super().update_step(*args)

    assert fused_operations(keras.optimizers.Adam()) == 4
    assert fused_operations(keras.optimizers.AdamW()) == 4
    for other in (Own(), keras.optimizers.Adam(amsgrad=True), keras.optimizers.Lamb()):
        assert fused_operations(other) == 0


@tensorflow_only
def test_levels_update_each_weight_by_one_operation(rng):
    import tensorflow as tf

    class Recorder(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            levels.append(self.model)

    levels: list[keras.Model] = []
    x = rng.random((32, 6), dtype="float32")
    model = models.stacked((6,), (5, 3))
    pretraining.greedy(model, x, 1, 8, callbacks=[Recorder()], verbose=0)
    step = tf.function(lambda: levels[0].train_step(tf.constant(x)))
    operations = step.get_concrete_function().graph.get_operations()
    fused = sum(operation.type == "ResourceApplyAdam" for operation in operations)
    assert fused == len(levels[0].trainable_variables)


@pytest.mark.skipif(BACKEND == "torch", reason="PyTorch has an Adam of its own")
def test_learning_rate_can_be_changed_and_the_file_has_the_adam_of_keras(rng, tmp_path):
    x, optimizer = rng.random((32, 6), dtype="float32"), keras.optimizers.Adam(0.1)
    model = models.shallow((6,), 5)
    model.compile(optimizer)
    model.fit(x, batch_size=8, verbose=0)
    optimizer.learning_rate = 0.0
    before = shallow_weights(model)
    model.fit(x, batch_size=8, verbose=0)
    for one, other in zip(before, shallow_weights(model), strict=True):
        np.testing.assert_array_equal(one, other)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert isinstance(loaded.optimizer, keras.optimizers.Adam)
    assert keras.saving.serialize_keras_object(loaded.optimizer)["module"] == (
        "keras.optimizers"
    )
    assert int(to_numpy(loaded.optimizer.iterations)) == 8
    loaded.fit(x, batch_size=8, verbose=0)
