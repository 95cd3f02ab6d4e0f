"""Layers and sparsities from which sparse autoencoders are built."""

from keras_sae.layers.activity_penalty import ActivityPenalty
from keras_sae.layers.aux_k import AuxK
from keras_sae.layers.gated import Gated
from keras_sae.layers.jump_relu import JumpReLU
from keras_sae.layers.lifetime_sparsity import LifetimeSparsity
from keras_sae.layers.matryoshka import Matryoshka
from keras_sae.layers.noise import MaskingNoise, SaltAndPepperNoise
from keras_sae.layers.normalization import Centering, Scaling
from keras_sae.layers.sampling import Sampling
from keras_sae.layers.serialization import get as get_sparsity
from keras_sae.layers.sparse_dense import SparseDense
from keras_sae.layers.sparsity import Sparsity
from keras_sae.layers.tied import TiedConv2DTranspose, TiedDense, tying
from keras_sae.layers.top_k import BatchTopK, TopK
from keras_sae.layers.unit_norm_dense import UnitNormDense

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
