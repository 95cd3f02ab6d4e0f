"""Checks of models and data that Keras does not make.

Without an error, Keras would broadcast, cast or train on the data rejected here. On
JAX, data of a wrong shape also makes the model lose its weights, because Keras moves
them into the compiled step.
"""

import itertools
from collections.abc import Iterable
from typing import TypeGuard

import keras
import numpy as np
from keras import ops

from keras_sae.layers import Scaling, SparseDense, Sparsity
from keras_sae.layers.noise import MaskingNoise, SaltAndPepperNoise
from keras_sae.layers.serialization import activation_bounds
from keras_sae.models.levels import flatten
from keras_sae.types import Data, Shape, Tensor

_UNBOUNDED = (-np.inf, np.inf)
# These layers return their input unchanged or reshaped at inference.
_IDENTITY_LAYERS = (
    keras.layers.InputLayer,
    keras.layers.Flatten,
    keras.layers.Reshape,
    keras.layers.Dropout,
    keras.layers.GaussianNoise,
    keras.layers.GaussianDropout,
    MaskingNoise,
    SaltAndPepperNoise,
)
# These layers return some of the values of their input, in any order.
_SELECTION_LAYERS = (
    keras.layers.Cropping1D,
    keras.layers.Cropping2D,
    keras.layers.Cropping3D,
    keras.layers.Permute,
)


def check_data(
    x: Data | None,
    sample_shape: Shape,
    y: Tensor | None = None,
    bounds: tuple[float, float] = _UNBOUNDED,
) -> None:
    """Check data before Keras trains on it, evaluates it or encodes it.

    The values of arrays are checked. For a `tf.data.Dataset`, only the
    element specification is checked. Generators and data loaders are not checked.

    Args:
        x: As in `keras.Model.fit`.
        sample_shape: Shape of one sample.
        y: Target, or None.
        bounds: Lowest and highest value that the model can output.

    Raises:
        ValueError: The shape of `x` is wrong, `y` has a different shape, an array is
            empty, not finite or holds integers, or the target lies outside `bounds`.
    """
    if is_dataset(x):
        _check_element_spec(x.element_spec, sample_shape)
    elif is_array(x):
        _check_shape(tuple(x.shape), sample_shape)
        if x.shape[0] == 0:
            raise ValueError(f"`x` has no samples. Received: x.shape={x.shape}.")
        _check_values("x", x, bounds if y is None else _UNBOUNDED)
        if y is not None:
            check_target(np.shape(y), tuple(x.shape))
            _check_values("y", y, bounds)


def check_target(target: Shape, expected: Shape) -> None:
    """Check that a target has the shape of the input. None matches any size."""
    same = len(target) == len(expected) and all(
        a == b or a is None or b is None for a, b in zip(target, expected, strict=True)
    )
    if not same:
        raise ValueError(
            "The target of an autoencoder must have the shape of its input. Received: "
            f"y.shape={target}, x.shape={expected}. If `y` holds labels, leave it out: "
            "`fit(x)`. To learn labels, use `keras_sae.models.classifier`."
        )


def as_samples(x: Data | None, sample_shape: Shape) -> np.ndarray:
    """Check an array of samples, and return it as a NumPy array.

    Args:
        x: Array or tensor of shape `(samples, *sample_shape)`.
        sample_shape: Shape of one sample.

    Raises:
        ValueError: As in `check_data`, or `x` is a dataset or generator.
    """
    if is_dataset(x) or not is_array(x):
        raise ValueError(
            "`x` must be one array of samples of shape "
            f"{sample_shape}, because all samples are needed at once. Received: "
            f"{type(x).__name__}. For a dataset of batches of `x`, use "
            "`numpy.concatenate(list(dataset.as_numpy_iterator()))`."
        )
    check_data(x, sample_shape)
    return as_numpy(x)


def is_array(x: object) -> TypeGuard[Tensor]:
    """Return whether `x` is an array, a tensor or a table."""
    return hasattr(x, "shape")


def is_dataset(x: object) -> TypeGuard[Tensor]:
    """Return whether `x` is a `tf.data.Dataset`."""
    return hasattr(x, "element_spec")


def without_target(x: Data) -> Data:
    """Drop the targets of a dataset; return other data unchanged."""
    if is_dataset(x) and isinstance(x.element_spec, tuple):
        return x.map(lambda x, *_: x)
    return x


def unwrap(x: Tensor) -> Tensor:
    """Return the array in a list of one array, which Keras accepts, or `x` itself."""
    is_list = isinstance(x, (list, tuple)) and len(x) == 1
    return x[0] if is_list and is_array(x[0]) else x


def as_numpy(array: Tensor) -> np.ndarray:
    """Return an array, a tensor or a table as a NumPy array."""
    return array if isinstance(array, np.ndarray) else ops.convert_to_numpy(array)


def _check_shape(shape: Shape, sample_shape: Shape) -> None:
    sizes = shape[1:]
    if len(sizes) != len(sample_shape) or any(
        size not in (None, expected)
        for size, expected in zip(sizes, sample_shape, strict=True)
    ):
        raise ValueError(
            f"`x` must have shape {('samples', *sample_shape)}. Received: "
            f"x.shape={shape}. Reshape `x`, put a dataset of single samples into "
            "batches with `dataset.batch(32)`, or build the model for this shape."
        )


def _check_element_spec(spec: Tensor, sample_shape: Shape) -> None:
    parts = spec if isinstance(spec, tuple) else (spec,)
    if not is_array(parts[0]):
        raise ValueError(
            "A dataset must yield `x` or `(x, target)`, each of them one tensor. "
            f"Received: element_spec={spec!r}. Select the tensor, for example with "
            "`dataset.map(lambda element: element['image'])`."
        )
    if parts[0].shape.rank is None:
        return  # Keras raises an error if it cannot infer the shape either.
    _check_shape(tuple(parts[0].shape), sample_shape)
    if parts[0].dtype.is_integer:
        raise ValueError(_integers("x", parts[0].dtype.name))
    if len(parts) > 1 and is_array(parts[1]) and parts[1].shape.rank is not None:
        check_target(tuple(parts[1].shape), tuple(parts[0].shape))


def _check_values(name: str, array: Tensor, bounds: tuple[float, float]) -> None:
    values = array.data if hasattr(array, "tocsr") else as_numpy(array)
    is_float = keras.backend.is_float_dtype(values.dtype)
    low, high = values.min(), values.max()
    is_binary = values.dtype.kind in "biu" and low >= 0 and high <= 1
    if not (is_float or is_binary):
        raise ValueError(_integers(name, values.dtype.name))
    # Keras casts to float32 unless `floatx` is "float64".
    largest = np.finfo("float64" if keras.config.floatx() == "float64" else "float32")
    # A comparison with NaN is False.
    if not (-largest.max <= low and high <= largest.max):
        raise ValueError(
            f"`{name}` must be finite in {largest.dtype}. Received: values from "
            f"{low:g} to {high:g}. `numpy.isfinite({name})` finds NaN and infinity. "
            "Drop or fill these samples, or rescale the data."
        )
    if low < bounds[0] or high > bounds[1]:
        raise ValueError(
            f"`{name}` must lie in [{bounds[0]:g}, {bounds[1]:g}], the range of the "
            f"model's output activation. Received: values from {low:g} to {high:g}. If "
            f"these are 8-bit images, divide by 255. Otherwise rescale `{name}`, or "
            "build the model with output_activation='linear'."
        )


def _integers(name: str, dtype: str) -> str:
    return (
        f"`{name}` must hold floating-point numbers. Received: dtype={dtype}. If these "
        f"are 8-bit images, use `{name}.astype('float32') / 255`."
    )


def check_batch_size(
    layers: Iterable[keras.layers.Layer], batch_size: int, x: Data | None = None
) -> None:
    """Check that training batches are large enough for every sparsity.

    Args:
        layers: Layers of an encoder, including `Sparsity` layers.
        batch_size: Samples per batch.
        x: None, an array that may have fewer samples, or a dataset of batches.

    Raises:
        ValueError: A sparsity selects across the samples of a batch and needs more.
    """
    samples: int | None = batch_size
    if is_dataset(x):
        spec = x.element_spec
        samples = (spec[0] if isinstance(spec, tuple) else spec).shape[0]
    elif is_array(x):
        samples = min(x.shape[0], batch_size)
    for layer in layers:
        if samples is None or not isinstance(layer, Sparsity):
            continue
        if samples < layer.min_batch_size:
            raise ValueError(
                f"`{type(layer).__name__}` selects over the samples of a batch and "
                f"needs a batch of at least {layer.min_batch_size}. Received: "
                f"batch_size={samples}. Raise the batch size, or use "
                "`keras_sae.layers.TopK`, which selects per sample."
            )


def check_parts(encoder: keras.Model, decoder: keras.Model) -> None:
    """Check that a decoder fits an encoder and its sparsities.

    Raises:
        ValueError: The shapes do not match, or a sparsity that requires the decoder
            belongs to a layer other than the innermost.
    """
    shapes = [
        tuple(shape[1:])
        for shape in (
            encoder.input_shape,
            encoder.output_shape,
            decoder.input_shape,
            decoder.output_shape,
        )
    ]
    if shapes[:2] != shapes[:1:-1]:
        raise ValueError(
            "`decoder` must map the encoder's output back to its input. "
            f"Received: encoder {encoder.input_shape} -> {encoder.output_shape}, "
            f"decoder {decoder.input_shape} -> {decoder.output_shape}."
        )
    layers = flatten(encoder)
    sparsities = [layer.sparsity for layer in layers if isinstance(layer, SparseDense)]
    innermost = sparsities[-1] if sparsities else None
    allowed = [] if innermost is None else innermost._flatten_layers()
    for layer in layers:
        if not isinstance(layer, Sparsity) or not layer.requires_decoder:
            continue
        if all(layer is not other for other in allowed):
            raise ValueError(
                f"`{type(layer).__name__}` decodes its code in training, so it must be "
                "the sparsity of the innermost layer. Received: "
                f"{layer.name!r} on another layer. Give the hidden layers another "
                "sparsity, or None."
            )


def check_adapted(model: keras.Model) -> None:
    """Check that `adapt` has set the scale of an autoencoder."""
    layers = [*flatten(model.encoder), *flatten(model.decoder)]
    if any(isinstance(layer, Scaling) and float(layer.rms) == 0 for layer in layers):
        raise ValueError(
            f"Call `adapt()` before `fit()`: the model {model.name!r} was built with "
            "`scaling=True`. Received: a model whose scale is unknown. Use "
            "`model.adapt(x_train)`."
        )


def output_bounds(layers: Iterable[keras.layers.Layer]) -> tuple[float, float]:
    """Return the lowest and highest value that a chain of layers can output.

    They are infinite unless the values come from an activation with bounds.

    Args:
        layers: Layers in the order of their calls.
    """
    layer = output_layer(layers)
    activation = getattr(layer, "activation", None)
    return _UNBOUNDED if activation is None else activation_bounds(activation)


def output_layer(layers: Iterable[keras.layers.Layer]) -> keras.layers.Layer | None:
    """Return the last layer of a chain that computes values, or None."""
    computing = [
        layer
        for layer in layers
        if not (is_identity(layer) or isinstance(layer, _SELECTION_LAYERS))
    ]
    return computing[-1] if computing else None


def preprocessing_layers(
    encoder: keras.Model, decoder: keras.Model
) -> list[keras.layers.Layer]:
    """Return the layers that rescale the input of a trained encoder in a new model.

    A decoder reconstructs their output, unless it ends with such a layer itself.
    """
    kinds = (keras.layers.Normalization, keras.layers.Rescaling)
    chain = [x for x in flatten(encoder) if not isinstance(x, keras.layers.InputLayer)]
    if isinstance(decoder.layers[-1], kinds):
        return []
    return list(itertools.takewhile(lambda layer: isinstance(layer, kinds), chain))


def is_identity(layer: keras.layers.Layer) -> bool:
    """Return whether a layer, or all layers of a model, pass values on unchanged."""
    if isinstance(layer, keras.Model):
        return bool(layer.layers) and all(map(is_identity, layer.layers))
    return isinstance(layer, _IDENTITY_LAYERS)
