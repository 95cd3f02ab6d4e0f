"""Preparation of a model's data and optimizer for Keras's training loop."""

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keras_sae.models.validation import is_array, is_dataset
from keras_sae.types import Data, Tensor

if TYPE_CHECKING:
    import tensorflow as tf

# Arguments of `fit` that have the same meaning for an array and for a dataset.
_DATASET_ARGUMENTS = {
    "x",
    "y",
    "batch_size",
    "callbacks",
    "epochs",
    "initial_epoch",
    "shuffle",
    "validation_batch_size",
    "validation_data",
    "validation_freq",
    "validation_steps",
    "verbose",
}


def fit_arguments(arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments to call `keras.Model.fit` with.

    On TensorFlow, arrays become an `array_dataset` of the same batches in the same
    order. Sample weights without a target get `x` as the target, because Keras ignores
    the weights otherwise.
    """
    x, y = arguments.get("x"), arguments.get("y")
    if arguments.get("validation_data") is not None:
        x_val, y_val, weight = keras.utils.unpack_x_y_sample_weight(
            arguments["validation_data"]
        )
        if weight is not None:
            y_val = weighted_target(x_val, y_val, weight)
            arguments["validation_data"] = (x_val, y_val, weight)
    if is_dataset(x):
        # The default, True, makes Keras warn that it does not shuffle datasets.
        return {"shuffle": False, **arguments}
    arguments["y"] = weighted_target(x, y, arguments.get("sample_weight"))
    arrays: list[Tensor] = [x] if y is None else [x, y]
    if (
        keras.config.backend() != "tensorflow"
        or arguments.keys() - _DATASET_ARGUMENTS
        or arguments.get("shuffle", True) is not True
        or not all(isinstance(array, np.ndarray) for array in arrays)
        # Keras casts every other type.
        or any(array.dtype.name != keras.config.floatx() for array in arrays)
    ):
        return arguments
    batch_size = arguments.get("batch_size") or 32
    return {
        **arguments,
        "x": array_dataset(arrays, batch_size),
        "y": None,
        "batch_size": None,
        "shuffle": False,
        "validation_batch_size": arguments.get("validation_batch_size") or batch_size,
    }


def weighted_target(
    x: Data | None, y: Data | None, sample_weight: Tensor | None
) -> Data | None:
    """Return `y`, or `x` if there are sample weights but no target.

    Keras ignores the weights of samples that have no target.
    """
    return x if y is None and sample_weight is not None and is_array(x) else y


def array_dataset(arrays: Sequence[np.ndarray], batch_size: int) -> "tf.data.Dataset":
    """Return the shuffled batches of one epoch of arrays.

    The order is drawn as in Keras, so a random seed gives the same training. The
    autotuning of tf.data is disabled: a batch is one `tf.gather`, and autotuning would
    delay the end of some epochs by a second or more.

    Args:
        arrays: Arrays of shape `(samples, ...)`, the input and the target if any. Each
            is copied at most once.
        batch_size: Samples per batch. The last batch may be smaller.

    Returns:
        A dataset of known length that yields tuples of one batch per array.
    """
    import tensorflow as tf

    samples = len(arrays[0])
    with tf.device("CPU:0"):
        # `tf.convert_to_tensor` would copy twice: to own the values and to align them.
        tensors = tuple(tf.raw_ops.Identity(input=array) for array in arrays)

    def shuffled_indices(_: "tf.Tensor") -> "tf.data.Dataset":
        indices = tf.random.shuffle(tf.range(samples, dtype=tf.int64))
        # With `drop_remainder` the batch size is static, as it is in Keras.
        return tf.data.Dataset.from_tensor_slices(indices).batch(
            batch_size, drop_remainder=samples % batch_size == 0
        )

    def take(
        indices: "tf.Tensor", data: tuple["tf.Tensor", ...]
    ) -> tuple["tf.Tensor", ...]:
        return tuple(tf.gather(tensor, indices) for tensor in data)

    options = tf.data.Options()
    options.autotune.enabled = False
    # Graph rewrites serialize the dataset, which would copy the arrays once more.
    options.experimental_optimization.apply_default_optimizations = False
    options.experimental_distribute.auto_shard_policy = (
        tf.data.experimental.AutoShardPolicy.DATA
    )
    # The arrays are elements, because memory that a function closes over is released
    # only by Python's garbage collector.
    data = tf.data.Dataset.from_tensors(tensors).repeat()
    indices = tf.data.Dataset.range(1).flat_map(shuffled_indices)
    batches = tf.data.Dataset.zip((indices, data)).map(take).prefetch(2)
    # Keras runs one step too many per epoch if the length is unknown.
    length = tf.data.experimental.assert_cardinality(-(-samples // batch_size))
    return batches.apply(length).with_options(options)


def build_optimizer(model: keras.Model) -> None:
    """Create the optimizer's variables before the first training step.

    TensorFlow traces a step twice if the first trace creates variables. Tracing
    takes most of the time of a short `fit`.

    Args:
        model: A model. It is left unchanged if it is not compiled.
    """
    if not model.compiled or model.optimizer is None or model.optimizer.built:
        return
    strategy = getattr(model, "distribute_strategy", None)  # on TensorFlow
    with strategy.scope() if strategy else contextlib.nullcontext():
        model.optimizer.build(model.trainable_variables)


def replicas(model: keras.Model) -> int:
    """Return the number of replicas over which Keras distributes a batch."""
    strategy = getattr(model, "distribute_strategy", None)  # on TensorFlow
    return strategy.num_replicas_in_sync if strategy else 1
