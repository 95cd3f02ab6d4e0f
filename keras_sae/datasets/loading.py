"""Load datasets as NumPy arrays or as `tf.data` pipelines."""

import contextlib
import difflib
import importlib
import os
import random
import sys
import urllib.error
import urllib.request
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_sae.datasets.own import Arrays, is_path, load_path
from keras_sae.types import PathLike
from keras_sae.utils.validation import positive_integer

if TYPE_CHECKING:
    import tensorflow as tf
    from tensorflow_datasets.core import DatasetBuilder

EMBEDDED = ("digits", "fashion_mini", "natural_patches")
_PROBE_SECONDS = 5
_READING_BATCH = 1024


def load_data(
    name: PathLike,
    data_dir: PathLike | None = None,
    *,
    label: str | None = None,
    columns: Sequence[str] | None = None,
    download: bool = False,
    **builder_kwargs: Any,
) -> tuple[Any, Any]:
    """Load a dataset of images, or your own files, as NumPy arrays.

    Images stored as integers are divided by the largest value of their dtype. Images
    stored as floats are not scaled.

    - `"digits"`: 1,797 handwritten digits of 8x8 pixels. The split into 1,437 training
      and 360 test samples is stratified and always the same.
    - `"fashion_mini"`: 6,000 training and 1,000 test images of Fashion-MNIST, 28x28
      pixels, with the same number of images in each of the ten classes. They are the
      first images of each class in the official files, in the official order.
    - `"natural_patches"`: gray patches of two photographs, without labels. The test
      patches come from other parts of the photographs than the training patches, and
      there are a fifth as many. The builder arguments are `patch_size=8` (pixels, at
      most 53), `num_patches=10_000` (the number of training patches) and
      `whitening="classic"`. `"classic"` removes each patch's mean, clips at 3 standard
      deviations and maps to [0.1, 0.9]. `"zca"` makes pixels uncorrelated with mean 0
      and variance 1, so the values are not in [0, 1] and the model needs a linear
      output. None keeps the raw intensities.
    - Any other name is looked up in TensorFlow Datasets (TFDS): `"mnist"`,
      `"fashion_mnist"`, ...

    For a path, the result is one pair `(x, y)` without a test split:

    - `.npy`: an array of shape `(samples, ...)`, memory-mapped and not scaled.
    - `.npz`: an array `x`, and labels in `y` or in the array named by `label`.
    - `.csv`, `.parquet`: a table, as float32 of shape `(rows, columns)` without the
      column `label`. Values are not scaled, and missing values become NaN.
    - a folder of images of the same size, with or without a subfolder per class:
      float32 in [0, 1], with one channel if all images are gray, or else with three.

    Labels are int64. Text labels, such as the names of subfolders, are numbered in
    sorted order.

    The first three datasets need no internet access. On first use, they are prepared
    in `data_dir`.

    Args:
        name: `"digits"`, `"fashion_mini"`, `"natural_patches"`, a TFDS name or a path.
        data_dir: Folder of prepared TFDS datasets. The default is the value of the
            environment variable `TFDS_DATA_DIR`, or else `~/tensorflow_datasets`.
        label: Column of a table, or array of a `.npz` file, that contains the labels.
        columns: Columns of a table to use as data, in order. None: all except `label`.
        download: Whether TFDS may download and prepare a missing dataset.
        **builder_kwargs: Arguments of the TFDS builder, such as `patch_size` above.

    Returns:
        `(x_train, y_train), (x_test, y_test)`, or `(x, y)` for a path. For a named
        dataset, `x` is float32 of shape `(samples, height, width, channels)`, scaled as
        described above. `y` is int64 of shape `(samples,)`, or None without labels.

    Raises:
        ValueError: The dataset is unknown, is not prepared and is not downloaded,
            has no images of a fixed size, or lacks a train or test split; `data_dir` is
            not writable; a builder argument is invalid; or a path does not exist, has
            unsupported content, or contains more data than fits into memory.

    Reference:
        [TensorFlow Datasets](https://www.tensorflow.org/datasets)

    Example:

    >>> from keras_sae import datasets
    >>> (x_train, y_train), (x_test, y_test) = datasets.load_data("digits")
    >>> x_train.shape, y_train.shape, x_test.shape
    ((1437, 8, 8, 1), (1437,), (360, 8, 8, 1))
    >>> from pathlib import Path
    >>> _ = Path("flowers.csv").write_text("height,width,kind\\n1,2,rose\\n3,4,lily\\n")
    >>> x, y = datasets.load_data("flowers.csv", label="kind")
    >>> x.tolist(), y.tolist()
    ([[1.0, 2.0], [3.0, 4.0]], [1, 0])
    """
    if name not in EMBEDDED and is_path(name):
        if data_dir is not None or download or builder_kwargs:
            raise ValueError(
                "`data_dir`, `download` and builder arguments apply only to TFDS "
                f"datasets. Received: {data_dir=}, {download=}, {builder_kwargs} with "
                f"name={str(name)!r}. Remove these arguments."
            )
        return load_path(name, label, columns)
    if label is not None or columns is not None:
        raise ValueError(
            "`label` and `columns` apply only to files. Received: "
            f"label={label!r}, columns={columns!r} with name={name!r}. Remove them, or "
            "pass a path as `name`."
        )
    builder = _prepared_builder(name, data_dir, download, builder_kwargs)
    missing = {"train", "test"} - set(builder.info.splits)
    if missing:
        raise ValueError(
            f"The dataset must have a train and a test split. Received: {name!r} with "
            f"the splits {sorted(builder.info.splits)}. Use `load` for other splits."
        )
    splits: list[Arrays] = []
    for split in ("train", "test"):
        batches = _batches(_read(builder, split), _READING_BATCH)
        parts = list(batches.as_numpy_iterator())
        if isinstance(parts[0], tuple):
            images, labels = zip(*parts, strict=True)
            splits.append((np.concatenate(images), np.concatenate(labels)))
        else:
            splits.append((np.concatenate(parts), None))
    return splits[0], splits[1]


def load(
    name: str,
    split: str,
    batch_size: int,
    shuffle: bool | None = None,
    as_supervised: bool = False,
    data_dir: PathLike | None = None,
    *,
    seed: int | None = None,
    download: bool = False,
    **builder_kwargs: Any,
) -> "tf.data.Dataset":
    """Load a split as a batched `tf.data.Dataset`, ready for `fit`.

    The split is read once and cached in memory in its stored dtype. Batches are
    converted to float32 when they are needed, and the last batch may be smaller.
    Shuffling covers the whole split in every epoch. See `load_data` for the datasets
    and the values of `x`.

    Args:
        name: `"digits"`, `"fashion_mini"`, `"natural_patches"`, or a TFDS name.
        split: Split or part of a split, such as `"train"`, `"test"`, `"train[:80%]"`.
        batch_size: Samples per batch, at most the number of samples in the split.
        shuffle: Whether to shuffle. If None, only splits whose name begins with
            `"train"` are shuffled.
        as_supervised: Whether to return pairs `(x, label)`, for training a classifier.
            Otherwise, only `x` is returned, for training an autoencoder.
        data_dir: As in `load_data`.
        seed: Random seed for shuffling. If None, TensorFlow's global seed is used,
            which `keras.utils.set_random_seed` sets.
        download: As in `load_data`.
        **builder_kwargs: As in `load_data`.

    Returns:
        A `tf.data.Dataset` with a known length. `x` is float32 of shape
        `(batch, height, width, channels)`, and `label` is int64 of shape `(batch,)`.

    Raises:
        ValueError: As in `load_data`; or `split` is unknown or empty, `batch_size`
            exceeds the size of the split, or `as_supervised=True` but the dataset has
            no class labels.

    Reference:
        [Splits in TFDS](https://www.tensorflow.org/datasets/splits)

    Example:

    >>> from keras_sae import datasets
    >>> ds = datasets.load("digits", "train", batch_size=100, as_supervised=True)
    >>> x, label = next(iter(ds))
    >>> len(ds), tuple(x.shape), tuple(label.shape)
    (15, (100, 8, 8, 1), (100,))
    """
    batch_size = positive_integer("batch_size", batch_size)
    builder = _prepared_builder(name, data_dir, download, builder_kwargs)
    splits = builder.info.splits
    available = ", ".join(f"{key!r} ({splits[key].num_examples})" for key in splits)
    try:
        samples = int(splits[str(split)].num_examples)
    except (AssertionError, KeyError, ValueError) as error:
        raise ValueError(
            f"Unknown `split` for the dataset {name!r}. Expected one of {available}, "
            f"or a part such as 'train[:80%]'. Received: split={split!r}."
        ) from error
    if samples < 1:
        raise ValueError(
            f"`split` must not be empty. Received: split={split!r}. Expected a "
            f"non-empty part of {available}."
        )
    if batch_size > samples:
        raise ValueError(
            f"`batch_size` must not exceed the {samples} samples in {name!r}, split "
            f"{split!r}. Received: batch_size={batch_size}. Pass a smaller "
            "`batch_size`, or a larger part of the dataset."
        )
    examples = _read(builder, split, as_supervised).cache()
    if split.startswith("train") if shuffle is None else shuffle:
        examples = examples.shuffle(samples, seed=seed)
    return _batches(examples, batch_size)


def _prepared_builder(
    name: PathLike,
    data_dir: PathLike | None,
    download: bool,
    builder_kwargs: dict[str, Any],
) -> "DatasetBuilder":
    """Return the TFDS builder of a dataset, and prepare the dataset if necessary."""
    if not isinstance(name, str):
        raise ValueError(
            f"`name` must be a string that names a dataset. Received: name={name!r}."
        )
    # TFDS reads `TFDS_DATA_DIR` only on import.
    given = data_dir or os.environ.get("TFDS_DATA_DIR")
    folder = os.path.expanduser(given) if given else None
    if name not in EMBEDDED:
        return _tfds_builder(name, folder, download, builder_kwargs)
    module = f"{__package__}.{name}.{name}_dataset_builder"
    create = importlib.import_module(module).Builder
    default = None if data_dir else os.path.expanduser("~/tensorflow_datasets")
    folders = [path for path in (folder, default) if path is not None]
    for path in folders:
        builder = create(data_dir=path, **builder_kwargs)
        if _is_prepared(builder):
            return builder
    causes = []
    for path in folders:
        try:
            _prepare(create(data_dir=path, **builder_kwargs))
            # A new builder also reads metadata that another process wrote.
            return create(data_dir=path, **builder_kwargs)
        except OSError as error:
            causes.append(error)
    raise ValueError(
        f"The dataset {name!r} must be prepared on first use, but no folder is "
        f"writable. Tried: {', '.join(folders)}. Pass a writable folder as "
        f"`data_dir`, or set TFDS_DATA_DIR. Received: data_dir={data_dir!r}."
    ) from causes[0]


def _tfds_builder(
    name: str, folder: str | None, download: bool, builder_kwargs: dict[str, Any]
) -> "DatasetBuilder":
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder(name, data_dir=folder, **builder_kwargs)
    except tfds.core.DatasetNotFoundError:
        if os.sep in name or os.path.splitext(name)[1]:
            raise ValueError(
                f"There is no such file, folder or dataset. Received: {name!r}, in the "
                f"folder {os.getcwd()!r}."
            ) from None
        # Listing community datasets would use the network.
        known = [*EMBEDDED, *tfds.list_builders(with_community_datasets=False)]
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
        hint = f"Did you mean {near[0]!r}? " if near else ""
        raise ValueError(
            f"Unknown dataset: name={name!r}. {hint}Expected one of {EMBEDDED}, or a "
            "name from `tfds.list_builders()`."
        ) from None
    except (AssertionError, ValueError) as error:
        raise ValueError(
            f"TFDS cannot open the dataset. Expected one of {EMBEDDED}, or a `name` "
            f"like 'mnist:3.0.1'. Received: name={name!r}, {builder_kwargs=}."
        ) from error
    if _is_prepared(builder):
        return builder
    if not download:
        root = os.fspath(builder.data_dir_root)
        options = f", builder_kwargs={builder_kwargs!r}" if builder_kwargs else ""
        raise ValueError(
            f"The dataset {name!r} is not prepared in {builder.data_dir}. "
            "Pass `download=True`, or run this command with internet access:\n"
            '    python -c "import tensorflow_datasets as tfds; '
            f'tfds.load({name!r}, data_dir={root!r}{options})"\n'
            "If the dataset is prepared in another folder, pass that folder as "
            "`data_dir`."
        )
    # Without internet access, TFDS would retry for minutes.
    for url in list(builder.url_infos)[:1]:
        request = urllib.request.Request(url, method="HEAD")
        try:
            urllib.request.urlopen(request, timeout=_PROBE_SECONDS).close()
        except urllib.error.HTTPError:
            break  # The server responds, but may not support HEAD requests.
        except OSError as error:
            raise ValueError(
                f"The dataset {name!r} is not prepared in {builder.data_dir} and "
                f"cannot be downloaded: {url} does not respond ({error}). Prepare the "
                "dataset on a machine with internet access and copy the folder. If it "
                "is prepared in another folder, pass that folder as `data_dir`."
            ) from error
    _prepare(builder)
    return builder


def _is_prepared(builder: "DatasetBuilder") -> bool:
    # `builder.is_prepared()` logs a warning if the dataset is not prepared.
    return bool((builder.data_path / "dataset_info.json").exists())


def _prepare(builder: "DatasetBuilder") -> None:
    """Prepare a dataset, with a new seed for Python's global random number generator.

    TFDS draws the name of a temporary folder from this generator. Two processes with
    the same seed would therefore write to the same folder.
    """
    state = random.getstate()
    random.seed()
    try:
        # TFDS prints to standard output, which is reserved for the caller's results.
        with contextlib.redirect_stdout(sys.stderr):
            builder.download_and_prepare()
    except OSError:
        if not _is_prepared(builder):  # another process may have been faster
            raise
    finally:
        random.setstate(state)


def _read(
    builder: "DatasetBuilder", split: str, with_labels: bool | None = None
) -> "tf.data.Dataset":
    """Return the examples of a split in a fixed order.

    Each example is an image, or an image and a label. With `with_labels=None`, labels
    are included if the dataset has class labels.
    """
    import tensorflow_datasets as tfds

    info, features = builder.info, builder.info.features
    items = features.items() if isinstance(features, tfds.features.FeaturesDict) else ()
    images = [key for key, value in items if isinstance(value, tfds.features.Image)]
    if not images:
        raise ValueError(
            f"The dataset must have an image feature. Received: {info.name!r} with "
            f"the features {features}."
        )
    supervised: tuple = info.supervised_keys or ()
    image = next((key for key in (*supervised, "image") if key in images), images[0])
    if None in features[image].shape:
        raise ValueError(
            f"The images of {info.name!r} must have a fixed size. Received: shape "
            f"{features[image].shape}. Resize the images with `tf.image.resize` and "
            "pass arrays to the model."
        )
    label = supervised[1] if len(supervised) > 1 else None
    has_labels = (
        isinstance(label, str)
        and features[label].shape == ()
        and np.issubdtype(features[label].np_dtype, np.integer)
    )
    if with_labels and not has_labels:
        raise ValueError(
            f"`as_supervised` requires class labels, but the dataset {builder.name!r} "
            "has none. Received: as_supervised=True. Use as_supervised=False."
        )
    # TFDS would cache whole examples; `load` caches only what it uses.
    config = tfds.ReadConfig(try_autocache=False)
    examples = builder.as_dataset(split, shuffle_files=False, read_config=config)
    if has_labels and with_labels is not False:
        return examples.map(lambda example: (example[image], example[label]))
    return examples.map(lambda example: example[image])


def _batches(examples: "tf.data.Dataset", batch_size: int) -> "tf.data.Dataset":
    """Batch the examples, and convert images to float32 and labels to int64."""
    import tensorflow as tf

    def convert(image: "tf.Tensor", *label: "tf.Tensor") -> Any:
        x = tf.cast(image, tf.float32)
        if image.dtype.is_integer:
            x /= image.dtype.max
        return (x, tf.cast(label[0], tf.int64)) if label else x

    batches = examples.batch(batch_size).map(convert, tf.data.AUTOTUNE)
    return batches.prefetch(tf.data.AUTOTUNE)
