"""What `fit` and `evaluate` refuse before any training has happened."""

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_sae.utils import validation as checks

BYTE_RANGE = 255


def check_data(
    x: Any, y: Any, input_shape: tuple[int, ...], batch_size: int | None
) -> None:
    """Raises a `ValueError` for data that would train a wrong model in silence.

    Arrays are looked at whole: two passes for their extremes, which also find
    NaN and infinity. Of a dataset only the element's specification can be seen
    without running it.

    Args:
        x: What the user gave to `fit` or `evaluate`.
        y: Its target, or None.
        input_shape: Shape of one sample.
        batch_size: As given, or None.

    Raises:
        ValueError: Always names the argument, what came and what was expected.
    """
    x, y = as_array(x), as_array(y)
    spec = getattr(x, "element_spec", None)
    if spec is not None:
        parts = check_spec(spec, input_shape)
        if len(parts) > 1:
            _check_known("target", parts[1], input_shape)
            check_target(tuple(parts[1].shape), tuple(parts[0].shape))
    elif isinstance(x, (list, tuple)):
        raise ValueError(
            f"`x` must be one array, or a dataset of batches. Received: a {kind(x)}. "
            "Use `numpy.asarray(x)`."
        )
    elif hasattr(x, "shape") and hasattr(x, "dtype"):
        _check_array(x, input_shape, batch_size)
        if y is not None:
            check_target(np.shape(y), tuple(x.shape))
            if isinstance(y, (list, tuple)):
                raise ValueError(
                    f"`y` must be one array. Received: a {kind(y)}. "
                    "Use `numpy.asarray(y)`."
                )
            check_values("y", y)


def check_inputs(x: Any, input_shape: tuple[int, ...]) -> tuple:
    """Raises as `check_data` for what is only encoded or decoded, never a target.

    It comes before Keras sees the data: on JAX an error inside a compiled function
    leaves the model without its weights.

    Args:
        x: What the user gave; of a dataset of pairs the first is looked at.
        input_shape: Shape of one sample.

    Returns:
        The parts of a dataset's element, none of anything else.

    Raises:
        ValueError: As `check_data`.
    """
    if hasattr(x, "element_spec"):
        return check_spec(x.element_spec, input_shape)
    check_data(x, None, input_shape, None)
    return ()


def check_whole(x: Any, input_shape: tuple[int, ...]) -> None:
    """Raises as `check_inputs`, and for a dataset, where all samples are needed."""
    if hasattr(x, "element_spec"):
        raise ValueError(
            "`x` must be one array here, as all samples are needed at once. Received: "
            f"{x!r}. Expected samples of shape {input_shape}; of batches of x alone, "
            "`numpy.concatenate(list(dataset.as_numpy_iterator()))` makes it."
        )
    check_data(x, None, input_shape, None)


def first(x: Any) -> Any:
    """Returns a dataset of `(x, target)` as one of `x`; anything else as it is."""
    spec = getattr(x, "element_spec", None)
    return x.map(lambda first, *_: first) if isinstance(spec, tuple) else x


def as_array(x: Any) -> Any:
    """Returns what pandas holds as its values, as Keras does; the rest as it is."""
    return x.to_numpy() if hasattr(x, "to_numpy") else x


def as_numpy(array: Any) -> np.ndarray:
    """Returns a NumPy array as it is, and a tensor or nested list as a NumPy array.

    Keras's conversion copies a NumPy array, which may be most of the memory.

    Args:
        array: What the user gave.
    """
    array = as_array(array)
    return array if isinstance(array, np.ndarray) else ops.convert_to_numpy(array)


def kind(x: Any) -> str:
    """Says what is no array."""
    return f"{type(x).__name__} of {len(x)}"


def check_target(target: tuple, expected: tuple) -> None:
    """Raises unless a target has the shape of the input (None is any size)."""
    same = len(target) == len(expected) and all(
        a == b or a is None or b is None for a, b in zip(target, expected, strict=True)
    )
    if not same:
        raise ValueError(
            "The target of an autoencoder has the shape of its input. Received: "
            f"y.shape={target} with x.shape={expected}. If `y` holds labels, leave "
            "it out: `fit(x)`; for a classifier see `keras_sae.models.classifier`."
        )


def check_spec(spec: Any, input_shape: tuple[int, ...]) -> tuple:
    """Returns the parts of a dataset's element, once its `x` is one that fits.

    Args:
        spec: `element_spec` of a `tf.data.Dataset`.
        input_shape: Shape of one sample.

    Raises:
        ValueError: It is not a batch of samples of that shape, of real numbers.
    """
    parts = tuple(spec) if isinstance(spec, (tuple, list)) else (spec,)
    shape = getattr(parts[0], "shape", None)
    if shape is None:
        raise ValueError(
            "A dataset must yield `x` or `(x, target)`, each of them one tensor. "
            f"Received: element_spec={spec!r}. Choose with `dataset.map`, e.g. "
            "`dataset.map(lambda element: element['image'])`."
        )
    _check_known("x", parts[0], input_shape)
    if tuple(shape) == input_shape:
        raise ValueError(
            "The dataset must yield batches. Received: single samples, of shape "
            f"{tuple(shape)}. Use `dataset.batch(32)`."
        )
    _check_shape(tuple(shape), input_shape)
    _check_kind(np.dtype(parts[0].dtype.as_numpy_dtype), "the dataset's x")
    return parts


def _check_known(name: str, spec: Any, input_shape: tuple[int, ...]) -> None:
    shape = getattr(spec, "shape", None)
    if shape is None or shape.rank is None:
        raise ValueError(
            f"The dataset does not say which shape its {name} has. Expected batches of "
            f"samples of shape {input_shape}. Received: {spec!r}. Use "
            f"`tf.ensure_shape({name}, {(None, *input_shape)})` in `dataset.map`."
        )


def _check_array(x: Any, input_shape: tuple[int, ...], batch_size: int | None) -> None:
    _check_shape(tuple(x.shape), input_shape)
    samples = x.shape[0]
    if samples == 0:
        raise ValueError(
            f"`x` holds no samples. Received: x.shape={tuple(x.shape)}. Expected at "
            f"least one sample of shape {input_shape}."
        )
    if batch_size is not None:
        checks.positive_integer("batch_size", batch_size)
        if samples < batch_size:
            raise ValueError(
                f"`x` holds fewer samples than one batch. Received: {samples} samples "
                f"and batch_size={batch_size}. Pass batch_size={samples} or less."
            )
    check_values("x", x)


def check_values(name: str, array: Any) -> None:
    """Raises unless an array holds finite real numbers, of no byte's scale."""
    values = as_numpy(array)
    if values.dtype.kind not in "fiub" and values.dtype.name != "bfloat16":
        raise ValueError(
            f"`{name}` must hold real numbers. Received: dtype={values.dtype}. "
            "Convert it with `astype('float32')`."
        )
    low, high = values.min(), values.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ValueError(
            f"`{name}` must be finite. Received: an array with NaN or infinity. "
            f"`numpy.isfinite({name})` finds the samples; drop or fill them."
        )
    narrow = values.dtype == "float64" and keras.config.floatx() != "float64"
    if narrow and max(-low, high) > np.finfo("float32").max:
        raise ValueError(
            f"`{name}` must be finite as float32, in which Keras takes it. Received: "
            f"values from {low:g} to {high:g}. Rescale it."
        )
    if high > 1:
        _check_kind(values.dtype, name)


def check_range(x: Any, bounds: tuple[float, float]) -> None:
    """Raises if an array leaves the range that the model's output can reach."""
    if not hasattr(x, "shape") or not np.isfinite(bounds).all():
        return
    x = as_numpy(x)
    low, high = bounds
    if x.min() < low or x.max() > high:
        hint = (
            f" Bytes? Divide by {BYTE_RANGE} first."
            if 1 < x.max() <= BYTE_RANGE and x.min() >= 0
            else ""
        )
        raise ValueError(
            f"`x` must lie in [{low:g}, {high:g}], the range of this model's output "
            f"activation. Received: values from {x.min():g} to {x.max():g}.{hint} "
            "Rescale `x`, or build the model with output_activation='linear'."
        )


def _check_shape(shape: tuple, input_shape: tuple[int, ...]) -> None:
    fits = len(shape) == len(input_shape) + 1 and all(
        a == b or a is None for a, b in zip(shape[1:], input_shape, strict=True)
    )
    if not fits:
        raise ValueError(
            f"`x` must have shape (samples, {', '.join(map(str, input_shape))}). "
            f"Received: x.shape={shape}. Reshape `x`, or build the model with "
            f"input_shape={shape[1:]}."
        )


def _check_kind(dtype: np.dtype, name: str) -> None:
    if np.issubdtype(dtype, np.integer):
        raise ValueError(
            f"`{name}` holds integers where numbers in [0, 1] are expected. Received: "
            f"dtype={dtype}. Convert it yourself, so that the scale is in your code: "
            f"x.astype('float32') / {BYTE_RANGE}."
        )
