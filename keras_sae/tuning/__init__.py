"""Hyperparameter search for sparse autoencoders with keras-tuner."""

from keras_sae.tuning.hypermodel import SparsityHyperModel as SparsityHyperModel
from keras_sae.tuning.objectives import ReconstructionUnderL0 as ReconstructionUnderL0
from keras_sae.tuning.results import ConstraintError as ConstraintError
from keras_sae.tuning.results import FailedTrialsError as FailedTrialsError
from keras_sae.tuning.results import best_model as best_model
from keras_sae.tuning.results import pareto_front as pareto_front
from keras_sae.tuning.results import trials as trials
from keras_sae.tuning.search import search as search
from keras_sae.tuning.workers import launch_workers as launch_workers

__all__ = [
    "ConstraintError",
    "FailedTrialsError",
    "ReconstructionUnderL0",
    "SparsityHyperModel",
    "best_model",
    "launch_workers",
    "pareto_front",
    "search",
    "trials",
]
