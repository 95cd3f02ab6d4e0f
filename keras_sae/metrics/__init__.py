"""Metrics of codes, reconstructions and dictionaries.

Functions take whole arrays. Classes are Keras metrics, updated batch by batch in `fit`.
"""

from keras_sae.metrics.dictionary import f1, matching, recovery_score, uniqueness
from keras_sae.metrics.reconstruction import (
    ExplainedVariance,
    explained_variance,
    shrinkage,
)
from keras_sae.metrics.sparsity import L0, dead_fraction, hoyer, l0

__all__ = [
    "L0",
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
