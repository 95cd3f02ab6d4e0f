"""Write keras_sae/datasets/fashion_mini/fashion_mini.npz from Fashion-MNIST.

The script reads `fashion_mnist` from TFDS_DATA_DIR, a folder in which TFDS has prepared
this dataset. The file contains the first 600 training images and the first 100 test
images of each class, in the official order. Every run writes the same arrays.
"""

from pathlib import Path

import numpy as np
from tensorflow_datasets.core import hashing

from keras_sae import datasets

FILE = "keras_sae/datasets/fashion_mini/fashion_mini.npz"


def official_order(split: str, samples: int) -> np.ndarray:
    """Return the indices that sort the examples of TFDS into the official order.

    TFDS sorts the examples of a split by a hash of their official index.
    """
    hasher = hashing.Hasher(split)
    hashes = [hasher.hash_key(row) for row in range(samples)]
    return np.argsort(sorted(range(samples), key=hashes.__getitem__))


def main() -> None:
    """Write the file, and print its size."""
    arrays = {}
    splits = zip(("train", "test"), datasets.load_data("fashion_mnist"), strict=True)
    for split, (x, y) in splits:
        rows = official_order(split, len(x))
        x, y = x[rows], y[rows]
        per_class = len(x) // 100
        first = [np.flatnonzero(y == label)[:per_class] for label in range(10)]
        chosen = np.sort(np.concatenate(first))
        arrays[f"x_{split}"] = np.rint(x[chosen] * 255).astype("uint8")
        arrays[f"y_{split}"] = y[chosen].astype("uint8")
    path = Path(__file__).parents[1] / FILE
    np.savez_compressed(path, **arrays)
    print(f"{path}: {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
