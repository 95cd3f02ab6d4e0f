"""Figures of codes and reconstructions, exact on arrays."""

from typing import Any

import keras
import numpy as np


def _rows(name: str, array: Any) -> np.ndarray:
    """Returns `array` as float64 of shape (samples, values a sample)."""
    values = np.asarray(keras.ops.convert_to_numpy(array), "float64")
    if values.ndim < 2 or values.shape[0] == 0:
        raise ValueError(
            f"`{name}` must hold at least one sample a row, so have at least two "
            f"axes. Received: {name}.shape={values.shape}."
        )
    return values.reshape(len(values), -1)


def l0(codes: Any, threshold: float = 0.0) -> float:
    """Mean number of active units a sample: `mean_i |{j : |h_ij| > threshold}|`.

    Args:
        codes: Shape `(samples, units)`.
        threshold: Magnitude up to which a unit counts as off.

    Returns:
        A float in `[0, units]`.

    Raises:
        ValueError: `codes` has no samples, or fewer than two axes.

    Example:

    >>> from keras_sae import metrics
    >>> metrics.l0([[0.0, 2.0, 0.0], [1.0, 0.5, 0.0]])
    1.5
    """
    return float((np.abs(_rows("codes", codes)) > threshold).sum(axis=1).mean())


def hoyer(codes: Any) -> float:
    """Hoyer's sparsity, mean over samples: 0 for all units equal, 1 for one alone.

    `(sqrt(m) - |h|_1 / |h|_2) / (sqrt(m) - 1)` for `m` units. It does not change
    with the scale of a code, so it compares codes that are never exactly zero.

    Args:
        codes: Shape `(samples, units)`, at least two units. A sample that is
            zero throughout has no value and is left out.

    Returns:
        A float in `[0, 1]`; NaN if every sample is zero.

    Raises:
        ValueError: `codes` has no samples, or fewer than two units.

    Reference:
        Hoyer, "Non-negative matrix factorization with sparseness constraints",
        JMLR 2004.

    Example:

    >>> from keras_sae import metrics
    >>> metrics.hoyer([[0.0, 3.0, 0.0, 0.0]]), metrics.hoyer([[1.0, 1.0, 1.0, 1.0]])
    (1.0, 0.0)
    """
    values = np.abs(_rows("codes", codes))
    units = values.shape[1]
    if units < 2:
        raise ValueError(
            "Hoyer's sparsity compares units, so `codes` needs at least two. "
            f"Received: codes of {units} unit."
        )
    values = values[values.max(axis=1) > 0]
    if not len(values):
        return float("nan")
    ratio = values.sum(axis=1) / np.sqrt((values**2).sum(axis=1))
    return float(((np.sqrt(units) - ratio) / (np.sqrt(units) - 1)).mean())


def dead_fraction(codes: Any, threshold: float = 0.0) -> float:
    """Fraction of the units that are off in every sample.

    Args:
        codes: Shape `(samples, units)`.
        threshold: Magnitude up to which a unit counts as off.

    Returns:
        A float in `[0, 1]`.

    Raises:
        ValueError: `codes` has no samples, or fewer than two axes.

    Example:

    >>> from keras_sae import metrics
    >>> metrics.dead_fraction([[0.0, 2.0, 0.0, 1.0], [1.0, 0.5, 0.0, 0.0]])
    0.25
    """
    return float((np.abs(_rows("codes", codes)).max(axis=0) <= threshold).mean())


def explained_variance(x: Any, reconstruction: Any) -> float:
    """Share of the data's variance that a reconstruction keeps, over the whole set.

    `1 - sum_i |x_i - r_i|^2 / sum_i |x_i - mean(x)|^2`

    It is 1 for a perfect reconstruction, 0 for the data's mean, and negative
    for anything worse than the mean. The mean of the same ratio over batches is
    another number, and not an estimate of this one.

    Args:
        x: Data of shape `(samples, ...)`.
        reconstruction: The same shape.

    Returns:
        A float, at most 1; NaN if `x` does not vary.

    Raises:
        ValueError: The shapes differ, or there are no samples.

    Example:

    >>> from keras_sae import metrics
    >>> metrics.explained_variance([[0.0], [2.0]], [[0.0], [1.0]])
    0.5
    """
    x, reconstruction = _rows("x", x), _rows("reconstruction", reconstruction)
    if x.shape != reconstruction.shape:
        raise ValueError(
            "`reconstruction` must have the shape of `x`. Received: "
            f"{reconstruction.shape} and {x.shape} (samples, values a sample)."
        )
    total = ((x - x.mean(axis=0)) ** 2).sum()
    error = ((x - reconstruction) ** 2).sum()
    return float(1 - error / total) if total > 0 else float("nan")
