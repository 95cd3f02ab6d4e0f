"""Intercept, capture, record and replace the outputs of any Keras model's layers."""

from keras_sae.activations.capture import capture
from keras_sae.activations.edits import Edit, ablate, clamp, scale
from keras_sae.activations.intercept import intercept
from keras_sae.activations.paths import layer_paths
from keras_sae.activations.record import record
from keras_sae.activations.splice import SplicedModel, splice
from keras_sae.activations.steer import steer
from keras_sae.activations.store import ActivationStore
from keras_sae.activations.stream import stream

__all__ = [
    "ActivationStore",
    "Edit",
    "SplicedModel",
    "ablate",
    "capture",
    "clamp",
    "intercept",
    "layer_paths",
    "record",
    "scale",
    "splice",
    "steer",
    "stream",
]
