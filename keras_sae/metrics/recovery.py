"""How well the atoms of a model match features that are known."""

from typing import Any

import numpy as np


def matching(features: Any, atoms: Any) -> tuple[np.ndarray, np.ndarray]:
    """Pairs features with atoms one to one, so that the sum of `|cos|` is greatest.

    Args:
        features: The true features, shape `(num_features, dimension)`.
        atoms: What a model has learned, shape `(units, dimension)`.

    Returns:
        Indices of the features and of their atoms, both of shape
        `(min(num_features, units),)`.

    Raises:
        ValueError: The shapes do not fit, or a row is zero.

    Reference:
        Kuhn, "The Hungarian method for the assignment problem", 1955, by
        `scipy.optimize.linear_sum_assignment`.

    Example:

    >>> from keras_sae import metrics
    >>> features, atoms = metrics.matching([[1, 0], [0, 1]], [[0.1, 2], [-1, 0]])
    >>> features.tolist(), atoms.tolist()
    ([0, 1], [1, 0])
    """
    from scipy.optimize import linear_sum_assignment

    return linear_sum_assignment(_cosines(features, atoms), maximize=True)


def recovery_score(features: Any, atoms: Any) -> float:
    """Mean `|cos|` between features and their atoms, matched one to one.

    1 is perfect recovery; sign and scale of an atom do not matter.

    Args:
        features: The true features, shape `(num_features, dimension)`.
        atoms: Rows of the decoder, shape `(units, dimension)`. Where one side has
            more rows, those without a partner are left out.

    Returns:
        A float in `[0, 1]`.

    Raises:
        ValueError: The shapes do not fit, or a row is zero.

    Reference:
        Sharkey et al., "Taking features out of superposition with sparse
        autoencoders", 2022 (there as mean max cosine similarity, not one to one).

    Example:

    >>> from keras_sae import metrics
    >>> metrics.recovery_score([[1, 0], [0, 1]], [[0, 3], [-2, 0]])
    1.0
    """
    return float(_cosines(features, atoms)[matching(features, atoms)].mean())


def uniqueness(features: Any, atoms: Any) -> float:
    """Share of the atoms whose nearest feature no other atom has taken before.

    `|{nearest(atom)}| / units`: below 1 several units split one feature.

    Args:
        features: The true features, shape `(num_features, dimension)`.
        atoms: Rows of the decoder, shape `(units, dimension)`.

    Returns:
        A float in `(0, 1]`.

    Raises:
        ValueError: The shapes do not fit, or a row is zero.

    Example:

    >>> from keras_sae import metrics
    >>> metrics.uniqueness([[1, 0], [0, 1]], [[1, 0], [1, 0.1]])
    0.5
    """
    nearest = _cosines(features, atoms).argmax(axis=0)
    return float(len(np.unique(nearest)) / len(nearest))


def f1(activations: Any, codes: Any, pairs: tuple[Any, Any]) -> float:
    """Mean F1 score of the matched units as detectors of their features.

    `2 tp / (2 tp + fp + fn)`, a unit being on where its feature is on.

    Args:
        activations: Of the true features, shape `(samples, num_features)`.
        codes: Shape `(samples, units)`.
        pairs: What `matching` returns.

    Returns:
        A float in `[0, 1]`. A pair that is never on counts as 0.

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
            "`activations` and `codes` must be of the same samples. Received: "
            f"{len(true)} and {len(found)}."
        )
    true, found = true[:, pairs[0]], found[:, pairs[1]]
    both = (true & found).sum(axis=0)
    either = true.sum(axis=0) + found.sum(axis=0)
    return float((2 * both / np.maximum(either, 1)).mean())


def shrinkage(x: Any, reconstruction: Any) -> float:
    """How much shorter reconstructions are than the data: `1 - sum |r_i| / sum |x_i|`.

    An L1 penalty shrinks what it leaves on; 0 is none of that.

    Args:
        x: Data of shape `(samples, ...)`.
        reconstruction: The same shape.

    Returns:
        A float, at most 1.

    Raises:
        ValueError: The shapes differ.

    Example:

    >>> from keras_sae import metrics
    >>> metrics.shrinkage([[3.0, 4.0]], [[1.5, 2.0]])
    0.5
    """
    x, r = (np.asarray(v, "float64") for v in (x, reconstruction))
    if x.shape != r.shape:
        raise ValueError(
            "`reconstruction` must have the shape of `x`. Received: "
            f"{r.shape} and {x.shape}."
        )
    norms = [np.linalg.norm(v.reshape(len(v), -1), axis=1).sum() for v in (r, x)]
    return float(1 - norms[0] / norms[1])


def _cosines(features: Any, atoms: Any) -> np.ndarray:
    """`|cos|` between every feature and every atom."""
    rows = [np.asarray(v, "float64") for v in (features, atoms)]
    if any(v.ndim != 2 for v in rows) or rows[0].shape[1] != rows[1].shape[1]:
        raise ValueError(
            "`features` and `atoms` must have a vector a row, of the same dimension. "
            f"Received: shapes {rows[0].shape} and {rows[1].shape}."
        )
    norms = [np.linalg.norm(v, axis=1, keepdims=True) for v in rows]
    if any((norm == 0).any() for norm in norms):
        raise ValueError(
            "A row of zeros has no direction. Received: "
            f"{int((norms[0] == 0).sum())} such features and "
            f"{int((norms[1] == 0).sum())} such atoms."
        )
    return np.abs((rows[0] / norms[0]) @ (rows[1] / norms[1]).T)
