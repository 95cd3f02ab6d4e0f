"""Metrics of the sparsity of codes."""

import keras
import numpy as np
from keras import ops
from scipy import sparse

from keras_sae.types import ArrayLike, Codes, CodesLike, Config, DTypeLike, Tensor
from keras_sae.utils.serialization import register


def as_rows(
    name: str,
    array: ArrayLike,
    x_shape: tuple[int, ...] | None = None,
    dtype: str | None = "float64",
) -> np.ndarray:
    """Return `array` with shape `(samples, values per sample)`."""
    values = np.asarray(ops.convert_to_numpy(array), dtype)
    if x_shape is not None and values.shape != x_shape:
        raise ValueError(
            f"`{name}` must have the shape of `x`. Received: "
            f"{name}.shape={values.shape}, x.shape={x_shape}."
        )
    if values.ndim < 2 or not len(values):
        raise ValueError(
            f"`{name}` must have at least two axes and at least one sample. "
            f"Received: {name}.shape={values.shape}."
        )
    return values.reshape(len(values), -1)


def code_rows(codes: CodesLike) -> Codes:
    """Return float64 codes of shape `(samples, units)`; sparse codes stay sparse."""
    if not sparse.issparse(codes):
        return as_rows("codes", codes)
    rows = sparse.csr_array(codes, dtype="float64")
    if rows.ndim != 2 or not rows.shape[0]:
        raise ValueError(
            "`codes` must have two axes and at least one sample. Received: a sparse "
            f"matrix of shape {rows.shape}."
        )
    return rows


def l0(codes: CodesLike, threshold: float = 0.0) -> float:
    """Return the mean number of active units per sample.

    `mean_i |{j : |h_ij| > threshold}|`

    Args:
        codes: Codes of shape `(samples, units)`, an array or a SciPy sparse matrix.
        threshold: Magnitude above which a unit is active.

    Returns:
        A float in `[0, units]`.

    Raises:
        ValueError: `codes` has no samples, or fewer than two axes.

    Example:

    >>> from keras_sae import metrics
    >>> metrics.l0([[0.0, 2.0, 0.0], [1.0, 0.5, 0.0]])
    1.5
    """
    return float((abs(code_rows(codes)) > threshold).sum(axis=1).mean())


def hoyer(codes: CodesLike) -> float:
    """Return Hoyer's sparsity, averaged over samples.

    `(sqrt(m) - |h|_1 / |h|_2) / (sqrt(m) - 1)` for `m` units

    The value is 0 if all units are equally active, and 1 if a single unit is active. It
    does not depend on the scale of the code, and is also meaningful for codes that are
    never exactly zero.

    Args:
        codes: Codes of shape `(samples, units)` as in `l0`, with at least two units.
            Samples whose code is all zeros are ignored.

    Returns:
        A float in `[0, 1]`; NaN if every code is all zeros.

    Raises:
        ValueError: `codes` has no samples, or fewer than two units.

    Reference:
        [Hoyer, "Non-negative matrix factorization with sparseness constraints", JMLR
        2004](https://www.jmlr.org/papers/v5/hoyer04a.html).

    Example:

    >>> from keras_sae import metrics
    >>> metrics.hoyer([[0, 3, 0, 0]]), metrics.hoyer([[1, 1, 1, 1]])
    (1.0, 0.0)
    """
    values = abs(code_rows(codes))
    units = values.shape[1]
    if units < 2:
        raise ValueError(
            "`codes` must have at least two units for Hoyer's sparsity. "
            f"Received: codes with {units} unit."
        )
    sums, squares = values.sum(axis=1), (values**2).sum(axis=1)
    active = sums > 0
    if not active.any():
        return float("nan")
    ratio = sums[active] / np.sqrt(squares[active])
    return float(((np.sqrt(units) - ratio) / (np.sqrt(units) - 1)).mean())


def dead_fraction(codes: CodesLike, threshold: float = 0.0) -> float:
    """Return the fraction of units that are inactive in every sample.

    Args:
        codes: Codes of shape `(samples, units)`, an array or a SciPy sparse matrix.
        threshold: Magnitude above which a unit is active.

    Returns:
        A float in `[0, 1]`.

    Raises:
        ValueError: `codes` has no samples, or fewer than two axes.

    Example:

    >>> from keras_sae import metrics
    >>> metrics.dead_fraction([[0.0, 2.0, 0.0, 1.0], [1.0, 0.5, 0.0, 0.0]])
    0.25
    """
    active = abs(code_rows(codes)) > threshold
    return float((active.sum(axis=0) == 0).mean())


@register
class L0(keras.metrics.Mean):
    """Mean number of active units per sample, over all batches.

    `mean_i |{j : h_ij != 0}|`

    For codes that are never exactly zero, such as sigmoid codes, pass the bounds of the
    activation. The metric is then `mean_i(sum_j (h_ij - low) / (high - low))`.

    Args:
        bounds: Bounds `(low, high)` of the activation, or None to count non-zero units.
        name: Name in the logs. If None, it is `"l0"`, or `"expected_l0"` with bounds.
        dtype: Dtype of the metric's state; float32 if None.

    Example:

    >>> from keras_sae import metrics
    >>> metric = metrics.L0()
    >>> metric.update_state([[0.0, 2.0], [1.0, 0.5]])
    >>> float(metric.result())
    1.5
    """

    def __init__(
        self,
        bounds: tuple[float, float] | None = None,
        name: str | None = None,
        dtype: DTypeLike = None,
    ) -> None:
        name = name or ("l0" if bounds is None else "expected_l0")
        super().__init__(name=name, dtype=dtype or "float32")
        self.bounds = None if bounds is None else (bounds[0], bounds[1])

    def update_state(self, codes: Tensor, sample_weight: Tensor = None) -> None:
        """Add a batch of codes, of shape `(batch, ..., units)`."""
        if self.bounds is None:
            active = ops.cast(ops.not_equal(codes, 0), "float32")
        else:
            low, high = self.bounds
            active = (ops.cast(codes, "float32") - low) / (high - low)
        axes = tuple(range(1, len(active.shape)))
        super().update_state(ops.sum(active, axis=axes), sample_weight)

    def get_config(self) -> Config:
        """Return the arguments of the constructor."""
        return {**super().get_config(), "bounds": self.bounds}
