"""Checks of models and data that Keras does not perform.

Without these checks, Keras would silently broadcast, cast or use unsuitable data.
"""

import itertools
from collections.abc import Iterable
from typing import TypeGuard

import keras
import numpy as np
from keras import ops
from scipy import sparse

from keras_sae.layers import Scaling, Sparsity
from keras_sae.layers.noise import MaskingNoise, SaltAndPepperNoise
from keras_sae.layers.serialization import activation_bounds
from keras_sae.models.levels import code_sparsity, flatten
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
# These layers select or reorder the values of their input.
_SELECTION_LAYERS = (
    keras.layers.Cropping1D,
    keras.layers.Cropping2D,
    keras.layers.Cropping3D,
    keras.layers.Permute,
)


def check_data(
    x: Tensor,
    sample_shape: Shape,
    y: Tensor | None = None,
    bounds: tuple[float, float] = _UNBOUNDED,
    name: str = "x",
) -> None:
    """Check an array of samples, or the first batch of a stream.

    Args:
        x: Array, tensor or table of shape `(samples, *sample_shape)`.
        sample_shape: Shape of one sample.
        y: Target, or None.
        bounds: Lowest and highest value that the model can output.
        name: Name of `x` in errors.

    Raises:
        ValueError: The shape of `x` is wrong; `y` has a different shape; an array is
            empty, sparse, masked or not finite, or has integers other than 0 and 1; or
            the target lies outside `bounds`.
    """
    values = dense_numbers(name, x)
    shape = tuple(values.shape)
    if len(shape) != 1 + len(sample_shape) or shape[1:] != tuple(sample_shape):
        raise ValueError(
            f"`{name}` must have shape {('samples', *sample_shape)}. Received: "
            f"{name}.shape={shape}. Reshape `{name}`, batch a dataset of single "
            "samples with `dataset.batch(32)`, or build the model for this shape."
        )
    if len(values) == 0:
        raise ValueError(
            f"`{name}` must have at least one sample. Received: {name}.shape={shape}."
        )
    _check_range(name, values, bounds if y is None else _UNBOUNDED)
    if y is not None:
        check_target(np.shape(y), shape)
        _check_range("y", dense_numbers("y", y), bounds)


def check_target(target: Shape, expected: Shape) -> None:
    """Check that a target has the shape of the input, where None matches any size."""
    same = len(target) == len(expected) and all(
        a == b or a is None or b is None for a, b in zip(target, expected, strict=True)
    )
    if not same:
        raise ValueError(
            "The target of an autoencoder must have the shape of its input. Received: "
            f"y.shape={target}, x.shape={expected}. If `y` contains labels, omit it: "
            "`fit(x)`, `dataset.map(lambda x, y: x)`, or `labels=None` in "
            "`keras.utils.image_dataset_from_directory`. To learn labels, use "
            "`keras_sae.models.classifier`."
        )


def is_array(x: object) -> TypeGuard[Tensor]:
    """Return whether `x` is an array, a tensor or a table."""
    return hasattr(x, "shape")


def is_dataset(x: object) -> TypeGuard[Tensor]:
    """Return whether `x` is a `tf.data.Dataset`."""
    # Do not test for `element_spec`, which the result of `tfds.as_numpy` also has.
    return hasattr(x, "as_numpy_iterator")


def as_numpy(array: Tensor) -> np.ndarray:
    """Return an array, a tensor or a table as a NumPy array."""
    return array if isinstance(array, np.ndarray) else ops.convert_to_numpy(array)


def dense_numbers(name: str, array: Tensor) -> np.ndarray:
    """Check that an array is dense and numeric, and return it as a NumPy array."""
    if hasattr(array, "toarray"):  # a sparse SciPy matrix
        raise ValueError(
            f"`{name}` must be dense. Received: {type(array).__name__}. Use "
            f"`{name}.toarray()`. If that is too large for memory, pass a "
            f"`keras.utils.PyDataset` with batches `({name}[i:j].toarray(),)`."
        )
    if hasattr(array, "row_splits"):  # a ragged TensorFlow tensor
        raise ValueError(
            f"`{name}` must have rows of the same length. Received: a ragged tensor. "
            f"Pad the rows with zeros: `{name}.to_tensor()`."
        )
    if np.ma.is_masked(array):
        raise ValueError(
            f"`{name}` must not have masked values. Received: {type(array).__name__} "
            f"with {np.ma.count_masked(array)} masked values. Fill these values, for "
            f"example with `{name}.filled(0)`, or drop these samples."
        )
    values = as_numpy(array)
    kind, dtype = values.dtype.kind, values.dtype.name
    if kind in "bf" or dtype == "bfloat16":
        return values
    if kind in "iu" and (len(values) == 0 or 0 <= values.min() <= values.max() <= 1):
        return values
    advice = "Encode the values as numbers, and pad rows of different lengths."
    if dtype == "uint8":
        advice = f"If these are 8-bit images, use `{name}.astype('float32') / 255`."
    elif kind in "iu":
        advice = f"For counts, use `numpy.log1p({name})`. For categories, use one-hot "
        advice += "vectors."
    raise ValueError(
        f"`{name}` must contain floating-point numbers. Received: dtype={dtype}. "
        f"{advice}"
    )


def sparse_code(code: sparse.sparray, width: int) -> sparse.csr_array:
    """Check a sparse matrix of codes, and return it in CSR format."""
    if code.ndim != 2 or code.shape[0] == 0 or code.shape[1] != width:
        raise ValueError(
            f"`code` must have shape ('samples', {width}) with at least one sample. "
            f"Received: a sparse matrix of shape {code.shape}. Pass the output of "
            "`encode(x, sparse=True)` of the same model."
        )
    code = sparse.csr_array(code)
    if code.nnz:
        _check_range("code", dense_numbers("code", code.data), _UNBOUNDED)
    return code.astype(np.result_type(code.dtype, "float32"))


def _check_range(name: str, values: np.ndarray, bounds: tuple[float, float]) -> None:
    low, high = values.min(), values.max()
    # Keras casts to float32 unless `floatx` is "float64".
    largest = np.finfo("float64" if keras.config.floatx() == "float64" else "float32")
    # Comparisons with NaN are False, so this also rejects NaN.
    if not (-largest.max <= low and high <= largest.max):
        raise ValueError(
            f"`{name}` must be finite in {largest.dtype}. Received: values from "
            f"{low:g} to {high:g}. Find NaN and infinity with "
            f"`numpy.isfinite({name})`. Drop or fill these samples, or rescale the "
            "data."
        )
    if low < bounds[0] or high > bounds[1]:
        rescale = f"Rescale `{name}`"
        if bounds == (0, 1) and low >= 0 and high <= 255:
            rescale = "If these are 8-bit images, divide by 255. Otherwise, rescale it"
        raise ValueError(
            f"`{name}` must lie in [{bounds[0]:g}, {bounds[1]:g}], the range of the "
            f"model's output activation. Received: values from {low:g} to {high:g}. "
            f"{rescale}, or build the model with output_activation='linear'."
        )


def check_batch_size(
    encoder: keras.Model, x: Data, first_batch: Tensor, batch_size: int | None
) -> None:
    """Check that training batches are large enough for every sparsity of an encoder.

    Args:
        encoder: The encoder.
        x: An array, or a stream that determines the size of its batches.
        first_batch: First batch of a stream, or all samples of an array.
        batch_size: Samples per batch of an array. None skips the check.
    """
    if batch_size is None:
        return
    samples = first_batch.shape[0]
    batch_size = min(samples, batch_size) if is_array(x) else samples
    for layer in flatten(encoder):
        if isinstance(layer, Sparsity) and batch_size < layer.min_batch_size:
            raise ValueError(
                f"`{type(layer).__name__}` selects among the samples of a batch, so "
                f"`batch_size` must be at least {layer.min_batch_size}. Received: "
                f"batch_size={batch_size}. Increase the batch size, or use "
                "`keras_sae.layers.TopK`, which selects per sample."
            )


def check_parts(
    encoder: keras.Model, decoder: keras.Model, same_shape: bool = True
) -> None:
    """Check that a decoder fits an encoder and its sparsities.

    Args:
        encoder: A model from samples to codes.
        decoder: A model from codes to outputs.
        same_shape: Whether the decoder's output must have the shape of the samples.

    Raises:
        ValueError: The encoder or the decoder is not built, a shape is unknown, the
            shapes do not match, or a sparsity that requires the decoder belongs to a
            layer other than the one that computes the code.
    """
    for name, part in (("encoder", encoder), ("decoder", decoder)):
        if len(getattr(part, "inputs", None) or ()) != 1:
            raise ValueError(
                f"`{name}` must be a functional Keras model with one input, or a "
                f"`keras.Sequential` that starts with a `keras.Input`. Received: "
                f"{name}={part!r}. Call any other model on a `keras.Input`, and create "
                "a `keras.Model` from the input and output."
            )
    shapes = [
        tuple(shape[1:])
        for shape in (
            encoder.input_shape,
            encoder.output_shape,
            decoder.input_shape,
            decoder.output_shape,
        )
    ]
    if None in shapes[0] + shapes[1]:
        raise ValueError(
            "`encoder` must have known shapes. Received: encoder "
            f"{encoder.input_shape} -> {encoder.output_shape}. Set all sizes in "
            "`keras.Input`. For sequences of any length, wrap an autoencoder of "
            "vectors in `keras.layers.TimeDistributed`."
        )
    if shapes[1] != shapes[2] or (same_shape and shapes[0] != shapes[3]):
        raise ValueError(
            "`decoder` must map the encoder's output back to the encoder's input. "
            f"Received: encoder {encoder.input_shape} -> {encoder.output_shape}, "
            f"decoder {decoder.input_shape} -> {decoder.output_shape}."
        )
    innermost = code_sparsity(encoder)
    allowed = [] if innermost is None else innermost._flatten_layers()
    for layer in flatten(encoder):
        if not isinstance(layer, Sparsity) or not layer.requires_decoder:
            continue
        if all(layer is not other for other in allowed):
            raise ValueError(
                f"`{type(layer).__name__}` decodes its code in training, so it must be "
                "the sparsity of the encoder's last layer. Received: "
                f"{layer.name!r} on a different layer, or in a nested model. Use a "
                "different sparsity, or None, for the other layers."
            )


def check_adapted(model: keras.Model) -> None:
    """Check that `adapt` has set the scale of an autoencoder."""
    layers = [*flatten(model.encoder), *flatten(model.decoder)]
    scales = [layer.rms for layer in layers if isinstance(layer, Scaling)]
    if any(ops.convert_to_numpy(scale) == 0 for scale in scales):
        raise ValueError(
            f"Call `adapt()` before `fit()`: the model {model.name!r} was built with "
            "`scaling=True`. Received: a model whose scale is unknown. Use "
            "`model.adapt(x_train)`."
        )


def output_bounds(layers: Iterable[keras.layers.Layer]) -> tuple[float, float]:
    """Return the lowest and highest value that a chain of layers can output.

    The bounds are infinite unless the values come from a bounded activation.

    Args:
        layers: Layers in the order in which they are called.
    """
    layer = output_layer(layers)
    activation = getattr(layer, "activation", None)
    return _UNBOUNDED if activation is None else activation_bounds(activation)


def output_layer(layers: Iterable[keras.layers.Layer]) -> keras.layers.Layer | None:
    """Return the last layer of a chain that computes new values, or None."""
    computing = [
        layer
        for layer in layers
        if not (is_identity(layer) or isinstance(layer, _SELECTION_LAYERS))
    ]
    return computing[-1] if computing else None


def preprocessing_layers(model: keras.Model) -> list[keras.layers.Layer]:
    """Return the preprocessing layers in front of an encoder.

    If `Normalization` or `Rescaling` layers were added in front of a trained encoder,
    the decoder reconstructs the output of these layers. The list is empty if the
    decoder also ends with such a layer, or if the model was trained with these layers
    in place. In both cases, the model reconstructs its raw input.
    """
    kinds = (keras.layers.Normalization, keras.layers.Rescaling)
    if isinstance(model.decoder.layers[-1], kinds) or model.input_range is not None:
        return []
    layers = flatten(model.encoder)
    return list(itertools.takewhile(lambda layer: isinstance(layer, kinds), layers))


def is_identity(layer: keras.layers.Layer) -> bool:
    """Return whether a layer, or a whole model, returns its input values unchanged."""
    if isinstance(layer, keras.Model):
        return bool(layer.layers) and all(map(is_identity, layer.layers))
    return isinstance(layer, _IDENTITY_LAYERS)
