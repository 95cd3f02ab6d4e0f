"""Effective number of active units, also for codes that are never exactly zero."""

import math
from collections.abc import Callable
from typing import Protocol

import keras
import numpy as np
from keras import ops
from scipy import sparse

from keras_sae.metrics.reconstruction import explained_variance
from keras_sae.metrics.sparsity import as_rows, code_rows
from keras_sae.ops.statistics import weighted_mean
from keras_sae.types import ArrayLike, Codes, CodesLike, DTypeLike, Tensor
from keras_sae.utils.serialization import register
from keras_sae.utils.validation import positive_integer

# Maximum number of samples per step, and of dense values in memory.
_ROWS, _VALUES = 1024, 2**24


class DictionaryModel(Protocol):
    """Interface of a model that encodes, decodes and returns its dictionary."""

    encode: Callable[[ArrayLike], np.ndarray]
    decode: Callable[[ArrayLike], np.ndarray]
    dictionary: Callable[[], np.ndarray]


def effective_l0(
    codes: CodesLike,
    dictionary: ArrayLike | None = None,
    rest: ArrayLike | None = None,
) -> float:
    """Return the effective number of active units per sample.

    `mean_i((sum_j c_ij)^2 / sum_j c_ij^2)` with `c_ij = |h_ij - rest_j| |d_j|`

    `c_ij` is the contribution of unit `j` to sample `i`: the distance of the activation
    from the unit's resting value, times the length of the unit's dictionary row. The
    result is 1 if a single unit contributes, and `n` if `n` units contribute equally.
    Codes that are never exactly zero can thus be compared with sparse codes. If all
    resting values are 0, the result is at most `l0`. It can exceed `l0` if a unit has
    another resting value, because this unit also contributes when it is 0. The result
    does not change if a unit is multiplied and its dictionary row divided by the same
    number, or if a constant is added to a unit.

    Args:
        codes: Codes of shape `(samples, ..., units)`, or a SciPy sparse matrix.
        dictionary: Dictionary of shape `(units, ...)`, as returned by
            `Autoencoder.dictionary`. If None, or if the codes have more than two axes,
            all rows count as equally long.
        rest: Resting values of the units, of shape `(units,)`. If None, each unit's
            median over the samples. The median is 0 for a unit that is zero in more
            than half of the samples.

    Returns:
        A float in `[0, units]`. A sample to which no unit contributes counts as 0.

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
    # In a sparse code, most resting values are 0, so only active units contribute.
    is_dense = isinstance(values, np.ndarray)
    moved = np.arange(len(resting)) if is_dense else np.flatnonzero(resting)
    others = sparse.diags_array(np.where(resting == 0, norms, 0.0))
    rows = max(1, min(_ROWS, _VALUES // max(1, len(moved))))
    total = 0.0
    for begin in range(0, values.shape[0], rows):
        block = values[begin : begin + rows]
        sums = squares = np.zeros(block.shape[0])
        if isinstance(block, np.ndarray):
            shares = np.abs(block - resting) * norms
            largest = shares.max(axis=1, keepdims=True)
            # Divide by the largest share, so that no square underflows.
            shares /= np.where(largest == 0, 1.0, largest)
        else:
            active = abs(block) @ others
            sums, squares = active.sum(axis=1), (active**2).sum(axis=1)
            shares = block[:, moved].toarray()
            shares = np.abs(shares - resting[moved]) * norms[moved]
        sums = sums + shares.sum(axis=1)
        squares = squares + (shares**2).sum(axis=1)
        total += (sums**2 / np.where(squares == 0, 1.0, squares)).sum()
    return float(total / values.shape[0])


def explained_variance_at(model: DictionaryModel, x: ArrayLike, k: int) -> float:
    """Return the explained variance of a reconstruction from `k` units per sample.

    The `k` units that contribute most to a sample keep their activations. All other
    units are set to their resting values. Contributions and resting values are defined
    as in `effective_l0`. All codes, sparse or not, can thus be compared at the same
    number of active units.

    Args:
        model: A `keras_sae.models.Autoencoder`, a baseline of `keras_sae.evaluation`,
            or another object with `encode`, `decode` and `dictionary`.
        x: Array of shape `(samples, *input_shape)`.
        k: Number of units per sample, at most the number of units of the model.

    Returns:
        A float, at most 1.

    Raises:
        ValueError: `k` is not a positive integer, or exceeds the number of units, or
            `model` is a transcoder.

    Example:

    >>> import numpy as np
    >>> from keras_sae import metrics, models
    >>> x = np.random.default_rng(0).random((20, 6), dtype="float32")
    >>> model = models.shallow((6,), 4, "kl")
    >>> whole = metrics.explained_variance(x, model.predict(x, verbose=0))
    >>> abs(metrics.explained_variance_at(model, x, 4) - whole) < 1e-5
    True
    """
    # Only a transcoder has this attribute with the value False.
    if not getattr(model, "reconstructs_input", True):
        raise ValueError(
            "`model` must reconstruct its input, which a transcoder does not. "
            f"Received: model={model!r}."
        )
    x = np.asarray(x)
    encoded = [model.encode(x[i : i + _ROWS]) for i in range(0, len(x), _ROWS)]
    shape = encoded[0].shape[1:]
    units = math.prod(shape)
    if positive_integer("k", k) > units:
        raise ValueError(
            f"`k` must not exceed the number of units. Received: k={k}, units={units}."
        )
    rows = [sparse.csr_array(code.reshape(len(code), -1)) for code in encoded]
    dictionary = model.dictionary() if len(shape) == 1 else None
    codes = sparse.vstack(rows, "csr", dtype="float64")
    _, norms, rest = _parts(codes, dictionary, None)
    reconstruction = []
    for begin in range(0, len(x), _ROWS):
        block = codes[begin : begin + _ROWS].toarray()
        contributions = np.abs(block - rest) * norms
        others = np.argsort(-contributions, axis=1, kind="stable")[:, k:]
        np.put_along_axis(block, others, np.take(rest, others), axis=1)
        reconstruction.append(model.decode(block.reshape(-1, *shape)))
    # Only an `Autoencoder` can have a target other than `x`.
    target = getattr(model, "reconstruction_target", np.asarray)(x)
    return explained_variance(target, np.concatenate(reconstruction))


def _parts(
    codes: CodesLike,
    dictionary: ArrayLike | None,
    rest: ArrayLike | None,
) -> tuple[Codes, np.ndarray, np.ndarray]:
    """Return the codes, the dictionary's row lengths, and the units' resting values."""
    values = code_rows(codes)
    units = values.shape[1]
    norms, resting = np.ones(units), _medians(values)
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


def _medians(values: Codes) -> np.ndarray:
    """Return the median of each unit over the samples."""
    if isinstance(values, np.ndarray):
        return np.median(values, axis=0)
    columns, medians = values.tocsc(), np.zeros(values.shape[1])
    # The median is zero unless at least half of the values are non-zero.
    often = np.flatnonzero(2 * np.diff(columns.indptr) >= values.shape[0])
    size = max(1, _VALUES // values.shape[0])
    for begin in range(0, len(often), size):
        units = often[begin : begin + size]
        medians[units] = np.median(columns[:, units].toarray(), axis=0)
    return medians


@register
class EffectiveL0(keras.metrics.Metric):
    """Estimate `keras_sae.metrics.effective_l0` from some of the batches.

    The metric measures every 16th batch, starting with the first one. It uses the first
    64 samples of the batch, and the median of a unit over these samples as the unit's
    resting value. For the exact value of a whole dataset, use `effective_l0`.

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
                dictionary rows, of shape `(units,)`. It is called only if the batch is
                measured. If None, or if the codes have more than two axes, all rows
                count as equally long.
            sample_weight: None, or weights of shape `(batch,)`. Samples of weight 0
                are ignored.
        """
        codes = ops.convert_to_tensor(codes)
        if len(codes.shape) > 2:  # A dictionary row then belongs to several entries.
            codes = ops.reshape(codes, (-1, math.prod(codes.shape[1:])))
            lengths = None
        weight = sample_weight
        if weight is None:
            weight = ops.ones((ops.shape(codes)[0],), self.dtype)
        weight = ops.cast(weight[: self.samples], self.dtype)

        def measure() -> Tensor:
            values = ops.cast(codes[: self.samples], self.dtype)
            counts = ops.expand_dims(weight > 0, -1)
            counted = ops.where(counts, values, float("inf"))
            rest = _batch_medians(counted, ops.sum(ops.cast(counts, "int32")))
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


def _batch_medians(values: Tensor, n: Tensor) -> Tensor:
    """Return the median of each column over its `n` finite values."""
    low, high = (n - 1) // 2, n // 2
    if keras.backend.backend() == "jax":  # On a CPU, XLA counts faster than it sorts.
        ranks = ops.sum(values[None] <= values[:, None], axis=1)
        lower, upper = (
            ops.min(ops.where(ranks > i, values, float("inf")), axis=0)
            for i in (low, high)
        )
        return (lower + upper) / 2
    ordered = ops.sort(values, axis=0)
    return ops.mean(ops.take(ordered, ops.stack([low, high]), axis=0), axis=0)
