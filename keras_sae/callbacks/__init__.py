"""What watches or steers a fit."""

from keras_sae.callbacks.dead_units import DeadUnits as DeadUnits
from keras_sae.callbacks.target import SparsityTarget as SparsityTarget
from keras_sae.callbacks.tensorboard import TensorBoard as TensorBoard
from keras_sae.callbacks.warmup import SparsityWarmup as SparsityWarmup

__all__ = [
    "DeadUnits",
    "SparsityTarget",
    "SparsityWarmup",
    "TensorBoard",
]
