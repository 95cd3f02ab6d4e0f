"""A dense decoder whose kernel is a dictionary of unit-norm rows."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_sae.ops import sparse_code
from keras_sae.ops.sparse_code import SparseCode
from keras_sae.types import ActivationLike, Shape, Tensor
from keras_sae.utils.serialization import register


@register
class UnitNormDense(keras.layers.Dense):
    """Dense layer whose kernel has rows of unit norm, the features of a dictionary.

    `r = activation(h A + c)`, `|A_j| = 1`

    The layer projects gradients onto the tangent space of the unit sphere:
    `dA_j <- dA_j - (dA_j . A_j) A_j`. The component along `A_j` has no lasting effect,
    because the kernel constraint rescales the rows after each update. Without the
    projection, optimizers such as Adam would accumulate it in their moment estimates.

    If the sparsity is a layer such as `TopK`, `keras_sae.models.shallow` uses this
    layer as its decoder by default, unless the weights are tied. Deeper models use it
    with `unit_norm=True`. If the input is a `SparseCode`, the layer uses only the
    kernel rows of the active units.

    Args:
        units: Width of the output.
        activation: As in `keras.layers.Dense`.
        **kwargs: Arguments of `keras.layers.Dense`. `kernel_constraint` is always
            `keras.constraints.UnitNorm(axis=1)`.

    Input shape:
        `(batch, ..., code_units)`.

    Output shape:
        `(batch, ..., units)`.

    References:
        [Bricken et al., "Towards Monosemanticity", 2023](
        https://transformer-circuits.pub/2023/monosemantic-features).

    Example:

    >>> import numpy as np
    >>> from keras_sae import layers
    >>> layer = layers.UnitNormDense(8)
    >>> layer.build((None, 32))
    >>> norms = np.linalg.norm(np.asarray(layer.kernel), axis=1)
    >>> bool(abs(norms - 1).max() < 1e-6)
    True
    """

    def __init__(
        self, units: int, activation: ActivationLike = None, **kwargs: Any
    ) -> None:
        kwargs["kernel_constraint"] = keras.constraints.UnitNorm(axis=1)
        super().__init__(units, activation, **kwargs)

    def build(self, input_shape: Shape) -> None:
        """Create the dictionary, with unit-norm rows, and the bias."""
        super().build(input_shape)
        # Keras applies a constraint only after an update.
        self.kernel.assign(self.kernel_constraint(ops.convert_to_tensor(self.kernel)))

    def call(
        self,
        inputs: Tensor | SparseCode,
        training: bool | None = None,
        widths: Sequence[int] = (),
    ) -> Tensor:
        """Return the outputs for a code, with `widths` as in `sparse_code.decode`."""
        del training
        kernel = project_gradient(ops.cast(self.kernel, self.compute_dtype))
        if isinstance(inputs, SparseCode):
            x = sparse_code.decode(inputs, kernel, widths)
        else:
            x = ops.matmul(inputs, kernel)
        if self.bias is not None:
            x = ops.add(x, ops.cast(self.bias, self.compute_dtype))
        return x if self.activation is None else self.activation(x)


@ops.custom_gradient
def project_gradient(rows: Tensor) -> tuple[Tensor, Any]:
    """Return unit-norm `rows`, with gradients projected onto the tangent space."""

    def gradient(*args: Tensor, upstream: Tensor | None = None) -> Tensor:
        d_rows = args[-1] if upstream is None else upstream
        along = ops.sum(d_rows * rows, axis=1, keepdims=True)
        return d_rows - along * rows

    return rows, gradient
