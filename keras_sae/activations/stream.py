"""Stream a layer's outputs as training batches."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import keras
import numpy as np

from keras_sae.activations.data import batches, sample_count
from keras_sae.activations.paths import LayerKey
from keras_sae.activations.rows import Keep, RowReader, dataset_of
from keras_sae.types import Data
from keras_sae.utils.validation import positive_integer

if TYPE_CHECKING:
    import tensorflow as tf


def stream(
    model: keras.Model,
    layer: LayerKey | tuple[LayerKey, LayerKey],
    data: Data,
    batch_size: int = 1024,
    *,
    keep: Keep = None,
    buffer_size: int = 2**16,
    samples_per_batch: int = 32,
    seed: int | None = None,
) -> "tf.data.Dataset":
    """Return a dataset of a layer's outputs, without writing files.

    Rows are collected in a buffer and shuffled. When half of the buffer has been used,
    it is refilled and shuffled again. Each epoch computes all activations again, so
    `keras_sae.activations.record` takes less time for several epochs.

    Args:
        model: Any built Keras model.
        layer: A layer, as in `keras_sae.activations.capture`, or a pair `(a, b)` for
            pairs of rows.
        data: Inputs of the model, as in `keras_sae.activations.record`. It must not be
            a generator, because each epoch reads the data again.
        batch_size: Number of rows per batch. The last batch may be smaller.
        keep: Rows to keep, as in `keras_sae.activations.record`.
        buffer_size: Number of rows at which the buffer is shuffled. Values below two
            batches are raised to two batches.
        samples_per_batch: Number of samples per call of `model`, if `data` consists of
            arrays.
        seed: Random seed of the order. If None, it is drawn from NumPy's global
            generator.

    Returns:
        A `tf.data.Dataset` of batches of float32 rows, or of pairs `(x, y)` of batches.
        Its length is known if `data` consists of arrays and `keep` is None. Otherwise,
        Keras determines the length in the first epoch, and warns that the input ran out
        of data.

    Raises:
        ValueError: The layer is not in the model, or the data is empty or an iterator.

    Example:

    >>> import keras
    >>> import numpy as np
    >>> from keras_sae import activations
    >>> model = keras.Sequential([keras.Input((5,)), keras.layers.ReLU(name="relu")])
    >>> data = activations.stream(model, "relu", np.ones((10, 5)), batch_size=4)
    >>> [batch.shape[0] for batch in data]
    [4, 4, 2]
    """
    import tensorflow as tf

    positive_integer("batch_size", batch_size)
    if isinstance(data, Iterator):
        raise ValueError(
            "`data` must be readable more than once, because `fit` reads a batch "
            "before training. Received: an iterator. Pass arrays or a dataset, or use "
            "`keras_sae.activations.record`."
        )
    reader = RowReader(model, layer, keep)
    rng = np.random.default_rng(np.random.randint(2**31) if seed is None else seed)

    def shuffled(parts: list[list[np.ndarray]]) -> list[np.ndarray]:
        arrays = [np.concatenate(column) for column in zip(*parts, strict=True)]
        order = rng.permutation(len(arrays[0]))
        return [array[order] for array in arrays]

    def generate() -> Iterator[tuple[np.ndarray, ...]]:
        parts: list[list[np.ndarray]] = []
        count = 0
        for batch in batches(data, samples_per_batch):
            parts.append(reader.read(batch)[0])
            count += len(parts[-1][0])
            if count >= max(buffer_size, 2 * batch_size):
                pool = shuffled(parts)
                used = count // 2 // batch_size * batch_size
                for start in range(0, used, batch_size):
                    yield tuple(array[start : start + batch_size] for array in pool)
                parts = [[array[used:] for array in pool]]
                count -= used
        pool = shuffled(parts)
        for start in range(0, count, batch_size):
            yield tuple(array[start : start + batch_size] for array in pool)

    first = next(batches(data, samples_per_batch))
    rows = reader.read(first)[0]
    dataset = dataset_of(generate, [array.shape[1] for array in rows])
    samples = sample_count(data)
    if samples is None or keep is not None:
        return dataset
    first_samples = len(keras.tree.flatten(first)[0])
    count = samples * len(rows[0]) // first_samples
    length = tf.data.experimental.assert_cardinality(-(-count // batch_size))
    return dataset.apply(length)
