"""What a TFDS set holds: which feature is the image, which the label, how many."""

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from tensorflow_datasets.core import DatasetBuilder
    from tensorflow_datasets.core.dataset_info import DatasetInfo


def image_key(info: "DatasetInfo") -> str:
    """The feature that holds the image; of several, the supervised input."""
    import tensorflow_datasets as tfds

    features = dict(info.features) if hasattr(info.features, "items") else {}
    images = [
        key
        for key, feature in features.items()
        if isinstance(feature, tfds.features.Image)
    ]
    if not images:
        raise ValueError(
            f"The dataset {info.name!r} has no images. Expected a feature of "
            f"`tfds.features.Image`. Received: {features or info.features}."
        )
    keys: tuple[Any, ...] = info.supervised_keys or ()
    first = next((key for key in (*keys, "image") if key in images), images[0])
    if None in features[first].shape:
        raise ValueError(
            f"The images of {info.name!r} differ in size: their shape is "
            f"{features[first].shape}. Expected one height and width. Prepare them "
            "with `tf.image.resize` and give the model arrays."
        )
    return first


def label_key(info: "DatasetInfo") -> str | None:
    """The supervised target, where it is one integer a sample."""
    keys: tuple[Any, ...] = info.supervised_keys or ()
    if len(keys) < 2 or not isinstance(keys[1], str):
        return None
    feature = info.features[keys[1]]
    whole = np.issubdtype(feature.np_dtype, np.integer)
    return keys[1] if whole and feature.shape == () else None


def count(builder: "DatasetBuilder", split: str) -> int:
    """The number of samples in a split that exists and is not empty."""
    splits = builder.info.splits
    there = ", ".join(f"{key!r} ({splits[key].num_examples})" for key in splits)
    try:
        samples = int(splits[str(split)].num_examples)
    except (AssertionError, KeyError, ValueError) as error:
        raise ValueError(
            f"Unknown `split` of the dataset {builder.name!r}. Expected one of "
            f"{there}, or a part such as 'train[:80%]'. Received: split={split!r}."
        ) from error
    if samples < 1:
        raise ValueError(
            f"The `split` is empty. Received: split={split!r}. "
            f"There are {there}; give a part that holds samples."
        )
    return samples
