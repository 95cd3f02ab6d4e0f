"""Autoencoders by family: each factory returns an `Autoencoder`."""

from keras_sae.models.autoencoder import Autoencoder as Autoencoder
from keras_sae.models.shallow import shallow as shallow

__all__ = ["Autoencoder", "shallow"]
