"""Several layers in, as many out: a deep sparse autoencoder."""

from typing import Any

import keras

from keras_sae.layers import UnitNormDense
from keras_sae.models import building_blocks
from keras_sae.models.autoencoder import Autoencoder


def deep(
    input_shape: Any,
    units: Any,
    sparsity: Any = None,
    *,
    activation: Any = "relu",
    code_activation: Any = "auto",
    output_activation: Any = "linear",
    tied: bool = False,
    corruption: Any = None,
    contractive: float = 0.0,
    batch_normalization: bool = False,
    unit_norm: bool = False,
    tied_initialization: bool = False,
    centering: bool = True,
    scaling: bool = False,
    kernel_initializer: Any = "glorot_uniform",
    kernel_regularizer: Any = None,
    name: str = "deep",
) -> Autoencoder:
    """Makes an autoencoder of any depth whose decoder mirrors its encoder.

    `h_l = sparsity_l(f_l(h_{l-1} W_l + b_l))` for `l = 1 ... L`, `h_0 = x - mean`;
    `r_{l-1} = f_{l-1}(r_l W'_l + c_l)` from `r_L = h_L` down to `r_0`

    with the output activation as `f_0`. A penalty that depends on the scale of the
    code (L1) can be lowered for nothing by scaling a layer down and the next one
    up. `kernel_regularizer` closes that, and so does `unit_norm` where no
    `batch_normalization` undoes it.

    Args:
        input_shape: Shape of one sample without the batch, e.g. `(28, 28, 1)`;
            anything but a vector is flattened and restored.
        units: Width of each layer of the encoder, outermost first; the last is the
            code's. `(1000, 500, 250, 30)` makes eight layers in all.
        sparsity: As in `keras_sae.models.shallow`, and then of the code alone; or
            a list or tuple with one entry a layer, outermost first, None where a
            layer has none.
        activation: Of every layer but code and output, on both sides; `"auto"` is
            what each layer's sparsity needs.
        code_activation: Of the code; `"auto"` is what its sparsity needs.
        output_activation: Of the reconstruction.
        tied: Whether each layer of the decoder uses the transposed kernel of the
            layer at its side.
        corruption: None, or a layer that damages the input while training, such as
            `keras_sae.layers.MaskingNoise(0.3)`; the target stays the clean input.
        contractive: Weight of the penalty `mean_i(|dh_i / dx_i|_F^2)` on the
            Jacobian of the code, exact through all layers and logged in
            `auxiliary_loss`. Its cost a sample is `units[0]^2` times the code's
            width.
        batch_normalization: Whether to normalise the output of every layer but
            code and output.
        unit_norm: Whether the atoms of every layer, the rows of each `W'`, are kept
            at norm 1. Their gradient is taken along the sphere
            (`keras_sae.layers.UnitNormDense`) unless `tied`.
        tied_initialization: Whether each layer of the encoder starts as the transpose of
            the decoder's at its side. `tied` ones are that anyway.
        centering: Whether the encoder subtracts the data's mean; published
            settings want False.
        scaling: Whether the model works on data of unit mean square, as in
            `keras_sae.models.shallow`; call the model's `adapt` before `fit`.
        kernel_initializer: Of every kernel.
        kernel_regularizer: Of every kernel (weight decay).
        name: Name of the model.

    Returns:
        A `keras_sae.models.Autoencoder`.

    Raises:
        ValueError: `units` is empty or holds anything but positive integers,
            `sparsity` has another number of entries, or the Jacobian that
            `contractive` asks for is unknown.

    Reference:
        Hinton & Salakhutdinov, "Reducing the dimensionality of data with neural
        networks", Science 2006.

    Example:

    >>> import numpy as np
    >>> from keras_sae import models
    >>> model = models.deep((8, 8, 1), units=(32, 16), sparsity="kl", tied=True)
    >>> model.compile("adam")
    >>> model.encode(np.zeros((4, 8, 8, 1), "float32")).shape
    (4, 16)
    >>> [layer.activation.__name__ for layer in model.sparse_layers]
    ['relu', 'sigmoid']
    """
    shape, units = (
        building_blocks.known_shape(input_shape),
        building_blocks.widths(units),
    )
    norm = building_blocks.atoms_at_unit_norm(tied) if unit_norm else None
    codes = building_blocks.codes(
        units,
        building_blocks.sparsities(sparsity, len(units)),
        [*[activation] * (len(units) - 1), code_activation],
        kernel_constraint=norm if tied else None,
        kernel_initializer=kernel_initializer,
        kernel_regularizer=kernel_regularizer,
    )
    *outer, code = codes
    layers = [*building_blocks.normalized(outer, batch_normalization), code]
    encoder = building_blocks.encoder(shape, layers, corruption, centering, scaling)
    hidden = [(layer.units, layer.activation) for layer in outer]
    decoder = building_blocks.decoder(
        shape,
        code.units,
        [(building_blocks.size(shape), output_activation), *hidden],
        tied=codes if tied else None,
        batch_normalization=batch_normalization,
        dense=UnitNormDense if unit_norm else keras.layers.Dense,
        scaling=scaling,
        kernel_initializer=kernel_initializer,
        kernel_regularizer=kernel_regularizer,
    )
    mirrors = building_blocks.mirrors(decoder, len(codes))
    building_blocks.start(codes, mirrors, norm, tied_initialization and not tied)
    return Autoencoder(encoder, decoder, contractive=contractive, name=name)
