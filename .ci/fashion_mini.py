"""Write keras_sae/datasets/fashion_mini/fashion_mini.npz from Fashion-MNIST.

TFDS must have prepared `fashion_mnist`; the environment variable TFDS_DATA_DIR names
the folder. The file holds the first 600 training and the first 100 test images of each
class, in the official order. The same input gives the same arrays.
"""

from pathlib import Path

import numpy as np
from tensorflow_datasets.core import hashing

from keras_sae import datasets

FILE = "keras_sae/datasets/fashion_mini/fashion_mini.npz"


def official_order(split: str, samples: int) -> np.ndarray:
    """Return the rows of a split in the order of the official files.

    TFDS stores the examples by the hash of their row in these files.
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
