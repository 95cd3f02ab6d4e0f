"""Sparse at every level, to be trained one level at a time."""

from typing import Any

from keras_sae.models import building_blocks
from keras_sae.models.autoencoder import Autoencoder
from keras_sae.models.deep import deep


def stacked(
    input_shape: Any,
    units: Any,
    sparsity: Any = None,
    *,
    activation: Any = "auto",
    tied: bool = False,
    name: str = "stacked",
    **kwargs: Any,
) -> Autoencoder:
    """Makes a stack of sparse autoencoders: the code of each is the next one's input.

    `h_l = sparsity(f_l(h_{l-1} W_l + b_l))` for `l = 1 ... L`, decoded in reverse

    It is `keras_sae.models.deep` with a sparsity at every level. `model.levels` are
    the levels one by one, which `keras_sae.pretraining` trains before `fit` trains
    the whole.

    Args:
        input_shape: Shape of one sample without the batch, e.g. `(28, 28, 1)`.
        units: Width of each level, outermost first.
        sparsity: As in `keras_sae.models.shallow`, and then of every level; or a
            list or tuple with one entry a level, None where a level has none.
        activation: Of every level but code and output; `"auto"` is what each
            level's sparsity needs.
        tied: Whether each level's decoder uses its encoder's kernel, transposed.
        name: Name of the model.
        **kwargs: Further arguments of `keras_sae.models.deep`, such as
            `output_activation`, `corruption` and `kernel_regularizer`.

    Returns:
        A `keras_sae.models.Autoencoder`.

    Raises:
        ValueError: As in `keras_sae.models.deep`.

    Reference:
        Bengio et al., "Greedy layer-wise training of deep networks", NIPS 2007;
        UFLDL, "Stacked autoencoders", 2011.

    Example:

    >>> from keras_sae import models
    >>> model = models.stacked((8, 8, 1), units=(32, 16), sparsity="kl")
    >>> [layer.activation.__name__ for layer in model.sparse_layers]
    ['sigmoid', 'sigmoid']
    >>> [layer.name for layer in model.levels[0].encode]
    ['flatten', 'center', 'encode_1']
    """
    units = building_blocks.widths(units)
    count = len(units)
    everywhere = building_blocks.sparsities(sparsity, count, everywhere=True)
    return deep(
        input_shape,
        units,
        everywhere,
        activation=activation,
        tied=tied,
        name=name,
        **kwargs,
    )
