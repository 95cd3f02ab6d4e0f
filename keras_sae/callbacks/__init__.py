"""Callbacks that monitor or control training."""

from keras_sae.callbacks.dead_units import DeadUnits as DeadUnits
from keras_sae.callbacks.sparsity_target import SparsityTarget as SparsityTarget
from keras_sae.callbacks.sparsity_warmup import SparsityWarmup as SparsityWarmup
from keras_sae.callbacks.tensorboard import TensorBoard as TensorBoard

__all__ = [
    "DeadUnits",
    "SparsityTarget",
    "SparsityWarmup",
    "TensorBoard",
]
