"""Metrics of how well a dictionary recovers known features.

`keras_sae.datasets.superposition` generates data with known features.
"""

import numpy as np

from keras_sae.types import ArrayLike


def matching(
    features: ArrayLike, dictionary: ArrayLike
) -> tuple[np.ndarray, np.ndarray]:
    """Match features with dictionary rows one to one, maximizing the sum of `|cos|`.

    Args:
        features: The true features, of shape `(num_features, dimension)`.
        dictionary: The learned features, of shape `(units, dimension)`.

    Returns:
        Indices of the features and of the matched units, both of shape
        `(min(num_features, units),)`.

    Raises:
        ValueError: The shapes do not match, or a row is all zeros.

    Reference:
        [Kuhn, "The Hungarian method for the assignment problem",
        1955](https://doi.org/10.1002/nav.3800020109), as implemented by
        `scipy.optimize.linear_sum_assignment`.

    Example:

    >>> from keras_sae import metrics
    >>> features, units = metrics.matching([[1, 0], [0, 1]], [[0.1, 2], [-1, 0]])
    >>> features.tolist(), units.tolist()
    ([0, 1], [1, 0])
    """
    from scipy.optimize import linear_sum_assignment

    return linear_sum_assignment(_cosines(features, dictionary), maximize=True)


def recovery_score(features: ArrayLike, dictionary: ArrayLike) -> float:
    """Return the mean `|cos|` between features and units matched one to one.

    If every feature is recovered perfectly, the score is 1. The sign and scale of a
    dictionary row do not matter.

    Args:
        features: The true features, of shape `(num_features, dimension)`.
        dictionary: The learned features, of shape `(units, dimension)`. If the
            numbers of features and units differ, unmatched rows are ignored.

    Returns:
        A float in `[0, 1]`.

    Raises:
        ValueError: The shapes do not match, or a row is all zeros.

    Reference:
        [Sharkey et al., "Taking features out of superposition with sparse
        autoencoders", 2022](https://www.alignmentforum.org/posts/z6QQJbtpkEAX3Aojj),
        where several features can be matched to one unit (mean max cosine similarity).

    Example:

    >>> from keras_sae import metrics
    >>> metrics.recovery_score([[1, 0], [0, 1]], [[0, 3], [-2, 0]])
    1.0
    """
    return float(_cosines(features, dictionary)[matching(features, dictionary)].mean())


def uniqueness(features: ArrayLike, dictionary: ArrayLike) -> float:
    """Return the number of distinct nearest features, divided by the number of units.

    `|{nearest(unit)}| / units`

    A value below 1 means that features were split: several units have the same nearest
    feature.

    Args:
        features: The true features, of shape `(num_features, dimension)`.
        dictionary: The learned features, of shape `(units, dimension)`.

    Returns:
        A float in `(0, 1]`.

    Raises:
        ValueError: The shapes do not match, or a row is all zeros.

    Example:

    >>> from keras_sae import metrics
    >>> metrics.uniqueness([[1, 0], [0, 1]], [[1, 0], [1, 0.1]])
    0.5
    """
    nearest = _cosines(features, dictionary).argmax(axis=0)
    return float(len(np.unique(nearest)) / len(nearest))


def f1(
    activations: ArrayLike, codes: ArrayLike, pairs: tuple[ArrayLike, ArrayLike]
) -> float:
    """Return the mean F1 score of matched units as detectors of their features.

    `2 tp / (2 tp + fp + fn)`, where values above 0 count as active

    Args:
        activations: Feature activations of shape `(samples, num_features)`.
        codes: Codes of shape `(samples, units)`.
        pairs: Indices of features and units, as returned by `matching`.

    Returns:
        A float in `[0, 1]`. The score of a pair that is never active is 0.

    Raises:
        ValueError: The numbers of samples differ.

    Example:

    >>> from keras_sae import metrics
    >>> metrics.f1([[1.0], [0.0], [2.0]], [[0.5], [0.0], [0.0]], ([0], [0]))
    0.6666666666666666
    """
    true, found = np.asarray(activations) > 0, np.asarray(codes) > 0
    if len(true) != len(found):
        raise ValueError(
            "`activations` and `codes` must have the same number of samples. Received: "
            f"{len(true)} and {len(found)}."
        )
    true, found = true[:, np.asarray(pairs[0])], found[:, np.asarray(pairs[1])]
    both = (true & found).sum(axis=0)
    either = true.sum(axis=0) + found.sum(axis=0)
    return float((2 * both / np.maximum(either, 1)).mean())


def _cosines(features: ArrayLike, dictionary: ArrayLike) -> np.ndarray:
    """Return `|cos|` between every feature and every dictionary row."""
    rows = [np.asarray(v, "float64") for v in (features, dictionary)]
    if any(v.ndim != 2 for v in rows) or rows[0].shape[1] != rows[1].shape[1]:
        raise ValueError(
            "`features` and `dictionary` must have shapes (num_features, dimension) "
            f"and (units, dimension). Received: {rows[0].shape} and {rows[1].shape}."
        )
    norms = [np.linalg.norm(v, axis=1, keepdims=True) for v in rows]
    if any((norm == 0).any() for norm in norms):
        raise ValueError(
            "`features` and `dictionary` must not have rows of zeros. Received: "
            f"{int((norms[0] == 0).sum())} zero rows in `features` and "
            f"{int((norms[1] == 0).sum())} in `dictionary`."
        )
    return np.abs((rows[0] / norms[0]) @ (rows[1] / norms[1]).T)
