"""What `fit` and `evaluate` refuse before any training has happened."""

from typing import Any

import numpy as np
from keras import ops

from keras_sae import checks

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
    spec = getattr(x, "element_spec", None)
    if spec is not None:
        _check_spec(spec, input_shape)
    elif isinstance(x, (list, tuple)):
        raise ValueError(
            f"`x` must be one array, or a dataset of batches. Received: a {_kind(x)}. "
            "Use `numpy.asarray(x)`."
        )
    elif hasattr(x, "shape") and hasattr(x, "dtype"):
        _check_array(x, input_shape, batch_size)
        if y is not None:
            check_target(np.shape(y), tuple(x.shape))
            _check_values("y", y)


def as_numpy(array: Any) -> np.ndarray:
    """Returns a NumPy array as it is, and a tensor or nested list as a NumPy array.

    Keras's conversion copies a NumPy array, which may be most of the memory.

    Args:
        array: What the user gave.
    """
    return array if isinstance(array, np.ndarray) else ops.convert_to_numpy(array)


def _kind(x: Any) -> str:
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


def _check_spec(spec: Any, input_shape: tuple[int, ...]) -> None:
    parts = spec if isinstance(spec, (tuple, list)) else (spec,)
    _check_shape(tuple(parts[0].shape), input_shape)
    _check_kind(np.dtype(parts[0].dtype.as_numpy_dtype), "the dataset's x")
    if len(parts) > 1:
        check_target(tuple(parts[1].shape), tuple(parts[0].shape))


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
    _check_values("x", x)


def _check_values(name: str, array: Any) -> None:
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
    if high > 1:
        _check_kind(values.dtype, name)


def check_labels(y: Any, samples: int, num_classes: int) -> None:
    """Raises unless `y` holds one class from 0 to `num_classes - 1` a sample."""
    expected = f"Expected {samples} integers from 0 to {num_classes - 1}, one a sample."
    if not hasattr(y, "shape") or not hasattr(y, "dtype"):
        raise ValueError(
            f"`y` must be an array of labels. Received: y of {type(y)}. {expected}"
        )
    if tuple(y.shape) not in ((samples,), (samples, 1)):
        hint = " One-hot? Take `y.argmax(axis=-1)`." if len(y.shape) == 2 else ""
        raise ValueError(
            f"`y` must hold one label a sample. Received: y.shape={tuple(y.shape)} for "
            f"{samples} samples. {expected}{hint}"
        )
    if not isinstance(y, np.ndarray):
        return  # a tensor of a backend: its values stay on its device
    if not np.issubdtype(y.dtype, np.number) or (y != np.floor(y)).any():
        raise ValueError(
            f"`y` must hold whole numbers. Received: dtype={y.dtype}. {expected} "
            "`numpy.unique(y, return_inverse=True)[1]` numbers classes of any kind."
        )
    if y.min() < 0 or y.max() >= num_classes:
        raise ValueError(
            f"`y` must lie below `num_classes`. Received: labels from {y.min():g} to "
            f"{y.max():g} with num_classes={num_classes}. {expected}"
        )


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


def check_sparsities(layers: list[Any]) -> None:
    """Raises if a sparsity that needs the decoder does not make the code itself."""
    for layer in layers[:-1]:
        if getattr(layer.sparse, "needs_decoder", False):
            raise ValueError(
                f"`{type(layer.sparse).__name__}` compares the input with what the "
                "decoder makes of its code, so it can only be the sparsity of the "
                f"innermost layer. Received: it stands on the layer {layer.name!r}. "
                "Give the hidden layers another sparsity, or None."
            )


def check_batch(layers: list[Any], x: Any, batch_size: int | None) -> None:
    """Raises for training batches too small for a sparsity that chooses over them."""
    if hasattr(x, "shape"):
        batch_size = min(x.shape[0], 32 if batch_size is None else batch_size)
    elif hasattr(x, "element_spec"):
        spec = x.element_spec
        first = spec[0] if isinstance(spec, tuple) else spec
        batch_size = first.shape[0]
    for layer in layers:
        least = getattr(layer.sparse, "least_batch", 1)
        if batch_size is not None and batch_size < least:
            raise ValueError(
                f"`{type(layer.sparse).__name__}` chooses over the samples of a batch, "
                f"so a batch needs at least {least}. Received: batch_size={batch_size}."
                " Raise it, or use `keras_sae.layers.TopK`, which looks at one sample."
            )
