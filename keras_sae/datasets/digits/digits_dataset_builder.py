"""Handwritten digits of 8x8 pixels, from scikit-learn."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

_DESCRIPTION = """
1,797 handwritten digits of 8x8 pixels: the test part of the UCI set "Optical
Recognition of Handwritten Digits", as scikit-learn ships it. 1,437 are for training
and 360 for testing, with the same proportions of the ten digits.
"""
_LEVELS = 16.0  # each value counts the dark pixels of a 4x4 block


class Builder(tfds.core.GeneratorBasedBuilder):
    """TFDS builder of scikit-learn's digits; see `keras_sae.datasets.load_data`.

    The feature `image` is float32 of shape `(8, 8, 1)`, in [0, 1]: the values of
    `sklearn.datasets.load_digits`, 0 to 16, divided by 16. `label` is int64, 0 to 9.

    Reference:
        [Alpaydin and Kaynak, 1998](https://archive.ics.uci.edu/dataset/80)
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}  # noqa: RUF012, TFDS convention

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "image": tfds.features.Image(shape=(8, 8, 1), dtype=np.float32),
            "label": tfds.features.ClassLabel(num_classes=10),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description=_DESCRIPTION,
            features=tfds.features.FeaturesDict(features),
            supervised_keys=("image", "label"),
            homepage="https://archive.ics.uci.edu/dataset/80",
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        del dl_manager  # nothing is downloaded
        from sklearn.datasets import load_digits

        digits = load_digits()
        # Taking every fifth digit in class order gives a stratified split without
        # random numbers, which could differ between releases.
        test = np.sort(np.argsort(digits.target, kind="stable")[::5])
        train = np.setdiff1d(np.arange(len(digits.target)), test)
        return {
            "train": self._generate_examples(digits, train),
            "test": self._generate_examples(digits, test),
        }

    def _generate_examples(
        self, digits: Any, rows: np.ndarray
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        images = (digits.images / _LEVELS).astype("float32")[..., np.newaxis]
        for row in rows.tolist():
            yield row, {"image": images[row], "label": int(digits.target[row])}
