"""Metrics of trained models, linear probes, and comparisons with baselines."""

from keras_sae.evaluation.baselines import (
    PCA,
    DictionaryLearning,
    Identity,
    RandomEncoder,
)
from keras_sae.evaluation.comparison import compare, pareto_front, summarize, sweep
from keras_sae.evaluation.evaluate import copying, evaluate
from keras_sae.evaluation.probing import probe

__all__ = [
    "PCA",
    "DictionaryLearning",
    "Identity",
    "RandomEncoder",
    "compare",
    "copying",
    "evaluate",
    "pareto_front",
    "probe",
    "summarize",
    "sweep",
]
