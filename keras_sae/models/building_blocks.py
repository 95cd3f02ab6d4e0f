"""Parts of the factories: arguments, chains of layers, and mirrored decoders."""

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
    get_sparsity,
)
from keras_sae.layers.serialization import activation_bounds
from keras_sae.models.levels import flatten
from keras_sae.models.validation import output_layer
from keras_sae.types import ActivationLike, LayerLike, SparsityLike
from keras_sae.utils.validation import positive_integer

Layers = list[keras.layers.Layer]


def known_shape(input_shape: int | Sequence[int]) -> tuple[int, ...]:
    """Return `input_shape` as a tuple of positive integers."""
    shape: tuple[Any, ...] = (input_shape,)
    if isinstance(input_shape, Iterable):
        shape = tuple(input_shape)
    if not shape or not all(isinstance(n, (int, np.integer)) and n > 0 for n in shape):
        raise ValueError(
            "`input_shape` must hold the known, positive sizes of one sample, without "
            f"the batch. Received: input_shape={input_shape!r}. For images of 28x28 "
            "pixels it is (28, 28, 1)."
        )
    return tuple(positive_integer("input_shape", n) for n in shape)


def layer_units(units: int | Iterable[int], min_layers: int = 1) -> tuple[int, ...]:
    """Return the widths of at least `min_layers` layers, outermost first."""
    if not isinstance(units, Iterable):
        units = (positive_integer("units", units),)
    units = tuple(units)
    if len(units) < min_layers:
        raise ValueError(
            "`units` must hold the width of each layer, outermost first, at least "
            f"{min_layers} of them. Received: units={units!r}. A usual value is "
            "(128, 64)."
        )
    return tuple(positive_integer(f"units[{i}]", n) for i, n in enumerate(units))


def layer_sparsities(
    sparsity: SparsityLike | Sequence[SparsityLike], layers: int
) -> list[Sparsity | None]:
    """Return one sparsity per layer. A single one is the sparsity of the code."""
    if not isinstance(sparsity, (list, tuple)):
        sparsity = [*[None] * (layers - 1), sparsity]
    if len(sparsity) != layers:
        raise ValueError(
            "`sparsity` must be a single one, or have one entry per layer, None for a "
            f"layer without. Received: {len(sparsity)} entries for {layers} layers: "
            f"sparsity={sparsity!r}."
        )
    return [get_sparsity(one) for one in sparsity]


def copy_layer(name: str, layer: LayerLike, example: str) -> keras.layers.Layer:
    """Return a copy of the layer that a user passes as the argument `name`.

    The copy has this name, and its state belongs to one model.
    """
    if isinstance(layer, dict):
        layer = keras.saving.deserialize_keras_object(layer)
    if not isinstance(layer, keras.layers.Layer):
        raise ValueError(
            f"`{name}` must be a layer or None. Received: {name}={layer!r}. For "
            f"example {example}."
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
    """Return the layers in front of the first kernel of an encoder."""
    layers: Layers = []
    if corruption is not None:
        example = "`keras_sae.layers.MaskingNoise(0.3)`"
        layers.append(copy_layer("corruption", corruption, example))
    if flatten_input:
        # Configured to channels first, Keras would reorder the values here, but not in
        # the decoder's `Reshape`.
        layers.append(keras.layers.Flatten("channels_last", name="flatten"))
    if centering:
        layers.append(Centering(name="center"))
    if scaling:
        layers.append(Scaling(name="scale"))
    return layers


def rescaling(scaling: bool, output_activation: ActivationLike) -> Layers:
    """Return the layer that scales a reconstruction to the data, if it is wanted."""
    if not scaling:
        return []
    low, high = activation_bounds(keras.activations.get(output_activation))
    if math.isfinite(low) and math.isfinite(high):
        raise ValueError(
            "`scaling` must be False for a bounded `output_activation`, because it "
            "multiplies the output by the scale of the data. Received: scaling=True, "
            f"output_activation={output_activation!r} with values from {low:g} to "
            f"{high:g}. Use 'linear', or scaling=False."
        )
    return [Scaling(inverse=True, name="unscale")]


def batch_normalized(layers: Layers, enabled: bool) -> Layers:
    """Return the layers, each followed by a batch normalization if it is enabled."""
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
    """Return a dense decoder, and its layers `output, decode_2, ...` with a kernel.

    `outputs` has the width and the activation of each layer, outermost first. `tied`
    has the layers of the encoder whose kernels these layers use. Without it, they are
    of the class `layer_class` and get the further arguments.
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

    The arguments are as for `keras_sae.models.shallow`, with one entry of `units`,
    `sparsities` and `activations` per layer of the encoder, outermost first. Further
    arguments go to every `SparseDense`, and `decoder_options` to `mirrored_decoder`.
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
    layers += [*batch_normalized(hidden, batch_normalization), code]
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
    """Apply the constraints of new kernels, and tie their initial values.

    Keras applies a constraint only after an update. With `tied_initialization`, each
    kernel of the encoder starts as the transpose of the kernel that mirrors it. The
    kernel of a posterior may have more columns, which keep their values.
    """
    for layer, mirror in zip(encoding, decoding, strict=True):
        is_tied = mirror.kernel is layer.kernel
        constraint = (layer if is_tied else mirror).kernel_constraint
        if constraint is not None:
            mirror.kernel.assign(constraint(ops.convert_to_tensor(mirror.kernel)))
        if not tied_initialization:
            continue
        rows = ops.copy(mirror.kernel)  # JAX donates a buffer only once.
        if isinstance(layer, SparseDense) and layer.transposed_kernel:
            layer.kernel.assign(rows)
        else:
            rest = ops.convert_to_tensor(layer.kernel)[:, rows.shape[0] :]
            layer.kernel.assign(ops.concatenate([ops.transpose(rows), rest], axis=1))


def set_output_bias(decoder: keras.Model, center: np.ndarray) -> None:
    """Set the bias of a linear output layer to the center of the data.

    The bias must have one entry per value or per channel.
    """
    layers = [layer for layer in flatten(decoder) if not isinstance(layer, Scaling)]
    output = output_layer(layers)
    bias = getattr(output, "bias", None)
    linear = getattr(output, "activation", None) is keras.activations.linear
    shape = decoder.output_shape[1:]
    widths = (int(np.prod(shape)), shape[-1])
    if bias is not None and linear and bias.shape[0] in widths:
        bias.assign(center.reshape(-1, bias.shape[0]).mean(axis=0))
