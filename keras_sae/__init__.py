"""Sparse autoencoders for Keras 3: layers, models, training and evaluation."""

import importlib
from typing import TYPE_CHECKING, Any

from keras_sae import callbacks as callbacks
from keras_sae import datasets as datasets
from keras_sae import evaluation as evaluation
from keras_sae import export as export
from keras_sae import layers as layers
from keras_sae import metrics as metrics
from keras_sae import models as models
from keras_sae import plots as plots
from keras_sae import pretraining as pretraining
from keras_sae import regularizers as regularizers
from keras_sae import report as report
from keras_sae import wrappers as wrappers

if TYPE_CHECKING:
    from keras_sae import tuning as tuning

__version__ = "0.1.0"

# Imported when first asked for: its classes are keras-tuner's, which is heavy.
_LATER = frozenset({"tuning"})


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
