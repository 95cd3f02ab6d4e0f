"""Metrics of how well data are reconstructed."""

import keras
import numpy as np
from keras import ops

from keras_sae.metrics.sparsity import as_rows
from keras_sae.types import ArrayLike, Config, DTypeLike, Tensor
from keras_sae.utils.serialization import register


def explained_variance(x: ArrayLike, reconstruction: ArrayLike) -> float:
    """Return the share of the variance of `x` that a reconstruction keeps.

    `1 - sum_i |x_i - r_i|^2 / sum_i |x_i - mean(x)|^2`

    It is 1 for a perfect reconstruction, 0 for the mean of the data, and negative for
    anything worse than the mean. It differs from the mean of this ratio over batches.

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
    reconstruction = as_rows("reconstruction", reconstruction, np.shape(x))
    x = as_rows("x", x)
    total = ((x - x.mean(axis=0)) ** 2).sum()
    error = ((x - reconstruction) ** 2).sum()
    return float(1 - error / total) if total > 0 else float("nan")


def shrinkage(x: ArrayLike, reconstruction: ArrayLike) -> float:
    """Return by which fraction reconstructions are shorter than the data.

    `1 - sum_i |r_i| / sum_i |x_i|`

    An L1 penalty also shrinks the activations of active units, and with them the
    reconstructions. The value is 0 if the lengths are equal.

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
    """`keras_sae.metrics.explained_variance` over all batches.

    The sum of squares about the mean is updated batch by batch. For parts of `n` and
    `b` samples with means `m` and `k`, it is the sum of both parts' own sums and
    `|k - m|^2 n b / (n + b)`. Large numbers are never subtracted, so float32 is precise
    enough. Under `tf.distribute` the sums of the replicas are added up, without the
    distance between their means.

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
        super().__init__(name=name, dtype=dtype)
        self.size = size
        self.count = self.add_weight((), "zeros", name="count")
        self.mean = self.add_weight((size,), "zeros", name="mean")
        self.total = self.add_weight((), "zeros", name="total")
        self.error = self.add_weight((), "zeros", name="error")

    def update_state(
        self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor = None
    ) -> None:
        """Add a batch of data and reconstructions; `sample_weight` is ignored."""
        del sample_weight
        x = ops.reshape(ops.cast(y_true, self.dtype), (-1, self.size))
        r = ops.reshape(ops.cast(y_pred, self.dtype), (-1, self.size))
        batch = ops.cast(ops.shape(x)[0], self.dtype)
        # The last batch of an epoch may leave a replica without samples.
        mean = ops.where(batch > 0, ops.mean(x, axis=0), 0.0)
        seen, shift = ops.maximum(batch + self.count, 1.0), mean - self.mean
        between = ops.sum(ops.square(shift)) * self.count * batch / seen
        within = ops.sum(ops.square(x - mean))
        self.error.assign_add(ops.sum(ops.square(x - r)))
        self.total.assign_add(within + between)
        self.mean.assign_add(shift * batch / seen)
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
