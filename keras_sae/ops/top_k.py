"""The largest entries of a code, by row and over the batch."""

from typing import Any

from keras import ops

# A row rarely holds more than this many times its share of the batch's largest.
_CANDIDATES, _NARROW = 4, 16

# To 2^-48 of the range, finer than float32 for all but the smallest entries.
_HALVINGS = 48


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


def largest(code: Any, k: int) -> tuple[Any, Any, Any]:
    """Returns the `k * samples` largest entries of `code`, in the order of samples.

    Args:
        code: Shape `(samples, units)`.
        k: How many a sample, on average.

    Returns:
        Values, their units and their samples, each of shape `(samples, k)`.
    """
    units, n = code.shape[-1], k * ops.shape(code)[0]

    def among_all() -> tuple[Any, Any]:
        places = _first_above(code, _cut(code, n), n)
        return places % units, places // units

    if _is_narrow(units, k):
        return _entries(code, k, *among_all())
    best, columns = ops.top_k(code, _CANDIDATES * k)
    least = _cut(best, n)

    def among_the_best() -> tuple[Any, Any]:
        places = _first_above(best, least, n)
        columns_ = ops.take(ops.reshape(ops.cast(columns, "int32"), (-1,)), places)
        return columns_, places // best.shape[-1]

    found = _unless_overflow(best, least, among_the_best, among_all)
    return _entries(code, k, *found)


def _entries(code: Any, k: int, columns: Any, rows: Any) -> tuple[Any, Any, Any]:
    columns, rows = (ops.reshape(v, (-1, k)) for v in (columns, rows))
    values = ops.take(ops.reshape(code, (-1,)), rows * code.shape[-1] + columns)
    return values, columns, rows


def cut(code: Any, n: Any, k: int) -> Any:
    """Returns a number that the `n` largest entries of `code` are above.

    Args:
        code: Shape `(samples, units)`.
        n: At most `k` a sample on average; an int or a tensor.
        k: As above, an int.
    """
    if _is_narrow(code.shape[-1], k):
        return _cut(code, n)
    best = ops.top_k(code, _CANDIDATES * k)[0]
    least = _cut(best, n)
    return _unless_overflow(best, least, lambda: least, lambda: _cut(code, n))


def _is_narrow(units: int, k: int) -> bool:
    """Whether the largest few of each row are not worth finding first."""
    return units < _NARROW * _CANDIDATES * k


def _unless_overflow(best: Any, least: Any, then: Any, otherwise: Any) -> Any:
    """The largest few of each row are enough, unless a row may hold more of them.

    The smallest of the few tells: if it is among the largest of the batch, so may be
    the next, which is not there.
    """
    # Not the last of each row: XLA would sort the rows whole to slice that too.
    smallest = ops.min(best, axis=-1)
    return ops.cond(ops.any(smallest > least), otherwise, then)


def _cut(values: Any, n: Any) -> Any:
    """By bisection: counting forty times is far cheaper than sorting once."""
    low = ops.min(values)
    low = low - 1e-3 * ops.abs(low) - 1e-3

    def halve(_: Any, bounds: tuple[Any, Any]) -> tuple[Any, Any]:
        low, high = bounds
        middle = (low + high) / 2
        enough = ops.sum(ops.cast(values > middle, "int32")) >= n
        return ops.where(enough, middle, low), ops.where(enough, high, middle)

    return ops.fori_loop(0, _HALVINGS, halve, (low, ops.max(values)))[0]


def _first_above(values: Any, least: Any, n: Any) -> Any:
    """Where the first `n` entries above `least` are in `values` laid flat."""
    above = ops.reshape(values > least, (-1,))
    position = ops.cumsum(ops.cast(above, "int32")) - 1
    # One place more than needed takes what is not wanted.
    position = ops.where(ops.logical_and(above, position < n), position, n)
    index = ops.arange(ops.shape(position)[0], dtype="int32")
    places = ops.zeros((n + 1,), dtype="int32")
    return ops.scatter_update(places, position[:, None], index)[:n]
