"""Arrays as batches, for training on TensorFlow."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import tensorflow as tf

# In bytes: at other addresses TensorFlow reads nothing, but copies.
_ALIGNMENT = 64


def feed(arrays: Sequence[np.ndarray], batch_size: int) -> "tf.data.Dataset":
    """Returns the batches of one epoch of arrays, in the order that `fit` takes.

    The order is drawn as Keras draws it for arrays, so a seed gives the same
    training. What is left out is tf.data's search for settings of its own and its
    rewriting of the pipeline: a batch is one `gather`, there is nothing to search, and
    with the search on the end of an epoch waits at times, for a second and more.

    An array is copied once, as its owner may write to it. One of `aligned` that is
    made read-only is not copied at all.

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
    tensors = tuple(_tensor(array) for array in arrays)

    def order(_: "tf.Tensor") -> "tf.Tensor":
        return tf.random.shuffle(tf.range(samples, dtype=tf.int64))

    def split(indices: "tf.Tensor") -> "tf.data.Dataset":
        # Where all batches are of one size it is known to the step, as with Keras.
        return tf.data.Dataset.from_tensor_slices(indices).batch(batch_size, even)

    def take(
        indices: "tf.Tensor", whole: tuple["tf.Tensor", ...]
    ) -> tuple["tf.Tensor", ...]:
        return tuple(tf.gather(tensor, indices) for tensor in whole)

    options = tf.data.Options()
    options.autotune.enabled = False
    # To rewrite the pipeline, tf.data would write all of it down: one more copy of the
    # arrays, for nothing that it could do better here.
    options.experimental_optimization.apply_default_optimizations = False
    # As Keras: workers take samples of their own, not the same file's.
    options.experimental_distribute.auto_shard_policy = (
        tf.data.experimental.AutoShardPolicy.DATA
    )
    # The arrays go in as data: what a function of tf.data closes over is freed only
    # when Python looks for cycles, long after the fit.
    whole = tf.data.Dataset.from_tensors(tensors).repeat()
    indices = tf.data.Dataset.range(1).map(order).flat_map(split)
    batches = tf.data.Dataset.zip((indices, whole)).map(take).prefetch(2)
    # Of a dataset of unknown length Keras takes a step too many every epoch.
    steps = -(-samples // batch_size)
    known = batches.apply(tf.data.experimental.assert_cardinality(steps))
    return known.with_options(options)


def aligned(shape: tuple[int, ...], dtype: Any = "float32") -> np.ndarray:
    """Returns an array of undefined values where TensorFlow can read it in place.

    Args:
        shape: Of the array.
        dtype: Of its values.

    Example:

    >>> from keras_sae.datasets.feeding import aligned
    >>> aligned((2, 3)).shape
    (2, 3)
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    room = np.empty(size + _ALIGNMENT, "uint8")
    start = -room.ctypes.data % _ALIGNMENT
    return room[start : start + size].view(dtype).reshape(shape)


def _tensor(array: np.ndarray) -> "tf.Tensor":
    """An array as a tensor that shares its memory with it, or with the only copy."""
    import tensorflow as tf

    if array.dtype.kind == "V":  # bfloat16, of which NumPy's DLPack knows nothing
        return tf.convert_to_tensor(array)
    own = _lent(array)
    if own is None:
        # `convert_to_tensor` would copy twice: once to own it, once to align it.
        own = aligned(array.shape, array.dtype.newbyteorder("="))
        own[...] = array
    return tf.experimental.dlpack.from_dlpack(own.__dlpack__())


def _lent(array: np.ndarray) -> np.ndarray | None:
    """A view of a read-only array that lies as one of `aligned`; None of any other."""
    flags = array.flags
    if flags.writeable or not flags.c_contiguous or array.ctypes.data % _ALIGNMENT:
        return None
    view = array.view()
    try:
        view.flags.writeable = True  # DLPack hands over nothing else
    except ValueError:  # nobody may write to this memory, so not this view either
        return None
    return view
