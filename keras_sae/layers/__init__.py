"""Keras layers that make, use or penalise a sparse code."""

from keras_sae.layers._weighted import Weighted as Weighted
from keras_sae.layers.atom_dense import AtomDense as AtomDense
from keras_sae.layers.auxiliary import AuxK as AuxK
from keras_sae.layers.centering import Centering as Centering
from keras_sae.layers.centering import Scaling as Scaling
from keras_sae.layers.corruption import MaskingNoise as MaskingNoise
from keras_sae.layers.corruption import SaltAndPepper as SaltAndPepper
from keras_sae.layers.lifetime import Lifetime as Lifetime
from keras_sae.layers.matryoshka import Matryoshka as Matryoshka
from keras_sae.layers.penalty import Penalty as Penalty
from keras_sae.layers.sampling import Sampling as Sampling
from keras_sae.layers.selection import BatchTopK as BatchTopK
from keras_sae.layers.selection import TopK as TopK
from keras_sae.layers.sparse_dense import SparseDense as SparseDense
from keras_sae.layers.sparsity import get as get_sparsity
from keras_sae.layers.thresholds import Gated as Gated
from keras_sae.layers.thresholds import JumpReLU as JumpReLU
from keras_sae.layers.tied_convolution import (
    TiedConv2DTranspose as TiedConv2DTranspose,
)
from keras_sae.layers.tied_dense import TiedDense as TiedDense
from keras_sae.layers.tied_dense import tying as tying

__all__ = [
    "AtomDense",
    "AuxK",
    "BatchTopK",
    "Centering",
    "Gated",
    "JumpReLU",
    "Lifetime",
    "MaskingNoise",
    "Matryoshka",
    "Penalty",
    "SaltAndPepper",
    "Sampling",
    "Scaling",
    "SparseDense",
    "TiedConv2DTranspose",
    "TiedDense",
    "TopK",
    "Weighted",
    "get_sparsity",
    "tying",
]
