"""How every family is put together: chains of layers, and two chains a model."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_sae.layers import Centering, Scaling, SparseDense, TiedDense, get_sparsity
from keras_sae.layers.serialization import activation_bounds as bounds
from keras_sae.models.levels import flatten
from keras_sae.models.validation import output_layer
from keras_sae.utils import validation as checks

Layers = list[keras.layers.Layer]

_LAYER_FOR = {
    "corruption": "`keras_sae.layers.MaskingNoise(0.3)`",
    "pooling": "`keras.layers.GlobalAveragePooling2D()`",
}


def chain(
    input_shape: tuple[int, ...], layers: Sequence[keras.layers.Layer], name: str
) -> keras.Model:
    """Returns the model that applies `layers` one after the other."""
    outputs = inputs = keras.Input(
        input_shape, name="x" if name == "encoder" else "code"
    )
    for layer in layers:
        outputs = layer(outputs)
    return keras.Model(inputs, outputs, name=name)


def known_shape(input_shape: Any) -> tuple[int, ...]:
    """Returns `input_shape` as a tuple of positive integers, or raises."""
    many = hasattr(input_shape, "__iter__")
    shape = tuple(input_shape) if many else (input_shape,)
    if not shape or not all(isinstance(n, (int, np.integer)) and n > 0 for n in shape):
        raise ValueError(
            "`input_shape` must hold the known, positive sizes of one sample, without "
            f"the batch. Received: input_shape={input_shape!r}. For images of 28 by "
            "28 it is (28, 28, 1)."
        )
    return tuple(checks.positive_integer("input_shape", n) for n in shape)


def size(input_shape: tuple[int, ...]) -> int:
    """Returns the number of values in one sample."""
    return int(np.prod(input_shape))


def widths(units: Any, least: int = 1) -> tuple[int, ...]:
    """Returns `units` as a tuple of positive integers, outermost first, or raises."""
    if not hasattr(units, "__iter__"):
        units = (checks.positive_integer("units", units),)
    units = tuple(units)
    if len(units) < least:
        raise ValueError(
            "`units` must hold the width of each layer, outermost first, at least "
            f"{least} of them. Received: units={units!r}. A usual value is (128, 64)."
        )
    return tuple(checks.positive_integer(f"units[{i}]", n) for i, n in enumerate(units))


def sparsities(sparsity: Any, layers: int, everywhere: bool = False) -> list[Any]:
    """Returns one sparsity a layer; a single one is the code's, or everyone's."""
    if not isinstance(sparsity, (list, tuple)):
        hidden = sparsity if everywhere else None
        sparsity = [*[hidden] * (layers - 1), sparsity]
    if len(sparsity) != layers:
        raise ValueError(
            "`sparsity` must be a single one, or have one entry a layer, None where a "
            f"layer has none. Received: {len(sparsity)} entries for {layers} layers: "
            f"sparsity={sparsity!r}."
        )
    return [get_sparsity(one) for one in sparsity]


def corrupting(corruption: Any) -> Layers:
    """Returns `[a layer that damages its input]`, or nothing for None."""
    return [] if corruption is None else [copied("corruption", corruption)]


def before(corruption: Any, centering: bool, scaling: bool, *shaping: Any) -> Layers:
    """Returns what comes before an encoder's first kernel, `shaping` after damage."""
    center = [Centering(name="center")] if centering else []
    scale = [Scaling(name="scale")] if scaling else []
    return [*corrupting(corruption), *shaping, *center, *scale]


def unscaled(scaling: bool, activation: Any) -> Layers:
    """Returns `[what brings a reconstruction to the size of the data]`, or nothing.

    Args:
        scaling: Whether it is wanted.
        activation: Of the reconstruction, before that.
    """
    if not scaling:
        return []
    low, high = bounds(keras.activations.get(activation))
    if np.isfinite([low, high]).all():
        raise ValueError(
            "`scaling` brings a reconstruction to the size of the data, so it needs an "
            f"output activation without bounds. Received: scaling=True with "
            f"output_activation={activation!r}, whose values reach from {low:g} to "
            f"{high:g}. Use 'linear', or scaling=False."
        )
    return [Scaling(inverse=True, name="unscale")]


def copied(argument: str, layer: Any) -> keras.layers.Layer:
    """Returns a copy of a layer, named as the argument: its state is one model's."""
    if isinstance(layer, dict):
        layer = keras.saving.deserialize_keras_object(layer)
    if not isinstance(layer, keras.layers.Layer):
        raise ValueError(
            f"`{argument}` must be a layer or None. Received: {argument}={layer!r}. "
            f"For example {_LAYER_FOR[argument]}."
        )
    return type(layer).from_config({**layer.get_config(), "name": argument})


def codes(
    units: Sequence[int], sparsity: Sequence[Any], activations: Any, **kwargs: Any
) -> list[SparseDense]:
    """Returns the layers of an encoder, named `encode_1`, `encode_2`, ..., `code`."""
    names = [f"encode_{n}" for n in range(1, len(units))]
    return [
        SparseDense(width, activation, one, name=name, **kwargs)
        for width, activation, one, name in zip(
            units, activations, sparsity, [*names, "code"], strict=True
        )
    ]


def encoder(
    shape: tuple[int, ...],
    layers: Sequence[Any],
    corruption: Any,
    centering: bool,
    scaling: bool = False,
) -> keras.Model:
    """Returns the model that flattens, centers and scales, and applies `layers`."""
    flat = keras.layers.Flatten(name="flatten")
    return chain(
        shape, [*before(corruption, centering, scaling, flat), *layers], "encoder"
    )


def decoder(
    shape: tuple[int, ...],
    code: int,
    outputs: Sequence[tuple[int, Any]],
    tied: Sequence[Any] | None = None,
    batch_normalization: bool = False,
    dense: type[keras.layers.Dense] = keras.layers.Dense,
    scaling: bool = False,
    **kwargs: Any,
) -> keras.Model:
    """Returns the mirror of an encoder, with layers `..., decode_2, output`.

    Args:
        shape: Shape of one sample.
        code: Width of the code.
        outputs: Width and activation of each layer, outermost first: what the
            layer of the encoder at its side takes in.
        tied: Those layers of the encoder, if their kernels are used again.
        batch_normalization: Whether to normalise between the layers.
        dense: Class of the layers that are not tied.
        scaling: Whether to scale the output back.
        **kwargs: Of each of them.
    """
    layers: Layers = []
    for n, (width, activation) in enumerate(outputs, start=1):
        name = _mirror_name(n)
        if tied:
            layers.append(TiedDense(tied[n - 1], activation, name=name))
        else:
            layers.append(dense(width, activation, name=name, **kwargs))
    output, *hidden = layers
    inside_out = normalized(hidden[::-1], batch_normalization)
    restore = keras.layers.Reshape(shape, name="reshape")
    layers = [*inside_out, output, *unscaled(scaling, outputs[0][1]), restore]
    return chain((code,), layers, "decoder")


def atoms_at_unit_norm(tied: bool) -> keras.constraints.Constraint:
    """Returns the constraint of an atom: a decoder's row, or an encoder's column."""
    return keras.constraints.UnitNorm(axis=0 if tied else 1)


def mirrors(decoder: keras.Model, count: int) -> Layers:
    """Returns the layers of a decoder of `decoder`, outermost first."""
    return [decoder.get_layer(_mirror_name(n)) for n in range(1, count + 1)]


def start(
    codes: Sequence[Any], mirrors: Sequence[Any], constraint: Any, transposed: bool
) -> None:
    """Makes the weights of new layers what the options ask for.

    Args:
        codes: Layers of the encoder.
        mirrors: For each the layer of the decoder at its side.
        constraint: None, or what the kernels of the mirrors are to meet: Keras
            applies it only after an update.
        transposed: Whether each layer of the encoder starts as the transpose of the
            layer at its side; of a posterior's parameters, the means do.
    """
    for code, mirror in zip(codes, mirrors, strict=True):
        if constraint is not None:
            kernel = ops.convert_to_tensor(mirror.kernel)
            mirror.kernel.assign(constraint(kernel))
        if not transposed:
            continue
        rows = ops.copy(mirror.kernel)  # JAX gives a buffer away once alone
        if getattr(code, "transposed_kernel", False):
            code.kernel.assign(rows)
        else:
            rest = ops.convert_to_tensor(code.kernel)[:, rows.shape[0] :]
            code.kernel.assign(ops.concatenate([ops.transpose(rows), rest], axis=1))


def output_bias(decoder: keras.Model) -> keras.Variable | None:
    """Return the bias of a linear output layer, which can hold the data's centre.

    Args:
        decoder: Model whose bias has one entry per value, or per channel.

    Returns:
        The variable, or None if there is no such bias.
    """
    layers = [layer for layer in flatten(decoder) if not isinstance(layer, Scaling)]
    output = output_layer(layers)
    bias = getattr(output, "bias", None)
    linear = getattr(output, "activation", None) is keras.activations.linear
    shape = decoder.output_shape[1:]
    if bias is None or not linear or bias.shape[0] not in (size(shape), shape[-1]):
        return None
    return bias


def _mirror_name(n: int) -> str:
    return "output" if n == 1 else f"decode_{n}"


def normalized(layers: Sequence[Any], wanted: bool) -> Layers:
    """Returns the layers, each followed by a batch normalisation if it is wanted."""
    return [x for layer in layers for x in (layer, *norm(layer.name, wanted))]


def norm(name: str, wanted: bool) -> Layers:
    """Returns `[a batch normalisation]` for the layer `name`, or nothing."""
    return [keras.layers.BatchNormalization(name=f"{name}_norm")] if wanted else []
