"""Sparse autoencoders for Keras 3: layers, models, training and evaluation."""

import importlib
from types import ModuleType
from typing import TYPE_CHECKING

from keras_sae import activations as activations
from keras_sae import callbacks as callbacks
from keras_sae import datasets as datasets
from keras_sae import distribution as distribution
from keras_sae import evaluation as evaluation
from keras_sae import export as export
from keras_sae import layers as layers
from keras_sae import metrics as metrics
from keras_sae import models as models
from keras_sae import pretraining as pretraining
from keras_sae import regularizers as regularizers

if TYPE_CHECKING:
    from keras_sae import beam as beam
    from keras_sae import plots as plots
    from keras_sae import report as report
    from keras_sae import tuning as tuning
    from keras_sae import wrappers as wrappers

__version__ = "0.1.0"

# These modules are imported on first use, because they require Apache Beam, matplotlib,
# Bokeh, keras-tuner and scikit-learn, which are slow to import.
_LAZY = ("beam", "plots", "report", "tuning", "wrappers")


def __getattr__(name: str) -> ModuleType:
    if name in _LAZY:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY])
