"""Outputs of the layers of any Keras model."""

from keras_sae.activations.intercept import intercept
from keras_sae.activations.paths import layer_paths

__all__ = ["intercept", "layer_paths"]
