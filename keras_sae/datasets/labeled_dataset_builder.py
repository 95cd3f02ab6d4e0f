"""Base class of the embedded datasets of labeled images."""

import abc
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds

Split = tuple[np.ndarray, np.ndarray]  # images and labels


class LabeledImages(  # type: ignore[call-arg]
    tfds.core.GeneratorBasedBuilder, skip_registration=True
):
    """Base class of TFDS builders whose images and labels fit into memory.

    A subclass sets the attributes below, and `VERSION`, which TFDS requires.

    Attributes:
        description: Text for the TFDS metadata.
        homepage: URL of the source.
        image: TFDS feature of the images.
        label: TFDS feature of the labels.
    """

    RELEASE_NOTES = {"1.0.0": "First release."}  # noqa: RUF012, TFDS convention
    description: ClassVar[str]
    homepage: ClassVar[str]
    image: ClassVar[tfds.features.Image]
    label: ClassVar[tfds.features.ClassLabel]

    @abc.abstractmethod
    def _splits(self) -> dict[str, Split]:
        """Return images and labels per split."""

    def _info(self) -> tfds.core.DatasetInfo:
        features = {"image": self.image, "label": self.label}
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.description,
            features=tfds.features.FeaturesDict(features),
            supervised_keys=("image", "label"),
            homepage=self.homepage,
            disable_shuffling=True,
        )

    def _split_generators(
        self, dl_manager: tfds.download.DownloadManager
    ) -> dict[str, Any]:
        del dl_manager  # nothing is downloaded
        splits = self._splits()
        return {name: self._generate_examples(*splits[name]) for name in splits}

    def _generate_examples(
        self, images: np.ndarray, labels: np.ndarray
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        for row, (image, label) in enumerate(zip(images, labels, strict=True)):
            yield row, {"image": image, "label": int(label)}
