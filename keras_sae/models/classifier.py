"""Classifiers on top of an autoencoder's code."""

import keras

from keras_sae.layers import forward_pass
from keras_sae.layers.forward_pass import ForwardPass
from keras_sae.models.autoencoder import Autoencoder
from keras_sae.models.validation import check_adapted
from keras_sae.types import Tensor
from keras_sae.utils.serialization import register
from keras_sae.utils.validation import positive_integer


@register
class InferenceModel(keras.Model):
    """Functional model that always runs in inference mode and adds no penalties.

    During `fit`, Keras passes `training=True` to every layer of a functional model,
    even to a layer that was called with `training=False`. This model ignores the
    `training` argument.
    """

    def call(
        self, inputs: Tensor, training: bool | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """Return the outputs in inference mode."""
        del training
        with forward_pass.activate(ForwardPass(self, adds_losses=False)):
            return super().call(inputs, training=False, mask=mask)


def classifier(
    autoencoder: Autoencoder,
    num_classes: int,
    trainable_encoder: bool = True,
    name: str = "classifier",
) -> keras.Model:
    """Create a classifier from the encoder of a trained autoencoder.

    `p = softmax(encoder(x) V + d)`, with a new kernel `V` and a new bias `d`

    An autoencoder learns from unlabeled data, so a classifier that uses its encoder
    usually needs fewer labels than a classifier that starts from random weights.

    The encoder is a copy, so training does not change the autoencoder. The copy always
    runs in inference mode, without corruption, dropout or sampling, and adds no
    sparsity penalties. Weight decay still applies.

    Args:
        autoencoder: A `keras_sae.models.Autoencoder`.
        num_classes: Number of classes, at least 2.
        trainable_encoder: Whether `fit()` trains the encoder in addition to the softmax
            layer. To change this later, set `trainable` on `model.get_layer("encoder")`
            and compile the model again.
        name: Name of the model.

    Returns:
        A functional `keras.Model` from `(batch, *input_shape)` to probabilities of
        shape `(batch, num_classes)`. Its main layers are `"encoder"` and
        `"probabilities"`. Compile it with `"sparse_categorical_crossentropy"` for
        integer labels starting at 0, or with `"categorical_crossentropy"` for one-hot
        labels.

    Raises:
        ValueError: `autoencoder` is not an `Autoencoder`, `adapt()` was not called on a
            model with `scaling=True`, or `num_classes` is below 2.

    Reference:
        [Hinton & Salakhutdinov, 2006](https://doi.org/10.1126/science.1127647)

    Example:

    >>> import numpy as np
    >>> from keras_sae import models
    >>> autoencoder = models.shallow((6,), units=8, sparsity="l1")
    >>> model = models.classifier(autoencoder, num_classes=2)
    >>> model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    >>> x, y = np.random.default_rng(0).random((16, 6)), np.arange(16) % 2
    >>> sorted(model.fit(x, y, verbose=0).history)
    ['accuracy', 'loss']
    """
    if not isinstance(autoencoder, Autoencoder):
        raise ValueError(
            "`autoencoder` must be a `keras_sae.models.Autoencoder`. Received: "
            f"autoencoder={autoencoder!r}."
        )
    check_adapted(autoencoder)
    if positive_integer("num_classes", num_classes) < 2:
        raise ValueError(
            "`num_classes` must be at least 2. Received: num_classes=1. Use 2 for "
            "binary labels."
        )
    copy = keras.models.clone_model(autoencoder.encoder)
    copy.set_weights(autoencoder.encoder.get_weights())
    encoder = InferenceModel(copy.inputs[0], copy.outputs[0], name="encoder")
    if not trainable_encoder:
        encoder.trainable = False
    inputs = keras.Input(encoder.input_shape[1:], name="x")
    code = encoder(inputs)
    if len(code.shape) > 2:  # units at several positions
        code = keras.layers.Flatten()(code)
    probabilities = keras.layers.Dense(num_classes, "softmax", name="probabilities")
    return keras.Model(inputs, probabilities(code), name=name)
