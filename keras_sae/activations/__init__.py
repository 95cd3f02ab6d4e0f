"""Outputs of the layers of any Keras model."""

from keras_sae.activations.capture import capture
from keras_sae.activations.intercept import intercept
from keras_sae.activations.paths import layer_paths

__all__ = ["capture", "intercept", "layer_paths"]
