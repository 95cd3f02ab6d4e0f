"""One layer in, one layer out: the sparse autoencoder of the textbooks."""

from typing import Any

from keras_sae.layers import ActivityPenalty, UnitNormDense, get_sparsity
from keras_sae.models import building_blocks
from keras_sae.models.autoencoder import Autoencoder


def shallow(
    input_shape: Any,
    units: int,
    sparsity: Any = None,
    *,
    activation: Any = "auto",
    output_activation: Any = "linear",
    tied: bool = False,
    corruption: Any = None,
    contractive: float = 0.0,
    unit_norm: bool | None = None,
    tied_initialization: bool | None = None,
    centering: bool = True,
    scaling: bool = False,
    kernel_regularizer: Any = None,
    name: str = "shallow",
    **kwargs: Any,
) -> Autoencoder:
    """Makes an autoencoder with one sparse layer.

    `h = sparsity(activation((x - mean) W + b))`, `r = output_activation(h W' + c)`

    Args:
        input_shape: Shape of one sample without the batch, e.g. `(28, 28, 1)`;
            anything but a vector is flattened and restored.
        units: Width of the code.
        sparsity: A regularizer (`keras_sae.regularizers.L1(1e-4)`), a sparsity
            layer, a name (`"l1"`, `"kl"`), a config, or None.
        activation: Of the code; `"auto"` is what the sparsity needs.
        output_activation: Of the reconstruction. `"linear"` reaches any data;
            `"sigmoid"` goes with data in [0, 1] and `loss="binary_crossentropy"`.
        tied: Whether the decoder uses the transpose of the encoder's kernel.
        corruption: None, or a layer that damages the input while training, such as
            `keras_sae.layers.MaskingNoise(0.3)` or `keras.layers.GaussianNoise(0.1)`;
            the target stays the clean input (a denoising autoencoder).
        contractive: Weight of the contractive penalty
            `mean_i(|dh_i / dx_i|_F^2)`, logged in `auxiliary_loss`; for a sigmoid
            that is `sum_j (h_j (1 - h_j))^2 sum_k W_kj^2`.
        unit_norm: Whether the atoms, the rows of `W'`, are kept at norm 1.
            Without it, scaling the encoder down and the decoder up lowers an L1
            penalty for nothing. None is True where the penalty depends on the
            scale of the code; published settings want False. Behind a hard sparsity
            the decoder is a `keras_sae.layers.UnitNormDense`, whose gradient is taken
            along the sphere.
        tied_initialization: Whether the encoder starts as the transpose of the
            decoder, so that a unit answers to its own atom from the first step.
            None is True for a hard or learned sparsity. `tied` ones are that anyway.
        centering: Whether the encoder subtracts the data's mean
            (`keras_sae.layers.Centering`), which keeps ReLU units alive;
            published settings want False.
        scaling: Whether the model works on data of unit mean square
            (`keras_sae.layers.Scaling`) and scales its reconstruction back; call the
            model's `adapt` before `fit`. The published settings of learned and hard
            sparsity are for such data. The loss stays in the data's own units.
        kernel_regularizer: Of both kernels (weight decay); of the one that there is
            if `tied`.
        name: Name of the model.
        **kwargs: Further arguments of `keras_sae.layers.SparseDense`, such as
            `kernel_initializer`.

    Returns:
        A `keras_sae.models.Autoencoder`.

    Raises:
        ValueError: An argument is out of its range; see `SparseDense`. The Jacobian
            that `contractive` asks for is unknown: a hard sparsity, or an
            activation whose slope is not known.

    Reference:
        Vincent et al., "Extracting and composing robust features with denoising
        autoencoders", ICML 2008; Rifai et al., "Contractive Auto-Encoders", ICML
        2011.

    Example:

    >>> import numpy as np
    >>> from keras_sae import models, regularizers
    >>> model = models.shallow((8, 8, 1), units=16, sparsity=regularizers.L1(1e-4))
    >>> model.compile("adam")
    >>> x = np.random.default_rng(0).random((32, 8, 8, 1), dtype="float32")
    >>> sorted(model.fit(x, verbose=0).history)[:3]
    ['explained_variance', 'l0', 'loss']
    """
    shape = building_blocks.known_shape(input_shape)
    sparsity = get_sparsity(sparsity)
    if unit_norm is None:
        unit_norm = sparsity is not None and sparsity.scale_dependent
    norm = building_blocks.atoms_at_unit_norm(tied) if unit_norm else None
    hard = sparsity is not None and not isinstance(sparsity, ActivityPenalty)
    if tied_initialization is None:
        tied_initialization = hard
    # The gradient of a few units a sample is cheapest by rows.
    selects = sparsity is not None and sparsity.selects
    kwargs.setdefault("transposed_kernel", selects and not tied)
    [code] = building_blocks.codes(
        [units],
        [sparsity],
        [activation],
        kernel_constraint=norm if tied else None,
        kernel_regularizer=kernel_regularizer,
        **kwargs,
    )
    encoder = building_blocks.encoder(shape, [code], corruption, centering, scaling)
    atoms = hard and unit_norm and not tied
    decoder = building_blocks.decoder(
        shape,
        code.units,
        [(building_blocks.size(shape), output_activation)],
        tied=[code] if tied else None,
        scaling=scaling,
        kernel_regularizer=kernel_regularizer,
        **({"dense": UnitNormDense} if atoms else {"kernel_constraint": norm}),
    )
    mirrors = building_blocks.mirrors(decoder, 1)
    building_blocks.start([code], mirrors, norm, tied_initialization and not tied)
    return Autoencoder(encoder, decoder, contractive=contractive, name=name)
