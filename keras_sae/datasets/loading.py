"""Datasets as NumPy arrays and as `tf.data` pipelines that are ready for `fit`."""

import numbers
import os
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_sae.datasets.features import count, image_key, label_key
from keras_sae.datasets.preparing import prepared_builder

if TYPE_CHECKING:
    import tensorflow as tf
    from tensorflow_datasets.core import DatasetBuilder

Arrays = tuple[np.ndarray, np.ndarray | None]

_READING_BATCH = 1024


def load_data(
    name: str,
    data_dir: str | os.PathLike[str] | None = None,
    *,
    download: bool = False,
    **builder_kwargs: Any,
) -> tuple[Arrays, Arrays]:
    """Loads a dataset of images as NumPy arrays, as `keras.datasets` does.

    `x = image / max` for images stored as integers, `max` being the largest
    value of their type; images stored as floats are taken as they are.

    - `"digits"`: 1,797 handwritten digits of 8x8 pixels, 1,437 to train and 360
      to test, stratified, always the same.
    - `"natural_patches"`: grey patches of two photographs, without labels. Takes
      `patch_size=8` (pixels, at most 53), `num_patches=10_000` (to train; a fifth
      as many to test, from separate parts of the photographs) and `whitening`:
      `"classic"` (each patch's mean removed, clipped at 3 standard deviations,
      mapped to [0.1, 0.9]), `"zca"` (pixels uncorrelated, of mean 0 and variance
      1: **not** in [0, 1], give the model a linear output) or None.
    - Any other name goes to TensorFlow Datasets as it is: `"mnist"`,
      `"fashion_mnist"`, ...

    The two embedded sets need no network. They are prepared on first use in
    `data_dir`, else in the folder of the environment variable `TFDS_DATA_DIR`,
    else (also where that folder cannot be written) in TFDS's own default,
    `~/tensorflow_datasets`.

    Args:
        name: `"digits"`, `"natural_patches"`, or a name that TFDS knows.
        data_dir: Folder of prepared TFDS sets. None for `TFDS_DATA_DIR` or else
            TFDS's default.
        download: Whether TFDS may download and prepare a set that is not.
        **builder_kwargs: Arguments of the TFDS builder, as `patch_size` above.

    Returns:
        `(x_train, y_train), (x_test, y_test)`. x: float32 of shape
        `(n, height, width, channels)`, in [0, 1]; y: int64 of shape `(n,)`, or
        None where the set has no class labels.

    Raises:
        ValueError: the dataset is unknown, not prepared and not to be
            downloaded, has no image of one fixed size or no train and test
            splits; `data_dir` cannot be written; or a builder's argument is wrong.

    Reference:
        TensorFlow Datasets; `keras.datasets`.

    Example:

    >>> from keras_sae import datasets
    >>> (x_train, y_train), (x_test, y_test) = datasets.load_data("digits")
    >>> x_train.shape, y_train.shape, x_test.shape
    ((1437, 8, 8, 1), (1437,), (360, 8, 8, 1))
    """
    builder = prepared_builder(name, data_dir, download, **builder_kwargs)
    missing = {"train", "test"} - set(builder.info.splits)
    if missing:
        raise ValueError(
            f"The dataset {name!r} has no {sorted(missing)} split, only "
            f"{sorted(builder.info.splits)}. Take those with `load`."
        )
    return _arrays(builder, "train"), _arrays(builder, "test")


def load(
    name: str,
    split: str,
    batch_size: int,
    shuffle: bool | None = None,
    as_supervised: bool = False,
    data_dir: str | os.PathLike[str] | None = None,
    *,
    seed: int | None = None,
    download: bool = False,
    **builder_kwargs: Any,
) -> "tf.data.Dataset":
    """Loads a split as a batched `tf.data.Dataset`, ready for `fit`.

    The set is read once and kept in memory as it is stored, shuffled whole anew
    in each epoch, batched, and only then converted, a batch at a time. The last
    batch may be smaller. For the values of x see `load_data`.

    Args:
        name: `"digits"`, `"natural_patches"`, or a name that TFDS knows.
        split: A split or a part of one, as `"train"`, `"test"`, `"train[:80%]"`.
        batch_size: Samples a batch, at most as many as the split has.
        shuffle: Whether to shuffle. None shuffles what begins with `"train"`.
        as_supervised: Whether to give `(x, label)` in place of x.
        data_dir: Folder of prepared TFDS sets. None for `TFDS_DATA_DIR` or else
            TFDS's default.
        seed: Seed of the order. None for TensorFlow's global seed, which
            `keras.utils.set_random_seed` sets.
        download: Whether TFDS may download and prepare a set that is not.
        **builder_kwargs: Arguments of the TFDS builder, see `load_data`.

    Returns:
        A `tf.data.Dataset` of known length. x: float32 of shape
        `(batch, height, width, channels)`; label: int64 of shape `(batch,)`.

    Raises:
        ValueError: as in `load_data`; or `split` is unknown or empty;
            `batch_size` is not a positive integer or exceeds the split; labels
            are asked for and there are none.

    Reference:
        https://www.tensorflow.org/datasets/splits for the grammar of `split`.

    Example:

    >>> from keras_sae import datasets
    >>> ds = datasets.load("digits", "train", batch_size=100, as_supervised=True)
    >>> x, label = next(iter(ds))
    >>> len(ds), tuple(x.shape), tuple(label.shape)
    (15, (100, 8, 8, 1), (100,))
    """
    _check_batch_size(batch_size)
    builder = prepared_builder(name, data_dir, download, **builder_kwargs)
    samples = count(builder, split)
    if batch_size > samples:
        raise ValueError(
            f"`batch_size` is larger than the split {split!r} of {name!r}, which has "
            f"{samples} samples. Received: batch_size={batch_size}. "
            f"Give at most {samples}."
        )
    examples = _read(builder, split, as_supervised).cache()
    if split.startswith("train") if shuffle is None else shuffle:
        examples = examples.shuffle(samples, seed=seed)
    return _batches(examples, int(batch_size))


def _arrays(builder: "DatasetBuilder", split: str) -> Arrays:
    labelled = label_key(builder.info) is not None
    batches = _batches(_read(builder, split, labelled), _READING_BATCH)
    if not labelled:
        return np.concatenate(list(batches.as_numpy_iterator())), None
    images, labels = zip(*batches.as_numpy_iterator(), strict=True)
    return np.concatenate(images), np.concatenate(labels)


def _read(
    builder: "DatasetBuilder", split: str, as_supervised: bool
) -> "tf.data.Dataset":
    """The examples of a split in a fixed order: image, or image and label."""
    import tensorflow_datasets as tfds

    image, label = image_key(builder.info), label_key(builder.info)
    if as_supervised and label is None:
        raise ValueError(
            f"`as_supervised` asks for labels and the dataset {builder.name!r} has no "
            "class labels. Received: as_supervised=True. Leave it out."
        )
    # `load` caches what it takes of an example; TFDS would cache all of it too.
    config = tfds.ReadConfig(try_autocache=False)
    examples = builder.as_dataset(split, shuffle_files=False, read_config=config)
    if as_supervised:
        return examples.map(lambda example: (example[image], example[label]))
    return examples.map(lambda example: example[image])


def _batches(examples: "tf.data.Dataset", batch_size: int) -> "tf.data.Dataset":
    """Batches first, so that the conversion runs on whole batches."""
    import tensorflow as tf

    def convert(image: Any, *label: Any) -> Any:
        x = tf.cast(image, tf.float32)
        if image.dtype.is_integer:
            x /= image.dtype.max
        return (x, tf.cast(label[0], tf.int64)) if label else x

    batches = examples.batch(batch_size)
    return batches.map(convert, num_parallel_calls=tf.data.AUTOTUNE).prefetch(
        tf.data.AUTOTUNE
    )


def _check_batch_size(value: Any) -> None:
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not whole or value < 1:
        raise ValueError(
            "`batch_size` must be a positive integer, the samples a batch. "
            f"Received: batch_size={value!r}."
        )
