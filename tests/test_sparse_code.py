"""Tests of sparse codes and top-k selection against dense products."""

import keras
import numpy as np
import pytest
from helpers import matrix, to_numpy, weights_of
from keras import ops

from keras_sae import layers, models
from keras_sae.layers import SparseDense, aux_k
from keras_sae.ops import sparse_code, top_k
from keras_sae.ops.sparse_code import SparseCode


def make_code(rng, shared: bool) -> tuple[SparseCode, np.ndarray]:
    """SparseCode, three a sample on average, and the code that they make."""
    code = np.zeros((6, 10), "float32")
    if shared:
        places = rng.permutation(60)[:18]
        rows, columns = places // 10, places % 10
    else:
        columns = np.stack([rng.permutation(10)[:3] for _ in range(6)])
        rows = np.repeat(np.arange(6), 3)
    values = rng.normal(size=18).astype("float32")
    code[rows.ravel(), columns.ravel()] = values
    as_ints = [np.reshape(v, (6, 3)).astype("int32") for v in (columns, rows)]
    columns, rows = (ops.convert_to_tensor(v) for v in as_ints)
    values = ops.convert_to_tensor(values.reshape(6, 3))
    return SparseCode(values, columns, rows if shared else None), code


shared = pytest.mark.parametrize("shared", [False, True], ids=["rows", "batch"])


@shared
def test_to_dense_is_active_and_mask_equal_numpy(rng, shared):
    entries, code = make_code(rng, shared)
    np.testing.assert_array_equal(to_numpy(entries.to_dense(10)), code)
    np.testing.assert_array_equal(
        to_numpy(entries.is_active(10)) > 0, (code != 0).any(0)
    )
    keep = np.arange(10) < 4
    part = entries.mask(ops.convert_to_tensor(keep))
    np.testing.assert_array_equal(to_numpy(part.to_dense(10)), code * keep)


@shared
@pytest.mark.parametrize(
    "outer",
    [sparse_code._kernel_gradient_in_a_loop, sparse_code._kernel_gradient_at_once],
)
def test_kernel_gradient_equals_dense_product(rng, shared, outer):
    entries, code = make_code(rng, shared)
    x = rng.normal(size=(6, 4)).astype("float32")
    found = to_numpy(outer(entries, ops.convert_to_tensor(x), 10))
    np.testing.assert_allclose(found, code.T @ x, rtol=1e-5, atol=1e-6)


@shared
def test_decode_equals_dense_product(rng, shared):
    entries, code = make_code(rng, shared)
    kernel = rng.normal(size=(10, 4)).astype("float32")
    found = to_numpy(sparse_code.decode(entries, ops.convert_to_tensor(kernel)))
    np.testing.assert_allclose(found, code @ kernel, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shift", [0, 10], ids=["even", "overflow"])
@pytest.mark.parametrize("units", [30, 400])
def test_batch_top_k_selects_the_largest_of_the_batch(rng, units, shift):
    code = rng.normal(size=(12, units)).astype("float32")
    code[3] += shift  # more of this row than is looked at before everything is
    assert not top_k._is_narrow(400, 5)
    values, columns, rows = (
        to_numpy(v) for v in top_k.batch_top_k(ops.convert_to_tensor(code), 5)
    )
    assert sorted(values.ravel()) == sorted(np.sort(code.ravel())[-60:])
    places = rows.astype(int), columns.astype(int)
    np.testing.assert_array_equal(code[places], values)
    assert len(set(zip(*(v.ravel() for v in places), strict=True))) == 60
    least = float(top_k.batch_threshold(ops.convert_to_tensor(code), 60, 5))
    assert (code > least).sum() == 60


def dead(sparsity, units=None):
    """One unit a sample: of 40, at least 8 are dead after a step of 32 samples."""
    return sparsity(1, auxiliary=layers.AuxK(units, dead_after=1))


SPARSITIES = {
    "top_k": lambda: layers.TopK(4),
    "linear": lambda: layers.TopK(4),
    "batch_top_k": lambda: layers.BatchTopK(4),
    "dead": lambda: dead(layers.TopK),
    "one dead": lambda: dead(layers.TopK, 1),
    "more than are dead": lambda: dead(layers.TopK, 36),
    "batch dead": lambda: dead(layers.BatchTopK, 3),
    "tied dead": lambda: dead(layers.TopK, 3),
    "deep dead": lambda: dead(layers.TopK, 2),
    "matryoshka": lambda: layers.Matryoshka(layers.BatchTopK(4), (5, 20)),
    "batch linear": lambda: layers.BatchTopK(36),  # more than are positive
}


@pytest.mark.parametrize("name", SPARSITIES)
def test_training_equals_training_with_dense_products(name, rng, monkeypatch):
    """Three steps of SGD with all gradients, by entries and by dense products."""
    x = rng.normal(size=(32, 3, 4)).astype("float32")
    calls = []
    decoded = layers.UnitNormDense.decode
    monkeypatch.setattr(
        layers.UnitNormDense,
        "decode",
        lambda self, entries: calls.append(1) or decoded(self, entries),
    )

    def trained():
        keras.utils.set_random_seed(0)
        activation = "linear" if "linear" in name else "auto"
        sparsity = SPARSITIES[name]()
        if "deep" in name:
            model = models.deep((3, 4), (20, 40), sparsity, unit_norm=True)
        else:
            options = {"activation": activation, "tied": "tied" in name}
            model = models.shallow((3, 4), 40, sparsity, **options)
        model.compile(keras.optimizers.SGD(0.5))
        logs = [model.train_on_batch(x, return_dict=True) for _ in range(3)]
        return weights_of(model), logs[-1]

    monkeypatch.setattr(aux_k, "_MAX_ROWS", 1000)  # always sparse
    with monkeypatch.context() as patch:
        patch.delattr(layers.AuxK, "_dense_code")
        sparse, logs = trained()
    assert bool(calls) is ("tied" not in name)
    monkeypatch.setattr(SparseDense, "_sparse_activations", lambda *_: None)
    calls.clear()
    by_products, dense_logs = trained()
    assert not calls
    if "dead" in name:
        assert logs["auxiliary_loss"] > 0
    assert logs == pytest.approx(dense_logs, rel=1e-4)
    for one, other in zip(sparse, by_products, strict=True):
        # Sums of a hundred float32 products, in another order, three times.
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=2e-5)


def test_a_dead_unit_whose_pre_activation_is_zero_is_revived_too():
    """Blank samples and no bias yet: its bias moves, as by the dense products."""
    x = np.zeros((4, 6), "float32")
    x[0] = 1

    def bias(by_entries):
        with pytest.MonkeyPatch.context() as patch:
            if not by_entries:
                patch.setattr(SparseDense, "_sparse_activations", lambda *_: None)
            keras.utils.set_random_seed(0)
            sparsity = layers.TopK(1, auxiliary=layers.AuxK(8, dead_after=1))
            model = models.shallow((6,), 8, sparsity, centering=False)
            model.compile(keras.optimizers.SGD(1.0))
            model.train_on_batch(x)
        return to_numpy(model.sparse_layers[0].bias)

    assert np.count_nonzero(bias(True)) >= 7
    np.testing.assert_allclose(bias(True), bias(False), rtol=1e-4, atol=1e-7)


def chained(sparsity, **options):
    encoder = models.shallow((6,), 8, sparsity, centering=False).encoder
    code = keras.Input((8,))
    decoder = keras.Model(code, layers.UnitNormDense(6, **options)(code))
    model = models.Autoencoder(encoder, decoder)
    model.compile(keras.optimizers.SGD(0.0), jit_compile=False)
    return model


@pytest.mark.parametrize("sparsity", [None, layers.TopK(3, auxiliary=None)])
def test_a_penalty_of_the_outputs_is_in_the_loss(sparsity, rng):
    x = rng.normal(size=(10, 6)).astype("float32")
    model = chained(sparsity, activity_regularizer=keras.regularizers.L2(0.5))
    rebuilt = to_numpy(model(x))
    # Keras divides the penalty of a batch by its samples.
    expected = ((x - rebuilt) ** 2).mean() + 0.5 * (rebuilt**2).sum() / 10
    assert model.train_on_batch(x)[0] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("sparsity", [None, layers.TopK(3), layers.BatchTopK(3)])
def test_a_decoder_of_another_precision(sparsity, rng):
    """Full precision behind half of it, as Keras advises for outputs."""
    x = rng.normal(size=(8, 6)).astype("float32")
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = chained(sparsity, dtype="float32")
    model.train_on_batch(x)
    assert keras.backend.standardize_dtype(model(x).dtype) == "float32"
    # Eight bits of mantissa in the encoder, none lost behind it.
    code = to_numpy(model.encoder(x)).astype("float32")
    atoms = to_numpy(model.decoder.layers[-1].kernel)
    np.testing.assert_allclose(to_numpy(model(x)), code @ atoms, rtol=1e-5, atol=1e-5)


def test_a_layer_that_is_used_twice_is_applied_twice(rng):
    """Such a decoder is no chain of its layers, and is called as it is."""
    x = rng.normal(size=(8, 6)).astype("float32")
    inputs, twice = keras.Input((20,)), keras.layers.Dense(6)
    outputs = twice(twice(layers.UnitNormDense(6)(inputs)))
    encoder = models.shallow((6,), 20, layers.TopK(3)).encoder
    model = models.Autoencoder(encoder, keras.Model(inputs, outputs))
    model.compile(keras.optimizers.SGD(0.0))
    logs = model.train_on_batch(x, return_dict=True)
    error = np.square(model.decode(model.encode(x)) - x).mean()
    assert logs["reconstruction_loss"] == pytest.approx(error, rel=1e-5)


@shared
@pytest.mark.parametrize(
    "outer",
    [sparse_code._kernel_gradient_in_a_loop, sparse_code._kernel_gradient_at_once],
)
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_sums_in_half_precision_are_exact(outer, dtype, shared):
    """Four thousand ones: above 256 and 2,048 one more is less than a rounding."""
    n = 4096
    ones = ops.ones((n, 1), dtype=dtype)
    zero = ops.zeros((n, 1), dtype="int32")
    rows = ops.cast(ops.arange(n)[:, None], "int32") if shared else None
    total = outer(SparseCode(ones, zero, rows), ops.ones((n, 2), dtype=dtype), 3)
    np.testing.assert_array_equal(to_numpy(ops.cast(total, "float32"))[0], [n, n])
    bias = sparse_code._sum_per_unit(ones, zero, 3)
    assert float(to_numpy(ops.cast(bias, "float32"))[0]) == n
    wide = SparseCode(ops.ones((1, n), dtype=dtype), ops.zeros((1, n), dtype="int32"))
    kernel = ops.ones((3, 2), dtype=dtype)
    decoded = to_numpy(ops.cast(sparse_code.decode(wide, kernel), "float32"))
    np.testing.assert_array_equal(decoded, [[n, n]])


@pytest.mark.parametrize("name", SPARSITIES)
def test_transposed_kernel_does_not_change_the_results(name, rng):
    x = rng.normal(size=(32, 12)).astype("float32")

    def trained(transposed_kernel):
        keras.utils.set_random_seed(0)
        model = models.shallow(
            (12,),
            40,
            SPARSITIES[name](),
            transposed_kernel=transposed_kernel,
            tied_initialization=False,
            kernel_initializer="he_normal",  # as wide as what comes in alone
        )
        model.compile(keras.optimizers.SGD(0.5))
        model.train_on_batch(x)
        layer = model.sparse_layers[0]
        assert tuple(layer.kernel.shape) == (
            (40, 12) if transposed_kernel else (12, 40)
        )
        rest = [to_numpy(v) for v in model.weights if v is not layer.kernel]
        return [matrix(layer), *rest]

    for one, other in zip(trained(True), trained(False), strict=True):
        # Sums of a hundred float32 products, in another order.
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("sparsity", "settings", "expected"),
    [
        ("top_k", {}, True),
        ("batch_top_k", {}, True),
        ("top_k", {"tied": True}, False),
        ("l1", {}, False),
    ],
)
def test_rows_where_a_gradient_is_of_few_units(sparsity, settings, expected):
    model = models.shallow((12,), 40, sparsity, **settings)
    assert model.sparse_layers[0].transposed_kernel is expected


def test_the_gradient_reaches_what_lies_before_the_code(rng):
    """A hidden layer below a TopK is trained as by the dense product."""
    x = rng.normal(size=(32, 12)).astype("float32")

    def kernel(by_entries):
        with pytest.MonkeyPatch.context() as patch:
            if not by_entries:
                patch.setattr(SparseDense, "_sparse_activations", lambda *_: None)
            keras.utils.set_random_seed(0)
            model = models.deep((12,), (10, 20), layers.TopK(3))
            model.compile(keras.optimizers.SGD(0.5))
            model.train_on_batch(x)
        return to_numpy(model.sparse_layers[0].kernel)

    np.testing.assert_allclose(kernel(True), kernel(False), rtol=1e-4, atol=1e-6)


def test_atoms_move_along_the_sphere(rng):
    layer = layers.UnitNormDense(4, use_bias=False)
    layer.build((None, 10))
    model = keras.Sequential([keras.Input((10,)), layer])
    model.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=False)
    x, y = rng.normal(size=(8, 10)), rng.normal(size=(8, 4))
    A = to_numpy(layer.kernel)
    slope = 2 * x.T @ (x @ A - y) / y.size
    slope -= (slope * A).sum(axis=1, keepdims=True) * A
    expected = A - 0.1 * slope
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    model.train_on_batch(x.astype("float32"), y.astype("float32"))
    np.testing.assert_allclose(to_numpy(layer.kernel), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("sparsity", ["top_k", "jump_relu", "gated"])
def test_a_unit_starts_at_its_own_atom(sparsity):
    model = models.shallow((12,), 40, sparsity)
    code, output = model.encoder.get_layer("code"), model.decoder.get_layer("output")
    np.testing.assert_array_equal(matrix(code), to_numpy(output.kernel).T)
    norms = np.linalg.norm(to_numpy(output.kernel), axis=1)
    np.testing.assert_allclose(norms, 1, rtol=1e-6)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="graphs of reads")
@pytest.mark.parametrize("revived", [None, "auto"])
def test_a_step_reads_the_kernel_once(revived):
    """Of two reads, grappler let the gradient's run after the kernel's update."""
    import tensorflow as tf

    model = models.shallow((12,), 20, layers.TopK(3, auxiliary=revived))
    model.compile(keras.optimizers.SGD(0.5))
    model.train_on_batch(np.ones((32, 12), "float32"))
    step = tf.function(lambda x: model.train_step((x,)))
    graph = step.get_concrete_function(tf.ones((32, 12))).graph
    layer = model.sparse_layers[-1]
    for variable in (layer.kernel, layer.bias):
        handle = next(
            inner for outer, inner in graph.captures if outer is variable.value.handle
        )
        reads = [c for c in handle.consumers() if c.type == "ReadVariableOp"]
        assert len(reads) == 1
