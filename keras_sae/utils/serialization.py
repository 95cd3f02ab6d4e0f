"""How a class of this package becomes known to Keras's serialization."""

from typing import TypeVar

import keras

PACKAGE = "keras_sae"

Class = TypeVar("Class", bound=type)


def register(cls: Class) -> Class:
    """Registers `cls` as `"keras_sae>" + its name`, so that `.keras` files load.

    Example:

    >>> import keras
    >>> from keras_sae.regularizers import L1
    >>> keras.saving.get_registered_name(L1)
    'keras_sae>L1'
    """
    return keras.saving.register_keras_serializable(package=PACKAGE)(cls)
