"""Helpers of several test files: backends as NumPy, and reference formulas."""

import keras
import numpy as np
import pytest

from keras_sae import models

BACKEND = keras.backend.backend()

tensorflow_only = pytest.mark.skipif(
    BACKEND != "tensorflow", reason="runs on the TensorFlow backend only"
)


def matrix(layer) -> np.ndarray:
    """Return the kernel of a `SparseDense` with shape `(input_dim, units)`."""
    kernel = to_numpy(layer.kernel)
    return kernel.T if layer.transposed_kernel else kernel


def shallow_weights(model) -> list[np.ndarray]:
    """Return W and b of the encoder, and W and b of the decoder."""
    code, output = model.encoder.get_layer("code"), model.decoder.get_layer("output")
    others = (code.bias, output.kernel, output.bias)
    return [matrix(code), *(to_numpy(variable) for variable in others)]


def to_numpy(tensor) -> np.ndarray:
    """Return a tensor as float64, through float32 because NumPy has no bfloat16."""
    tensor = keras.ops.cast(tensor, "float32")
    return keras.ops.convert_to_numpy(tensor).astype("float64")


def gradient(function, x: np.ndarray) -> np.ndarray:
    """Return the gradient of a scalar function of one array on any backend."""
    if BACKEND == "jax":
        import jax

        return to_numpy(jax.grad(function)(keras.ops.convert_to_tensor(x)))
    if BACKEND == "torch":
        x = keras.ops.convert_to_tensor(x).requires_grad_()
        function(x).backward()
        return to_numpy(x.grad)
    import tensorflow as tf

    x = tf.convert_to_tensor(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        value = function(x)
    return to_numpy(tape.gradient(value, x))


def total(losses) -> float:
    """Return the sum of the losses of a layer or model."""
    return float(sum(to_numpy(loss) for loss in losses))


def top_k(code: np.ndarray, k: int) -> np.ndarray:
    """Return `code` with all but the `k` largest values of each row set to 0."""
    kept = np.zeros_like(code)
    largest = np.argsort(-code, axis=1)[:, :k]
    np.put_along_axis(kept, largest, np.take_along_axis(code, largest, 1), 1)
    return kept


def l1_penalty(code: np.ndarray, factor: float = 1.0) -> float:
    """Return `factor * mean_i sum_j |h_ij|` in float64."""
    code = np.asarray(code, "float64").reshape(len(code), -1)
    return float(factor * np.abs(code).sum(axis=1).mean())


def kl_penalty(mean: np.ndarray, target: float, factor: float = 1.0) -> float:
    """Return `factor * sum_j KL(target || mean_j)` in float64."""
    r = np.asarray(mean, "float64")
    on = target * np.log(target / r)
    off = (1 - target) * np.log((1 - target) / (1 - r))
    return float(factor * (on + off).sum())


def kl_slope(mean: np.ndarray, target: float) -> np.ndarray:
    """Return the derivative of `kl_penalty` with respect to each mean in float64."""
    r = np.asarray(mean, "float64")
    return (1 - target) / (1 - r) - target / r


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.asarray(x, "float64")))


def convolutional_code(input_shape, units) -> models.Autoencoder:
    """Return a model whose units have several positions, one per 2x2 pixels."""
    code = keras.layers.Conv2D(units, 2, strides=2, activation="relu")
    encoder = keras.Sequential([keras.Input(input_shape), code])
    output = keras.layers.Conv2DTranspose(input_shape[-1], 2, strides=2)
    decoder = keras.Sequential([keras.Input(encoder.output_shape[1:]), output])
    return models.Autoencoder(encoder, decoder)


def weights_of(model) -> list[np.ndarray]:
    """Return a copy of every weight."""
    return [np.array(to_numpy(weight)) for weight in model.weights]


def assert_same_weights(before: list[np.ndarray], after: list[np.ndarray]) -> None:
    assert len(before) == len(after)
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(one, other)


def uniform_data(model, samples: int = 8) -> np.ndarray:
    """Return samples in [0, 1) with the input shape of a model, equal on every call."""
    rng = np.random.default_rng(0)
    return rng.uniform(size=(samples, *model.sample_shape)).astype("float32")
