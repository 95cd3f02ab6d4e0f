"""What every layer has that adds a term to the loss: a weight to steer it by."""

from typing import Any

import keras

from keras_sae.layers import _forward


class Weighted(keras.layers.Layer):
    """A layer that adds `scale * value` to the loss, under the name `term`.

    `scale` is a float32 variable, 1 at the start, that callbacks steer:
    `keras_sae.callbacks.SparsityWarmup` and `SparsityTarget`. The layers that
    penalise a code are made from it.

    Input shape:
        That of the layer made from it.

    Output shape:
        The same.

    Example:

    >>> from keras_sae import layers
    >>> penalty = layers.JumpReLU()
    >>> penalty.build((None, 4))
    >>> isinstance(penalty, layers.Weighted), float(penalty.scale)
    (True, 1.0)
    """

    # The term's name in the logs.
    term = "sparsity_loss"

    # Whether a code that the term has made too sparse stays so at a scale of 0, and
    # needs one below 0 to come back.
    lasting = False

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Makes the scale."""
        del input_shape
        self.scale = self.add_weight(
            shape=(),
            initializer="ones",
            name="scale",
            trainable=False,
            dtype="float32",
            autocast=False,
        )

    def add_term(self, value: Any) -> None:
        """Adds `scale * value` to the loss.

        Args:
            value: A float32 scalar.
        """
        _forward.add(self, self.term, self.scale * value)

    def set_progress(self, share: float) -> None:
        """Sets the scale; a warm-up goes from a small share to 1.

        Args:
            share: Of the term's full weight.
        """
        self.scale.assign(share)
