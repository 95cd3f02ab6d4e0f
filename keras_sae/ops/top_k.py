"""Top-k selection per sample and over a batch."""

import keras
from keras import ops

from keras_sae.ops import tensorflow_kernels
from keras_sae.types import Tensor

# A sample rarely has more than `_CANDIDATES * k` of the batch's largest values, so
# selection starts with `_CANDIDATES * k` candidates per sample. Candidates save time
# only if a code has at least `_NARROW` times as many units.
_CANDIDATES, _NARROW = 4, 16

# Dense products are faster above `_MAX_ACTIVE` active units per sample. In a narrow
# code, the limit is `_MAX_SHARE` of the units.
_MAX_ACTIVE, _MAX_SHARE = 128, 1 / 32

# Bisect to 2^-48 of the range, finer than float32 for all but the smallest values.
_HALVINGS = 48


def top_k(
    values: Tensor, k: int | Tensor, max_k: int | None = None
) -> tuple[Tensor, Tensor]:
    """Return the `k` largest values of each row, and their columns as int32.

    If a row is divided into blocks, its `k` largest values lie in the `k` blocks with
    the largest maxima. Selecting blocks first, and then values within these blocks, can
    take half as long as selecting from all values.

    Args:
        values: Tensor of shape `(samples, units)`.
        k: Number of values per row. Only TensorFlow accepts a tensor.
        max_k: Upper bound on `k`, required if `k` is a tensor.
    """
    max_k = max_k or k
    if unit_shards() > 1:
        candidates, columns = _local_top_k(values, k)
        largest, places = ops.top_k(candidates, k)
        return largest, ops.take_along_axis(columns, places, axis=1)
    units, width = values.shape[-1], 1
    while units % (2 * width) == 0 and 4 * width * width * max_k <= units:
        width *= 2
    if width < 4 or keras.config.backend() == "torch":
        largest, columns = ops.top_k(values, k)
        return largest, ops.cast(columns, "int32")
    blocks = ops.reshape(values, (-1, units // width, width))
    best = ops.cast(ops.top_k(ops.max(blocks, axis=2), k, sorted=False)[1], "int32")
    # Use `take`, because on TensorFlow `take_along_axis` would transpose the blocks.
    first = ops.arange(ops.shape(values)[0], dtype="int32") * (units // width)
    candidates = ops.take(ops.reshape(blocks, (-1, width)), first[:, None] + best, 0)
    largest, places = ops.top_k(ops.reshape(candidates, (-1, k * width)), k)
    places = ops.cast(places, "int32")
    best = ops.take_along_axis(best, places // width, axis=1)
    return largest, best * width + places % width


def batch_top_k(
    code: Tensor, k: int | Tensor, max_k: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the `k * samples` largest entries of `code`, ordered by sample.

    Args:
        code: Tensor of shape `(samples, units)`.
        k: Mean number of entries per sample.
        max_k: Upper bound on `k`.

    Returns:
        Values, units and samples of the entries, each of shape `(samples, k)`.
    """
    units, n = code.shape[-1], k * ops.shape(code)[0]

    def select_from_all() -> tuple[Tensor, Tensor]:
        flat = _first_above(code, _bisect(code, n), n)
        return flat % units, flat // units

    if tensorflow_kernels.are_usable() and units >= 4 * max_k:
        # If `n` block maxima exceed a threshold, at least `n` entries exceed it.
        blocks = _blocks(code, units // (2 * max_k))
        maxima = ops.max(blocks, axis=1)
        bisect = tensorflow_kernels.compiled(_bisect)
        flat = _entries_above(blocks, maxima, bisect(maxima, ops.convert_to_tensor(n)))
        values = ops.take(ops.reshape(blocks, (-1,)), flat)
        flat = ops.take(flat, _first_above(values, _bisect(values, n), n))
        indices, rows = flat % units, flat // units
    elif units < _NARROW * _CANDIDATES * max_k:
        indices, rows = select_from_all()
    else:
        candidates, columns = top_k(code, _CANDIDATES * max_k)
        threshold = _bisect(candidates, n)

        def select_from_candidates() -> tuple[Tensor, Tensor]:
            flat = _first_above(candidates, threshold, n)
            indices = ops.take(ops.reshape(columns, (-1,)), flat)
            return indices, flat // candidates.shape[-1]

        # If all candidates of a sample are selected, some of its other values may be
        # among the largest too. Use `min`, because XLA would sort whole rows to find
        # the last column.
        overflow = ops.any(ops.min(candidates, axis=-1) > threshold)
        indices, rows = ops.cond(overflow, select_from_all, select_from_candidates)
    indices, rows = ops.reshape(indices, (-1, k)), ops.reshape(rows, (-1, k))
    values = ops.take(ops.reshape(code, (-1,)), rows * units + indices)
    return values, indices, rows


def positive_entries(
    values: Tensor, margin: Tensor, padding: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return all entries of `values` with a positive margin (TensorFlow only).

    Args:
        values: Tensor of shape `(samples, units)`.
        margin: float32 tensor of the same shape.
        padding: Value of the additional entries that fill up the last rows.

    Returns:
        The arguments of `keras_sae.ops.sparse_code.SparseCode`. The code is dense if,
        on average, more than 128 entries per sample or more than one in 32 have a
        positive margin.
    """
    samples, units = ops.shape(values)[0], values.shape[-1]
    limit = int(min(_MAX_ACTIVE, _MAX_SHARE * units)) * samples
    blocks = _blocks(margin, 16)
    maxima = ops.max(blocks, axis=1)
    flat = ops.cond(
        ops.sum(ops.cast(maxima > 0, "int32")) > limit,
        lambda: ops.zeros((limit + 1,), "int32"),
        lambda: _entries_above(blocks, maxima, ops.zeros(())),
    )
    n = ops.shape(flat)[0]
    dense = n > limit

    def sparse() -> tuple[Tensor, Tensor, Tensor]:
        k = ops.maximum((n + samples - 1) // ops.maximum(samples, 1), 1)
        last = samples * units - 1
        padded = ops.pad(flat, [[0, k * samples - n]], constant_values=last)
        padded = ops.reshape(padded, (samples, k))
        is_entry = ops.reshape(ops.arange(k * samples) < n, (samples, k))
        found = ops.take(ops.reshape(values, (-1,)), padded)
        found = ops.where(is_entry, found, ops.cast(padding, values.dtype))
        return found, padded % units, padded // units

    nothing = ops.zeros((1, 1), "int32")
    return *ops.cond(dense, lambda: (values, nothing, nothing), sparse), dense


def batch_threshold(code: Tensor, n: int | Tensor, k: int) -> Tensor:
    """Return a threshold that only the `n` largest entries of `code` exceed.

    Args:
        code: Tensor of shape `(samples, units)`.
        n: Number of entries, at most `k` per sample on average.
        k: Upper bound on the mean number of entries per sample.
    """
    if code.shape[-1] < _NARROW * _CANDIDATES * k:
        return _bisect(code, n)
    candidates = top_k(code, _CANDIDATES * k)[0]
    threshold = _bisect(candidates, n)
    # Use `min` for the same reason as in `batch_top_k`.
    overflow = ops.any(ops.min(candidates, axis=-1) > threshold)
    return ops.cond(overflow, lambda: _bisect(code, n), lambda: threshold)


def _blocks(code: Tensor, max_width: int) -> Tensor:
    """Return all values of `code` in blocks of equal width, padded with `-inf`."""
    width = 2 ** min(max_width.bit_length() - 1, 6)
    flat = ops.reshape(code, (-1,))
    if code.shape[-1] % width:
        rest = -ops.shape(flat)[0] % width
        flat = ops.pad(flat, [[0, rest]], constant_values=-float("inf"))
    return ops.reshape(flat, (-1, width))


def _entries_above(blocks: Tensor, maxima: Tensor, threshold: Tensor) -> Tensor:
    """Return the flat positions of all values above a threshold, in order.

    The number of positions is known only at run time. NaN counts as a value above the
    threshold.
    """
    width = blocks.shape[1]
    kept = ops.nonzero(ops.logical_not(maxima <= threshold))[0]
    values = ops.reshape(ops.take(blocks, kept, axis=0), (-1,))
    places = ops.nonzero(ops.logical_not(values <= threshold))[0]
    return ops.take(kept, places // width) * width + places % width


def _bisect(values: Tensor, n: int | Tensor) -> Tensor:
    """Find a threshold that `n` values exceed, much faster than by sorting."""
    low = ops.min(values)
    low = low - 1e-3 * ops.abs(low) - 1e-3

    def halve(_: Tensor, bounds: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        low, high = bounds
        middle = (low + high) / 2
        enough = ops.sum(ops.cast(values > middle, "int32")) >= n
        return ops.where(enough, middle, low), ops.where(enough, high, middle)

    return ops.fori_loop(0, _HALVINGS, halve, (low, ops.max(values)))[0]


def _first_above(values: Tensor, threshold: Tensor, n: int | Tensor) -> Tensor:
    """Return the flat positions of the first `n` entries above `threshold`."""
    above = ops.reshape(values > threshold, (-1,))
    position = ops.cumsum(ops.cast(above, "int32")) - 1
    # All other entries are written to one extra place at the end.
    position = ops.where(ops.logical_and(above, position < n), position, n)
    index = ops.arange(ops.shape(position)[0], dtype="int32")
    places = ops.zeros((n + 1,), dtype="int32")
    return ops.scatter_update(places, position[:, None], index)[:n]


def unit_shards() -> int:
    """Return the number of devices among which units are currently divided."""
    current = keras.distribution.distribution()
    if not isinstance(current, keras.distribution.ModelParallel):
        return 1
    layout = current._layout_map["code/bias"]
    if layout is None or layout.axes[0] is None:
        return 1
    if layout.axes[0] == current.batch_dim_name:
        raise ValueError(
            "Units and batches must be divided along different axes of the mesh. "
            f"Received: batch_dim_name={current.batch_dim_name!r} for both. Add an "
            "axis for batches, as in `DeviceMesh((1, 4), ('batch', 'model'))`, and "
            "pass `batch_dim_name='batch'` to `ModelParallel`."
        )
    mesh = layout.device_mesh
    return mesh.shape[mesh.axis_names.index(layout.axes[0])]


def _local_top_k(values: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the `k` largest values of each row on each device, and their columns.

    Without `shard_map`, XLA would copy all values to every device.
    """
    import jax

    current = keras.distribution.distribution()
    layout = current._layout_map["code/bias"]
    axis, share = layout.axes[0], values.shape[-1] // unit_shards()

    def select(values: Tensor) -> tuple[Tensor, Tensor]:
        largest, columns = jax.lax.top_k(values, min(k, share))
        return largest, columns + share * jax.lax.axis_index(axis)

    mesh = layout.backend_layout.mesh
    spec = jax.sharding.PartitionSpec(current.batch_dim_name, axis)
    return jax.shard_map(select, mesh=mesh, in_specs=spec, out_specs=spec)(values)
