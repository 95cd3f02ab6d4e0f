"""What `fit` and `evaluate` refuse before any training has happened."""

import inspect
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_sae import checks

BYTE_RANGE = 255

FIT = inspect.signature(keras.Model.fit)
EVALUATE = inspect.signature(keras.Model.evaluate)


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
            check_target(tuple(parts[1].shape), tuple(parts[0].shape))
    elif isinstance(x, (list, tuple)):
        raise ValueError(
            f"`x` must be one array, or a dataset of batches. Received: a {_kind(x)}. "
            "Use `numpy.asarray(x)`."
        )
    elif hasattr(x, "shape") and hasattr(x, "dtype"):
        _check_array(x, input_shape, batch_size)
        if y is not None:
            check_target(np.shape(y), tuple(x.shape))
            if isinstance(y, (list, tuple)):
                raise ValueError(
                    f"`y` must be one array. Received: a {_kind(y)}. "
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


def by_name(
    signature: inspect.Signature, args: tuple, kwargs: dict[str, Any]
) -> dict[str, Any]:
    """Returns the arguments of a Keras method that follow `batch_size`, by name.

    Args:
        signature: `FIT` or `EVALUATE`: of `self`, `x`, `y`, `batch_size` and what
            follows.
        args: What follows by position.
        kwargs: What follows by name.

    Raises:
        TypeError: As a call would.
    """
    given = signature.bind(None, None, None, None, *args, **kwargs).arguments
    named = dict(list(given.items())[4:])
    return named.pop("kwargs", {}) | named


def weighed(x: Any, y: Any, sample_weight: Any) -> Any:
    """Returns the target, which is `x` itself where weights of samples need one.

    Keras drops the weights of data without a target, and says nothing.

    Args:
        x: As given to `fit` or `evaluate`.
        y: Its target, or None.
        sample_weight: None, or a weight a sample; or one for every value of the loss,
            as the target without its last axis.

    Raises:
        ValueError: The weights are not finite, or of another shape.
    """
    if sample_weight is None or not hasattr(x, "shape"):
        return y
    if isinstance(sample_weight, (list, tuple)):
        raise ValueError(
            "`sample_weight` must be one array. Received: a "
            f"{_kind(sample_weight)}. Use `numpy.asarray(sample_weight)`."
        )
    weights = as_numpy(sample_weight)
    if not _weighs(weights.shape, tuple(x.shape)) or weights.dtype.kind in "OUS":
        raise ValueError(
            "`sample_weight` must hold one number for each sample. Received: shape "
            f"{weights.shape} of {weights.dtype} for {x.shape[0]} samples. Expected "
            f"shape {tuple(x.shape[:1])}, or one that goes with {tuple(x.shape[:-1])}."
        )
    if not np.isfinite(weights).all():
        raise ValueError(
            "`sample_weight` must be finite. Received: weights with NaN or infinity. "
            "A weight of 0 leaves a sample out."
        )
    return x if y is None else y


def _weighs(weights: tuple[int, ...], x: tuple[int, ...]) -> bool:
    """Whether weights go with the loss of `x`, which has no last axis any more."""
    if weights in (x[:1], (x[0], 1)):
        return True
    places = weights[:-1] if len(weights) == len(x) and weights[-1] == 1 else weights
    return len(places) == len(x) - 1 and all(
        a in (1, b) and (i or a == b)
        for i, (a, b) in enumerate(zip(places, x, strict=False))
    )


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
    if shape.rank is None:
        raise ValueError(
            "The dataset does not say which shape its `x` has. Expected batches of "
            f"samples of shape {input_shape}. Received: element_spec={spec!r}. Use "
            f"`dataset.map(lambda x: tf.ensure_shape(x, {(None, *input_shape)}))`."
        )
    if tuple(shape) == input_shape:
        raise ValueError(
            "The dataset must yield batches. Received: single samples, of shape "
            f"{tuple(shape)}. Use `dataset.batch(32)`."
        )
    _check_shape(tuple(shape), input_shape)
    _check_kind(np.dtype(parts[0].dtype.as_numpy_dtype), "the dataset's x")
    return parts


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


def check_sparsities(layers: list[Any], sparse_layers: list[Any]) -> None:
    """Raises if a sparsity that needs the decoder does not make the code itself.

    Args:
        layers: Those of the encoder, with the sparsities in them.
        sparse_layers: Of these the `SparseDense`, the code's last.
    """
    made = sparse_layers[-1].sparse if sparse_layers else None
    innermost = [] if made is None else made._flatten_layers()  # it may hold another
    for layer in layers:
        asks = getattr(layer, "needs_decoder", False)
        if asks and all(layer is not own for own in innermost):
            raise ValueError(
                f"`{type(layer).__name__}` compares the input with what the decoder "
                "makes of its code, so it can only be the sparsity of the innermost "
                f"layer. Received: {layer.name!r} on another. Give the hidden layers "
                "another sparsity, or None."
            )


def check_batch(layers: list[Any], x: Any, batch_size: int | None) -> None:
    """Raises for training batches too small for a sparsity that chooses over them.

    Args:
        layers: Those of the encoder, with the sparsities in them.
        x: As given to `fit`.
        batch_size: The same.
    """
    if hasattr(x, "shape"):
        batch_size = min(x.shape[0], 32 if batch_size is None else batch_size)
    elif hasattr(x, "element_spec"):
        spec = x.element_spec
        first = spec[0] if isinstance(spec, tuple) else spec
        batch_size = first.shape[0]
    for layer in layers:
        least = getattr(layer, "least_batch", 1)
        if batch_size and batch_size < least:  # none at all is refused elsewhere
            raise ValueError(
                f"`{type(layer).__name__}` chooses over the samples of a batch, so a "
                f"batch needs at least {least}. Received: batch_size={batch_size}. "
                "Raise it, or use `keras_sae.layers.TopK`, which looks at one sample."
            )
