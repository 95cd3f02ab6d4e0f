"""Figures of codes and reconstructions: exact on arrays, and streaming in a fit."""

from keras_sae.metrics.figures import dead_fraction as dead_fraction
from keras_sae.metrics.figures import explained_variance as explained_variance
from keras_sae.metrics.figures import hoyer as hoyer
from keras_sae.metrics.figures import l0 as l0
from keras_sae.metrics.recovery import f1 as f1
from keras_sae.metrics.recovery import matching as matching
from keras_sae.metrics.recovery import recovery_score as recovery_score
from keras_sae.metrics.recovery import shrinkage as shrinkage
from keras_sae.metrics.recovery import uniqueness as uniqueness
from keras_sae.metrics.streaming import L0 as L0
from keras_sae.metrics.streaming import ExpectedL0 as ExpectedL0
from keras_sae.metrics.streaming import ExplainedVariance as ExplainedVariance

__all__ = [
    "L0",
    "ExpectedL0",
    "ExplainedVariance",
    "dead_fraction",
    "explained_variance",
    "f1",
    "hoyer",
    "l0",
    "matching",
    "recovery_score",
    "shrinkage",
    "uniqueness",
]
