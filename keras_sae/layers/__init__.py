"""Keras layers that make, use or penalise a sparse code."""

from keras_sae.layers.activity_penalty import ActivityPenalty as ActivityPenalty
from keras_sae.layers.aux_k import AuxK as AuxK
from keras_sae.layers.gated import Gated as Gated
from keras_sae.layers.jump_relu import JumpReLU as JumpReLU
from keras_sae.layers.lifetime_sparsity import LifetimeSparsity as LifetimeSparsity
from keras_sae.layers.matryoshka import Matryoshka as Matryoshka
from keras_sae.layers.noise import MaskingNoise as MaskingNoise
from keras_sae.layers.noise import SaltAndPepperNoise as SaltAndPepperNoise
from keras_sae.layers.normalization import Centering as Centering
from keras_sae.layers.normalization import Scaling as Scaling
from keras_sae.layers.sampling import Sampling as Sampling
from keras_sae.layers.serialization import get as get_sparsity
from keras_sae.layers.sparse_dense import SparseDense as SparseDense
from keras_sae.layers.sparsity import Sparsity as Sparsity
from keras_sae.layers.tied import TiedConv2DTranspose as TiedConv2DTranspose
from keras_sae.layers.tied import TiedDense as TiedDense
from keras_sae.layers.tied import tying as tying
from keras_sae.layers.top_k import BatchTopK as BatchTopK
from keras_sae.layers.top_k import TopK as TopK
from keras_sae.layers.unit_norm_dense import UnitNormDense as UnitNormDense

__all__ = [
    "ActivityPenalty",
    "AuxK",
    "BatchTopK",
    "Centering",
    "Gated",
    "JumpReLU",
    "LifetimeSparsity",
    "MaskingNoise",
    "Matryoshka",
    "SaltAndPepperNoise",
    "Sampling",
    "Scaling",
    "SparseDense",
    "Sparsity",
    "TiedConv2DTranspose",
    "TiedDense",
    "TopK",
    "UnitNormDense",
    "get_sparsity",
    "tying",
]
