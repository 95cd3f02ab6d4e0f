"""Images in, images out: an autoencoder of convolutions around a dense code."""

from collections.abc import Sequence
from typing import Any

import keras

from keras_sae.layers import TiedConv2DTranspose, TiedDense, UnitNormDense
from keras_sae.layers import serialization as sparsities
from keras_sae.models import building_blocks
from keras_sae.models.autoencoder import Autoencoder
from keras_sae.utils import validation as checks

# What `input_shape` says, whatever Keras is configured to take.
_CHANNELS_LAST: dict[str, Any] = {"data_format": "channels_last"}


def convolutional(
    input_shape: Any,
    units: Any,
    sparsity: Any = None,
    *,
    activation: Any = "relu",
    code_activation: Any = "auto",
    output_activation: Any = "linear",
    tied: bool = False,
    kernel_size: int = 3,
    pooling: Any = None,
    corruption: Any = None,
    contractive: float = 0.0,
    batch_normalization: bool = False,
    unit_norm: bool = False,
    tied_initialization: bool = False,
    centering: bool = False,
    scaling: bool = False,
    kernel_initializer: Any = "glorot_uniform",
    kernel_regularizer: Any = None,
    name: str = "convolutional",
) -> Autoencoder:
    """Makes a convolutional autoencoder with a sparse vector as its code.

    `h_l = pool(sparsity_l(f(h_{l-1} * W_l + b_l)))`, `h = sparsity(f(h_L W + b))`;
    the decoder mirrors it with transposed convolutions of stride 2

    Every convolution halves the image, rounding up; the decoder doubles it and cuts
    off the row and the column that rounding has added. Any size is restored.

    Args:
        input_shape: `(height, width, channels)` of one image.
        units: Filters of each convolution, outermost first, and as the last entry
            the width of the code: `(16, 32, 64, 30)` has three convolutions.
        sparsity: As in `keras_sae.models.shallow`, and then of the code alone; or
            a list or tuple with one entry a layer.
        activation: Of the convolutions, on both sides.
        code_activation: Of the code; `"auto"` is what its sparsity needs.
        output_activation: Of the reconstruction.
        tied: Whether each layer of the decoder uses the kernel of the layer at its
            side. No pooling may stand in between; `unit_norm` is then a constraint on
            the kernel of the code, and `tied_initialization` is met as it is.
        kernel_size: Side of the kernels.
        pooling: None, or the layer that makes a vector of the last feature maps in
            place of `Flatten`, e.g. `keras.layers.GlobalAveragePooling2D()`.
        corruption: None, or a layer that damages the input while training; the
            target stays the clean input.
        contractive: Weight of the penalty `mean_i(|dh_i / dx_i|_F^2)` on the Jacobian
            of the code, exact through all layers and logged in `auxiliary_loss`. Its
            cost a sample is that of `units[-1]` passes back through the encoder.
        batch_normalization: Whether to normalise the output of the convolutions.
        unit_norm: Whether the atoms of the code, the rows of the kernel behind it, are
            kept at norm 1 (`keras_sae.layers.UnitNormDense`).
        tied_initialization: Whether the code's layer starts as the transpose of the one
            behind it. No pooling may stand in between.
        centering: Whether the encoder subtracts the data's mean, one of each channel.
        scaling: Whether the model works on data of unit mean square, as in
            `keras_sae.models.shallow`; call the model's `adapt` before `fit`.
        kernel_initializer: Of every kernel.
        kernel_regularizer: Of every kernel (weight decay).
        name: Name of the model.

    Returns:
        A `keras_sae.models.Autoencoder`.

    Raises:
        ValueError: `input_shape` is not an image's, `units` has fewer than two
            entries, an argument is out of its range, or the Jacobian that
            `contractive` asks for is unknown.

    Reference:
        Masci et al., "Stacked convolutional auto-encoders for hierarchical feature
        extraction", ICANN 2011.

    Example:

    >>> from keras_sae import models
    >>> model = models.convolutional((7, 9, 1), units=(4, 8, 16), sparsity="l1")
    >>> model.encoder.output_shape, model.decoder.output_shape
    ((None, 16), (None, 7, 9, 1))
    """
    shape, widths = _image(input_shape), building_blocks.widths(units, least=2)
    *penalties, sparsest = building_blocks.sparsities(sparsity, len(widths))
    options = {
        "kernel_initializer": kernel_initializer,
        "kernel_regularizer": kernel_regularizer,
    }
    side = checks.positive_integer("kernel_size", kernel_size)
    maps = {"kernel_size": side, "padding": "same", **_CHANNELS_LAST, **options}
    norm = building_blocks.atoms_at_unit_norm(tied) if unit_norm and tied else None
    code = building_blocks.codes(
        widths[-1:],
        [sparsest],
        [code_activation],
        kernel_constraint=norm,
        **options,
    )
    down = [
        keras.layers.Conv2D(width, activation=activation, name=f"encode_{n}", **maps)
        for n, width in enumerate(widths[:-1], start=1)
    ]
    layers = [
        *building_blocks.before(corruption, centering, scaling),
        *_halving(down, penalties, batch_normalization),
        building_blocks.copied(
            "pooling", pooling or keras.layers.Flatten(**_CHANNELS_LAST)
        ),
        *code,
    ]
    encoder = building_blocks.chain(shape, layers, "encoder")
    sizes = _sizes(shape, len(down))
    bottom = (*sizes[-1], widths[-2])
    name_of_atoms = f"decode_{len(widths)}"
    if tied:
        _check_mirrored(code[0], building_blocks.size(bottom), "tied")
        atoms: Any = TiedDense(code[0], activation, name=name_of_atoms)
        up = _tied(down, (activation, output_activation))
    else:
        atoms = (UnitNormDense if unit_norm else keras.layers.Dense)(
            building_blocks.size(bottom), activation, name=name_of_atoms, **options
        )
        up = _upward(shape, widths, (activation, output_activation), maps)
    layers = [
        *building_blocks.normalized([atoms], batch_normalization),
        keras.layers.Reshape(bottom),
        *_doubling(up, sizes, batch_normalization),
        *building_blocks.unscaled(scaling, output_activation),
    ]
    decoder = building_blocks.chain((code[0].units,), layers, "decoder")
    if tied_initialization:
        _check_mirrored(code[0], building_blocks.size(bottom), "tied_initialization")
    building_blocks.start(code, [atoms], norm, tied_initialization and not tied)
    return Autoencoder(encoder, decoder, contractive=contractive, name=name)


def _upward(
    shape: tuple[int, ...],
    widths: tuple[int, ...],
    activations: tuple[Any, Any],
    maps: dict[str, Any],
) -> list[Any]:
    """The transposed convolutions, outermost first."""
    hidden, last = activations
    up = [
        keras.layers.Conv2DTranspose(
            width, strides=2, activation=hidden, name=f"decode_{n}", **maps
        )
        for n, width in enumerate(widths[:-2], start=2)
    ]
    output = keras.layers.Conv2DTranspose(
        shape[-1], strides=2, activation=last, name="output", **maps
    )
    return [output, *up]


def _tied(down: Sequence[Any], activations: tuple[Any, Any]) -> list[Any]:
    """As `_upward`, with the kernels of the convolutions on the way down."""
    hidden, last = activations
    return [
        TiedConv2DTranspose(
            layer,
            strides=2,
            padding="same",
            activation=hidden if n > 1 else last,
            name=f"decode_{n}" if n > 1 else "output",
            **_CHANNELS_LAST,
        )
        for n, layer in enumerate(down, start=1)
    ]


def _check_mirrored(code: Any, made: int, argument: str) -> None:
    taken = code.kernel.shape[0]
    if taken != made:
        raise ValueError(
            f"`{argument}` needs a code that takes in the values that the layer behind "
            f"it makes. Received: {argument}=True with a `pooling` that leaves {taken} "
            f"of {made}. Use pooling=None, or {argument}=False."
        )


def _image(input_shape: Any) -> tuple[int, ...]:
    shape = building_blocks.known_shape(input_shape)
    if len(shape) != 3:
        raise ValueError(
            "`input_shape` must be an image's, (height, width, channels). Received: "
            f"input_shape={input_shape!r}. For data of another rank use "
            "`keras_sae.models.deep`."
        )
    return shape


def _sizes(shape: tuple[int, ...], halvings: int) -> list[tuple[int, int]]:
    """Height and width of the image, and after each halving."""
    sizes = [(shape[0], shape[1])]
    for _ in range(halvings):
        height, width = sizes[-1]
        sizes.append((-(-height // 2), -(-width // 2)))
    return sizes


def _halving(
    convolutions: Sequence[Any], penalties: Sequence[Any], batch_normalization: bool
) -> list[Any]:
    """The convolutions, each with what makes it sparse and what halves the image."""
    layers = []
    for layer, sparsity in zip(convolutions, penalties, strict=True):
        layers.append(layer)
        if sparsity is not None:
            name = f"{layer.name}_penalty"
            copy = sparsities.copy_for(sparsity, layer.activation, name=name)
            layers.append(copy)
        layers += building_blocks.norm(layer.name, batch_normalization)
        layers.append(keras.layers.MaxPooling2D(2, padding="same", **_CHANNELS_LAST))
    return layers


def _doubling(
    convolutions: Sequence[Any],
    sizes: Sequence[tuple[int, int]],
    batch_normalization: bool,
) -> list[Any]:
    """The transposed convolutions from the inside out, each cut to the size it had."""
    layers = []
    for n, (height, width) in reversed(list(enumerate(sizes[:-1]))):
        layers.append(convolutions[n])
        excess = ((0, height % 2), (0, width % 2))
        if excess != ((0, 0), (0, 0)):
            layers.append(keras.layers.Cropping2D(excess, **_CHANNELS_LAST))
        layers += building_blocks.norm(
            convolutions[n].name, batch_normalization and n > 0
        )
    return layers
