"""Products of sparse codes on CPUs, computed with TensorFlow's sparse matrices.

The functions replace parts of `keras_sae.ops.sparse_code`, where all arguments are
explained. They are used if there is no GPU, except with `jit_compile=True`, because XLA
cannot compile sparse matrices.
"""

import functools
import logging
from collections.abc import Sequence
from typing import TypeVar

import keras

from keras_sae.types import Tensor

if keras.config.backend() == "tensorflow":
    import tensorflow as tf

    try:  # not public
        from tensorflow.python.ops import control_flow_util
        from tensorflow.python.util import _pywrap_util_port as build
    except ImportError:
        control_flow_util = build = None

# Rows of a kernel that `inner_products` gathers at once: 12 MiB for 768 dimensions.
_ROWS_AT_ONCE = 4096

T = TypeVar("T")


def are_usable() -> bool:
    """Return whether the function being traced can use these kernels."""
    if keras.config.backend() != "tensorflow" or control_flow_util is None:
        return False
    graph = tf.compat.v1.get_default_graph()
    in_xla = control_flow_util.GraphOrParentsInXlaContext(graph)
    return not (in_xla or tf.config.list_physical_devices("GPU"))


def read_first(tensors: Sequence[Tensor], x: Tensor) -> Tensor:
    """Return `x`, and make TensorFlow compute all `tensors` before `x` is used."""
    if keras.config.backend() != "tensorflow":
        return x
    with tf.control_dependencies(tensors):
        return tf.identity(x)


@functools.cache  # log only once
def recommend_onednn() -> None:
    """Recommend oneDNN for sparse codes, if TensorFlow does not use it."""
    if keras.config.backend() != "tensorflow" or build is None:
        return
    if not build.IsMklEnabled():
        logging.getLogger("keras_sae").info(
            "TensorFlow does not use oneDNN on this processor. Set the environment "
            "variable TF_ENABLE_ONEDNN_OPTS=1 before importing TensorFlow. In a test "
            "on two cores with AVX2, this reduced the time of a training step with 32 "
            "of 12,288 units active by 40%."
        )


def compiled(function: T) -> T:
    """Compile a function of tensors with XLA, which multiplies matrices faster.

    If these kernels are not usable, the function is returned unchanged. The same holds
    in eager mode, where each call would compile the function again.
    """
    if not are_usable() or tf.executing_eagerly():
        return function
    return tf.function(function, jit_compile=True, reduce_retracing=True)


def combine_rows(
    values: Tensor,
    indices: Tensor,
    rows: Tensor | None,
    kernel: Tensor,
    samples: Tensor,
) -> Tensor:
    """Return `code @ kernel` in float32; `rows` must be in ascending order."""
    # TensorFlow divides by the number of rows, but a replica may have no samples.
    padded = tf.maximum(samples, 1)
    code = _csr_matrix(values, indices, rows, (padded, kernel.shape[0]))
    result = tf.raw_ops.SparseMatrixMatMul(a=code, b=tf.cast(kernel, tf.float32))
    return tf.ensure_shape(result, (None, kernel.shape[1]))[:samples]


def kernel_gradient(
    values: Tensor, indices: Tensor, rows: Tensor | None, x: Tensor, units: int
) -> Tensor:
    """Return `code^T x` in float32; `rows` must be in ascending order."""
    code = _csr_matrix(values, indices, rows, (tf.shape(x)[0], units))
    # Transposing in the product, with `transpose_a=True`, takes five times as long.
    transposed = tf.raw_ops.SparseMatrixTranspose(input=code, type=tf.float32)
    result = tf.raw_ops.SparseMatrixMatMul(a=transposed, b=tf.cast(x, tf.float32))
    return tf.ensure_shape(result, (units, x.shape[1]))


def _csr_matrix(
    values: Tensor, indices: Tensor, rows: Tensor | None, shape: tuple[Tensor, int]
) -> Tensor:
    """Return the entries of a code as a TensorFlow sparse matrix."""
    samples, k = tf.unstack(tf.shape(values))
    if rows is None:
        rows = tf.repeat(tf.range(samples), k)
    positions = [tf.cast(tf.reshape(v, [-1]), tf.int64) for v in (rows, indices)]
    return tf.raw_ops.SparseTensorToCSRSparseMatrix(
        indices=tf.stack(positions, axis=1),
        values=tf.cast(tf.reshape(values, [-1]), tf.float32),
        dense_shape=tf.cast(tf.stack(shape), tf.int64),
    )


def inner_products(
    indices: Tensor, rows: Tensor | None, x: Tensor, kernel: Tensor
) -> Tensor:
    """Return `x[rows_ij] . kernel[indices_ij]` in float32.

    Gathering all rows at once would create a tensor `k` times the size of `x`. Its
    allocation would take longer than the products.
    """

    def part(i: Tensor) -> Tensor:
        units = tf.cast(tf.gather(kernel, indices[i : i + step]), tf.float32)
        if rows is None:
            samples = tf.cast(x[i : i + step], tf.float32)
            return tf.squeeze(tf.matmul(units, samples[:, :, None]), 2)
        samples = tf.cast(tf.gather(x, rows[i : i + step]), tf.float32)
        return tf.reduce_sum(units * samples, axis=2)

    count, k = tf.unstack(tf.shape(indices))
    step = tf.maximum(_ROWS_AT_ONCE // k, 1)
    begins = tf.range(0, tf.maximum(count, 1), step)
    parts = tf.TensorArray(tf.float32, tf.size(begins), infer_shape=False)
    _, parts = tf.while_loop(
        lambda j, _: j < tf.size(begins),
        lambda j, parts: (j + 1, parts.write(j, part(begins[j]))),
        (0, parts),
        parallel_iterations=2,
    )
    return tf.reshape(parts.concat(), tf.shape(indices))
