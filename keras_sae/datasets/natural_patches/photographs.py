"""Patches of the two sample photographs in scikit-learn."""

import numpy as np

# ITU-R BT.601 luma.
_LUMA = np.array([0.299, 0.587, 0.114])
_PHOTOGRAPHS, _ROWS, _COLUMNS = 2, 4, 5
_TILE = (53, 64)  # 4 x 5 tiles fit into 427 x 640 pixels at half size

LARGEST_PATCH = min(_TILE)


def available(split: str, patch_size: int) -> int:
    """Return the number of patches available for a split."""
    tiles_per_photograph = _ROWS if split == "test" else _ROWS * (_COLUMNS - 1)
    positions = (_TILE[0] - patch_size + 1) * (_TILE[1] - patch_size + 1)
    return _PHOTOGRAPHS * tiles_per_photograph * positions // 2


def tiles(split: str) -> np.ndarray:
    """Return the tiles of a split, of shape `(tiles, 53, 64)` in [0, 1].

    Each photograph, in gray and at half size, is cut into 4 x 5 tiles. The test split
    has one tile per row and at most one per column. Both splits therefore show the same
    kinds of scenes, but share no pixels. Half size is used because the finest details
    at full size are JPEG artifacts, from which models would learn gratings.
    """
    from sklearn.datasets import load_sample_images

    height, width = _TILE
    chosen = []
    for photograph in load_sample_images().images:
        gray = photograph[: 2 * _ROWS * height] @ _LUMA / 255.0
        halved = gray.reshape(_ROWS * height, 2, _COLUMNS * width, 2).mean(axis=(1, 3))
        for row in range(_ROWS):
            for column in range(_COLUMNS):
                if ((2 * row + column) % _COLUMNS == 2) == (split == "test"):
                    top, left = row * height, column * width
                    chosen.append(halved[top : top + height, left : left + width])
    return np.stack(chosen)


def patches(images: np.ndarray, patch_size: int) -> np.ndarray:
    """Return the higher-contrast half of all square patches.

    Half of the photographs' area is sky and blurred background. Patches from these
    regions are mostly noise and would blur the learned filters.
    """
    window = (patch_size, patch_size)
    every = np.lib.stride_tricks.sliding_window_view(images, window, axis=(1, 2))
    contrast = every.std(axis=(-2, -1)).ravel()
    most = np.sort(np.argsort(contrast, kind="stable")[-(len(contrast) // 2) :])
    return every[np.unravel_index(most, every.shape[:3])]
