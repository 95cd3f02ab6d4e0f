"""What several test files need: the three backends seen as one, and references."""

import keras
import numpy as np
import pytest

BACKEND = keras.backend.backend()

tensorflow_only = pytest.mark.skipif(
    BACKEND != "tensorflow", reason="runs on the TensorFlow backend only"
)


def matrix(layer) -> np.ndarray:
    """`W` of a `SparseDense`, of shape `(input_dim, units)`."""
    kernel = to_numpy(layer.kernel)
    return kernel.T if layer.transposed_kernel else kernel


def to_numpy(tensor) -> np.ndarray:
    """Any tensor as float64, by way of float32: NumPy has no bfloat16."""
    tensor = keras.ops.cast(tensor, "float32")
    return keras.ops.convert_to_numpy(tensor).astype("float64")


def gradient(function, x: np.ndarray) -> np.ndarray:
    """The gradient of a scalar function of one array, whatever the backend."""
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
    """The sum of a layer's or model's losses."""
    return float(sum(to_numpy(loss) for loss in losses))


def l1_penalty(code: np.ndarray, factor: float = 1.0) -> float:
    """`factor * mean_i sum_j |h_ij|` in float64."""
    code = np.asarray(code, "float64").reshape(len(code), -1)
    return float(factor * np.abs(code).sum(axis=1).mean())


def kl_penalty(mean: np.ndarray, target: float, factor: float = 1.0) -> float:
    """`factor * sum_j KL(target || mean_j)` in float64."""
    r = np.asarray(mean, "float64")
    on = target * np.log(target / r)
    off = (1 - target) * np.log((1 - target) / (1 - r))
    return float(factor * (on + off).sum())


def kl_slope(mean: np.ndarray, target: float) -> np.ndarray:
    """The derivative of `kl_penalty` by each mean, in float64."""
    r = np.asarray(mean, "float64")
    return (1 - target) / (1 - r) - target / r


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.asarray(x, "float64")))


def weights_of(model) -> list[np.ndarray]:
    """A copy of every weight, to see whether something was trained."""
    return [np.array(to_numpy(weight)) for weight in model.weights]


def assert_same_weights(before: list[np.ndarray], after: list[np.ndarray]) -> None:
    assert len(before) == len(after)
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(one, other)


def uniform_data(model, samples: int = 8) -> np.ndarray:
    """Samples in [0, 1) of the shape that a model takes, the same on every call."""
    rng = np.random.default_rng(0)
    return rng.uniform(size=(samples, *model.sample_shape)).astype("float32")
