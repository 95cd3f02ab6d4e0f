"""Registration of the classes of this package with Keras's serialization."""

import keras

# Class decorator: register as "keras_sae>NAME", so that `.keras` files load.
register = keras.saving.register_keras_serializable(package="keras_sae")
