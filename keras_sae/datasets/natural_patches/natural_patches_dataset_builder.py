"""Square patches of natural photographs, from scikit-learn's sample images."""

import dataclasses
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from keras_sae.datasets.natural_patches import photographs
from keras_sae.datasets.natural_patches.whitening import WHITENINGS
from keras_sae.utils.validation import positive_integer

_DESCRIPTION = """
Square gray patches of two half-size photographs (a pagoda and a dahlia; CC BY 2.0)
that ship with scikit-learn. Patches overlap within a split. The two splits come from
separate parts of the photographs.
"""
_CONFIG_NAME = re.compile(r"(\d+)x\1_(\d+)_(\w+)")


@dataclasses.dataclass(kw_only=True)
class PatchesConfig(tfds.core.BuilderConfig):
    """Settings of `natural_patches`, all of which are encoded in the config name.

    Args:
        patch_size: Side length of a patch in pixels of the half-size photograph, from
            1 to 53.
        num_patches: Number of training patches. The test split has one fifth as many.
        whitening: `"classic"`, `"zca"`, or None for raw intensities.

    Raises:
        ValueError: A setting is invalid, or the photographs do not contain enough
            patches of this size.
    """

    name: str = ""
    patch_size: int = 8
    num_patches: int = 10_000
    whitening: str | None = "classic"

    def __post_init__(self) -> None:
        """Check the settings, and build the name from them."""
        size = self.patch_size = positive_integer("patch_size", self.patch_size)
        number = self.num_patches = positive_integer("num_patches", self.num_patches)
        if size > photographs.LARGEST_PATCH:
            raise ValueError(
                "`patch_size` must not exceed the tile size of the photographs, "
                f"{photographs.LARGEST_PATCH} pixels. Received: patch_size={size}."
            )
        available = photographs.available("train", size)
        if number > available:
            raise ValueError(
                f"`num_patches` must not exceed {available} for patch_size={size}. "
                f"Received: num_patches={number}."
            )
        if self.whitening not in tuple(WHITENINGS):
            raise ValueError(
                f"Unknown `whitening`. Expected one of {list(WHITENINGS)}. "
                f"Received: whitening={self.whitening!r}."
            )
        self.name = f"{size}x{size}_{number}_{self.whitening or 'raw'}"


class Builder(tfds.core.GeneratorBasedBuilder):
    """TFDS builder of photograph patches; see `keras_sae.datasets.load_data`.

    The photographs are converted to gray, halved in size and cut into tiles. From the
    patches of these tiles, the half with the higher contrast is kept. The dataset is
    drawn from this half without replacement. The feature `image` is float32 of shape
    `(patch_size, patch_size, 1)`. `config` is a `PatchesConfig` or its name.

    Reference:
        [Ng, 2011](https://web.stanford.edu/class/cs294a/sparseAutoencoder.pdf)
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}  # noqa: RUF012, TFDS convention
    BUILDER_CONFIGS = [PatchesConfig()]  # noqa: RUF012

    def __init__(
        self,
        *,
        config: PatchesConfig | str | None = None,
        patch_size: int = 8,
        num_patches: int = 10_000,
        whitening: str | None = "classic",
        **kwargs: Any,
    ) -> None:
        config = config or PatchesConfig(
            patch_size=patch_size, num_patches=num_patches, whitening=whitening
        )
        # TFDS warns about config objects that are not in `BUILDER_CONFIGS`, but not
        # about names.
        name = config if isinstance(config, str) else config.name
        super().__init__(config=name, **kwargs)

    @classmethod
    def get_builder_config(
        cls, name: str, version: str | None = None
    ) -> PatchesConfig | None:
        """Return the config with this name, or None if the name is not valid."""
        del version  # there is only one version
        match = _CONFIG_NAME.fullmatch(name)
        if match is None:
            return None
        size, number, whitening = match.groups()
        return PatchesConfig(
            patch_size=int(size),
            num_patches=int(number),
            whitening=None if whitening == "raw" else whitening,
        )

    def _info(self) -> tfds.core.DatasetInfo:
        size = self.builder_config.patch_size
        image = tfds.features.Image(shape=(size, size, 1), dtype=np.float32)
        return tfds.core.DatasetInfo(
            builder=self,
            description=_DESCRIPTION,
            features=tfds.features.FeaturesDict({"image": image}),
            homepage="https://scikit-learn.org/stable/datasets/loading_other_datasets.html",
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict:
        del dl_manager  # nothing is downloaded
        config, drawn = self.builder_config, []
        count = config.num_patches
        for split, number in {"train": count, "test": max(1, count // 5)}.items():
            found = photographs.patches(photographs.tiles(split), config.patch_size)
            order = np.random.default_rng(0).permutation(len(found))
            drawn.append(found[order[:number]])
        patches = WHITENINGS[config.whitening](np.concatenate(drawn), count)
        return {
            "train": self._generate_examples(patches[:count]),
            "test": self._generate_examples(patches[count:]),
        }

    def _generate_examples(
        self, patches: np.ndarray
    ) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        for key, patch in enumerate(patches.astype("float32")):
            yield key, {"image": patch[..., np.newaxis]}
