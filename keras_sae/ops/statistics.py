"""Weighted means, and values gathered from the replicas of `tf.distribute`."""

import keras
from keras import ops

from keras_sae.types import Tensor


def expand_weight(weight: Tensor, values: Tensor) -> Tensor:
    """Append axes to `weight`, so that it broadcasts against `values`.

    Args:
        weight: Tensor whose axes match the first axes of `values`.
        values: Tensor of shape `(batch, ...)`.
    """
    for _ in range(len(values.shape) - len(weight.shape)):
        weight = ops.expand_dims(weight, -1)
    return weight


def weighted_mean(values: Tensor, weight: Tensor | None) -> Tensor:
    """Return `sum_i(w_i v_i) / sum_i(w_i)` over the first axis; 0 if all weights are 0.

    Args:
        values: float32 tensor of shape `(batch, ...)`.
        weight: Tensor whose axes match the first axes of `values`, or None for an
            unweighted mean.
    """
    if weight is None:
        count = ops.cast(ops.shape(values)[0], values.dtype)
        return ops.divide_no_nan(ops.sum(values, axis=0), count)
    weight = expand_weight(weight, values)
    total = ops.sum(values * weight, axis=0)
    return ops.divide_no_nan(total, ops.sum(weight, axis=0))


def from_replicas(values: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Return the values of all replicas, stacked along a new first axis.

    Do not call this function in a forward pass. It makes the replicas wait for each
    other, which would mix up the losses that Keras stores on layers.
    """
    stacked = tuple(ops.expand_dims(value, 0) for value in values)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        context = tf.distribute.get_replica_context()
        if context is not None and context.num_replicas_in_sync > 1:
            # Each replica fills its own entry, so the sum contains all values.
            own = tf.range(context.num_replicas_in_sync)
            own = own == context.replica_id_in_sync_group
            stacked = tuple(ops.where(expand_weight(own, v), v, 0.0) for v in stacked)
            return tuple(context.all_reduce(tf.distribute.ReduceOp.SUM, stacked))
    return stacked
