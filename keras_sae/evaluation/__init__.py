"""What models have learned, in figures, and beside baselines."""

from keras_sae.evaluation.baselines import PCA as PCA
from keras_sae.evaluation.baselines import RandomEncoder as RandomEncoder
from keras_sae.evaluation.baselines import RawPixels as RawPixels
from keras_sae.evaluation.comparison import compare as compare
from keras_sae.evaluation.comparison import held_out as held_out
from keras_sae.evaluation.comparison import run_name as run_name
from keras_sae.evaluation.figures import copying as copying
from keras_sae.evaluation.figures import evaluate as evaluate
from keras_sae.evaluation.figures import parameters as parameters
from keras_sae.evaluation.probing import cross_probe as cross_probe
from keras_sae.evaluation.probing import probe as probe

__all__ = [
    "PCA",
    "RandomEncoder",
    "RawPixels",
    "compare",
    "copying",
    "cross_probe",
    "evaluate",
    "held_out",
    "parameters",
    "probe",
    "run_name",
]
