"""Sparse autoencoders as scikit-learn has its transformers.

scikit-learn is imported when the class is first asked for, not before.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from keras_sae.wrappers.autoencoder import SparseAutoencoder as SparseAutoencoder

__all__ = ["SparseAutoencoder"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from keras_sae.wrappers import autoencoder

    return getattr(autoencoder, name)
