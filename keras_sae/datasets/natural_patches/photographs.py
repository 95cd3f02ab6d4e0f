"""Patches cut from the two photographs that scikit-learn ships."""

import numpy as np

# ITU-R BT.601 luma.
_LUMA = np.array([0.299, 0.587, 0.114])
# At full size the finest detail is JPEG's own: patches of it give gratings, not
# edges. Halved, the photographs are sharp at the scale of a pixel.
_REDUCTION = 2
_ROWS, _COLUMNS = 4, 5
_PHOTOGRAPHS = 2
_TILE = (53, 64)  # what 4 x 5 tiles leave of 427 x 640 pixels, halved

LARGEST_PATCH = min(_TILE)


def available(split: str, patch_size: int) -> int:
    """The number of patches that `patches` returns for a split."""
    tiles_of_photograph = _ROWS if split == "test" else _ROWS * (_COLUMNS - 1)
    places = (_TILE[0] - patch_size + 1) * (_TILE[1] - patch_size + 1)
    return _PHOTOGRAPHS * tiles_of_photograph * places // 2


def tiles(split: str) -> np.ndarray:
    """The training or the test tiles of both photographs.

    Each photograph, in grey and at half size, is cut into 4 x 5 tiles. One tile
    in five is for the test split, one in each row and no two in a column, so
    that both splits show the same kinds of scene and share no pixel.

    Args:
        split: `"train"` or `"test"`.

    Returns:
        Float64 array of shape `(tiles, 53, 64)`, in [0, 1].
    """
    from sklearn.datasets import load_sample_images

    chosen = []
    for photograph in load_sample_images().images:
        grey = _halve(photograph @ _LUMA / 255.0)
        height, width = _TILE
        for row in range(_ROWS):
            for column in range(_COLUMNS):
                if ((2 * row + column) % _COLUMNS == 2) == (split == "test"):
                    top, left = row * height, column * width
                    chosen.append(grey[top : top + height, left : left + width])
    return np.stack(chosen)


def patches(images: np.ndarray, patch_size: int) -> np.ndarray:
    """The half of all square patches with the most contrast.

    Sky and blurred background fill half of the photographs; patches of them hold
    next to nothing but noise, and soften the filters that are learned.

    Args:
        images: Array of shape `(tiles, height, width)`.
        patch_size: Side of a patch, in pixels.

    Returns:
        Array of shape `(n, patch_size, patch_size)`, in order of position.
    """
    window = (patch_size, patch_size)
    every = np.lib.stride_tricks.sliding_window_view(images, window, axis=(1, 2))
    contrast = every.std(axis=(-2, -1)).ravel()
    most = np.sort(np.argsort(contrast, kind="stable")[-(len(contrast) // 2) :])
    return every[np.unravel_index(most, every.shape[:3])]


def _halve(image: np.ndarray) -> np.ndarray:
    """Means of blocks of 2x2 pixels; an odd last row or column is dropped."""
    height, width = (side // _REDUCTION for side in image.shape)
    block = image[: height * _REDUCTION, : width * _REDUCTION]
    return block.reshape(height, _REDUCTION, width, _REDUCTION).mean(axis=(1, 3))
