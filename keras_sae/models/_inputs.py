"""What `fit` and `evaluate` refuse before any training has happened."""

from typing import Any

import numpy as np

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
    elif hasattr(x, "shape") and hasattr(x, "dtype"):
        _check_array(x, input_shape, batch_size)
    if y is not None and hasattr(x, "shape") and hasattr(y, "shape"):
        check_target(tuple(y.shape), tuple(x.shape))


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
    if batch_size is not None and samples < batch_size:
        raise ValueError(
            f"`x` holds fewer samples than one batch. Received: {samples} samples "
            f"and batch_size={batch_size}. Pass batch_size={samples} or less."
        )
    if not isinstance(x, np.ndarray):
        return  # a tensor of a backend: its values stay on its device
    low, high = x.min(), x.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ValueError(
            "`x` must be finite. Received: an array with NaN or infinity. "
            "`numpy.isfinite(x)` finds the samples; drop or fill them."
        )
    if high > 1:
        _check_kind(x.dtype, "x")


def check_range(x: Any, bounds: tuple[float, float]) -> None:
    """Raises if an array leaves the range that the model's output can reach."""
    if not isinstance(x, np.ndarray) or not np.isfinite(bounds).all():
        return
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
