"""Data preparation for Keras's training loop."""

import itertools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keras_sae.models.validation import (
    as_numpy,
    check_data,
    dense_numbers,
    is_array,
    is_dataset,
)
from keras_sae.types import Data, Shape, Tensor
from keras_sae.utils.validation import positive_integer

if TYPE_CHECKING:
    import tensorflow as tf

# Packages whose streams of batches Keras can read.
_STREAM_PACKAGES = {"tensorflow", "torch", "grain"}
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


def open_data(
    x: Data | None, y: Tensor | None = None, sample_weight: Tensor | None = None
) -> tuple[Data, Tensor | None, tuple[Tensor, Tensor | None]]:
    """Return data in a form that works on all backends, together with its first batch.

    Args:
        x: As in `keras.Model.fit`.
        y: Target, or None.
        sample_weight: Weights for an array, or None. If weights are given without a
            target, `x` becomes the target, because Keras would otherwise ignore the
            weights.

    Returns:
        `x`, `y`, and the first batch as `(x, y)`. For an array, the first batch
        contains all samples. A generator cannot be restarted, so the returned `x` is a
        new generator that yields the first batch again.

    Raises:
        ValueError: `x` is neither an array nor a stream of batches, has no batches, or
            yields batches with more than one input.
    """
    data, y = _standardize(x), _standardize(y)
    if is_array(data):
        y = data if y is None and sample_weight is not None else y
        return data, y, (data, y)
    packages = {parent.__module__.partition(".")[0] for parent in type(data).__mro__}
    is_stream = isinstance(data, (Iterator, keras.utils.PyDataset))
    if not is_stream and not packages & _STREAM_PACKAGES:
        raise ValueError(
            "`x` must be an array, or batches from a `tf.data.Dataset`, a "
            "`keras.utils.PyDataset`, a PyTorch `DataLoader`, a Grain dataset or a "
            f"generator. Received: {type(data).__name__}. Convert a list with "
            "`numpy.asarray(x, 'float32')`. Instead of `tfds.as_numpy(dataset)`, pass "
            "`dataset`."
        )
    iterator: Iterator[Any] = iter(data)
    batch = next(iterator, None)
    if batch is None:
        raise ValueError(f"`x` must contain at least one batch. Received: {data!r}.")
    if iterator is data:
        data = (entry for entry in itertools.chain([batch], iterator))
    first_x, first_y, _ = keras.utils.unpack_x_y_sample_weight(batch)
    if not is_array(first_x):
        raise ValueError(
            "A stream must yield `x` or `(x, target)`, where each is a single tensor. "
            f"Received: a batch of type {type(batch).__name__}. Select the tensor, for "
            "example with `dataset.map(lambda element: element['image'])`."
        )
    return data, y, (first_x, first_y)


def open_samples(
    x: Data | None, sample_shape: Shape, batch_size: int | None = None
) -> Data:
    """Check samples without a target, and return them as `from_disk` does."""
    x, _, (first, _) = open_data(x)
    check_data(first, sample_shape)
    return from_disk(x, None, None, batch_size)[0]


def sample_batches(
    x: Data | None, sample_shape: Shape, batch_size: int
) -> Iterator[np.ndarray]:
    """Check and yield batches of samples without a target.

    For an array on disk, only one batch at a time is in memory.
    """
    check_finite(x)
    data: Any = open_data(x)[0]
    batches: Iterator[Tensor]
    if is_array(data):
        starts = range(0, max(len(data), 1), positive_integer("batch_size", batch_size))
        batches = (data[start : start + batch_size] for start in starts)
    else:
        batches = (keras.utils.unpack_x_y_sample_weight(batch)[0] for batch in data)
    for batch in batches:
        check_data(batch, sample_shape)
        yield as_numpy(batch).astype(keras.config.floatx(), copy=False)


def _standardize(x: Data | None) -> Tensor:
    """Unwrap a list of one array, drop an unused mask, and use native byte order."""
    if isinstance(x, (list, tuple)) and len(x) == 1 and is_array(x[0]):
        x = x[0]
    if isinstance(x, np.ma.MaskedArray) and not np.ma.is_masked(x):
        x = x.data
    if isinstance(x, np.ndarray) and not x.dtype.isnative:
        return x.astype(x.dtype.newbyteorder("="))  # JAX misreads other byte orders.
    if is_array(x) and str(getattr(x, "dtype", None)) == "torch.bfloat16":
        return x.float()  # NumPy has no bfloat16.
    return x


def check_finite(x: Data | None) -> None:
    """Raise an error if `x` is a stream that never ends."""
    is_endless = isinstance(x, keras.utils.PyDataset) and x.num_batches is None
    if is_endless or (is_dataset(x) and x.cardinality() == -1):
        raise ValueError(
            f"`x` must be finite. Received: {x!r}, which never ends. Remove "
            "`.repeat()`, or limit the dataset with `.take(100)`."
        )


def as_arrays(
    x: Data | None, y: Tensor | None = None, limit: int | None = None
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the samples and targets of an array or a finite stream as NumPy arrays.

    Args:
        x: As in `keras.Model.fit`.
        y: Targets or labels of an array. A stream has them in its batches.
        limit: None, or a number of samples after which no more batches are read.

    Raises:
        ValueError: As in `open_data`, or `x` is endless, sparse, masked or not
            numeric.
    """
    if limit is None:
        check_finite(x)
    data: Any
    data, y, (_, first_y) = open_data(x, y)
    if is_array(data):
        return dense_numbers("x", data), None if y is None else as_numpy(y)
    batches, count = [], 0
    for batch in data:
        batches.append(keras.utils.unpack_x_y_sample_weight(batch))
        count += len(batches[-1][0])
        if limit is not None and count >= limit:
            break
    samples = np.concatenate([dense_numbers("x", batch[0]) for batch in batches])
    if first_y is not None:
        y = np.concatenate([as_numpy(batch[1]) for batch in batches])
    return samples, y


def labeled_arrays(
    x: Data | None, y: Tensor | None = None, argument: str = "x"
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return samples and labels as `as_arrays` does.

    If `y` has the shape of `x`, it is treated as a target, and None is returned instead
    of labels. Errors refer to the data as `argument`.
    """
    try:
        x, y = as_arrays(x, y)
    except ValueError as error:
        raise ValueError(str(error).replace("`x`", f"`{argument}`")) from error
    if y is None or y.shape == x.shape:
        return x, None
    return x, y.ravel() if y.shape == (len(x), 1) else y


class DiskBatches(keras.utils.PyDataset):
    """Batches of arrays on disk, optionally reshuffled after each epoch."""

    def __init__(
        self, arrays: Sequence[np.ndarray], batch_size: int, shuffle: bool
    ) -> None:
        super().__init__()
        self.arrays, self.batch_size = arrays, batch_size
        self.order = np.arange(len(arrays[0]))
        self.rng = np.random.default_rng(0) if shuffle else None
        self.on_epoch_end()

    def __len__(self) -> int:
        return -(-len(self.order) // self.batch_size)

    def __getitem__(self, index: int) -> tuple[np.ndarray, ...]:
        start = index * self.batch_size
        # Sort the indices to read the file in order.
        rows = np.sort(self.order[start : start + self.batch_size])
        floatx = keras.config.floatx()
        return tuple(np.asarray(array[rows], floatx) for array in self.arrays)

    def on_epoch_end(self) -> None:
        """Shuffle the samples if `shuffle` was set."""
        if self.rng is not None:
            self.rng.shuffle(self.order)


def from_disk(
    x: Data,
    y: Tensor | None,
    sample_weight: Tensor | None,
    batch_size: int | None,
    shuffle: bool = False,
) -> tuple[Data, Tensor | None, Tensor | None]:
    """Return a memory-mapped array as batches if the backend is TensorFlow.

    Other data is returned unchanged. On TensorFlow, Keras would copy the whole array
    into memory.
    """
    if keras.config.backend() != "tensorflow" or not isinstance(x, np.memmap):
        return x, y, sample_weight
    arrays = [x, *(array for array in (y, sample_weight) if array is not None)]
    return DiskBatches(arrays, batch_size or 32, shuffle), None, None


def test_data(
    model: keras.Model, data: Any, batch_size: int | None
) -> tuple[Data, Tensor | None, Tensor | None]:
    """Check data for `evaluate`, and return `x`, `y` and the sample weights."""
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
    x, y = model.check_data(x, y, sample_weight=sample_weight)
    return from_disk(x, y, sample_weight, batch_size)


def fit_arguments(model: keras.Model, arguments: dict[str, Any]) -> dict[str, Any]:
    """Check the data of `fit`, and return the arguments for `keras.Model.fit`.

    On TensorFlow, `array_dataset` converts arrays to a dataset if the arguments allow
    it. The dataset yields the same batches in the same order as Keras.
    """
    batch_size = arguments["batch_size"] or 32
    if arguments.get("validation_data") is not None:
        size = arguments.get("validation_batch_size") or batch_size
        arguments["validation_data"] = test_data(
            model, arguments["validation_data"], size
        )
    weight, shuffle = arguments.get("sample_weight"), arguments.get("shuffle", True)
    x, y = model.check_data(arguments["x"], arguments["y"], batch_size, weight)
    if not arguments.get("validation_split"):
        x, y, weight = from_disk(x, y, weight, batch_size, bool(shuffle))
    arguments |= {"x": x, "y": y}
    if "sample_weight" in arguments:
        arguments["sample_weight"] = weight
    if not is_array(x) and not isinstance(x, keras.utils.PyDataset):
        # With the default, `shuffle=True`, Keras would warn that it cannot shuffle `x`.
        return {"shuffle": False, **arguments}
    arrays: list[Tensor] = [x] if y is None else [x, y]
    if (
        keras.config.backend() != "tensorflow"
        or arguments.keys() - _DATASET_ARGUMENTS
        or shuffle is not True
        or not all(isinstance(array, np.ndarray) for array in arrays)
        # Leave arrays of any other dtype to Keras, which casts them.
        or any(array.dtype.name != keras.config.floatx() for array in arrays)
    ):
        return arguments
    return {
        **arguments,
        "x": array_dataset(arrays, batch_size),
        "y": None,
        "batch_size": None,
        "shuffle": False,
        "validation_batch_size": arguments.get("validation_batch_size") or batch_size,
    }


def array_dataset(arrays: Sequence[np.ndarray], batch_size: int) -> "tf.data.Dataset":
    """Return a dataset of the shuffled batches of one epoch.

    The samples are shuffled in the same way as in Keras, so the same random seed gives
    the same training result. The autotuning of tf.data is disabled, because it can
    delay the end of an epoch by a second or more.

    Args:
        arrays: Arrays of shape `(samples, ...)`: the input and, if there is one, the
            target. Each is copied at most once.
        batch_size: Samples per batch. The last batch may be smaller.

    Returns:
        A dataset of known length that yields tuples of one batch per array.
    """
    import tensorflow as tf

    samples = len(arrays[0])
    with tf.device("CPU:0"):
        # `tf.convert_to_tensor` would copy each array twice: once to take ownership of
        # the memory, and once to align it.
        tensors = tuple(tf.raw_ops.Identity(input=array) for array in arrays)

    def shuffled_indices(_: "tf.Tensor") -> "tf.data.Dataset":
        indices = tf.random.shuffle(tf.range(samples, dtype=tf.int64))
        # With `drop_remainder`, the batch size is static, as it is in Keras.
        return tf.data.Dataset.from_tensor_slices(indices).batch(
            batch_size, drop_remainder=samples % batch_size == 0
        )

    options = tf.data.Options()
    options.autotune.enabled = False
    # Graph rewrites would serialize the dataset and copy the arrays once more.
    options.experimental_optimization.apply_default_optimizations = False
    options.experimental_distribute.auto_shard_policy = (
        tf.data.experimental.AutoShardPolicy.DATA
    )
    # Pass the arrays as dataset elements instead of capturing them in `map`: captured
    # memory is released only when Python's garbage collector runs.
    data = tf.data.Dataset.from_tensors(tensors).repeat()
    indices = tf.data.Dataset.range(1).flat_map(shuffled_indices)
    batches = tf.data.Dataset.zip((indices, data)).map(
        lambda rows, arrays: tuple(tf.gather(array, rows) for array in arrays)
    )
    # If the length is unknown, Keras runs one step too many per epoch.
    length = tf.data.experimental.assert_cardinality(-(-samples // batch_size))
    return batches.prefetch(2).apply(length).with_options(options)
