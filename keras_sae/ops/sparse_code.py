"""Sparse codes stored as their active entries, and products that skip other entries.

Only `k` of the `m` units of a code are active per sample. The encoder's product must be
dense, because it determines the active units. Decoding and all weight gradients need
only `k` rows of the kernel per sample.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import keras
from keras import ops

from keras_sae.ops import tensorflow_kernels
from keras_sae.types import Tensor


@dataclass(frozen=True)
class SparseCode:
    """The entries of a code that may be non-zero.

    `code[rows_ij, indices_ij] = values_ij`, and 0 elsewhere

    Args:
        values: Tensor of shape `(batch, k)`.
        indices: The unit of each value, int32 of shape `(batch, k)`.
        rows: The sample of each value, int32 of shape `(batch, k)`. None if row `i` of
            `values` belongs to sample `i`, as in `TopK`. A `BatchTopK` code has
            `k * batch` entries spread over the samples, with `rows` in ascending order.
        dense: None, or a boolean scalar (TensorFlow only). If it is True, `values` is
            the whole dense code, and `indices` and `rows` are not used.

    Example:

    >>> import numpy as np
    >>> from keras_sae.ops.sparse_code import SparseCode
    >>> code = SparseCode(np.array([[3.0], [2.0]]), np.array([[1], [0]], "int32"))
    >>> np.asarray(code.to_dense(3)).tolist()
    [[0.0, 3.0, 0.0], [2.0, 0.0, 0.0]]
    """

    values: Tensor
    indices: Tensor
    rows: Tensor | None = None
    dense: Tensor | None = None

    @property
    def positions(self) -> tuple[Tensor, ...]:
        """The constructor's arguments after `values`, without those that are None.

        Functions with a custom gradient take the positions as arguments, because such
        functions cannot capture outer arrays inside a JAX conditional.
        """
        positions = self.indices, self.rows, self.dense
        return tuple(position for position in positions if position is not None)

    def per_entry(self, vector: Tensor) -> Tensor:
        """For each entry, return its unit's value in `vector`, of shape `(units,)`."""
        return _choose(
            self.dense,
            lambda: ops.broadcast_to(vector, ops.shape(self.values)),
            lambda: ops.take(vector, self.indices),
        )

    def mask(self, keep: Tensor) -> SparseCode:
        """Return the code, with units set to zero where `keep[unit]` is False."""
        kept = ops.where(ops.take(keep, self.indices), self.values, 0)
        return SparseCode(kept, *self.positions)

    def to_dense(self, units: int) -> Tensor:
        """Return the code as a tensor of shape `(batch, units)`."""
        samples, k = ops.shape(self.values)

        def scatter() -> Tensor:
            rows = self.rows
            if rows is None:
                rows = ops.repeat(ops.arange(samples, dtype="int32"), k)
            positions = [ops.reshape(v, (-1,)) for v in (rows, self.indices)]
            # On PyTorch, `ops.scatter` would run a Python loop over the entries.
            return ops.scatter_update(
                ops.zeros((samples, units), dtype=self.values.dtype),
                ops.stack(positions, axis=-1),
                ops.reshape(self.values, (-1,)),
                # Padding may repeat the position of an entry, with a value of 0.
                reduction=None if self.dense is None else "add",
            )

        return _choose(
            self.dense, lambda: ops.reshape(self.values, (-1, units)), scatter
        )

    def is_active(self, units: int) -> Tensor:
        """Return a mask of shape `(units,)` of the units active in any sample."""
        active = ops.cast(self.values != 0, "float32")
        return _sum_per_unit(active, self.indices, units, self.dense) > 0


def pre_activations(x: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
    """Return `x kernel^T + bias`, of shape `(batch, units)`, for a training step."""

    def product(x: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
        return ops.add(ops.matmul(x, ops.transpose(kernel)), bias)

    return tensorflow_kernels.compiled(product)(x, kernel, bias)


def encode(
    x: Tensor,
    kernel: Tensor,
    bias: Tensor,
    pre_activations: SparseCode,
    activation: Callable[[Tensor], Tensor],
    trainable: Tensor | None = None,
) -> SparseCode:
    """Return `activation(x kernel^T + bias)` at given positions, with gradients.

    The pre-activations are already known. This function defines their gradients and
    applies the activation.

    Args:
        x: Inputs of shape `(batch, input_dim)`.
        kernel: Kernel of shape `(units, input_dim)` that produced the pre-activations.
        bias: Bias of shape `(units,)` that produced the pre-activations.
        pre_activations: Selected pre-activations, without a gradient.
        activation: Elementwise function.
        trainable: Boolean mask of the values that have a gradient. If None, the
            non-zero values have a gradient.
    """

    @ops.custom_gradient
    def select(
        x: Tensor,
        kernel: Tensor,
        bias: Tensor,
        values: Tensor,
        trainable: Tensor,
        *positions: Tensor,
    ) -> tuple[Tensor, Callable]:
        del bias  # only its gradient is needed

        def gradient(*args: Tensor, upstream: Tensor = None) -> tuple[Tensor, ...]:
            d_values = args[-1] if upstream is None else upstream
            d_values = ops.cast(ops.where(trainable, d_values, 0), x.dtype)
            d_code = SparseCode(d_values, *positions)
            units = kernel.shape[0]
            d_kernel = kernel_gradient(d_code, x, units)
            d_bias = _sum_per_unit(d_values, d_code.indices, units, d_code.dense)
            # A compiled step does not compute `d_x` if nothing before `x` is trained.
            if tensorflow_kernels.are_usable():
                d_x = _combine_rows(d_code, kernel, ops.shape(x)[0])
            else:
                d_x = ops.matmul(d_code.to_dense(units), kernel)
            return d_x, d_kernel, d_bias, None, None, *(None for _ in positions)

        return values, gradient

    values = pre_activations.values
    trainable = values != 0 if trainable is None else trainable
    positions = pre_activations.positions
    values = select(x, kernel, bias, values, trainable, *positions)
    return SparseCode(activation(values), *positions)


def decode(code: SparseCode, kernel: Tensor, widths: Sequence[int] = ()) -> Tensor:
    """Return `code @ kernel` of shape `(batch, output_dim)`.

    With `widths`, the result has the shape `((len(widths) + 1) * batch, output_dim)`.
    It contains the product of each prefix of the code, followed by the product of the
    whole code. Each entry is multiplied only once, because a prefix extends the
    previous one.

    Args:
        code: A code of shape `(batch, units)`.
        kernel: Tensor of shape `(units, output_dim)`.
        widths: Widths of the prefixes, in increasing order.
    """
    shape, samples = ops.shape(code.values), ops.shape(code.values)[0]
    if widths:
        rows = code.rows
        if rows is None:
            rows = ops.broadcast_to(ops.arange(samples, dtype="int32")[:, None], shape)
        for width in widths:
            rows = ops.where(code.indices >= width, rows + samples, rows)
        order = ops.argsort(ops.reshape(rows, (-1,)))
        entries = code.values, code.indices, rows
        code = SparseCode(*(ops.reshape(ops.take(v, order), shape) for v in entries))
        samples = samples * (len(widths) + 1)

    @ops.custom_gradient
    def product(
        values: Tensor, kernel: Tensor, *positions: Tensor
    ) -> tuple[Tensor, Callable]:
        code = SparseCode(values, *positions)

        def gradient(*args: Tensor, upstream: Tensor = None) -> tuple[Tensor, ...]:
            d_output = args[-1] if upstream is None else upstream
            d_kernel = kernel_gradient(code, d_output, kernel.shape[0])
            d_values = _inner_products(code, d_output, kernel)
            return d_values, d_kernel, *(None for _ in positions)

        return _combine_rows(code, kernel, samples), gradient

    x = product(code.values, ops.convert_to_tensor(kernel), *code.positions)
    if widths:
        # In half precision, each partial sum would be rounded.
        dtype = keras.backend.result_type(x.dtype, "float32")
        parts = ops.reshape(ops.cast(x, dtype), (len(widths) + 1, -1, x.shape[1]))
        sums = ops.reshape(ops.cumsum(parts, axis=0), (-1, x.shape[1]))
        x = ops.cast(sums, x.dtype)
    return x


def kernel_gradient(code: SparseCode, x: Tensor, units: int) -> Tensor:
    """Return `code^T x` of shape `(units, dim)`.

    Args:
        code: A code of shape `(batch, units)`.
        x: Tensor of shape `(batch, dim)`.
        units: Width of the code.
    """
    if tensorflow_kernels.are_usable():
        entries = code.values, code.indices, code.rows

        def product() -> Tensor:
            dense = ops.reshape(code.values, (-1, units))
            return ops.cast(ops.matmul(ops.transpose(dense), x), "float32")

        total = _choose(
            code.dense,
            product,
            lambda: tensorflow_kernels.kernel_gradient(*entries, x, units),
        )
        return ops.cast(total, x.dtype)
    if keras.backend.backend() != "jax":
        samples = x[:, None] if code.rows is None else ops.take(x, code.rows, axis=0)
        products = ops.reshape(code.values[:, :, None] * samples, (-1, x.shape[1]))
        return _sum_per_unit(products, ops.reshape(code.indices, (-1,)), units)

    # XLA updates an array in place, so a loop is three times as fast. TensorFlow copies
    # the array in each iteration and is twice as fast without a loop.
    def add(j: Tensor, total: Tensor) -> Tensor:
        values, indices, rows = _column(code, j)
        samples = x if rows is None else ops.take(x, rows, axis=0)
        part = ops.cast(values[:, None] * samples, total.dtype)
        return ops.scatter_update(total, indices[:, None], part, reduction="add")

    total = ops.zeros((units, x.shape[1]), dtype="float32")
    return ops.cast(ops.fori_loop(0, code.values.shape[1], add, total), x.dtype)


def _column(code: SparseCode, j: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return the value, unit and sample of the `j`-th entry of each row."""
    rows = None if code.rows is None else ops.take(code.rows, j, axis=1)
    return ops.take(code.values, j, axis=1), ops.take(code.indices, j, axis=1), rows


def _combine_rows(code: SparseCode, kernel: Tensor, samples: int | Tensor) -> Tensor:
    """Return `code @ kernel`, of shape `(samples, output_dim)`.

    The loop adds one column of entries at a time. Writing and reading a tensor of shape
    `(batch, k, output_dim)` would take ten times as long as the sum itself.
    """
    if tensorflow_kernels.are_usable():
        entries = code.values, code.indices, code.rows

        def product() -> Tensor:
            dense = ops.reshape(code.values, (-1, kernel.shape[0]))
            return ops.cast(ops.matmul(dense, kernel), "float32")

        total = _choose(
            code.dense,
            product,
            lambda: tensorflow_kernels.combine_rows(*entries, kernel, samples),
        )
        return ops.cast(total, code.values.dtype)

    def add(j: Tensor, total: Tensor) -> Tensor:
        values, indices, rows = _column(code, j)
        part = values[:, None] * ops.take(kernel, indices, axis=0)
        part = ops.cast(part, total.dtype)
        if rows is None:
            return total + part
        return ops.scatter_update(total, rows[:, None], part, reduction="add")

    # In half precision, a large sum would stop growing.
    total = ops.zeros((samples, kernel.shape[1]), dtype="float32")
    total = ops.fori_loop(0, code.values.shape[1], add, total)
    return ops.cast(total, code.values.dtype)


def _inner_products(code: SparseCode, x: Tensor, kernel: Tensor) -> Tensor:
    """Return `x[rows_ij] . kernel[indices_ij]`, the gradient of `values_ij`."""
    if tensorflow_kernels.are_usable():
        products = _choose(
            code.dense,
            lambda: ops.cast(ops.matmul(x, ops.transpose(kernel)), "float32"),
            lambda: tensorflow_kernels.inner_products(
                code.indices, code.rows, x, kernel
            ),
        )
        return ops.cast(products, x.dtype)

    def per_row(row: tuple[Tensor, ...]) -> Tensor:
        indices, sample = row
        if code.rows is not None:
            sample = ops.take(x, sample, axis=0)
        products = sample * ops.take(kernel, indices, axis=0)
        return ops.sum(ops.cast(products, "float32"), axis=-1)

    if keras.backend.backend() == "jax":
        import jax

        # A loop over the samples is three times as fast on a CPU. On other devices, the
        # iterations would be too small to be efficient.
        if jax.default_backend() == "cpu":
            samples = x if code.rows is None else code.rows
            return ops.cast(ops.map(per_row, (code.indices, samples)), x.dtype)

    def put(j: Tensor, total: Tensor) -> Tensor:
        _, indices, rows = _column(code, j)
        samples = x if rows is None else ops.take(x, rows, axis=0)
        products = samples * ops.take(kernel, indices, axis=0)
        sums = ops.sum(ops.cast(products, "float32"), axis=-1)
        return ops.slice_update(total, (j, 0), sums[None])

    k = code.values.shape[1]
    total = ops.zeros((k, ops.shape(code.values)[0]), dtype="float32")
    return ops.cast(ops.transpose(ops.fori_loop(0, k, put, total)), x.dtype)


def _sum_per_unit(
    values: Tensor, indices: Tensor, units: int, dense: Tensor | None = None
) -> Tensor:
    """Return the sum of `values` for each unit in `indices`.

    `values` and `indices` have shapes `(n, ...)` and `(n,)`, or both have shape
    `(batch, k)`. `dense` is as in `SparseCode`.
    """
    x = ops.cast(values, "float32")

    def segments() -> Tensor:
        if len(indices.shape) == 1:
            return ops.segment_sum(x, indices, num_segments=units)
        flat = (ops.reshape(v, (-1,)) for v in (x, indices))
        return ops.segment_sum(*flat, num_segments=units)

    sums = _choose(dense, lambda: ops.sum(ops.reshape(x, (-1, units)), 0), segments)
    return ops.cast(sums, values.dtype)


def _choose(
    dense: Tensor | None,
    from_all: Callable[[], Tensor],
    from_entries: Callable[[], Tensor],
) -> Tensor:
    """Return `from_all()` if `dense` is True, and `from_entries()` otherwise."""
    return from_entries() if dense is None else ops.cond(dense, from_all, from_entries)
