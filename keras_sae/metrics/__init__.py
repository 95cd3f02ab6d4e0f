"""Metrics of codes, reconstructions and dictionaries.

Functions take whole arrays. Classes are Keras metrics, updated batch by batch in `fit`.
"""

from keras_sae.metrics.dictionary import f1 as f1
from keras_sae.metrics.dictionary import matching as matching
from keras_sae.metrics.dictionary import recovery_score as recovery_score
from keras_sae.metrics.dictionary import uniqueness as uniqueness
from keras_sae.metrics.reconstruction import ExplainedVariance as ExplainedVariance
from keras_sae.metrics.reconstruction import explained_variance as explained_variance
from keras_sae.metrics.reconstruction import shrinkage as shrinkage
from keras_sae.metrics.sparsity import L0 as L0
from keras_sae.metrics.sparsity import ExpectedL0 as ExpectedL0
from keras_sae.metrics.sparsity import dead_fraction as dead_fraction
from keras_sae.metrics.sparsity import hoyer as hoyer
from keras_sae.metrics.sparsity import l0 as l0

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
