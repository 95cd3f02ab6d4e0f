"""The fused Adam of greedy pretraining: equal to Keras's, used for Keras's."""

import keras
import numpy as np
import pytest
from helpers import BACKEND, tensorflow_only, to_numpy

from keras_sae import models, pretraining
from keras_sae.pretraining.fused_adam import FusedAdam


class Recorder(keras.callbacks.Callback):
    """Record which models are trained."""

    def __init__(self):
        super().__init__()
        self.models = []

    def on_train_begin(self, logs=None):
        self.models.append(self.model)


def _pretrain(rng, optimizer="adam", callbacks=None):
    x = rng.random((32, 6), dtype="float32")
    model = models.stacked((6,), (5, 3))
    pretraining.greedy(model, x, 1, 8, optimizer, callbacks=callbacks, verbose=0)
    return x


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

    fused, plain = FusedAdam(**settings), keras.optimizers.Adam(**settings)
    for one, other in zip(states(fused), states(plain), strict=True):
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
        updated(FusedAdam()), updated(keras.optimizers.Adam())
    )


@tensorflow_only
def test_levels_update_each_weight_by_one_operation(rng):
    import tensorflow as tf

    recorder, x = Recorder(), rng.random((32, 6), dtype="float32")
    pretraining.greedy(
        models.stacked((6,), (5, 3)), x, 1, 8, callbacks=[recorder], verbose=0
    )
    level = recorder.models[0]
    step = tf.function(lambda: level.train_step(tf.constant(x)))
    operations = step.get_concrete_function().graph.get_operations()
    fused = sum(operation.type == "ResourceApplyAdam" for operation in operations)
    assert fused == len(level.trainable_variables)


def test_only_adam_itself_is_replaced(rng):
    class Own(keras.optimizers.Adam):
        pass

    recorder = Recorder()
    optimizers = [Own(), keras.optimizers.AdamW(), keras.optimizers.Adam(0.02)]
    for optimizer in optimizers:
        _pretrain(rng, optimizer, recorder)
    used = [type(level.optimizer) for level in recorder.models]
    expected = [type(optimizer) for optimizer in optimizers]
    if BACKEND == "tensorflow":
        expected[2] = FusedAdam
    assert used[::2] == expected


def test_level_saved_by_a_callback_can_be_loaded_and_trained(rng, tmp_path):
    saver = keras.callbacks.ModelCheckpoint(tmp_path / "level.keras")
    x = _pretrain(rng, callbacks=[[saver], []])
    level = keras.saving.load_model(tmp_path / "level.keras")
    assert int(to_numpy(level.optimizer.iterations)) == 4
    level.fit(x, batch_size=8, verbose=0)
