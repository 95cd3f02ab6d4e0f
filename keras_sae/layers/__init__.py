"""Keras layers that make, use or penalise a sparse code."""

from keras_sae.layers.centering import Centering as Centering
from keras_sae.layers.corruption import MaskingNoise as MaskingNoise
from keras_sae.layers.corruption import SaltAndPepper as SaltAndPepper
from keras_sae.layers.penalty import Penalty as Penalty
from keras_sae.layers.sampling import Sampling as Sampling
from keras_sae.layers.sparse_dense import SparseDense as SparseDense
from keras_sae.layers.sparsity import get as get_sparsity
from keras_sae.layers.tied_dense import TiedDense as TiedDense
from keras_sae.layers.tied_dense import tying as tying

__all__ = [
    "Centering",
    "MaskingNoise",
    "Penalty",
    "SaltAndPepper",
    "Sampling",
    "SparseDense",
    "TiedDense",
    "get_sparsity",
    "tying",
]
