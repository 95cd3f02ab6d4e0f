"""Hard sparsity along the batch: each unit is on for its strongest samples."""

from typing import Any

import keras
from keras import ops

from keras_sae.ops import top_k as _top
from keras_sae.utils import validation as checks
from keras_sae.utils.serialization import register


@register
class LifetimeSparsity(keras.layers.Layer):
    """Keeps each unit on for its strongest samples of the batch (winner-take-all).

    Training: `h_ij = a_ij` if it is among the `ceil(fraction * B)` largest of unit
    `j` over the batch of `B`, else 0. Inference: `h = a`, nothing is zeroed.

    Every unit fires in every batch, so none dies, and each fires rarely.

    Args:
        fraction: Share of the samples that a unit is on for, between 0 and 1.
        **kwargs: Those of `keras.layers.Layer`.

    Input shape:
        `(batch, ..., units)`; every place before the last axis is a sample.

    Output shape:
        The same.

    Raises:
        ValueError: `fraction` is not between 0 and 1.

    Reference:
        Makhzani & Frey, "Winner-Take-All Autoencoders", 2015.

    Example:

    >>> import numpy as np
    >>> from keras_sae import layers
    >>> a = np.array([[1.0, 0.0], [3.0, 0.5], [2.0, 0.1]], "float32")
    >>> np.asarray(layers.LifetimeSparsity(0.3)(a, training=True)).tolist()
    [[0.0, 0.0], [3.0, 0.5], [0.0, 0.0]]
    """

    least_batch = 2

    def __init__(self, fraction: float = 0.05, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.fraction = checks.fraction("fraction", fraction)

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Returns `inputs`; in training each unit's strongest samples alone."""
        if not training:
            return inputs
        code = _top.rows(inputs)
        samples = ops.shape(code)[0]
        # An epsilon below, so that 0.3 of 50 samples are 15 in float32 as well.
        share = ops.cast(samples, "float32") * self.fraction - 1e-4
        winners = ops.maximum(ops.cast(ops.ceil(share), "int32"), 1)
        ranked = ops.sort(ops.stop_gradient(code), axis=0)
        least = ops.take(ranked, samples - winners, axis=0)
        kept = ops.where(code >= least, code, ops.zeros_like(code))
        return ops.reshape(kept, ops.shape(inputs))

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """Returns `input_shape`."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {**super().get_config(), "fraction": self.fraction}
