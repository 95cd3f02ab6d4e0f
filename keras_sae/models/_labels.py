"""What a classifier refuses to learn from."""

from typing import Any

import numpy as np

from keras_sae.models.validation import as_numpy, check_data


def check_labels(y: Any, samples: int, num_classes: int) -> None:
    """Raises unless `y` holds one class from 0 to `num_classes - 1` a sample."""
    expected = f"Expected {samples} integers from 0 to {num_classes - 1}, one a sample."
    if not hasattr(y, "shape") or not hasattr(y, "dtype"):
        raise ValueError(
            f"`y` must be an array of labels. Received: y of {type(y)}. {expected} "
            "`numpy.asarray(y)` makes it of a list, and "
            "`numpy.unique(y, return_inverse=True)[1]` of names."
        )
    if tuple(y.shape) not in ((samples,), (samples, 1)):
        hint = (
            " One-hot? Take `y.argmax(axis=-1)`, or compile with "
            "loss='categorical_crossentropy'."
            if len(y.shape) == 2
            else ""
        )
        raise ValueError(
            f"`y` must hold one label a sample. Received: y.shape={tuple(y.shape)} for "
            f"{samples} samples. {expected}{hint}"
        )
    y = as_numpy(y)
    if y.dtype.kind not in "iuf" or (y != np.floor(y)).any():
        raise ValueError(
            f"`y` must hold whole numbers. Received: dtype={y.dtype}. {expected} "
            "`numpy.unique(y, return_inverse=True)[1]` numbers classes of any kind."
        )
    if y.min() < 0 or y.max() >= num_classes:
        raise ValueError(
            f"`y` must lie below `num_classes`. Received: labels from {y.min():g} to "
            f"{y.max():g} with num_classes={num_classes}. {expected}"
        )


def check_spec(spec: Any, num_classes: int, of_labels: bool) -> None:
    """Raises unless batches of a dataset can hold what the compiled loss compares.

    Args:
        spec: Specification of a batch of targets; values cannot be seen in it.
        num_classes: Number of classes.
        of_labels: Whether the loss takes integers, else a number for every class.

    Raises:
        ValueError: It is of another shape, or holds no numbers.
    """
    shape = getattr(spec, "shape", None)
    expected = (
        f"batches of one integer from 0 to {num_classes - 1} a sample"
        if of_labels
        else f"batches of {num_classes} numbers a sample"
    )
    if shape is None or not (spec.dtype.is_integer or spec.dtype.is_floating):
        raise ValueError(
            f"The dataset's labels must be numbers. Received: {spec!r}. Expected "
            f"{expected}. `tf.cast` makes numbers of booleans, "
            "`keras.layers.StringLookup` of names."
        )
    sizes = () if shape.rank is None else tuple(shape)
    wanted = (None, 1) if of_labels else (None, num_classes)
    fits = sizes[1:] in [(n,) for n in wanted] or (of_labels and len(sizes) == 1)
    if shape.rank is not None and not fits:
        hint = (
            "One-hot? Take `dataset.map(lambda x, y: (x, tf.argmax(y, axis=-1)))`, or "
            "compile with loss='categorical_crossentropy'."
            if of_labels
            else f"`dataset.map(lambda x, y: (x, tf.one_hot(y, {num_classes})))` makes "
            "them of labels."
        )
        raise ValueError(
            "The dataset's labels must have the shape that the compiled loss compares. "
            f"Received: {spec!r}. Expected {expected}. {hint}"
        )


def check_first(data: Any, num_classes: int, of_labels: bool) -> None:
    """Raises for labels in the first batch of a dataset as it would for an array.

    On JAX a label that no class has would be trained on in silence.

    Args:
        data: A `tf.data.Dataset` of batches whose specification `check_spec` passes.
        num_classes: Number of classes.
        of_labels: As for `check_spec`.
    """
    check = check_labels if of_labels else check_shares
    for _, y, *_ in data.take(1).as_numpy_iterator():
        check(y, len(y), num_classes)


def check_shares(y: Any, samples: int, num_classes: int) -> None:
    """Raises unless `y` holds a number for every class of each sample, as one-hot."""
    shape = tuple(getattr(y, "shape", ()))
    if shape != (samples, num_classes):
        raise ValueError(
            "`y` must hold a number for every class of each sample, as the compiled "
            f"loss compares those. Received: y of {type(y)} and shape {shape}. "
            f"Expected shape {(samples, num_classes)}. "
            "`keras.utils.to_categorical(y)` makes it of labels."
        )
    check_data(as_numpy(y).astype("float32"), (num_classes,))
