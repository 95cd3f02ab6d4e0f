"""Effective number of active units, also for codes that are never exactly zero."""

import math
from collections.abc import Callable
from typing import Protocol

import keras
import numpy as np
from keras import ops

from keras_sae.metrics.reconstruction import explained_variance
from keras_sae.metrics.sparsity import as_rows
from keras_sae.ops.statistics import weighted_mean
from keras_sae.types import ArrayLike, DTypeLike, Tensor
from keras_sae.utils.serialization import register
from keras_sae.utils.validation import positive_integer

_ROWS = 4096  # samples per step, to limit memory use


class DictionaryModel(Protocol):
    """Interface of a model that encodes, decodes and returns its dictionary."""

    encode: Callable[[ArrayLike], np.ndarray]
    decode: Callable[[ArrayLike], np.ndarray]
    dictionary: Callable[[], np.ndarray]


def effective_l0(
    codes: ArrayLike,
    dictionary: ArrayLike | None = None,
    rest: ArrayLike | None = None,
) -> float:
    """Return the effective number of active units per sample.

    `mean_i((sum_j c_ij)^2 / sum_j c_ij^2)` with `c_ij = |h_ij - rest_j| |d_j|`

    `c_ij` is the contribution of unit `j` to sample `i`: the distance of the activation
    from the unit's resting value, times the length of the unit's dictionary row. The
    result is 1 if a single unit contributes, and `n` if `n` units contribute equally.
    This makes codes that are never exactly zero comparable to sparse codes. For a
    sparse code, the result is at most `l0`. Scaling a unit and dividing its dictionary
    row by the same number does not change the result. Adding a constant to a unit does
    not change it either.

    Args:
        codes: Codes of shape `(samples, ..., units)`.
        dictionary: Dictionary of shape `(units, ...)`, as returned by
            `Autoencoder.dictionary`. If None, or for codes with further axes, all rows
            count as equally long.
        rest: Resting values of the units, shape `(units,)`. None means each unit's
            median over the samples, which is 0 for a unit that is zero in more than
            half of the samples.

    Returns:
        A float in `[0, units]`. A sample without any contribution counts as 0.

    Raises:
        ValueError: `codes` has no samples or fewer than two axes, or `dictionary` or
            `rest` has a different number of units.

    Reference:
        [Treves & Rolls, "What determines the capacity of autoassociative memories in
        the brain?", 1991](https://doi.org/10.1088/0954-898X_2_4_004), whose sparseness
        is this number divided by the number of units.

    Example:

    >>> from keras_sae import metrics
    >>> metrics.effective_l0([[0.0, 2.0, 2.0, 0.0]], rest=[0, 0, 0, 0])
    2.0
    >>> metrics.effective_l0([[0.5, 0.5], [0.5, 0.7], [0.9, 0.5]]).__round__(3)
    0.667
    """
    values, norms, resting = _parts(codes, dictionary, rest)
    total = 0.0
    for begin in range(0, len(values), _ROWS):
        shares = np.abs(values[begin : begin + _ROWS] - resting) * norms
        largest = shares.max(axis=1, keepdims=True)
        # Divide by the largest share, so that no square underflows.
        shares /= np.where(largest == 0, 1.0, largest)
        squares = (shares**2).sum(axis=1)
        total += (shares.sum(axis=1) ** 2 / np.where(squares == 0, 1.0, squares)).sum()
    return float(total / len(values))


def explained_variance_at(model: DictionaryModel, x: ArrayLike, k: int) -> float:
    """Return the explained variance that remains with `k` units per sample.

    The `k` units that contribute most to a sample keep their activations. All other
    units are set to their resting values. Contributions and resting values are those of
    `effective_l0`. The metric compares codes, sparse or not, at an equal number of
    active units.

    Args:
        model: A `keras_sae.models.Autoencoder`, a baseline of `keras_sae.evaluation`,
            or another object with `encode`, `decode` and `dictionary`.
        x: Array of shape `(samples, *input_shape)`.
        k: Number of units per sample, at most the number of units of the model.

    Returns:
        A float, at most 1.

    Raises:
        ValueError: `k` is not a positive integer, or exceeds the number of units.

    Example:

    >>> import numpy as np
    >>> from keras_sae import metrics, models
    >>> x = np.random.default_rng(0).random((20, 6), dtype="float32")
    >>> model = models.shallow((6,), 4, "kl")
    >>> whole = metrics.explained_variance(x, model.predict(x, verbose=0))
    >>> abs(metrics.explained_variance_at(model, x, 4) - whole) < 1e-5
    True
    """
    codes = np.array(model.encode(x))
    units = codes[0].size
    if positive_integer("k", k) > units:
        raise ValueError(
            f"`k` must not exceed the number of units. Received: k={k}, units={units}."
        )
    values, norms, rest = _parts(codes, model.dictionary(), None)
    contributions = np.abs(values - rest) * norms
    others = np.argsort(-contributions, axis=1, kind="stable")[:, k:]
    np.put_along_axis(values, others, np.take(rest, others), axis=1)
    return explained_variance(x, model.decode(values.reshape(codes.shape)))


def _parts(
    codes: ArrayLike, dictionary: ArrayLike | None, rest: ArrayLike | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the codes, the dictionary's row lengths, and the units' resting values."""
    values = as_rows("codes", codes)
    units = values.shape[1]
    norms, resting = np.ones(units), np.median(values, axis=0)
    if dictionary is not None and np.ndim(codes) == 2:
        norms = np.linalg.norm(as_rows("dictionary", dictionary), axis=1)
    if rest is not None:
        resting = np.asarray(ops.convert_to_numpy(rest), "float64").reshape(-1)
    for name, own in {"dictionary": norms, "rest": resting}.items():
        if len(own) != units:
            raise ValueError(
                f"`{name}` must have one entry per unit. Received: {len(own)} entries "
                f"and codes with {units} units."
            )
    return values, norms, resting


@register
class EffectiveL0(keras.metrics.Metric):
    """Estimate of `keras_sae.metrics.effective_l0` from batches.

    Every 16th batch is measured, starting with the first one, on at most 64 of its
    samples. A unit's resting value is its median over these samples. For the exact
    value of a whole dataset, use `effective_l0`.

    Args:
        name: Name in the logs.
        dtype: Dtype of the metric's state; float32 if None.

    Example:

    >>> from keras_sae import metrics
    >>> metric = metrics.EffectiveL0()
    >>> metric.update_state([[0.5, 0.5], [0.5, 0.7], [0.9, 0.5]])
    >>> round(float(metric.result()), 3)
    0.667
    """

    interval = 16  # batches per measurement
    samples = 64  # at most, per measurement

    def __init__(self, name: str = "effective_l0", dtype: DTypeLike = None) -> None:
        super().__init__(name=name, dtype=dtype or "float32")
        self.total = self.add_weight((), "zeros", self.dtype, name="total")
        self.count = self.add_weight((), "zeros", self.dtype, name="count")
        self.batches = self.add_weight((), "zeros", self.dtype, name="batches")

    def update_state(
        self,
        codes: Tensor,
        lengths: Callable[[], Tensor] | None = None,
        sample_weight: Tensor | None = None,
    ) -> None:
        """Add a batch of codes.

        Args:
            codes: Codes of shape `(batch, ..., units)`.
            lengths: Function without arguments that returns the lengths of the
                dictionary rows, shape `(units,)`. It is called only if the batch is
                measured. If None, or for codes with further axes, all rows count as
                equally long.
            sample_weight: None, or weights of shape `(batch,)`. Samples of weight 0
                are left out.
        """
        codes = ops.convert_to_tensor(codes)
        if len(codes.shape) > 2:  # Dictionary rows belong to units, not to positions.
            codes = ops.reshape(codes, (-1, math.prod(codes.shape[1:])))
            lengths = None
        weight = sample_weight
        if weight is None:
            weight = ops.ones((ops.shape(codes)[0],), self.dtype)
        weight = ops.cast(weight[: self.samples], self.dtype)

        def measure() -> Tensor:
            values = ops.cast(codes[: self.samples], self.dtype)
            counts = ops.expand_dims(weight > 0, -1)
            ordered = ops.sort(ops.where(counts, values, float("inf")), axis=0)
            n = ops.sum(ops.cast(counts, "int32"))
            middle = ops.take(ordered, ops.stack([(n - 1) // 2, n // 2]), axis=0)
            rest = ops.mean(middle, axis=0)
            contributions = ops.abs(values - rest)
            if lengths is not None:
                contributions *= ops.cast(lengths(), self.dtype)
            squares = ops.sum(ops.square(contributions), axis=-1)
            numbers = ops.square(ops.sum(contributions, axis=-1))
            numbers = numbers / ops.where(squares > 0, squares, 1.0)
            return weighted_mean(numbers, weight)

        # The last batch of an epoch may leave a replica without samples.
        is_measured = ops.logical_and(
            ops.equal(ops.mod(self.batches, self.interval), 0),
            ops.sum(weight) > 0,
        )
        nothing = ops.zeros((), self.dtype)
        self.total.assign_add(ops.cond(is_measured, measure, lambda: nothing))
        self.count.assign_add(ops.cast(is_measured, self.dtype))
        self.batches.assign_add(1.0)

    def result(self) -> Tensor:
        """Return the mean over the measured batches."""
        return self.total / ops.maximum(self.count, 1.0)
