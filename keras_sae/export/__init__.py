"""Write a trained model as a SavedModel that TensorFlow Serving runs."""

from keras_sae.export.saved_model import export_saved_model as export_saved_model
from keras_sae.export.saved_model import write_artifact as write_artifact

__all__ = ["export_saved_model", "write_artifact"]
