"""scikit-learn estimators built from this package's models."""

from keras_sae.wrappers.sklearn import SparseAutoencoder

__all__ = ["SparseAutoencoder"]
