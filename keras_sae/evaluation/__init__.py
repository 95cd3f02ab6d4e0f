"""Evaluation of trained models: metrics, linear probes, and comparisons."""

from keras_sae.evaluation.baselines import (
    PCA,
    DictionaryLearning,
    Identity,
    RandomEncoder,
)
from keras_sae.evaluation.comparison import compare, pareto_front, summarize, sweep
from keras_sae.evaluation.evaluate import copying, evaluate
from keras_sae.evaluation.examples import top_examples
from keras_sae.evaluation.fidelity import feature_effects, fidelity
from keras_sae.evaluation.probing import probe
from keras_sae.evaluation.sparse_probe import sparse_probe

__all__ = [
    "PCA",
    "DictionaryLearning",
    "Identity",
    "RandomEncoder",
    "compare",
    "copying",
    "evaluate",
    "feature_effects",
    "fidelity",
    "pareto_front",
    "probe",
    "sparse_probe",
    "summarize",
    "sweep",
    "top_examples",
]
