"""Metrics of trained models, linear probes, and comparisons with baselines."""

from keras_sae.evaluation.baselines import PCA as PCA
from keras_sae.evaluation.baselines import DictionaryLearning as DictionaryLearning
from keras_sae.evaluation.baselines import Identity as Identity
from keras_sae.evaluation.baselines import RandomEncoder as RandomEncoder
from keras_sae.evaluation.comparison import compare as compare
from keras_sae.evaluation.comparison import pareto_front as pareto_front
from keras_sae.evaluation.comparison import summarize as summarize
from keras_sae.evaluation.comparison import sweep as sweep
from keras_sae.evaluation.evaluate import copying as copying
from keras_sae.evaluation.evaluate import evaluate as evaluate
from keras_sae.evaluation.probing import probe as probe

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
