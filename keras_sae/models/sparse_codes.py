"""Codes as sparse matrices, computed and decoded batch by batch."""

import math
from collections.abc import Iterator

import keras
import numpy as np
from keras import ops
from scipy import sparse

from keras_sae.layers import Scaling, TiedDense, UnitNormDense, forward_pass
from keras_sae.layers.forward_pass import ForwardPass
from keras_sae.models import data_adapter, loops, losses, validation
from keras_sae.models.levels import chain_layers
from keras_sae.types import Data, Tensor

# Largest share of active units for which SciPy's sparse product beats a dense product.
_MAX_DENSITY = 0.02


class SparseEncoder(keras.Model):
    """An encoder that returns only the active entries of a k-sparse code.

    The output is `[values, indices]`, or `[values, indices, rows]`, as in
    `keras_sae.ops.sparse_code.SparseCode`. For any other code, the output is `[code]`.
    """

    def __init__(self, encoder: keras.Model) -> None:
        super().__init__(dtype=encoder.dtype_policy, autocast=False)
        self.encoder = encoder
        self.built = True

    def call(self, inputs: Tensor) -> list[Tensor]:
        """Return the active entries of a k-sparse code, or any other code itself."""
        step = ForwardPass(self, adds_losses=False)
        with forward_pass.activate(step):
            code = self.encoder(inputs, training=False)
        activations = losses.code_activations(self.encoder, step)
        if activations is None or activations.sparse_code is None:
            return [code]
        entries = activations.sparse_code
        return [entries.values, *entries.positions]


def batches(model: keras.Model, x: Data, batch_size: int) -> Iterator[sparse.csr_array]:
    """Yield the codes of an autoencoder, one sparse matrix per batch of `x`."""
    encoder = SparseEncoder(model.encoder)
    for batch in data_adapter.sample_batches(x, model.sample_shape, batch_size):
        yield encode_batch(model, encoder, batch)


def encode_batch(
    model: keras.Model, encoder: SparseEncoder, x: np.ndarray
) -> sparse.csr_array:
    """Return the codes of one batch as a sparse matrix.

    If a code has several positions, a row contains the units of all positions in order.
    """
    with loops.protected(model, encoder):
        values, *positions = encoder.predict_on_batch(x)
    # SciPy does not support half precision.
    values = values.astype(np.result_type(values.dtype, "float32"))
    if not positions:
        return sparse.csr_array(values.reshape(len(values), -1))
    rows = np.broadcast_to(np.arange(len(values))[:, None], values.shape)
    indices, rows = (*positions, rows)[:2]
    entries = (values.ravel(), (rows.ravel(), indices.ravel()))
    shape = (len(values), math.prod(model.encoder.output_shape[1:]))
    code = sparse.csr_array(entries, shape)
    code.eliminate_zeros()
    return code


def decode(
    model: keras.Model, code: sparse.sparray, batch_size: int = 256
) -> np.ndarray:
    """Return the reconstructions of codes that are stored as a sparse matrix.

    If the decoder is linear and few units are active, only the rows of these units are
    read. Otherwise, the code is made dense one batch at a time.
    """
    decoder = model.decoder
    shape = decoder.input_shape[1:]
    code = validation.sparse_code(code, math.prod(shape))
    size = code.shape[0] * code.shape[1]
    rows = linear_rows(model) if code.nnz <= _MAX_DENSITY * size else None
    with loops.protected(model, decoder):
        if rows is not None:
            bias = decoder.predict_on_batch(np.zeros((1, *shape), "float32"))
            output = code @ rows
            output += bias.reshape(1, -1)
            return output.reshape(-1, *decoder.output_shape[1:])
        outputs = []
        for start in range(0, code.shape[0], batch_size):
            batch = code[start : start + batch_size].toarray()
            outputs.append(decoder.predict_on_batch(batch.reshape(-1, *shape)))
    return np.concatenate(outputs)


def linear_rows(model: keras.Model) -> np.ndarray | None:
    """Return the rows of a linear decoder, or None for any other decoder.

    A linear decoder is a single dense layer without an activation. Its output may be
    scaled and reshaped. The rows have shape `(units, values)`.
    """
    layers = chain_layers(model.decoder)
    if layers is None or len(model.decoder.input_shape) > 2:
        return None
    first, *rest = layers
    # A subclass may override `call`.
    if (
        type(first) not in (keras.layers.Dense, UnitNormDense, TiedDense)
        or first.activation is not keras.activations.linear
        or any(type(layer) not in (Scaling, keras.layers.Reshape) for layer in rest)
    ):
        return None
    is_tied = isinstance(first, TiedDense)
    if not is_tied and first.quantization_mode is not None:
        return None
    with loops.protected(model, model.decoder):
        rows = ops.convert_to_numpy(ops.cast(first.kernel, "float32"))
        rows = rows.T if is_tied else rows
        for layer in rest:
            if isinstance(layer, Scaling):
                rows = rows * ops.convert_to_numpy(layer.factor())
    return rows


def dictionary(model: keras.Model) -> np.ndarray:
    """Return the decoder's dictionary, an array of shape `(units, *output_shape)`."""
    (*axes, units), shape = model.decoder.input_shape[1:], model.decoder.output_shape
    rows = linear_rows(model)
    if rows is None:
        step = np.float32(0.05)
        # A unit is active at all of its positions.
        positions = np.full((1, math.prod(axes)), step)
        codes = sparse.kron(positions, sparse.eye_array(units, dtype="float32"), "csr")
        rest = decode(model, codes[:1] * 0)
        rows = (decode(model, codes) - rest) / step
    return rows.reshape(units, *shape[1:])
