"""Sparse autoencoders with several dense layers."""

from collections.abc import Iterable, Sequence
from typing import Any

import keras

from keras_sae.layers import UnitNormDense
from keras_sae.models import building_blocks
from keras_sae.models.autoencoder import Autoencoder
from keras_sae.types import (
    ActivationLike,
    InitializerLike,
    RegularizerLike,
    SparsityLike,
)


def deep(
    input_shape: int | tuple[int, ...],
    units: int | Iterable[int],
    sparsity: SparsityLike | Sequence[SparsityLike] = None,
    *,
    activation: ActivationLike = "relu",
    code_activation: ActivationLike = "auto",
    tied: bool = False,
    unit_norm: bool = False,
    kernel_initializer: InitializerLike = "glorot_uniform",
    kernel_regularizer: RegularizerLike = None,
    contractive: float = 0.0,
    centering: bool = True,
    name: str = "deep",
    **kwargs: Any,
) -> Autoencoder:
    """Create an autoencoder of any depth whose decoder mirrors its encoder.

    `h_l = sparsity_l(f_l(h_{l-1} W_l + b_l))` for `l = 1 ... L`, `h_0 = x - mean`;
    `r_{l-1} = f_{l-1}(r_l W'_l + c_l)` from `r_L = h_L` to `r_0`

    Here, `f_0` is the output activation. With `centering`, the encoder also subtracts
    the mean of each `h_l` in front of the next layer.

    Smaller weights before the code and larger weights after it lower a penalty that
    depends on the code's scale, such as L1, without changing the reconstruction. To
    prevent this, set `kernel_regularizer`, or `unit_norm` without
    `batch_normalization`.

    Args:
        input_shape: As in `keras_sae.models.shallow`.
        units: Width of each encoder layer, outermost first. The last one is the width
            of the code. `(1000, 500, 250, 30)` creates eight layers in total.
        sparsity: Sparsity of the code, as in `keras_sae.models.shallow`, or a list or
            tuple with one entry per encoder layer, outermost first (None for no
            sparsity).
        activation: Activation of all layers except the code and the output. `"auto"`
            selects the activation that each layer's sparsity recommends.
        code_activation: Activation of the code.
        tied: Whether the decoder uses the transposed kernels of the encoder.
        unit_norm: Whether the rows of each `W'_l` have unit norm. Unless `tied` is
            True, each decoder layer is then a `keras_sae.layers.UnitNormDense`.
        kernel_initializer: Initializer of every kernel.
        kernel_regularizer: Regularizer of every kernel (weight decay).
        contractive: As in `keras_sae.models.shallow`, with the Jacobian of the whole
            encoder. The cost per sample is proportional to `units[0]^2` times the width
            of the code.
        centering: Whether the encoder subtracts the mean of the data and, in front of
            every deeper layer, the moving mean of that layer's inputs. Without the
            moving means, up to three quarters of the code's ReLU units die: outputs of
            ReLU layers are never negative, and a unit whose weights point away from the
            mean of its inputs is inactive for nearly all samples. Published
            hyperparameters assume False.
        name: Name of the model.
        **kwargs: `batch_normalization=True` normalizes the outputs of all layers
            except the code and the output. `output_activation`, `corruption`,
            `scaling`, `tied_initialization` (False by default) and further arguments
            are as in `keras_sae.models.shallow`.

    Returns:
        A `keras_sae.models.Autoencoder`.

    Raises:
        ValueError: `units` is empty or has entries that are not positive integers,
            `sparsity` has a different number of entries, or `contractive` does not
            support a layer.

    Reference:
        [Hinton & Salakhutdinov, 2006](https://doi.org/10.1126/science.1127647)

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
    sample_shape = building_blocks.known_shape(input_shape)
    units = building_blocks.layer_units(units)
    options: dict[str, Any] = {
        "kernel_initializer": kernel_initializer,
        "kernel_regularizer": kernel_regularizer,
    }
    layer_class = UnitNormDense if unit_norm else keras.layers.Dense
    encoder, decoder = building_blocks.dense_models(
        sample_shape,
        units,
        building_blocks.layer_sparsities(sparsity, len(units)),
        [*[activation] * (len(units) - 1), code_activation],
        tied=tied,
        unit_norm=unit_norm,
        centering=centering,
        decoder_options={"layer_class": layer_class, **options},
        **options,
        **kwargs,
    )
    return Autoencoder(encoder, decoder, contractive=contractive, name=name)


def stacked(
    input_shape: int | tuple[int, ...],
    units: int | Iterable[int],
    sparsity: SparsityLike | Sequence[SparsityLike] = None,
    *,
    activation: ActivationLike = "auto",
    tied: bool = False,
    name: str = "stacked",
    **kwargs: Any,
) -> Autoencoder:
    """Create a stack of sparse autoencoders, each of which encodes the previous code.

    `h_l = sparsity(f_l(h_{l-1} W_l + b_l))` for `l = 1 ... L`, decoded in reverse

    This is `keras_sae.models.deep` with a sparsity at every level. To train the levels
    one after the other before `fit` trains the whole model, use a function from
    `keras_sae.pretraining`.

    Args:
        input_shape: As in `keras_sae.models.shallow`.
        units: Width of each level, outermost first.
        sparsity: Sparsity of every level, as in `keras_sae.models.shallow`, or a list
            or tuple with one entry per level (None for no sparsity).
        activation: As in `keras_sae.models.deep`.
        tied: As in `keras_sae.models.deep`.
        name: Name of the model.
        **kwargs: Further arguments of `keras_sae.models.deep`.

    Returns:
        A `keras_sae.models.Autoencoder`.

    Raises:
        ValueError: As in `keras_sae.models.deep`.

    Reference:
        - [Bengio et al., 2007](https://proceedings.neurips.cc/paper/2006/hash/5da713a690c067105aeb2fae32403405-Abstract.html)
        - [UFLDL, Stacked autoencoders](http://ufldl.stanford.edu/wiki/index.php/Stacked_Autoencoders)

    Example:

    >>> from keras_sae import models
    >>> model = models.stacked((8, 8, 1), units=(32, 16), sparsity="kl")
    >>> [layer.activation.__name__ for layer in model.sparse_layers]
    ['sigmoid', 'sigmoid']
    >>> [layer.name for layer in model.levels[0].encode]
    ['flatten', 'center', 'encode_1']
    """
    units = building_blocks.layer_units(units)
    if not isinstance(sparsity, (list, tuple)):
        sparsity = [sparsity] * len(units)
    return deep(
        input_shape,
        units,
        sparsity,
        activation=activation,
        tied=tied,
        name=name,
        **kwargs,
    )
