"""The largest entries of a code, by row and over the batch."""

from typing import Any

from keras import ops

# A row rarely holds more than this many times its share of the batch's largest.
_CANDIDATES = 4


def rows(code: Any) -> Any:
    """Returns `code` with all axes but the last merged: `(samples, units)`."""
    return ops.reshape(code, (-1, code.shape[-1]))


def dense(values: Any, columns: Any, units: int) -> Any:
    """Returns the code of shape `(samples, units)` that holds these entries alone.

    Args:
        values: Shape `(samples, k)`.
        columns: Integers of the same shape, different in each row.
        units: Width of the code.
    """
    samples, k = ops.shape(values)[0], values.shape[-1]
    row = ops.repeat(ops.arange(samples, dtype="int32"), k)
    places = ops.stack([row, ops.reshape(ops.cast(columns, "int32"), (-1,))], axis=-1)
    # Not `ops.scatter`: on PyTorch that is a loop over the entries in Python.
    empty = ops.zeros((samples, units), dtype=values.dtype)
    return ops.scatter_update(empty, places, ops.reshape(values, (-1,)))


def nth_largest(code: Any, n: Any, k: int) -> Any:
    """Returns the `n`-th largest entry of `code`, without sorting all of it.

    The largest few of each row are sorted instead. Only if a row may hold more of
    the `n` than were taken of it, which the smallest taken tells, is everything
    sorted after all.

    Args:
        code: Shape `(samples, units)`.
        n: How many entries are at least as large, at most `k` a row on average.
        k: As above, an int.
    """
    units = code.shape[-1]
    taken = min(units, _CANDIDATES * k)
    best = ops.top_k(code, taken)[0]
    found = _from_sorted(best, n)
    if taken == units:
        return found
    overflow = ops.any(best[:, -1] > found)
    return ops.cond(overflow, lambda: _from_sorted(code, n), lambda: found)


def _from_sorted(values: Any, n: Any) -> Any:
    flat = ops.sort(ops.reshape(values, (-1,)))
    return ops.take(flat, ops.shape(flat)[0] - n)
