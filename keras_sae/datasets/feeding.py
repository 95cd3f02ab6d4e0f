"""Arrays as batches, for training on TensorFlow."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import tensorflow as tf


def feed(arrays: Sequence[np.ndarray], batch_size: int) -> "tf.data.Dataset":
    """Returns the batches of one epoch of arrays, in the order that `fit` takes.

    The order is drawn as Keras draws it for arrays, so a seed gives the same
    training. What is left out is tf.data's search for settings of its own and its
    rewriting of the pipeline: a batch is one `gather`, there is nothing to search, and
    with the search on the end of an epoch waits at times, for a second and more.

    Args:
        arrays: Of shape `(samples, ...)` each: `x`, and its target if it has one.
        batch_size: Samples a batch; the last one may be smaller.

    Returns:
        A dataset of known length, whose elements are tuples of one batch an array.

    Example:

    >>> import numpy as np
    >>> from keras_sae.datasets.feeding import feed
    >>> [len(x) for x, y in feed([np.zeros((5, 3)), np.arange(5)], batch_size=2)]
    [2, 2, 1]
    """
    import tensorflow as tf

    samples = len(arrays[0])
    even = samples % batch_size == 0
    tensors = tuple(tf.convert_to_tensor(array) for array in arrays)

    def order(_: "tf.Tensor") -> "tf.Tensor":
        return tf.random.shuffle(tf.range(samples, dtype=tf.int64))

    def split(indices: "tf.Tensor") -> "tf.data.Dataset":
        # Where all batches are of one size it is known to the step, as with Keras.
        return tf.data.Dataset.from_tensor_slices(indices).batch(batch_size, even)

    def take(indices: "tf.Tensor") -> tuple["tf.Tensor", ...]:
        return tuple(tf.gather(tensor, indices) for tensor in tensors)

    options = tf.data.Options()
    options.autotune.enabled = False
    # To rewrite the pipeline, tf.data would write all of it down: one more copy of the
    # arrays, for nothing that it could do better here.
    options.experimental_optimization.apply_default_optimizations = False
    # As Keras: workers take samples of their own, not the same file's.
    options.experimental_distribute.auto_shard_policy = (
        tf.data.experimental.AutoShardPolicy.DATA
    )
    batches = tf.data.Dataset.range(1).map(order).flat_map(split).map(take).prefetch(2)
    # Of a dataset of unknown length Keras takes a step too many every epoch.
    steps = -(-samples // batch_size)
    known = batches.apply(tf.data.experimental.assert_cardinality(steps))
    return known.with_options(options)
