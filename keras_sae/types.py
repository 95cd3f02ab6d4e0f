"""Argument types shared across the public API."""

import os
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

import keras
import numpy as np
import numpy.typing as npt
from scipy import sparse

# A tensor of any backend. Keras has no tensor class that all backends share.
Tensor: TypeAlias = Any
ArrayLike: TypeAlias = npt.ArrayLike
PathLike: TypeAlias = str | os.PathLike[str]
Shape: TypeAlias = tuple[int | None, ...]
Config: TypeAlias = dict[str, Any]

# Training data for `fit`: an array, or batches from a `tf.data.Dataset`, a
# `keras.utils.PyDataset`, a data loader or a generator.
Data: TypeAlias = npt.ArrayLike | Iterable[Any]

# Samples of shape `(samples, ...)`, with labels of shape `(samples,)` or None.
LabeledData: TypeAlias = tuple[npt.ArrayLike, npt.ArrayLike | None]

Activation: TypeAlias = Callable[[Tensor], Tensor]
ActivationLike: TypeAlias = str | Activation | None
InitializerLike: TypeAlias = str | Config | keras.initializers.Initializer
RegularizerLike: TypeAlias = str | Config | keras.regularizers.Regularizer | None
ConstraintLike: TypeAlias = str | Config | keras.constraints.Constraint | None
OptimizerLike: TypeAlias = str | Config | keras.optimizers.Optimizer
LossLike: TypeAlias = str | Config | keras.losses.Loss | Callable[..., Tensor]
DTypeLike: TypeAlias = str | keras.DTypePolicy | None
LayerLike: TypeAlias = Config | keras.layers.Layer
# A `keras_sae.layers.Sparsity`, a regularizer, a name such as "l1", or a config.
SparsityLike: TypeAlias = (
    str | Config | keras.layers.Layer | keras.regularizers.Regularizer | None
)
Logs: TypeAlias = dict[str, Any] | None
# Codes of shape `(samples, units)`, as an array or a sparse matrix.
Codes: TypeAlias = np.ndarray | sparse.csr_array
CodesLike: TypeAlias = npt.ArrayLike | sparse.sparray
