"""Export trained models for TensorFlow Serving."""

from keras_sae.export.saved_model import export_saved_model as export_saved_model
from keras_sae.export.saved_model import write_artifact as write_artifact

__all__ = ["export_saved_model", "write_artifact"]
