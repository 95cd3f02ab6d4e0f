"""Metrics of codes, reconstructions and dictionaries.

The functions compute a metric from whole arrays. The classes are Keras metrics, which
`fit` updates batch by batch.
"""

from keras_sae.metrics.dictionary import f1, matching, recovery_score, uniqueness
from keras_sae.metrics.effective_l0 import (
    EffectiveL0,
    effective_l0,
    explained_variance_at,
)
from keras_sae.metrics.reconstruction import (
    ExplainedVariance,
    explained_variance,
    shrinkage,
)
from keras_sae.metrics.sparsity import L0, dead_fraction, hoyer, l0

__all__ = [
    "L0",
    "EffectiveL0",
    "ExplainedVariance",
    "dead_fraction",
    "effective_l0",
    "explained_variance",
    "explained_variance_at",
    "f1",
    "hoyer",
    "l0",
    "matching",
    "recovery_score",
    "shrinkage",
    "uniqueness",
]
