"""Metrics of reconstruction quality."""

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_sae.metrics.sparsity import as_rows
from keras_sae.ops.statistics import expand_weight, from_replicas, weighted_mean
from keras_sae.types import ArrayLike, Config, DTypeLike, Tensor
from keras_sae.utils.serialization import register

_ROWS = 4096  # samples that are converted to float64 at a time


def explained_variance(x: ArrayLike, reconstruction: ArrayLike) -> float:
    """Return the fraction of the variance of `x` that a reconstruction explains.

    `1 - sum_i |x_i - r_i|^2 / sum_i |x_i - mean(x)|^2`

    The value is 1 for a perfect reconstruction, 0 for the mean of the data, and
    negative for anything worse. An average over batches is a different number, so pass
    all samples at once.

    Args:
        x: Data of shape `(samples, ...)`.
        reconstruction: An array of the same shape.

    Returns:
        A float, at most 1; NaN if all samples of `x` are equal.

    Raises:
        ValueError: The shapes differ, or there are no samples.

    Example:

    >>> from keras_sae import metrics
    >>> metrics.explained_variance([[0.0], [2.0]], [[0.0], [1.0]])
    0.5
    """
    reconstruction = as_rows("reconstruction", reconstruction, np.shape(x), None)
    x = as_rows("x", x, dtype=None)
    mean, total, error = x.mean(axis=0, dtype="float64"), 0.0, 0.0
    for begin in range(0, len(x), _ROWS):
        rows = slice(begin, begin + _ROWS)
        block = x[rows].astype("float64")
        total += ((block - mean) ** 2).sum()
        error += ((block - reconstruction[rows]) ** 2).sum()
    return float(1 - error / total) if total > 0 else float("nan")


def shrinkage(x: ArrayLike, reconstruction: ArrayLike) -> float:
    """Return the fraction by which reconstructions are shorter than the data.

    `1 - sum_i |r_i| / sum_i |x_i|`

    An L1 penalty also shrinks the activations of active units, and therefore the
    reconstructions. The value is 0 without shrinkage.

    Args:
        x: Data of shape `(samples, ...)`.
        reconstruction: An array of the same shape.

    Returns:
        A float, at most 1.

    Raises:
        ValueError: The shapes differ, or there are no samples.

    Reference:
        [Wright & Sharkey, "Addressing feature suppression in SAEs",
        2024](https://www.alignmentforum.org/posts/3JuSjTZyMzaSeTxKk).

    Example:

    >>> from keras_sae import metrics
    >>> metrics.shrinkage([[3.0, 4.0]], [[1.5, 2.0]])
    0.5
    """
    rows = as_rows("reconstruction", reconstruction, np.shape(x)), as_rows("x", x)
    lengths = [np.linalg.norm(v, axis=1).sum() for v in rows]
    return float(1 - lengths[0] / lengths[1])


@register
class ExplainedVariance(keras.metrics.Metric):
    """Compute `keras_sae.metrics.explained_variance` over all batches.

    Each batch updates the sum of squared differences from the mean. If two parts of the
    data have `n` and `b` samples and means `m` and `k`, their two sums and
    `|k - m|^2 n b / (n + b)` add up to the total. Large numbers are never subtracted,
    so float32 is precise enough. With sample weights, all sums are weighted.

    Args:
        size: Number of values per sample, the product of its shape.
        name: Name in the logs.
        dtype: Dtype of the metric's state; float32 if None.

    Reference:
        [Chan, Golub & LeVeque, "Updating formulae and a pairwise algorithm for
        computing sample variances",
        1979](http://i.stanford.edu/pub/cstr/reports/cs/tr/79/773/CS-TR-79-773.pdf).

    Example:

    >>> from keras_sae import metrics
    >>> metric = metrics.ExplainedVariance(1)
    >>> metric.update_state([[0.0]], [[0.0]])
    >>> metric.update_state([[2.0]], [[1.0]])
    >>> float(metric.result())
    0.5
    """

    def __init__(
        self, size: int, name: str = "explained_variance", dtype: DTypeLike = None
    ) -> None:
        super().__init__(name=name, dtype=dtype or "float32")
        self.size = size
        # Every replica has the same count and mean, but its own sums of squares.
        shared: dict[str, Any] = {
            "initializer": "zeros",
            "aggregation": "mean",
            "dtype": self.dtype,
        }
        self.count = self.add_variable((size,), name="count", **shared)
        self.mean = self.add_variable((size,), name="mean", **shared)
        self.total = self.add_weight((), "zeros", self.dtype, name="total")
        self.error = self.add_weight((), "zeros", self.dtype, name="error")

    def update_state(
        self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor = None
    ) -> None:
        """Add a batch of data and reconstructions.

        Args:
            y_true: Data of shape `(batch, ...)`.
            y_pred: Reconstructions of the same shape.
            sample_weight: None, or weights whose axes match the first axes of `y_true`.
        """
        x, r = ops.cast(y_true, self.dtype), ops.cast(y_pred, self.dtype)
        weight = None
        if sample_weight is not None:
            weight = expand_weight(ops.cast(sample_weight, self.dtype), x)
            weight = ops.broadcast_to(weight, ops.shape(x))
            weight = ops.reshape(weight, (-1, self.size))
        x, r = (ops.reshape(v, (-1, self.size)) for v in (x, r))
        if weight is None:
            rows = ops.cast(ops.shape(x)[0], self.dtype)
            rows = rows * ops.ones((self.size,), self.dtype)
        else:
            rows = ops.sum(weight, axis=0)
        means, counts = from_replicas((weighted_mean(x, weight), rows))
        mean, batch = weighted_mean(means, counts), ops.sum(counts, axis=0)
        share = ops.divide_no_nan(batch, batch + self.count)
        shift = mean - self.mean
        # Every replica adds an equal part of the between-batch sum of squares.
        replicas = ops.cast(ops.shape(counts)[0], self.dtype)
        between = ops.square(shift) * self.count * share / replicas
        within, error = ops.square(x - mean), ops.square(x - r)
        if weight is not None:
            within, error = within * weight, error * weight
        self.error.assign_add(ops.sum(error))
        self.total.assign_add(ops.sum(within) + ops.sum(between))
        self.mean.assign_add(shift * share)
        self.count.assign_add(batch)

    def result(self) -> Tensor:
        """Return the explained variance so far; NaN if the data did not vary."""
        total = ops.convert_to_tensor(self.total)
        varies = total > 0
        lost = self.error / ops.where(varies, total, 1.0)
        return ops.where(varies, 1 - lost, float("nan"))

    def get_config(self) -> Config:
        """Return the arguments of the constructor."""
        return {**super().get_config(), "size": self.size}
