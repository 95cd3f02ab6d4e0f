"""A tenth of Fashion-MNIST, distributed with this package."""

from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds

from keras_sae.datasets.labeled_dataset_builder import LabeledImages, Split

_DESCRIPTION = """
A tenth of Fashion-MNIST: gray images of 28x28 pixels that show articles of clothing,
in ten classes. The training split has the first 600 images of each class in the
official training set, and the test split the first 100 in the official test set.
Copyright 2017 Zalando SE, MIT license.
"""


class Builder(LabeledImages):
    """TFDS builder of a tenth of Fashion-MNIST; see `keras_sae.datasets.load_data`.

    The feature `image` is uint8 of shape `(28, 28, 1)`, and `label` is int64, 0 to 9.
    Both splits keep the official order. The images are distributed with this package
    under their MIT license, which is in the file `LICENSE` beside them.

    Reference:
        [Xiao, Rasul and Vollgraf, 2017](https://arxiv.org/abs/1708.07747),
        "Fashion-MNIST: a novel image dataset for benchmarking machine learning
        algorithms"

    Example:

    >>> from keras_sae.datasets.fashion_mini import fashion_mini_dataset_builder
    >>> builder = fashion_mini_dataset_builder.Builder()
    >>> builder.info.features["label"].names[:3]
    ['T-shirt/top', 'Trouser', 'Pullover']
    """

    VERSION = tfds.core.Version("1.0.0")
    description = _DESCRIPTION
    homepage = "https://github.com/zalandoresearch/fashion-mnist"
    image = tfds.features.Image(shape=(28, 28, 1))
    label = tfds.features.ClassLabel(
        names=[
            *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
            *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
        ]
    )

    def _splits(self) -> dict[str, Split]:
        with Path(__file__).with_name("fashion_mini.npz").open("rb") as file:
            arrays = np.load(file)
            return {
                split: (arrays[f"x_{split}"], arrays[f"y_{split}"])
                for split in ("train", "test")
            }
