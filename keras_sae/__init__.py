"""Sparse autoencoders for Keras 3: layers, models, training and evaluation."""

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

__version__ = "0.1.0"
