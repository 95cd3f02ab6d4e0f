"""Square patches of natural photographs, from scikit-learn's sample images."""

import dataclasses
import numbers
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from keras_sae.datasets.natural_patches import photographs
from keras_sae.datasets.natural_patches.whitening import WHITENINGS

_DESCRIPTION = """
Square grey patches of two photographs (a pagoda and a dahlia; creative commons
BY 2.0) that scikit-learn ships, at half size. Patches overlap within a split;
the two splits come from separate parts of the photographs.
"""
_CONFIG_NAME = re.compile(r"(\d+)x\1_(\d+)_(\w+)")
_TEST_SHARE = 5  # a test patch for every five to train


def _positive(argument: str, value: Any) -> int:
    """Returns `value` as an int, or says that it is not a positive integer."""
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not whole or value < 1:
        raise ValueError(
            f"`{argument}` must be a positive integer. Received: {argument}={value!r}."
        )
    return int(value)


def _check_limits(patch_size: int, num_patches: int) -> None:
    """Says what the photographs do not hold, before anything is written."""
    if patch_size > photographs.LARGEST_PATCH:
        raise ValueError(
            "`patch_size` is larger than the tiles into which the photographs are "
            f"cut. Expected at most {photographs.LARGEST_PATCH}. "
            f"Received: patch_size={patch_size}."
        )
    most = photographs.available("train", patch_size)
    if num_patches > most:
        raise ValueError(
            f"`num_patches` is more than the photographs hold of this size. Expected "
            f"at most {most} with patch_size={patch_size}. "
            f"Received: num_patches={num_patches}."
        )


@dataclasses.dataclass(kw_only=True)
class PatchesConfig(tfds.core.BuilderConfig):
    """Settings of `natural_patches`; its name, and so the folder, tells them all.

    Args:
        patch_size: Side of a patch, in pixels of the halved photograph, 1 to 53.
        num_patches: Number of patches to train; a fifth as many are to test.
        whitening: `"classic"`, `"zca"`, or None for raw intensities.

    Raises:
        ValueError: a setting is not one of these, or the photographs hold no
            patch so large or not so many.

    Example:

    >>> from keras_sae.datasets.natural_patches.natural_patches_dataset_builder import (
    ...     PatchesConfig,
    ... )
    >>> PatchesConfig(patch_size=12, num_patches=500, whitening=None).name
    '12x12_500_raw'
    """

    name: str = ""
    patch_size: int = 8
    num_patches: int = 10_000
    whitening: str | None = "classic"

    def __post_init__(self) -> None:
        """Checks the settings and spells the name from them."""
        self.patch_size = _positive("patch_size", self.patch_size)
        self.num_patches = _positive("num_patches", self.num_patches)
        _check_limits(self.patch_size, self.num_patches)
        if self.whitening not in tuple(WHITENINGS):
            raise ValueError(
                f"Unknown `whitening`. Expected one of {list(WHITENINGS)}. "
                f"Received: whitening={self.whitening!r}."
            )
        size = self.patch_size
        self.name = f"{size}x{size}_{self.num_patches}_{self.whitening or 'raw'}"


class Builder(tfds.core.GeneratorBasedBuilder):
    """TFDS builder of photograph patches; see `keras_sae.datasets.load_data`.

    The photographs are made grey and halved. Of all patches that lie within a
    tile, the half with the most contrast is kept, and `num_patches` of it are
    drawn without replacement. What the whitening learns, it learns from the
    training split alone.

    Features: `image`, float32 of shape `(patch_size, patch_size, 1)`, in [0, 1]
    without whitening, [0.1, 0.9] with `"classic"`, and of mean 0 and variance 1
    a pixel (unbounded) with `"zca"`. There are no labels.

    Args:
        patch_size: Side of a patch, in pixels of the halved photograph, 1 to 53.
        num_patches: Number of patches to train; a fifth as many are to test.
        whitening: `"classic"`, `"zca"`, or None for raw intensities.
        config: Instead of the three above: a `PatchesConfig` or its name.
        **kwargs: Those of `tfds.core.GeneratorBasedBuilder`, as `data_dir`.

    Raises:
        ValueError: a setting is not one of these, or the photographs hold no
            patch so large or not so many.

    Reference:
        Ng, CS294A "Sparse autoencoder" exercise, 2011 (8x8, 10,000, classic);
        `sklearn.datasets.load_sample_images`.

    Example:

    >>> import tempfile
    >>> from keras_sae.datasets.natural_patches import (
    ...     natural_patches_dataset_builder,
    ... )
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     builder = natural_patches_dataset_builder.Builder(
    ...         patch_size=12, whitening="zca", data_dir=folder
    ...     )
    ...     builder.builder_config.name
    '12x12_10000_zca'
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}  # noqa: RUF012, TFDS's own form
    BUILDER_CONFIGS = [PatchesConfig()]  # noqa: RUF012

    def __init__(
        self,
        *,
        patch_size: int = 8,
        num_patches: int = 10_000,
        whitening: str | None = "classic",
        config: PatchesConfig | str | None = None,
        **kwargs: Any,
    ) -> None:
        config = config or PatchesConfig(
            patch_size=patch_size, num_patches=num_patches, whitening=whitening
        )
        # By name, since TFDS warns of each config object that it did not list.
        super().__init__(config=getattr(config, "name", config), **kwargs)

    @classmethod
    def get_builder_config(cls, name: str, version: Any = None) -> PatchesConfig | None:
        """Returns the config that `name` spells, or None where it spells none."""
        del version  # all configs have the builder's
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
        return tfds.core.DatasetInfo(
            builder=self,
            description=_DESCRIPTION,
            features=tfds.features.FeaturesDict(
                {"image": tfds.features.Image(shape=(size, size, 1), dtype=np.float32)}
            ),
            homepage="https://scikit-learn.org/stable/datasets/loading_other_datasets.html",
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        del dl_manager  # nothing is downloaded
        config = self.builder_config
        train = _draw("train", config.patch_size, config.num_patches)
        test = _draw(
            "test", config.patch_size, max(1, config.num_patches // _TEST_SHARE)
        )
        transform = WHITENINGS[config.whitening](train)
        return {
            "train": self._generate_examples(transform(train)),
            "test": self._generate_examples(transform(test)),
        }

    def _generate_examples(
        self, patches: np.ndarray
    ) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        for key, patch in enumerate(patches.astype("float32")):
            yield key, {"image": patch[..., np.newaxis]}


def _draw(split: str, patch_size: int, number: int) -> np.ndarray:
    """Returns `number` patches of a split, `(number, patch_size, patch_size)`."""
    found = photographs.patches(photographs.tiles(split), patch_size)
    return found[np.random.default_rng(0).permutation(len(found))[:number]]
