"""Data for autoencoders: any TFDS set of images, two of them embedded.

`"digits"` and `"natural_patches"` are TensorFlow Datasets (TFDS) builders whose
source is what scikit-learn ships, so they need no network. They are prepared on
first use and cached like any other TFDS set.
"""

from keras_sae.datasets.loading import load as load
from keras_sae.datasets.loading import load_data as load_data
from keras_sae.datasets.superposition import Superposition as Superposition
from keras_sae.datasets.superposition import superposition as superposition
from keras_sae.datasets.superposition import zipf as zipf

__all__ = [
    "Superposition",
    "load",
    "load_data",
    "superposition",
    "zipf",
]
