"""The decoder of a sparse code: a dense layer whose kernel is a dictionary."""

from typing import Any

import keras
from keras import ops

from keras_sae.ops import sparse_code
from keras_sae.ops.sparse_code import SparseCode
from keras_sae.utils.serialization import register


@register
class UnitNormDense(keras.layers.Dense):
    """Dense layer whose kernel's rows, the atoms, stay at unit norm.

    `r = activation(h A + c)`, `|A_j| = 1`

    A gradient is taken along the sphere: `dA_j <- dA_j - (dA_j . A_j) A_j`. The part
    along the atom would be undone by the norm, but not before an optimizer with
    moments has remembered it.

    `keras_sae.models.shallow` decodes with this layer behind a hard sparsity, and
    `deep` with `unit_norm=True`. Behind a hard sparsity the model hands over the
    entries of the code that are on, and no product is made with the rest.

    Args:
        units: Width of the output.
        activation: As in `keras.layers.Dense`.
        **kwargs: Those of `keras.layers.Dense`. `kernel_constraint` is set to
            `keras.constraints.UnitNorm(axis=1)`.

    Input shape:
        `(batch, ..., code_units)`.

    Output shape:
        `(batch, ..., units)`.

    Reference:
        Bricken et al., "Towards Monosemanticity", 2023.

    Example:

    >>> import numpy as np
    >>> from keras_sae import layers
    >>> layer = layers.UnitNormDense(8)
    >>> layer.build((None, 32))
    >>> norms = np.linalg.norm(np.asarray(layer.kernel), axis=1)
    >>> bool(abs(norms - 1).max() < 1e-6)
    True
    """

    def __init__(self, units: int, activation: Any = None, **kwargs: Any) -> None:
        kwargs["kernel_constraint"] = keras.constraints.UnitNorm(axis=1)
        super().__init__(units, activation, **kwargs)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Makes the atoms, at unit norm, and the bias."""
        super().build(input_shape)
        # Keras applies a constraint only after an update.
        self.kernel.assign(self.kernel_constraint(ops.convert_to_tensor(self.kernel)))

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Returns the outputs."""
        del training
        atoms = along_sphere(ops.cast(self.kernel, self.compute_dtype))
        return self._finish(ops.matmul(inputs, atoms))

    def decode(self, code: SparseCode) -> Any:
        """Return the outputs for a sparse code."""
        atoms = along_sphere(ops.cast(self.kernel, self.compute_dtype))
        return self._finish(sparse_code.decode(code, atoms))

    def _finish(self, x: Any) -> Any:
        if self.bias is not None:
            x = ops.add(x, ops.cast(self.bias, self.compute_dtype))
        return x if self.activation is None else self.activation(x)


def along_sphere(atoms: Any) -> Any:
    """Returns `atoms`, whose gradient loses its part along each of them.

    Args:
        atoms: Rows of unit norm.
    """

    @ops.custom_gradient
    def project(atoms: Any) -> tuple[Any, Any]:
        def gradient(*args: Any, upstream: Any = None) -> Any:
            by_atoms = args[-1] if upstream is None else upstream
            along = ops.sum(by_atoms * atoms, axis=1, keepdims=True)
            return by_atoms - along * atoms

        return atoms, gradient

    return project(ops.convert_to_tensor(atoms))
