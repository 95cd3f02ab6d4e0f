"""Autoencoders by family, and classifiers on top of their codes."""

from keras_sae.models.autoencoder import Autoencoder as Autoencoder
from keras_sae.models.classifier import classifier as classifier
from keras_sae.models.convolutional import convolutional as convolutional
from keras_sae.models.deep import deep as deep
from keras_sae.models.deep import stacked as stacked
from keras_sae.models.levels import Level as Level
from keras_sae.models.likelihoods import BernoulliLikelihood as BernoulliLikelihood
from keras_sae.models.likelihoods import GaussianLikelihood as GaussianLikelihood
from keras_sae.models.shallow import shallow as shallow
from keras_sae.models.transcoder import Transcoder as Transcoder
from keras_sae.models.transcoder import transcoder as transcoder
from keras_sae.models.variational import (
    VariationalAutoencoder as VariationalAutoencoder,
)
from keras_sae.models.variational import variational as variational

__all__ = [
    "Autoencoder",
    "BernoulliLikelihood",
    "GaussianLikelihood",
    "Level",
    "Transcoder",
    "VariationalAutoencoder",
    "classifier",
    "convolutional",
    "deep",
    "shallow",
    "stacked",
    "transcoder",
    "variational",
]
