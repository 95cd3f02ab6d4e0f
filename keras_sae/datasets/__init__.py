"""Datasets for autoencoders: images, your own files, and synthetic data.

`"digits"`, `"fashion_mini"` and `"natural_patches"` are builders for TensorFlow
Datasets (TFDS). They read images shipped with scikit-learn or with this package, so
they need no network. They are prepared on first use and cached like any other TFDS
dataset.
"""

from keras_sae.datasets.loading import load, load_data
from keras_sae.datasets.superposition import Superposition, superposition, zipf

__all__ = ["Superposition", "load", "load_data", "superposition", "zipf"]
