"""Layer-wise pretraining: each level is trained alone before the whole."""

from keras_sae.pretraining.boltzmann import boltzmann as boltzmann
from keras_sae.pretraining.greedy import greedy as greedy

__all__ = ["boltzmann", "greedy"]
