"""Convolutional autoencoders for images."""

import math
from collections.abc import Sequence
from typing import Any

import keras

from keras_sae.layers import SparseDense, TiedConv2DTranspose, TiedDense, UnitNormDense
from keras_sae.layers.serialization import copy_for
from keras_sae.models import building_blocks
from keras_sae.models.autoencoder import Autoencoder
from keras_sae.types import (
    ActivationLike,
    InitializerLike,
    LayerLike,
    RegularizerLike,
    SparsityLike,
)
from keras_sae.utils import validation


def convolutional(
    input_shape: Sequence[int],
    units: Sequence[int],
    sparsity: SparsityLike | Sequence[SparsityLike] = None,
    *,
    activation: ActivationLike = "relu",
    code_activation: ActivationLike = "auto",
    output_activation: ActivationLike = "linear",
    tied: bool = False,
    kernel_size: int = 3,
    pooling: LayerLike | None = None,
    corruption: LayerLike | None = None,
    batch_normalization: bool = False,
    unit_norm: bool = False,
    tied_initialization: bool = False,
    centering: bool = False,
    scaling: bool = False,
    kernel_initializer: InitializerLike = "glorot_uniform",
    kernel_regularizer: RegularizerLike = None,
    name: str = "convolutional",
) -> Autoencoder:
    """Create a convolutional autoencoder for images, with a vector as its code.

    `h_l = pool(sparsity_l(f(h_{l-1} * W_l + b_l)))`, `h = sparsity(f(h_L W + b))`

    Convolutions need far fewer weights than dense layers on large images, and find the
    same pattern at any position. Max pooling after each convolution halves height and
    width and rounds up. The decoder mirrors the encoder with transposed convolutions of
    stride 2 and crops the row or column that rounding added.

    Args:
        input_shape: Shape of one image, `(height, width, channels)`.
        units: Number of filters of each convolution, outermost first, and last the
            number of units of the code: `(16, 32, 64, 30)` has three convolutions.
        sparsity: Sparsity of the code, as in `keras_sae.models.shallow`; or a list
            with one entry per layer.
        activation: Activation of the convolutions of encoder and decoder.
        code_activation: Activation of the code. `"auto"` takes that of the sparsity.
        output_activation: Activation of the reconstruction.
        tied: Whether the decoder uses the kernels of the encoder. It excludes
            `pooling`. `unit_norm` then constrains the kernel of the code.
        kernel_size: Height and width of the kernels.
        pooling: Layer that turns the last feature maps into a vector, e.g.
            `keras.layers.GlobalAveragePooling2D()`. None flattens them.
        corruption: Layer that corrupts the input during training, or None.
        batch_normalization: Whether to normalize the outputs of the convolutions.
        unit_norm: Whether the dense kernel behind the code has rows of unit norm.
        tied_initialization: Whether the kernel of the code is initialized to the
            transpose of the dense kernel behind it. It excludes `pooling`.
        centering: Whether the encoder subtracts the mean per channel.
        scaling: As for `keras_sae.models.shallow`.
        kernel_initializer: Initializer of every kernel.
        kernel_regularizer: Regularizer of every kernel.
        name: Name of the model.

    Returns:
        A `keras_sae.models.Autoencoder`.

    Raises:
        ValueError: `input_shape` or `units` is too short, or an argument is invalid.

    Reference:
        [Masci et al., 2011](https://doi.org/10.1007/978-3-642-21735-7_7)

    Example:

    >>> from keras_sae import models
    >>> model = models.convolutional((7, 9, 1), units=(4, 8, 16), sparsity="l1")
    >>> model.encoder.output_shape, model.decoder.output_shape
    ((None, 16), (None, 7, 9, 1))
    """
    shape = building_blocks.known_shape(input_shape)
    if len(shape) != 3:
        raise ValueError(
            "`input_shape` must be (height, width, channels). Received: "
            f"input_shape={input_shape!r}. For other data use `keras_sae.models.deep`."
        )
    *filters, code_units = building_blocks.layer_units(units, min_layers=2)
    *penalties, sparsest = building_blocks.layer_sparsities(sparsity, len(filters) + 1)
    options: dict[str, Any] = {
        "kernel_initializer": kernel_initializer,
        "kernel_regularizer": kernel_regularizer,
    }
    # `input_shape` is channels last, whatever Keras is configured to.
    layout = {"padding": "same", "data_format": "channels_last"}
    kernel_size = validation.positive_integer("kernel_size", kernel_size)
    norm = keras.constraints.UnitNorm(axis=0) if unit_norm and tied else None
    code = SparseDense(
        code_units,
        code_activation,
        sparsest,
        kernel_constraint=norm,
        name="code",
        **options,
    )

    down = []
    layers = building_blocks.preprocessing(
        corruption, centering, scaling, flatten_input=False
    )
    for n, (count, penalty) in enumerate(zip(filters, penalties, strict=True), start=1):
        down_options: dict[str, Any] = {"activation": activation, **layout, **options}
        convolution = keras.layers.Conv2D(
            count, kernel_size, name=f"encode_{n}", **down_options
        )
        down.append(convolution)
        layers.append(convolution)
        if penalty is not None:
            penalty_name = f"encode_{n}_penalty"
            layers.append(copy_for(penalty, convolution.activation, name=penalty_name))
        layers += building_blocks.batch_norm(f"encode_{n}", batch_normalization)
        layers.append(keras.layers.MaxPooling2D(2, **layout))
    pooling = pooling or keras.layers.Flatten(data_format="channels_last")
    example = "`keras.layers.GlobalAveragePooling2D()`"
    layers += [building_blocks.copy_layer("pooling", pooling, example), code]
    encoder = building_blocks.chain(shape, layers, "encoder")

    sizes = [shape[:2]]
    for _ in filters:
        height, width = sizes[-1]
        sizes.append((-(-height // 2), -(-width // 2)))
    bottom = (*sizes[-1], filters[-1])
    flat_size, pooled_size = math.prod(bottom), code.kernel.shape[0]
    if (tied or tied_initialization) and pooled_size != flat_size:
        argument = "tied" if tied else "tied_initialization"
        raise ValueError(
            f"`{argument}` must be False when `pooling` reduces the feature maps. "
            f"Received: {argument}=True, and `pooling` makes {pooled_size} values "
            f"of {flat_size}. Pass pooling=None, or {argument}=False."
        )
    dense: keras.layers.Layer
    inner = f"decode_{len(filters) + 1}"
    if tied:
        dense = TiedDense(code, activation, name=inner)
    else:
        dense_class = UnitNormDense if unit_norm else keras.layers.Dense
        dense = dense_class(flat_size, activation, name=inner, **options)
    layers = building_blocks.batch_normalized([dense], batch_normalization)
    layers.append(keras.layers.Reshape(bottom))
    for n in range(len(filters), 0, -1):
        outermost = n == 1
        up_options: dict[str, Any] = {
            "strides": 2,
            "activation": output_activation if outermost else activation,
            "name": "output" if outermost else f"decode_{n}",
            **layout,
        }
        if tied:
            layers.append(TiedConv2DTranspose(down[n - 1], **up_options))
        else:
            up_options |= options
            count = shape[-1] if outermost else filters[n - 2]
            layers.append(
                keras.layers.Conv2DTranspose(count, kernel_size, **up_options)
            )
        height, width = sizes[n - 1]
        if height % 2 or width % 2:
            crop = ((0, height % 2), (0, width % 2))
            layers.append(keras.layers.Cropping2D(crop, data_format="channels_last"))
        if not outermost:
            layers += building_blocks.batch_norm(f"decode_{n}", batch_normalization)
    layers += building_blocks.rescaling(scaling, output_activation)
    decoder = building_blocks.chain((code_units,), layers, "decoder")
    initialize_tied = tied_initialization and not tied
    building_blocks.initialize_kernels([code], [dense], initialize_tied)
    return Autoencoder(encoder, decoder, name=name)
