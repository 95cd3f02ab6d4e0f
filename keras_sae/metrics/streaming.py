"""The same figures, gathered batch by batch in a fit."""

from typing import Any

import keras
from keras import ops

from keras_sae.utils.serialization import register


@register
class L0(keras.metrics.Mean):
    """Mean number of non-zero units a sample, over all batches seen.

    Args:
        name: Name in the logs.
        dtype: Kept in float32 if None.

    Example:

    >>> from keras_sae import metrics
    >>> metric = metrics.L0()
    >>> metric.update_state([[0.0, 2.0], [1.0, 0.5]])
    >>> float(metric.result())
    1.5
    """

    def __init__(self, name: str = "l0", dtype: Any = None) -> None:
        super().__init__(name=name, dtype=dtype)

    def update_state(self, codes: Any, sample_weight: Any = None) -> None:
        """Adds a batch of codes, shape `(batch, ..., units)`."""
        active = ops.cast(ops.not_equal(codes, 0), "float32")
        super().update_state(ops.sum(active, axis=-1), sample_weight)


@register
class ExpectedL0(keras.metrics.Mean):
    """Mean sum of the activations a sample, each rescaled to (0, 1).

    `mean_i(sum_j (h_ij - low) / (high - low))`

    It stands in for L0 where a bounded code is never exactly zero.

    Args:
        bounds: `(low, high)` of the activations.
        name: Name in the logs.
        dtype: Kept in float32 if None.

    Example:

    >>> from keras_sae import metrics
    >>> metric = metrics.ExpectedL0()
    >>> metric.update_state([[0.25, 0.5], [1.0, 0.25]])
    >>> float(metric.result())
    1.0
    """

    def __init__(
        self,
        bounds: tuple[float, float] = (0.0, 1.0),
        name: str = "expected_l0",
        dtype: Any = None,
    ) -> None:
        super().__init__(name=name, dtype=dtype)
        self.bounds = tuple(bounds)

    def update_state(self, codes: Any, sample_weight: Any = None) -> None:
        """Adds a batch of codes, shape `(batch, ..., units)`."""
        low, high = self.bounds
        share = (ops.cast(codes, "float32") - low) / (high - low)
        super().update_state(ops.sum(share, axis=-1), sample_weight)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {**super().get_config(), "bounds": list(self.bounds)}


@register
class ExplainedVariance(keras.metrics.Metric):
    """`explained_variance` of all batches seen, without keeping them.

    The sum of squares about the mean is merged batch by batch: two parts of `n`
    and `b` samples, with means `m` and `k`, have together the sum of their own
    sums and `|k - m|^2 n b / (n + b)`. No large numbers are subtracted, so
    float32 holds. Replicas under `tf.distribute` add up what each has seen, without
    the distance between their means.

    Args:
        size: Number of values a sample, the product of its shape.
        name: Name in the logs.
        dtype: Kept in float32 if None.

    Reference:
        Chan, Golub & LeVeque, "Updating formulae and a pairwise algorithm for
        computing sample variances", 1979.

    Example:

    >>> from keras_sae import metrics
    >>> metric = metrics.ExplainedVariance(1)
    >>> metric.update_state([[0.0]], [[0.0]])
    >>> metric.update_state([[2.0]], [[1.0]])
    >>> float(metric.result())
    0.5
    """

    def __init__(
        self, size: int, name: str = "explained_variance", dtype: Any = None
    ) -> None:
        super().__init__(name=name, dtype=dtype)
        self.size = size
        self.count = self.add_weight(shape=(), initializer="zeros", name="count")
        self.mean = self.add_weight(shape=(size,), initializer="zeros", name="mean")
        self.total = self.add_weight(shape=(), initializer="zeros", name="total")
        self.error = self.add_weight(shape=(), initializer="zeros", name="error")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Adds a batch of data and reconstructions, shape `(batch, ...)` both."""
        del sample_weight  # the figure is of the set as it is
        x = ops.reshape(ops.cast(y_true, self.dtype), (-1, self.size))
        r = ops.reshape(ops.cast(y_pred, self.dtype), (-1, self.size))
        batch = ops.cast(ops.shape(x)[0], self.dtype)
        # The last batch of an epoch may leave a replica without a sample.
        mean = ops.where(batch > 0, ops.mean(x, axis=0), 0.0)
        seen, shift = ops.maximum(batch + self.count, 1.0), mean - self.mean
        between = ops.sum(ops.square(shift)) * self.count * batch / seen
        within = ops.sum(ops.square(x - mean))
        self.error.assign_add(ops.sum(ops.square(x - r)))
        self.total.assign_add(within + between)
        self.mean.assign_add(shift * batch / seen)
        self.count.assign_add(batch)

    def result(self) -> Any:
        """Returns the figure so far; NaN if the data did not vary."""
        total = ops.convert_to_tensor(self.total)
        varies = total > 0
        share = self.error / ops.where(varies, total, 1.0)
        return ops.where(varies, 1 - share, float("nan"))

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {**super().get_config(), "size": self.size}
