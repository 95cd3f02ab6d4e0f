"""Layer-wise pretraining: train each level on its own before the whole model."""

from keras_sae.pretraining.boltzmann import boltzmann as boltzmann
from keras_sae.pretraining.greedy import greedy as greedy

__all__ = ["boltzmann", "greedy"]
