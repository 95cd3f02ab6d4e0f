"""Prepare and protect a model in Keras's loops: `fit`, `evaluate` and `predict`."""

import contextlib
import numbers
from collections.abc import Iterator

import keras
import numpy as np

from keras_sae.layers import Sparsity
from keras_sae.models.data_adapter import check_finite, open_samples
from keras_sae.models.levels import flatten
from keras_sae.types import Data


@contextlib.contextmanager
def protected(model: keras.Model, part: keras.Model | None = None) -> Iterator[None]:
    """Prepare a model for a Keras loop, and protect its state in a `with` block.

    If layers have changed since the last loop, for example through LoRA, quantization
    or a new `k`, Keras's compiled functions are traced again. On JAX, Keras moves the
    weights out of the model during a loop. Other threads therefore wait until the loop
    ends, and the weights are restored after an error.

    Args:
        model: The `keras_sae.models.Autoencoder`.
        part: The model that runs the loop, if it is not `model` itself.
    """
    parts = (model.encoder, model.decoder)
    variables = [(v.path, v.dtype) for each in parts for v in each.variables]
    sparsities = [x for x in flatten(model.encoder) if isinstance(x, Sparsity)]
    settings = [
        (name, value)
        for layer in sparsities
        for name, value in vars(layer).items()
        if isinstance(value, numbers.Number) and not name.startswith("_")
    ]
    structure = repr((variables, settings))
    if structure != model.traced_structure:
        for each in (model, *parts):
            if each.train_function is not None:
                each.make_train_function(force=True)
            if each.test_function is not None:
                each.make_test_function(force=True)
            if each.predict_function is not None:
                each.make_predict_function(force=True)
        model.traced_structure = structure
    if keras.backend.backend() != "jax":
        yield
        return
    with model.lock:
        model.jax_state_sync()  # The caller may be a callback of `fit`.
        runner = part or model
        moved = list(runner.variables)
        if runner.compiled and runner.optimizer is not None:
            moved += runner.optimizer.variables
        values = [variable.value for variable in moved]
        try:
            yield
        except BaseException:
            runner.jax_state_sync()
            runner._jax_state = None
            for variable, value in zip(moved, values, strict=True):
                if variable._value is None:
                    variable.assign(value)
            raise


def predict(
    model: keras.Model, part: keras.Model, x: Data, batch_size: int
) -> np.ndarray:
    """Check samples, and return the outputs of a part of an autoencoder.

    Args:
        model: The `keras_sae.models.Autoencoder`.
        part: A model made of layers of `model`, for example its encoder.
        x: Array of inputs of `part`, or batches of them.
        batch_size: Samples per batch of an array.
    """
    check_finite(x)
    x = open_samples(x, part.input_shape[1:], batch_size)
    with protected(model, part):
        return part.predict(x, batch_size=batch_size, verbose=0)


def build_optimizer(model: keras.Model) -> None:
    """Create the optimizer's variables before the first training step.

    TensorFlow traces a step twice if the first trace creates variables. In a short
    `fit`, tracing takes most of the time.

    Args:
        model: The model, which is left unchanged if it is not compiled.
    """
    if not model.compiled or model.optimizer is None or model.optimizer.built:
        return
    is_tensorflow = keras.config.backend() == "tensorflow"
    scope = model.distribute_strategy.scope() if is_tensorflow else None
    with scope or contextlib.nullcontext():
        model.optimizer.build(model.trainable_variables)


def replicas(model: keras.Model) -> int:
    """Return the number of replicas over which Keras distributes a batch."""
    if keras.config.backend() != "tensorflow":
        return 1
    return model.distribute_strategy.num_replicas_in_sync
