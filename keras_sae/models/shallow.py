"""Sparse autoencoder with one encoder layer and one decoder layer."""

from typing import Any

from keras_sae.layers import ActivityPenalty, get_sparsity
from keras_sae.models import building_blocks
from keras_sae.models.autoencoder import Autoencoder
from keras_sae.types import ActivationLike, LayerLike, RegularizerLike, SparsityLike
from keras_sae.utils.validation import positive_integer


def shallow(
    input_shape: int | tuple[int, ...],
    units: int,
    sparsity: SparsityLike = None,
    *,
    activation: ActivationLike = "auto",
    output_activation: ActivationLike = "linear",
    tied: bool = False,
    corruption: LayerLike | None = None,
    contractive: float = 0.0,
    unit_norm: bool | None = None,
    tied_initialization: bool | None = None,
    centering: bool = True,
    scaling: bool = False,
    kernel_regularizer: RegularizerLike = None,
    name: str = "shallow",
    **kwargs: Any,
) -> Autoencoder:
    """Create an autoencoder with one sparse layer.

    `h = sparsity(activation((x - mean) W + b))`, `r = output_activation(h W' + c)`

    Args:
        input_shape: Shape of one sample without the batch axis, such as `(28, 28, 1)`.
            The encoder flattens the samples, and the decoder restores their shape.
        units: Width of the code.
        sparsity: A regularizer such as `keras_sae.regularizers.L1(1e-4)`, a
            `keras_sae.layers.Sparsity`, a name such as `"l1"`, a config, or None.
        activation: Activation of the code. `"auto"` selects the activation that the
            sparsity recommends.
        output_activation: Activation of the reconstruction. `"linear"` suits any data.
            `"sigmoid"` suits data in [0, 1] and `loss="binary_crossentropy"`.
        tied: Whether the decoder uses the transposed kernel of the encoder.
        corruption: None, or a layer that corrupts the input in training, such as
            `keras_sae.layers.MaskingNoise(0.3)` or `keras.layers.GaussianNoise(0.1)`.
            The target remains the clean input (denoising autoencoder).
        contractive: Weight of the contractive penalty `mean_i(|dh_i / dx_i|_F^2)`, the
            squared norm of the code's Jacobian. It is logged as `auxiliary_loss`. For a
            sigmoid code, the penalty is
            `mean_i(sum_j (h_ij (1 - h_ij))^2 sum_k W_kj^2)`.
        unit_norm: Whether the rows of `W'`, the dictionary, have norm 1. Otherwise,
            smaller encoder weights and larger decoder weights lower an L1 penalty
            without changing the reconstruction. None means False without a sparsity or
            with a KL divergence, and True otherwise. Published hyperparameters assume
            False. Unless the sparsity is None or a regularizer, an untied decoder with
            unit norm is a `keras_sae.layers.UnitNormDense`, which also projects the
            gradients.
        tied_initialization: Whether the encoder starts as the transpose of the decoder,
            so that a unit responds to its own dictionary row from the first step. None
            means False without a sparsity or with a regularizer, and True otherwise.
        centering: Whether the encoder subtracts the mean of the data with a
            `keras_sae.layers.Centering`. Centering reduces the number of dead ReLU
            units. Published hyperparameters assume False.
        scaling: Whether the encoder scales the data to a mean square of 1 with a
            `keras_sae.layers.Scaling`, and the decoder scales its output back. Call
            `adapt` before `fit`. Published hyperparameters of `TopK`, `JumpReLU` and
            `Gated` assume data of this scale. The loss is still measured in the data's
            original units.
        kernel_regularizer: Regularizer of every kernel (weight decay).
        name: Name of the model.
        **kwargs: Further arguments of `keras_sae.layers.SparseDense`, such as
            `kernel_initializer`.

    Returns:
        A `keras_sae.models.Autoencoder`.

    Raises:
        ValueError: An argument is out of range, or `contractive` does not support
            the sparsity or the activation.

    Reference:
        - [Vincent et al., 2008](https://dl.acm.org/doi/10.1145/1390156.1390294),
          denoising autoencoders
        - [Rifai et al., 2011](https://icml.cc/2011/papers/455_icmlpaper.pdf),
          contractive autoencoders

    Example:

    >>> import numpy as np
    >>> from keras_sae import models, regularizers
    >>> model = models.shallow((8, 8, 1), units=16, sparsity=regularizers.L1(1e-4))
    >>> model.compile("adam")
    >>> x = np.random.default_rng(0).random((32, 8, 8, 1), dtype="float32")
    >>> sorted(model.fit(x, verbose=0).history)[:3]
    ['explained_variance', 'l0', 'loss']
    """
    sparsity = get_sparsity(sparsity)
    is_hard = sparsity is not None and not isinstance(sparsity, ActivityPenalty)
    if unit_norm is None:
        unit_norm = sparsity is not None and sparsity.scale_dependent
    if tied_initialization is None:
        tied_initialization = is_hard
    decoder_options: dict[str, Any] = {"kernel_regularizer": kernel_regularizer}
    if unit_norm:
        decoder_options |= building_blocks.unit_norm_options(is_hard)
    # With a transposed kernel, the gradients of active units are contiguous in memory.
    selects = sparsity is not None and sparsity.selects and not sparsity.has_penalty
    kwargs.setdefault("transposed_kernel", selects and not tied)
    encoder, decoder = building_blocks.dense_models(
        building_blocks.known_shape(input_shape),
        [positive_integer("units", units)],
        [sparsity],
        [activation],
        output_activation,
        tied=tied,
        corruption=corruption,
        unit_norm=unit_norm,
        tied_initialization=tied_initialization,
        centering=centering,
        scaling=scaling,
        kernel_regularizer=kernel_regularizer,
        decoder_options=decoder_options,
        **kwargs,
    )
    return Autoencoder(encoder, decoder, contractive=contractive, name=name)
