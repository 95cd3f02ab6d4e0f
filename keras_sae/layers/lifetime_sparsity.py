"""Hard sparsity over a batch: each unit is active for its strongest samples only."""

from typing import Any

from keras import ops

from keras_sae.layers import forward_pass
from keras_sae.layers.sparsity import Sparsity
from keras_sae.ops.statistics import expand_weight
from keras_sae.types import Config, Tensor
from keras_sae.utils import validation
from keras_sae.utils.serialization import register


@register
class LifetimeSparsity(Sparsity):
    """Keep each unit active for its strongest samples in the batch (winner-take-all).

    Training: `h_ij = a_ij` if `a_ij` is among the `ceil(fraction * B)` largest
    activations of unit `j` over the batch of `B` samples, else 0. Inference: `h = a`.

    Samples of weight 0 activate no units. Under `tf.distribute`, each replica ranks its
    own samples.

    A unit with a positive activation in the batch is active for at least one sample, so
    units rarely die. Since no activations are set to zero at inference, the codes suit
    classification, but their L0 is not meaningful.

    Args:
        fraction: Fraction of the samples for which a unit is active, between 0 and 1.
        **kwargs: Arguments of `keras.layers.Layer`.

    Input and output shape:
        `(batch, ..., units)`. Each position on the axes before the last one counts as a
        sample.

    Raises:
        ValueError: `fraction` is not between 0 and 1.

    References:
        [Makhzani & Frey, "Winner-Take-All Autoencoders", 2015](
        https://arxiv.org/abs/1409.2752).

    Example:

    >>> import numpy as np
    >>> from keras_sae import layers
    >>> a = np.array([[1.0, 0.0], [3.0, 0.5], [2.0, 0.1]], "float32")
    >>> np.asarray(layers.LifetimeSparsity(0.3)(a, training=True)).tolist()
    [[0.0, 0.0], [3.0, 0.5], [0.0, 0.0]]
    """

    min_batch_size = 2

    def __init__(self, fraction: float = 0.05, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.fraction = validation.fraction("fraction", fraction)

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        """Return `inputs`; in training, keep only each unit's largest activations."""
        if not training:
            return inputs
        lowest = float("-inf")
        weight = forward_pass.sample_weight()
        if weight is not None:
            inputs = ops.where(expand_weight(weight > 0, inputs), inputs, lowest)
        code = ops.reshape(inputs, (-1, inputs.shape[-1]))
        ranked = ops.sort(ops.stop_gradient(code), axis=0)
        samples = ops.sum(ops.cast(ranked[:, 0] > lowest, "float32"))
        # Without the margin, float32 rounding would turn 0.3 * 50 samples into 16.
        winners = ops.cast(ops.ceil(samples * self.fraction - 1e-4), "int32")
        last = ops.shape(code)[0] - ops.maximum(winners, 1)
        wins = ops.logical_and(code >= ops.take(ranked, last, axis=0), code > lowest)
        kept = ops.where(wins, code, ops.zeros_like(code))
        return ops.reshape(kept, ops.shape(inputs))

    def get_config(self) -> Config:
        """Return the constructor's arguments."""
        return {**super().get_config(), "fraction": self.fraction}
