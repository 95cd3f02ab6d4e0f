"""Building blocks of the model factories: arguments, layer chains and decoders."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_sae.layers import (
    Centering,
    Scaling,
    SparseDense,
    Sparsity,
    TiedDense,
    UnitNormDense,
    get_sparsity,
)
from keras_sae.layers.serialization import activation_bounds
from keras_sae.models.levels import Layers, flatten
from keras_sae.models.validation import output_layer
from keras_sae.types import ActivationLike, LayerLike, SparsityLike
from keras_sae.utils.validation import positive_integer

# Window, in samples, of the moving mean of a hidden layer's outputs.
_WINDOW = 5000


def known_shape(
    input_shape: int | Sequence[int], name: str = "input_shape"
) -> tuple[int, ...]:
    """Check a shape, and return it as a tuple. Errors refer to it as `name`."""
    shape: tuple[Any, ...] = (input_shape,)
    if isinstance(input_shape, Iterable):
        shape = tuple(input_shape)
    if not shape or not all(isinstance(n, (int, np.integer)) and n > 0 for n in shape):
        raise ValueError(
            f"`{name}` must contain the size of each axis of a sample as a positive "
            f"integer, without the batch axis. Received: {name}={input_shape!r}. For "
            "grayscale images of 28x28 pixels, use (28, 28, 1)."
        )
    return tuple(positive_integer(name, n) for n in shape)


def unit_norm_options(is_hard: bool) -> dict[str, Any]:
    """Return the options of a dense decoder whose kernel rows have unit norm.

    Args:
        is_hard: Whether the sparsity does more than add a penalty to the loss.
    """
    if is_hard:
        return {"layer_class": UnitNormDense}
    return {"kernel_constraint": keras.constraints.UnitNorm(axis=1)}


def layer_units(units: int | Iterable[int], min_layers: int = 1) -> tuple[int, ...]:
    """Check that there are at least `min_layers` widths, and return them as a tuple."""
    if not isinstance(units, Iterable):
        units = (positive_integer("units", units),)
    units = tuple(units)
    if len(units) < min_layers:
        raise ValueError(
            f"`units` must contain at least {min_layers} layer widths, outermost "
            f"first. Received: units={units!r}. For example, use (128, 64)."
        )
    return tuple(positive_integer(f"units[{i}]", n) for i, n in enumerate(units))


def layer_sparsities(
    sparsity: SparsityLike | Sequence[SparsityLike], layers: int
) -> list[Sparsity | None]:
    """Return one sparsity per layer. A single `sparsity` applies only to the code."""
    if not isinstance(sparsity, (list, tuple)):
        sparsity = [*[None] * (layers - 1), sparsity]
    if len(sparsity) != layers:
        raise ValueError(
            "`sparsity` must be a single sparsity or have one entry per layer (None "
            f"for no sparsity). Received: {len(sparsity)} entries for {layers} layers: "
            f"sparsity={sparsity!r}."
        )
    return [get_sparsity(one) for one in sparsity]


def copy_layer(name: str, layer: LayerLike, example: str) -> keras.layers.Layer:
    """Return a copy of the layer that the user passed as the argument `name`.

    The copy is renamed to `name`, and shares no state with the original.
    """
    if isinstance(layer, dict):
        layer = keras.saving.deserialize_keras_object(layer)
    if not isinstance(layer, keras.layers.Layer):
        raise ValueError(
            f"`{name}` must be a layer or None. Received: {name}={layer!r}. For "
            f"example, use {example}."
        )
    return type(layer).from_config({**layer.get_config(), "name": name})


def chain(
    input_shape: tuple[int, ...], layers: Sequence[keras.layers.Layer], name: str
) -> keras.Model:
    """Return the model that applies `layers` in order."""
    inputs = keras.Input(input_shape, name="x" if name == "encoder" else "code")
    outputs = inputs
    for layer in layers:
        outputs = layer(outputs)
    return keras.Model(inputs, outputs, name=name)


def preprocessing(
    corruption: LayerLike | None,
    centering: bool,
    scaling: bool,
    flatten_input: bool = True,
) -> Layers:
    """Return the layers in front of an encoder's first dense or convolutional layer."""
    layers: Layers = []
    if corruption is not None:
        example = "`keras_sae.layers.MaskingNoise(0.3)`"
        layers.append(copy_layer("corruption", corruption, example))
    if flatten_input:
        # With a channels-first configuration, Keras would reorder the values here, but
        # not in the decoder's `Reshape`.
        layers.append(keras.layers.Flatten("channels_last", name="flatten"))
    if centering:
        layers.append(Centering(name="center"))
    if scaling:
        layers.append(Scaling(name="scale"))
    return layers


def hidden_centering(layer: keras.layers.Layer, centering: bool) -> Layers:
    """Return a list with the `Centering` for a deeper layer, or an empty list."""
    return [Centering(_WINDOW, name=f"{layer.name}_center")] if centering else []


def rescaling(scaling: bool, output_activation: ActivationLike) -> Layers:
    """Return a list with the layer that undoes `scaling`, or an empty list."""
    if not scaling:
        return []
    low, high = activation_bounds(keras.activations.get(output_activation))
    if math.isfinite(low) and math.isfinite(high):
        raise ValueError(
            "`scaling` must be False for a bounded `output_activation`, because "
            "`scaling` multiplies the output by the data's scale. Received: "
            f"scaling=True, output_activation={output_activation!r} with values from "
            f"{low:g} to {high:g}. Use 'linear', or scaling=False."
        )
    return [Scaling(inverse=True, name="unscale")]


def batch_normalized(layers: Layers, enabled: bool) -> Layers:
    """Return the layers, each followed by batch normalization if `enabled`."""
    if not enabled:
        return layers
    norms = [keras.layers.BatchNormalization(name=f"{x.name}_norm") for x in layers]
    return [x for pair in zip(layers, norms, strict=True) for x in pair]


def mirrored_decoder(
    sample_shape: tuple[int, ...],
    code_units: int,
    outputs: Sequence[tuple[int, ActivationLike]],
    tied: Sequence[keras.layers.Layer] = (),
    batch_normalization: bool = False,
    scaling: bool = False,
    layer_class: type[keras.layers.Dense] = keras.layers.Dense,
    **kwargs: Any,
) -> tuple[keras.Model, Layers]:
    """Return a dense decoder and its layers with kernels: `output`, `decode_2`, ...

    `outputs` contains the width and activation of each layer, outermost first. `tied`
    contains the encoder layers whose kernels the decoder shares. If `tied` is empty,
    the layers are instances of `layer_class`, created with the further arguments.
    """
    layers: Layers = []
    for n, (width, activation) in enumerate(outputs, start=1):
        name = "output" if n == 1 else f"decode_{n}"
        if tied:
            layers.append(TiedDense(tied[n - 1], activation, name=name))
        else:
            layers.append(layer_class(width, activation, name=name, **kwargs))
    output, *hidden = layers
    all_layers = [
        *batch_normalized(hidden[::-1], batch_normalization),
        output,
        *rescaling(scaling, outputs[0][1]),
        keras.layers.Reshape(sample_shape, name="reshape"),
    ]
    return chain((code_units,), all_layers, "decoder"), layers


def dense_models(
    sample_shape: tuple[int, ...],
    units: Sequence[int],
    sparsities: Sequence[Sparsity | None],
    activations: Sequence[ActivationLike],
    output_activation: ActivationLike = "linear",
    *,
    tied: bool = False,
    corruption: LayerLike | None = None,
    batch_normalization: bool = False,
    unit_norm: bool = False,
    tied_initialization: bool = False,
    centering: bool = True,
    scaling: bool = False,
    decoder_options: dict[str, Any] | None = None,
    **kwargs: Any,
) -> tuple[keras.Model, keras.Model]:
    """Return a dense encoder and the decoder that mirrors it.

    The arguments are those of `keras_sae.models.shallow`, but `units`, `sparsities` and
    `activations` have one entry per encoder layer, outermost first. `decoder_options`
    are passed to `mirrored_decoder`, and all further arguments to every `SparseDense`.
    """
    if unit_norm and tied:
        kwargs["kernel_constraint"] = keras.constraints.UnitNorm(axis=0)
    names = [*(f"encode_{n}" for n in range(1, len(units))), "code"]
    encoding = [
        SparseDense(width, activation, sparsity, name=name, **kwargs)
        for width, activation, sparsity, name in zip(
            units, activations, sparsities, names, strict=True
        )
    ]
    *hidden, code = encoding
    layers = preprocessing(corruption, centering, scaling)
    for layer in encoding:
        if layer is not encoding[0]:
            layers += hidden_centering(layer, centering)
        layers += batch_normalized([layer], batch_normalization and layer is not code)
    encoder = chain(sample_shape, layers, "encoder")
    outputs = [(layer.units, layer.activation) for layer in hidden]
    decoder, decoding = mirrored_decoder(
        sample_shape,
        code.units,
        [(math.prod(sample_shape), output_activation), *outputs],
        tied=encoding if tied else (),
        batch_normalization=batch_normalization,
        scaling=scaling,
        **(decoder_options or {}),
    )
    initialize_kernels(encoding, decoding, tied_initialization and not tied)
    return encoder, decoder


def initialize_kernels(
    encoding: Sequence[keras.layers.Layer],
    decoding: Sequence[keras.layers.Layer],
    tied_initialization: bool,
) -> None:
    """Apply constraints to new kernels, and optionally tie their initial values.

    Keras applies a constraint only after an update. With `tied_initialization`, each
    encoder kernel starts as the transpose of the decoder kernel that mirrors it. In a
    variational encoder, the columns that compute the log variances are unchanged.
    """
    for layer, mirror in zip(encoding, decoding, strict=True):
        is_tied = mirror.kernel is layer.kernel
        constraint = (layer if is_tied else mirror).kernel_constraint
        if constraint is not None:
            mirror.kernel.assign(constraint(ops.convert_to_tensor(mirror.kernel)))
        if not tied_initialization:
            continue
        # On JAX, two variables must not share a buffer: it can be donated only once.
        rows = ops.copy(mirror.kernel)
        if isinstance(layer, SparseDense) and layer.transposed_kernel:
            layer.kernel.assign(rows)
        else:
            rest = ops.convert_to_tensor(layer.kernel)[:, rows.shape[0] :]
            layer.kernel.assign(ops.concatenate([ops.transpose(rows), rest], axis=1))


def set_output_bias(decoder: keras.Model, center: np.ndarray) -> None:
    """Set the bias of a linear output layer to the center of the data.

    Do nothing unless the bias has one entry per value or per channel.
    """
    layers = [layer for layer in flatten(decoder) if not isinstance(layer, Scaling)]
    output = output_layer(layers)
    bias = getattr(output, "bias", None)
    linear = getattr(output, "activation", None) is keras.activations.linear
    shape = decoder.output_shape[1:]
    widths = (int(np.prod(shape)), shape[-1])
    if bias is not None and linear and bias.shape[0] in widths:
        bias.assign(center.reshape(-1, bias.shape[0]).mean(axis=0))
