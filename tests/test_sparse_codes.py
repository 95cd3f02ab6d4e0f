"""Tests of codes as sparse matrices: encoding, decoding and the dictionary."""

import keras
import numpy as np
import pytest
from helpers import convolutional_code, tensorflow_only, to_numpy
from scipy import sparse

from keras_sae import activations, evaluation, layers, metrics, models
from keras_sae.models import sparse_codes

UNITS = 24


@pytest.fixture
def x() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(50, 6)).astype("float32")


def shallow(sparsity="top_k", **kwargs) -> models.Autoencoder:
    keras.utils.set_random_seed(0)
    return models.shallow((6,), UNITS, sparsity, **kwargs)


MODELS = {
    "top-k": lambda: shallow(layers.TopK(3)),
    "annealed k": lambda: shallow(layers.TopK(3, initial_k=5)),
    "batch top-k": lambda: shallow(layers.BatchTopK(3)),
    "jump relu": lambda: shallow(layers.JumpReLU(threshold=0.5)),
    "l1": lambda: shallow("l1"),
    "kl": lambda: shallow("kl"),
    "tied": lambda: shallow(layers.TopK(3), tied=True),
    "scaled": lambda: shallow(layers.TopK(3), scaling=True),
    "bounded output": lambda: shallow(layers.TopK(1), output_activation="sigmoid"),
    "deep": lambda: models.deep((6,), (10, UNITS), layers.TopK(3)),
    "variational": lambda: models.variational((6,), 8, 4, sparsity=layers.TopK(2)),
    "transcoder": lambda: models.transcoder((6,), (4,), UNITS, layers.TopK(3)),
}


def adapted(model, x) -> models.Autoencoder:
    """Set center, scale and biases, so that the decoder is affine and not linear."""
    model.adapt(x)
    for variable in model.decoder.weights:
        if variable.path.endswith("bias"):
            variable.assign(np.linspace(-1, 1, variable.shape[0]))
    return model


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_sparse_codes_equal_dense_codes(make, x, monkeypatch):
    model = adapted(make(), x)
    dense = to_numpy(model.encoder(x))
    code = model.encode(x, batch_size=16, sparse=True)
    assert isinstance(code, sparse.csr_array)
    assert code.has_canonical_format
    assert code.dtype == "float32"
    assert code.nnz == np.count_nonzero(dense)
    np.testing.assert_allclose(code.toarray(), dense, rtol=1e-5, atol=1e-6)
    # The decoders of dense and of sparse products.
    expected = to_numpy(model.decoder(dense.astype("float32")))
    for density, matrix in ((0, code), (1, sparse.coo_matrix(code))):
        monkeypatch.setattr(sparse_codes, "_MAX_DENSITY", density)
        found = model.decode(matrix, batch_size=30)
        assert found.dtype == "float32"
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_positions_of_a_unit_are_columns_of_one_row():
    model = convolutional_code((8, 8, 1), 3)
    x = np.random.default_rng(0).random((5, 8, 8, 1), "float32")
    dense = model.encode(x)
    code = model.encode(x, sparse=True)
    np.testing.assert_allclose(code.toarray(), dense.reshape(5, -1), rtol=1e-5)
    expected = model.decode(dense)
    np.testing.assert_allclose(model.decode(code), expected, rtol=1e-4, atol=1e-5)
    assert model.dictionary().shape == (3, 8, 8, 1)
    result = evaluation.evaluate(model, x)
    assert result["units"] == 4 * 4 * 3
    assert result["l0"] == metrics.l0(dense)


@pytest.mark.parametrize("name", ["l1", "tied", "scaled", "bounded output", "deep"])
def test_dictionary_rows_are_what_a_unit_adds(name, x):
    model = adapted(MODELS[name](), x)
    step = 0.05
    outputs = to_numpy(model.decoder(np.eye(UNITS, dtype="float32") * step))
    rest = to_numpy(model.decoder(np.zeros((1, UNITS), "float32")))
    expected = (outputs - rest) / step
    np.testing.assert_allclose(model.dictionary(), expected, rtol=1e-3, atol=1e-4)


class SquaredDense(keras.layers.Dense):
    def call(self, inputs, training=None):
        return keras.ops.square(super().call(inputs, training))


class DoubledDictionary(layers.UnitNormDense):
    def call(self, inputs, training=None):
        return 2 * keras.ops.matmul(inputs, self.kernel)


def residual(x):
    return keras.ops.add(x, keras.ops.square(x))


DECODERS = {
    "sigmoid": lambda code: keras.ops.sigmoid(keras.layers.Dense(6)(code)),
    "sum": lambda code: residual(keras.layers.Dense(6)(code)),
    "sum after a dictionary": lambda code: residual(layers.UnitNormDense(6)(code)),
    "subclass": lambda code: SquaredDense(6)(code),
    "subclass of a dictionary": lambda code: DoubledDictionary(6)(code),
}


@pytest.mark.parametrize("decode", DECODERS.values(), ids=DECODERS)
def test_operations_and_subclasses_of_a_decoder_are_applied(decode, x, monkeypatch):
    encoder, code = shallow(layers.TopK(3)).encoder, keras.Input((UNITS,))
    decoder = keras.Model(code, decode(code))
    model = models.Autoencoder(encoder, decoder)
    expected = to_numpy(decoder(encoder(x)))
    np.testing.assert_allclose(to_numpy(model(x)), expected, rtol=1e-4, atol=1e-5)
    monkeypatch.setattr(sparse_codes, "_MAX_DENSITY", 1)
    found = model.decode(model.encode(x, sparse=True))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    outputs = to_numpy(decoder(np.eye(UNITS, dtype="float32") * 0.05))
    expected = (outputs - to_numpy(decoder(np.zeros((1, UNITS), "float32")))) / 0.05
    np.testing.assert_allclose(model.dictionary(), expected, rtol=1e-3, atol=1e-4)


READS = {
    "dictionary": lambda model: model.dictionary(),
    "decode": lambda model: model.decode(sparse.eye_array(UNITS).tocsr()),
}


@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_callbacks_read_the_decoder_during_a_fit(read, x, monkeypatch):
    monkeypatch.setattr(sparse_codes, "_MAX_DENSITY", 1)
    model, found = shallow(layers.TopK(3)), []

    def append(batch, logs):
        del batch, logs
        found.append(read(model))

    model.compile("adam")
    callback = keras.callbacks.LambdaCallback(on_train_batch_end=append)
    model.fit(x, batch_size=25, callbacks=[callback], verbose=0)
    before, after = found
    assert abs(after - before).max() > 0
    np.testing.assert_allclose(after, read(model), rtol=1e-6)


def test_dictionaries_are_decoded_in_batches(monkeypatch):
    model = models.deep((2,), (3, 600), layers.TopK(3))
    decode, shapes = model.decoder.predict_on_batch, []

    def spy(code):
        shapes.append(code.shape)
        return decode(code)

    monkeypatch.setattr(model.decoder, "predict_on_batch", spy)
    assert model.dictionary().shape == (600, 2)
    assert shapes == [(1, 600), (256, 600), (256, 600), (88, 600)]


def test_an_array_on_disk_is_read_in_batches(x, tmp_path):
    np.save(tmp_path / "x.npy", x)
    model = shallow(layers.TopK(3))
    on_disk = np.load(tmp_path / "x.npy", mmap_mode="r")
    code = model.encode(on_disk, batch_size=7, sparse=True)
    np.testing.assert_allclose(code.toarray(), model.encode(x), rtol=1e-5, atol=1e-6)


def test_batches_of_any_kind_are_encoded(x):
    import tensorflow as tf

    model, expected = shallow(layers.TopK(3)), shallow(layers.TopK(3)).encode(x)
    y = np.zeros(50)
    for data in (
        tf.data.Dataset.from_tensor_slices((x, y)).batch(16),
        ((x[i : i + 16], y[i : i + 16]) for i in range(0, 50, 16)),
    ):
        code = model.encode(data, sparse=True)
        np.testing.assert_allclose(code.toarray(), expected, rtol=1e-5, atol=1e-6)


def test_rows_of_a_store_have_their_origins(x, tmp_path):
    base = keras.Sequential([keras.Input((6,)), keras.layers.ReLU(name="relu")])
    store = activations.record(base, "relu", x, tmp_path, file_bytes=200)
    model = shallow(layers.TopK(3))
    code = model.encode(store, batch_size=16, sparse=True)
    origins = store.origin(np.arange(len(store)))[:, 0]
    expected = model.encode(np.maximum(x, 0).astype("float16").astype("float32"))
    found = code.toarray()
    np.testing.assert_allclose(found, expected[origins], rtol=1e-5, atol=1e-6)


@tensorflow_only
def test_half_precision_is_returned_as_float32(x):
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = shallow(layers.TopK(3))
    finally:
        keras.config.set_dtype_policy("float32")
    code = model.encode(x, sparse=True)
    assert code.dtype == "float32"
    np.testing.assert_array_equal(code.toarray(), model.encode(x))
    assert model.decode(code).shape == x.shape


def test_a_changed_k_is_used_by_the_next_call(x):
    model = shallow(layers.TopK(3))
    model.encode(x, sparse=True)
    model.encoder.get_layer("code").sparsity.k = 2
    assert np.diff(model.encode(x, sparse=True).indptr).max() == 2


def test_the_training_loop_and_the_state_are_unchanged(x):
    model = shallow(layers.BatchTopK(3))
    model.compile("adam")
    model.fit(x, verbose=0)
    before = [to_numpy(v) for v in model.variables]
    model.decode(model.encode(x, sparse=True))
    for old, new in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(old, to_numpy(new))
    model.fit(x, verbose=0)


# Bad input.

BAD_CODES = {
    "another width": (np.ones((2, UNITS + 1)), rf"shape \('samples', {UNITS}\)"),
    "empty": (np.ones((0, UNITS)), "at least one sample"),
    "counts": (np.full((2, UNITS), 3), "floating-point.*int64"),
    "complex": (np.full((2, UNITS), 1j), "floating-point.*complex128"),
    "NaN": (np.full((2, UNITS), np.nan), "`code` must be finite"),
}


@pytest.mark.parametrize(("code", "message"), BAD_CODES.values(), ids=BAD_CODES)
def test_bad_codes_are_refused(code, message):
    with pytest.raises(ValueError, match=message):
        shallow("l1").decode(sparse.csr_array(code))


def test_samples_are_checked_in_every_batch(x):
    x[40, 2] = np.nan
    with pytest.raises(ValueError, match="`x` must be finite"):
        shallow(layers.TopK(3)).encode(x, batch_size=16, sparse=True)
    with pytest.raises(ValueError, match="at least one sample"):
        shallow(layers.TopK(3)).encode(x[:0], sparse=True)
    with pytest.raises(ValueError, match="`batch_size` must be"):
        shallow(layers.TopK(3)).encode(x, batch_size=0, sparse=True)


@pytest.mark.parametrize("is_sparse", [True, False])
def test_endless_datasets_are_refused(is_sparse, x):
    import tensorflow as tf

    endless = tf.data.Dataset.from_tensor_slices(x).batch(16).repeat()
    with pytest.raises(ValueError, match=r"must be finite.*never ends"):
        shallow(layers.TopK(3)).encode(endless, sparse=is_sparse)


# Evaluation.


@pytest.mark.parametrize("name", ["top-k", "l1", "deep"])
def test_evaluation_makes_no_array_of_samples_by_units(name, x, monkeypatch):
    model, y = adapted(MODELS[name](), x), np.arange(50) % 2
    dense = {"codes": model.encode(x), "train": (x, y)}
    expected = evaluation.evaluate(model, x, y, **dense)
    encode = model.encode

    def only_sparse(x, batch_size=256, sparse=False):
        assert sparse
        return encode(x, batch_size, sparse)

    monkeypatch.setattr(model, "encode", only_sparse)
    found = evaluation.evaluate(model, x, y, train=(x, y))
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert found[key] == pytest.approx(value, rel=1e-4, abs=1e-5), key
    given = evaluation.evaluate(model, x, y, codes=encode(x, sparse=True))
    assert given["l0"] == expected["l0"]


def test_probes_of_a_sparse_matrix_equal_those_of_the_array():
    rng = np.random.default_rng(0)
    y = rng.integers(3, size=300)
    codes = rng.exponential(size=(300, 20)) * (rng.random((300, 20)) < 0.2)
    codes[:, 3] += y == 1
    codes[:, 7] = 1.0  # a constant
    halves = codes[:150], y[:150], codes[150:], y[150:]
    matrix = sparse.csr_array(codes)
    sparse_halves = matrix[:150], y[:150], matrix[150:], y[150:]
    expected = evaluation.probe(*halves)
    assert 0.4 < expected < 1
    assert evaluation.probe(*sparse_halves) == pytest.approx(expected, abs=0.02)
    expected = evaluation.sparse_probe(*halves, k=4)
    found = evaluation.sparse_probe(*sparse_halves, k=4)
    assert found["units"] == expected["units"]
    assert found["accuracy"] == pytest.approx(expected["accuracy"], abs=0.02)
    with pytest.raises(ValueError, match="`codes_train` must not be all zero"):
        evaluation.probe(matrix[:150] * 0, *sparse_halves[1:])
