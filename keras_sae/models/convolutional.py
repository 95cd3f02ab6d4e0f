"""Convolutional autoencoders for images."""

import math
from collections.abc import Sequence
from typing import Any

import keras

from keras_sae.layers import SparseDense, TiedConv2DTranspose, TiedDense, UnitNormDense
from keras_sae.layers.serialization import copy_for
from keras_sae.models import building_blocks
from keras_sae.models.autoencoder import Autoencoder
from keras_sae.types import ActivationLike, LayerLike, SparsityLike
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
    centering: bool = True,
    scaling: bool = False,
    name: str = "convolutional",
    **kwargs: Any,
) -> Autoencoder:
    """Create a convolutional autoencoder that encodes images as vectors.

    `h_l = pool(sparsity_l(f(h_{l-1} * W_l + b_l)))`, `h = sparsity(f(h_L W + b))`

    Here, `h_0` is `x - mean`, and `*` is a convolution. On large images, convolutions
    need far fewer weights than dense layers, and they detect a pattern at any position.
    Each max pooling layer halves the height and width, rounding up. The decoder mirrors
    the encoder with transposed convolutions of stride 2, and crops the rows and columns
    that rounding added.

    Args:
        input_shape: Shape of one image, `(height, width, channels)`.
        units: Number of filters of each convolution, outermost first, followed by the
            number of code units. `(16, 32, 64, 30)` creates three convolutions.
        sparsity: As in `keras_sae.models.deep`.
        activation: Activation of all layers except the code and the output.
        code_activation: As in `keras_sae.models.deep`.
        output_activation: As in `keras_sae.models.shallow`.
        tied: Whether the decoder shares the encoder's kernels. It must be False if
            `pooling` reduces the feature maps. With `tied=True`, `unit_norm` constrains
            the kernel of the code layer.
        kernel_size: Height and width of the kernels.
        pooling: Layer that turns the last feature maps into a vector, such as
            `keras.layers.GlobalAveragePooling2D()`. None flattens them.
        corruption: As in `keras_sae.models.shallow`.
        batch_normalization: Whether to normalize the outputs of all layers except the
            code and the output.
        unit_norm: Whether the rows of the decoder's dense kernel have unit norm.
        tied_initialization: Whether the code layer's kernel is initialized to the
            transpose of the decoder's dense kernel. It must be False if `pooling`
            reduces the feature maps.
        centering: Whether the encoder subtracts the mean of each channel of the data,
            and the moving mean of the code layer's inputs. Without centering, up to
            half of the code's ReLU units die: ReLU feature maps are never negative, and
            a unit whose weights point away from the mean of its inputs is inactive for
            nearly all samples. Published hyperparameters assume False.
        scaling: As in `keras_sae.models.shallow`.
        name: Name of the model.
        **kwargs: Arguments of every layer that has its own kernel, such as
            `kernel_initializer` and `kernel_regularizer`.

    Returns:
        A `keras_sae.models.Autoencoder`.

    Raises:
        ValueError: `input_shape` does not have three entries, `units` has fewer than
            two, another argument is invalid, or Keras is configured for
            `"channels_first"`.

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
            f"input_shape={input_shape!r}. For other data, use `keras_sae.models.deep`."
        )
    *filters, code_units = building_blocks.layer_units(units, min_layers=2)
    *penalties, sparsest = building_blocks.layer_sparsities(sparsity, len(filters) + 1)
    kernel_size = validation.positive_integer("kernel_size", kernel_size)
    if keras.config.image_data_format() == "channels_first":
        raise ValueError(
            "`keras_sae.models.convolutional` requires channels-last images. "
            "Received: keras.config.image_data_format()='channels_first'. Call "
            "`keras.config.set_image_data_format('channels_last')`, and reorder images "
            "with `numpy.moveaxis(x, 1, -1)`."
        )

    convolutions = []
    layers = building_blocks.preprocessing(
        corruption, centering, scaling, flatten_input=False
    )
    for n, (count, penalty) in enumerate(zip(filters, penalties, strict=True), start=1):
        layer_name = f"encode_{n}"
        convolution = keras.layers.Conv2D(
            count,
            kernel_size,
            padding="same",
            activation=activation,
            name=layer_name,
            **kwargs,
        )
        convolutions.append(convolution)
        layers.append(convolution)
        if penalty is not None:
            penalty_name = f"{layer_name}_penalty"
            layers.append(copy_for(penalty, convolution.activation, name=penalty_name))
        if batch_normalization:
            layers.append(keras.layers.BatchNormalization(name=f"{layer_name}_norm"))
        layers.append(keras.layers.MaxPooling2D(2, padding="same"))
    pooling = pooling or keras.layers.Flatten()
    example = "`keras.layers.GlobalAveragePooling2D()`"
    layers.append(building_blocks.copy_layer("pooling", pooling, example))
    code_options = dict(kwargs)
    if unit_norm and tied:
        code_options["kernel_constraint"] = keras.constraints.UnitNorm(axis=0)
    code = SparseDense(
        code_units, code_activation, sparsest, name="code", **code_options
    )
    layers += building_blocks.hidden_centering(code, centering)
    encoder = building_blocks.chain(shape, [*layers, code], "encoder")

    sizes: list[tuple[int, ...]] = [shape[:2]]
    for _ in filters:
        sizes.append(tuple(-(-side // 2) for side in sizes[-1]))
    bottom = (*sizes[-1], filters[-1])
    flat_size, pooled_size = math.prod(bottom), code.kernel.shape[0]
    if (tied or tied_initialization) and pooled_size != flat_size:
        argument = "tied" if tied else "tied_initialization"
        raise ValueError(
            f"`{argument}` must be False when `pooling` reduces the feature maps. "
            f"Received: {argument}=True, and `pooling` reduces {flat_size} values to "
            f"{pooled_size}. Pass pooling=None, or {argument}=False."
        )
    dense: keras.layers.Layer
    inner = f"decode_{len(filters) + 1}"
    if tied:
        dense = TiedDense(code, activation, name=inner)
    else:
        dense_class = UnitNormDense if unit_norm else keras.layers.Dense
        dense = dense_class(flat_size, activation, name=inner, **kwargs)
    layers = building_blocks.batch_normalized([dense], batch_normalization)
    layers.append(keras.layers.Reshape(bottom))
    widths = [shape[-1], *filters]
    for n in range(len(filters), 0, -1):
        layer_name = "output" if n == 1 else f"decode_{n}"
        options: dict[str, Any] = {
            "strides": 2,
            "padding": "same",
            "activation": output_activation if n == 1 else activation,
            "name": layer_name,
        }
        if tied:
            layers.append(TiedConv2DTranspose(convolutions[n - 1], **options))
        else:
            options |= kwargs
            layers.append(
                keras.layers.Conv2DTranspose(widths[n - 1], kernel_size, **options)
            )
        height, width = sizes[n - 1]
        if height % 2 or width % 2:
            crop = ((0, height % 2), (0, width % 2))
            layers.append(keras.layers.Cropping2D(crop))
        if batch_normalization and n > 1:
            layers.append(keras.layers.BatchNormalization(name=f"{layer_name}_norm"))
    layers += building_blocks.rescaling(scaling, output_activation)
    decoder = building_blocks.chain((code_units,), layers, "decoder")
    initialize_tied = tied_initialization and not tied
    building_blocks.initialize_kernels([code], [dense], initialize_tied)
    return Autoencoder(encoder, decoder, name=name)
