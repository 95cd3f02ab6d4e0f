"""A hard-sparse code as its entries, and the products that touch those alone.

Of a code of `m` units `k` are on. The encoder's product has to be dense, for that is
how the `k` are found, but decoding and every gradient of a weight need `k` rows a
sample. Each function here has a dense equal in `keras.ops`, which the tests hold
it against.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
from keras import ops

from keras_sae.ops import top_k as _top


@dataclass(frozen=True)
class SparseCode:
    """The entries of a code that may be non-zero.

    Args:
        values: Shape `(batch, k)`.
        columns: Their units, int32 of the same shape.
        rows: Their samples, int32 of the same shape; None where each row of
            `values` is a sample's own.
    """

    values: Any
    columns: Any
    rows: Any = None

    def where(self, keep: Any) -> "SparseCode":
        """Returns these entries with those of other units than `keep` zeroed.

        Args:
            keep: Booleans, shape `(units,)`.
        """
        return self.filled(ops.where(ops.take(keep, self.columns), self.values, 0))

    def filled(self, values: Any) -> "SparseCode":
        """Returns these places with other values."""
        return SparseCode(values, *self.places)

    @property
    def places(self) -> tuple[Any, ...]:
        """What follows the values in the constructor.

        A function with a gradient of its own takes it as arguments: inside a
        condition JAX cannot close over an array of outside.
        """
        return (self.columns,) if self.rows is None else (self.columns, self.rows)

    def none(self) -> "SparseCode":
        """Returns the entries of a single sample in which nothing is on."""
        values, columns = (
            ops.zeros((1, 1), dtype=v.dtype) for v in (self.values, self.columns)
        )
        return SparseCode(values, columns)

    def dense(self, units: int) -> Any:
        """Returns the code of shape `(batch, units)`."""
        if self.rows is None:
            return _top.dense(self.values, self.columns, units)
        flat = [ops.reshape(v, (-1,)) for v in (self.rows, self.columns)]
        places = ops.stack(flat, axis=-1)
        empty = ops.zeros((ops.shape(self.values)[0], units), dtype=self.values.dtype)
        return ops.scatter_update(empty, places, ops.reshape(self.values, (-1,)))

    def fired(self, units: int) -> Any:
        """Returns which units are on in any sample, booleans of shape `(units,)`."""
        on = ops.cast(ops.reshape(self.values, (-1,)) != 0, "float32")
        return _sum_by(on, ops.reshape(self.columns, (-1,)), units) > 0


def encoded(
    x: Any,
    kernel: Any,
    bias: Any,
    entries: SparseCode,
    activation: Callable[[Any], Any],
    on: Any = None,
) -> SparseCode:
    """Returns the entries with the gradient that they have by kernel, bias and `x`.

    `values = activation((x K^T + b)[rows, columns])`, whose values are known already.

    Args:
        x: Shape `(batch, input_dim)`.
        kernel: Shape `(units, input_dim)`; the tensor that the entries came from.
        bias: Shape `(units,)`; likewise.
        entries: Pre-activations and their places, without a gradient.
        activation: A function of one tensor.
        on: Booleans, which entries have a gradient; those that are not 0 if None.
    """

    @ops.custom_gradient
    def products(
        x: Any, kernel: Any, bias: Any, values: Any, on: Any, *places: Any
    ) -> tuple[Any, Callable]:
        del bias  # its gradient alone is wanted

        def gradient(*args: Any, upstream: Any = None) -> tuple[Any, ...]:
            by_values = args[-1] if upstream is None else upstream
            by_values = ops.where(on, by_values, 0)
            part = SparseCode(ops.cast(by_values, x.dtype), *places)
            units = kernel.shape[0]
            by_kernel = outer_sum(part, x, units)
            by_bias = _sum_by(part.values, part.columns, units)
            # Dense, but left out of the graph where nothing before is trained.
            by_x = ops.matmul(part.dense(units), kernel)
            return by_x, by_kernel, by_bias, None, None, *(None for _ in places)

        return values, gradient

    on = entries.values != 0 if on is None else on
    values = products(x, kernel, bias, entries.values, on, *entries.places)
    return entries.filled(activation(values))


def decoded(entries: SparseCode, kernel: Any) -> Any:
    """Returns `code @ kernel` from the code's entries.

    Args:
        entries: Of a code of shape `(batch, units)`.
        kernel: Shape `(units, output_dim)`.
    """

    @ops.custom_gradient
    def product(values: Any, kernel: Any, *places: Any) -> tuple[Any, Callable]:
        part = SparseCode(values, *places)

        def gradient(*args: Any, upstream: Any = None) -> tuple[Any, ...]:
            by_output = args[-1] if upstream is None else upstream
            by_kernel = outer_sum(part, by_output, kernel.shape[0])
            by_values = _inner(part, by_output, kernel)
            return by_values, by_kernel, *(None for _ in places)

        return _combination(part, kernel), gradient

    return product(entries.values, ops.convert_to_tensor(kernel), *entries.places)


def _column(entries: SparseCode, j: Any) -> tuple[Any, Any, Any]:
    """Values, units and samples of the `j`-th entry of each row."""
    rows = None if entries.rows is None else ops.take(entries.rows, j, axis=1)
    return (
        ops.take(entries.values, j, axis=1),
        ops.take(entries.columns, j, axis=1),
        rows,
    )


def _of_samples(x: Any, rows: Any) -> Any:
    return x if rows is None else ops.take(x, rows, axis=0)


def _combination(entries: SparseCode, kernel: Any) -> Any:
    """`sum_j values_ij kernel[columns_ij]`, an entry of each row at a time.

    All at once would be an array of `(batch, k, output_dim)`, which costs ten
    times as long to write and read as the sum itself.
    """

    def add(j: Any, total: Any) -> Any:
        values, units, rows = _column(entries, j)
        part = values[:, None] * ops.take(kernel, units, axis=0)
        part = ops.cast(part, total.dtype)
        if rows is None:
            return total + part
        return ops.scatter_update(total, rows[:, None], part, reduction="add")

    shape = (ops.shape(entries.values)[0], kernel.shape[1])
    # In half precision a sum stands still as soon as it is large.
    empty = ops.zeros(shape, dtype="float32")
    total = ops.fori_loop(0, entries.values.shape[1], add, empty)
    return ops.cast(total, entries.values.dtype)


def _inner(entries: SparseCode, x: Any, kernel: Any) -> Any:
    """`x_i . kernel[columns_ij]`, the gradient of the values."""

    def put(j: Any, total: Any) -> Any:
        _, units, rows = _column(entries, j)
        products = _of_samples(x, rows) * ops.take(kernel, units, axis=0)
        sums = ops.sum(ops.cast(products, "float32"), axis=-1)
        return ops.slice_update(total, (j, 0), sums[None])

    k = entries.values.shape[1]
    empty = ops.zeros((k, ops.shape(entries.values)[0]), dtype="float32")
    return ops.cast(ops.transpose(ops.fori_loop(0, k, put, empty)), x.dtype)


def outer_sum(entries: SparseCode, x: Any, units: int) -> Any:
    """Returns `code^T x`, shape `(units, dim)`: the gradient of a kernel.

    Args:
        entries: Of a code of shape `(batch, units)`.
        x: Shape `(batch, dim)`.
        units: Width of the code.
    """
    return _OUTER_SUM.get(keras.backend.backend(), _outer_at_once)(entries, x, units)


def _outer_one_by_one(entries: SparseCode, x: Any, units: int) -> Any:
    def add(j: Any, total: Any) -> Any:
        values, column, rows = _column(entries, j)
        part = ops.cast(values[:, None] * _of_samples(x, rows), total.dtype)
        return ops.scatter_update(total, column[:, None], part, reduction="add")

    empty = ops.zeros((units, x.shape[1]), dtype="float32")
    return ops.cast(ops.fori_loop(0, entries.values.shape[1], add, empty), x.dtype)


def _outer_at_once(entries: SparseCode, x: Any, units: int) -> Any:
    if entries.rows is None:
        products = entries.values[:, :, None] * x[:, None, :]
    else:
        products = entries.values[:, :, None] * ops.take(x, entries.rows, axis=0)
    flat = ops.reshape(products, (-1, x.shape[1]))
    return _sum_by(flat, ops.reshape(entries.columns, (-1,)), units)


# XLA adds to an array in place and is three times as fast one by one. TensorFlow
# copies the array at every turn of a loop, and is twice as fast at once.
_OUTER_SUM = {"jax": _outer_one_by_one}


def _sum_by(values: Any, columns: Any, units: int) -> Any:
    """Sums of the values of each unit; both arrays may have any number of axes."""
    if len(columns.shape) > 1:
        values, columns = (ops.reshape(v, (-1,)) for v in (values, columns))
    sums = ops.segment_sum(ops.cast(values, "float32"), columns, num_segments=units)
    return ops.cast(sums, values.dtype)
