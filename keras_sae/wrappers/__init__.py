"""scikit-learn estimators made of the models of this package."""

from keras_sae.wrappers.sklearn import SparseAutoencoder

__all__ = ["SparseAutoencoder"]
