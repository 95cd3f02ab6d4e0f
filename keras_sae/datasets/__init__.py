"""Datasets for autoencoders: images from TensorFlow Datasets (TFDS), synthetic data.

`"digits"`, `"fashion_mini"` and `"natural_patches"` are TFDS builders that read images
shipped with scikit-learn or with this package, so they need no network. They are
prepared on first use and cached like any other TFDS dataset.
"""

from keras_sae.datasets.loading import load, load_data
from keras_sae.datasets.superposition import Superposition, superposition, zipf

__all__ = ["Superposition", "load", "load_data", "superposition", "zipf"]
