"""Handwritten digits of 8x8 pixels, from scikit-learn."""

import numpy as np
import tensorflow_datasets as tfds

from keras_sae.datasets.labeled_dataset_builder import LabeledImages, Split

_DESCRIPTION = """
1,797 handwritten digits of 8x8 pixels: the test part of the UCI dataset "Optical
Recognition of Handwritten Digits", as included in scikit-learn. Of these, 1,437 are for
training and 360 for testing, with the same proportions of the ten digits.
"""
_LEVELS = 16.0  # each value counts the dark pixels of a 4x4 block


class Builder(LabeledImages):
    """TFDS builder of scikit-learn's digits; see `keras_sae.datasets.load_data`.

    The feature `image` is float32 of shape `(8, 8, 1)`, in [0, 1]: the values of
    `sklearn.datasets.load_digits`, 0 to 16, divided by 16. `label` is int64, 0 to 9.

    Reference:
        [Alpaydin and Kaynak, 1998](https://archive.ics.uci.edu/dataset/80)
    """

    VERSION = tfds.core.Version("1.0.0")
    description = _DESCRIPTION
    homepage = "https://archive.ics.uci.edu/dataset/80"
    image = tfds.features.Image(shape=(8, 8, 1), dtype=np.float32)
    label = tfds.features.ClassLabel(num_classes=10)

    def _splits(self) -> dict[str, Split]:
        from sklearn.datasets import load_digits

        digits = load_digits()
        images = (digits.images / _LEVELS).astype("float32")[..., np.newaxis]
        # The test split is every fifth digit after sorting by class, so it is
        # stratified. A random split could differ between releases of NumPy.
        test = np.sort(np.argsort(digits.target, kind="stable")[::5])
        train = np.setdiff1d(np.arange(len(digits.target)), test)
        rows = {"train": train, "test": test}
        return {name: (images[r], digits.target[r]) for name, r in rows.items()}
