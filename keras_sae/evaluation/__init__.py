"""What models have learned, in figures, and beside baselines."""

from keras_sae.evaluation.baselines import PCA as PCA
from keras_sae.evaluation.baselines import DictionaryLearning as DictionaryLearning
from keras_sae.evaluation.baselines import Identity as Identity
from keras_sae.evaluation.baselines import RandomEncoder as RandomEncoder
from keras_sae.evaluation.comparison import compare as compare
from keras_sae.evaluation.comparison import fine_tuned as fine_tuned
from keras_sae.evaluation.comparison import held_out as held_out
from keras_sae.evaluation.comparison import sweep as sweep
from keras_sae.evaluation.figures import copying as copying
from keras_sae.evaluation.figures import evaluate as evaluate
from keras_sae.evaluation.figures import parameters as parameters
from keras_sae.evaluation.figures import target as target
from keras_sae.evaluation.probing import cross_probe as cross_probe
from keras_sae.evaluation.probing import few as few
from keras_sae.evaluation.probing import probe as probe
from keras_sae.evaluation.tables import active_units as active_units
from keras_sae.evaluation.tables import pareto_front as pareto_front
from keras_sae.evaluation.tables import summarize as summarize
from keras_sae.evaluation.training import run_name as run_name

__all__ = [
    "PCA",
    "DictionaryLearning",
    "Identity",
    "RandomEncoder",
    "active_units",
    "compare",
    "copying",
    "cross_probe",
    "evaluate",
    "few",
    "fine_tuned",
    "held_out",
    "parameters",
    "pareto_front",
    "probe",
    "run_name",
    "summarize",
    "sweep",
    "target",
]
