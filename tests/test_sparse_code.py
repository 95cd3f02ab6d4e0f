"""Tests of sparse codes and top-k selection against dense products."""

import keras
import numpy as np
import pytest
from helpers import matrix, tensorflow_only, to_numpy, weights_of
from keras import ops

from keras_sae import layers, models
from keras_sae.layers import SparseDense, aux_k
from keras_sae.ops import sparse_code, tensorflow_kernels, top_k
from keras_sae.ops.sparse_code import SparseCode

with_rows = pytest.mark.parametrize("with_rows", [False, True], ids=["", "rows"])


def make_code(rng, with_rows: bool) -> tuple[SparseCode, np.ndarray]:
    """Return a code with three entries per sample on average, sparse and dense."""
    code = np.zeros((6, 10), "float32")
    if with_rows:
        places = np.sort(rng.permutation(60)[:18])
        rows, columns = places // 10, places % 10
    else:
        columns = np.stack([rng.permutation(10)[:3] for _ in range(6)])
        rows = np.repeat(np.arange(6), 3)
    values = rng.normal(size=18).astype("float32")
    code[rows.ravel(), columns.ravel()] = values
    integers = [np.reshape(v, (6, 3)).astype("int32") for v in (columns, rows)]
    columns, rows = (ops.convert_to_tensor(v) for v in integers)
    values = ops.convert_to_tensor(values.reshape(6, 3))
    return SparseCode(values, columns, rows if with_rows else None), code


# Sparse codes and their products.


@with_rows
def test_to_dense_is_active_and_mask_equal_numpy(rng, with_rows):
    sparse, dense = make_code(rng, with_rows)
    np.testing.assert_array_equal(to_numpy(sparse.to_dense(10)), dense)
    active = to_numpy(sparse.is_active(10))
    np.testing.assert_array_equal(active, (dense != 0).any(axis=0))
    keep = np.arange(10) < 4
    masked = sparse.mask(ops.convert_to_tensor(keep))
    np.testing.assert_array_equal(to_numpy(masked.to_dense(10)), dense * keep)


@with_rows
def test_kernel_gradient_equals_dense_product(rng, with_rows):
    sparse, dense = make_code(rng, with_rows)
    x = rng.normal(size=(6, 4)).astype("float32")
    found = sparse_code.kernel_gradient(sparse, ops.convert_to_tensor(x), 10)
    found = to_numpy(found)
    np.testing.assert_allclose(found, dense.T @ x, rtol=1e-5, atol=1e-6)


@with_rows
def test_decode_equals_dense_product(rng, with_rows):
    sparse, dense = make_code(rng, with_rows)
    kernel = rng.normal(size=(10, 4)).astype("float32")
    found = to_numpy(sparse_code.decode(sparse, ops.convert_to_tensor(kernel)))
    np.testing.assert_allclose(found, dense @ kernel, rtol=1e-5, atol=1e-6)


@with_rows
def test_decode_of_prefixes_equals_dense_products(rng, with_rows):
    sparse, dense = make_code(rng, with_rows)
    kernel = rng.normal(size=(10, 4)).astype("float32")
    found = sparse_code.decode(sparse, ops.convert_to_tensor(kernel), (2, 5))
    expected = [dense * (np.arange(10) < width) @ kernel for width in (2, 5, 10)]
    expected = np.concatenate(expected)
    np.testing.assert_allclose(to_numpy(found), expected, rtol=1e-5, atol=1e-6)


# In bfloat16 257 is rounded to 256, and in float16 2,049 to 2,048.
half_precision = pytest.mark.parametrize("dtype", ["bfloat16", "float16"])


@with_rows
@half_precision
def test_half_precision_kernel_gradients_are_exact(dtype, with_rows):
    n = 4096
    ones = ops.ones((n, 1), dtype=dtype)
    zero = ops.zeros((n, 1), dtype="int32")
    rows = ops.cast(ops.arange(n)[:, None], "int32") if with_rows else None
    code = SparseCode(ones, zero, rows)
    found = sparse_code.kernel_gradient(code, ops.ones((n, 2), dtype=dtype), 3)
    np.testing.assert_array_equal(to_numpy(found)[0], [n, n])


@half_precision
def test_half_precision_sums_are_exact(dtype):
    n = 4096
    zero = ops.zeros((n, 1), dtype="int32")
    bias = sparse_code._sum_per_unit(ops.ones((n, 1), dtype=dtype), zero, 3)
    assert to_numpy(bias)[0] == n
    # Each one that is added to 2,048 would be lost.
    values = ops.convert_to_tensor([[2048.0, *[1.0] * 16]], dtype=dtype)
    code = SparseCode(values, ops.zeros((1, 17), dtype="int32"))
    found = sparse_code.decode(code, ops.ones((3, 2), dtype=dtype))
    np.testing.assert_array_equal(to_numpy(found), [[2064, 2064]])


@pytest.mark.parametrize("units", [30, 400, 401, 4096])
def test_top_k_selects_the_largest_of_each_row(rng, units):
    code = rng.normal(size=(6, units)).astype("float32")
    code[0, :8] += 9  # several in one block
    values, columns = map(to_numpy, top_k.top_k(ops.convert_to_tensor(code), 5))
    np.testing.assert_array_equal(values, -np.sort(-code, axis=1)[:, :5])
    found = np.take_along_axis(code, columns.astype(int), axis=1)
    np.testing.assert_array_equal(found, values)


@tensorflow_only
def test_functions_that_xla_compiles_do_not_use_the_kernels(rng):
    """This fails if TensorFlow moves its function that tells whether XLA compiles."""
    import tensorflow as tf

    used = []

    def record():
        used.append(tensorflow_kernels.are_usable())
        return tf.zeros(())

    tf.function(record)()
    tf.function(tf.function(record, jit_compile=True))()
    assert used == [True, False]


@tensorflow_only
def test_fit_of_a_k_sparse_code_recommends_onednn_once(caplog, monkeypatch):
    assert tensorflow_kernels.build is not None  # else TensorFlow has moved it
    monkeypatch.setattr(tensorflow_kernels.build, "IsMklEnabled", lambda: False)
    tensorflow_kernels.recommend_onednn.cache_clear()
    with caplog.at_level("INFO", "keras_sae"):
        for sparsity in ("l1", "top_k", "top_k"):
            model = models.shallow((6,), 40, sparsity)
            model.compile("adam")
            model.fit(np.ones((4, 6), "float32"), verbose=0)
            messages = [r.message for r in caplog.records if r.name == "keras_sae"]
            assert len(messages) == (sparsity != "l1")
    assert "TF_ENABLE_ONEDNN_OPTS=1" in messages[0]


@tensorflow_only
@pytest.mark.parametrize("sparsity", [layers.TopK(4), layers.BatchTopK(4)])
def test_kernels_equal_the_loops_that_xla_compiles(rng, sparsity):
    x = rng.normal(size=(32, 12)).astype("float32")

    def train(jit_compile):
        keras.utils.set_random_seed(0)
        model = models.deep((12,), (16, 64), sparsity, unit_norm=True)
        model.compile(keras.optimizers.SGD(0.5), jit_compile=jit_compile)
        model.train_on_batch(x)
        return weights_of(model)

    for one, other in zip(train(False), train(True), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


@with_rows
def test_a_code_of_no_samples_decodes_to_none(rng, with_rows):
    sparse, _ = make_code(rng, with_rows)
    empty = SparseCode(sparse.values[:0], *(v[:0] for v in sparse.positions))
    kernel = ops.convert_to_tensor(rng.normal(size=(10, 4)).astype("float32"))
    assert tuple(sparse_code.decode(empty, kernel).shape) == (0, 4)


@pytest.mark.parametrize("shift", [0, 10], ids=["even", "overflow"])
@pytest.mark.parametrize("units", [30, 400])
def test_batch_top_k_selects_the_largest_of_the_batch(rng, units, shift):
    code = rng.normal(size=(12, units)).astype("float32")
    code[3] += shift  # more selected entries in this row than candidates
    assert top_k._NARROW * top_k._CANDIDATES * 5 <= 400
    values, columns, rows = (
        to_numpy(v) for v in top_k.batch_top_k(ops.convert_to_tensor(code), 5, 5)
    )
    assert sorted(values.ravel()) == sorted(np.sort(code.ravel())[-60:])
    places = rows.astype(int), columns.astype(int)
    np.testing.assert_array_equal(code[places], values)
    assert len(set(zip(*(v.ravel() for v in places), strict=True))) == 60
    threshold = float(top_k.batch_threshold(ops.convert_to_tensor(code), 60, 5))
    assert (code > threshold).sum() == 60


@tensorflow_only
@pytest.mark.parametrize("count", [0, 7, 60, 61, 100])
@pytest.mark.parametrize("place", ["anywhere", "together"])
def test_positive_entries_equal_numpy(rng, count, place):
    # Dense are more than 60 entries, or entries in more than 60 blocks of 16.
    dense = count > 60
    values = rng.normal(size=(6, 324)).astype("float32")
    margin = np.full(6 * 324, -1.0, "float32")
    places = rng.permutation(6 * 324) if place == "anywhere" else np.arange(500, 700)
    margin[places[:count]] = 1
    margin = margin.reshape(6, 324)
    code = SparseCode(*top_k.positive_entries(values, margin, 0.0))
    assert bool(code.dense) == dense
    expected = values if dense else np.where(margin > 0, values, 0)
    np.testing.assert_array_equal(to_numpy(code.to_dense(324)), expected)
    if not dense:  # the number of entries per sample is rounded up
        assert code.values.shape == (6, max(1, -(-count // 6)))
        assert (np.diff(to_numpy(code.rows).ravel()) >= 0).all()


# Training.


def with_dead_units(sparsity, k_aux):
    """Return a sparsity with one active unit per sample.

    Of 40 units, at least 8 are dead after a step of 32 samples.
    """
    return sparsity(1, auxiliary=layers.AuxK(k_aux, dead_after=1))


SPARSITIES = {
    "top_k": lambda: layers.TopK(4),
    "linear": lambda: layers.TopK(4),
    "batch_top_k": lambda: layers.BatchTopK(4),
    "batch_top_k-linear": lambda: layers.BatchTopK(36),  # more than are positive
    "annealed": lambda: layers.TopK(4, initial_k=8),
    "annealed-batch_top_k": lambda: layers.BatchTopK(4, initial_k=8),
    "dead": lambda: with_dead_units(layers.TopK, 1),
    "dead-all": lambda: with_dead_units(layers.TopK, 36),  # more than are dead
    "dead-batch_top_k": lambda: with_dead_units(layers.BatchTopK, 3),
    "dead-tied": lambda: with_dead_units(layers.TopK, 3),
    "dead-deep": lambda: with_dead_units(layers.TopK, 2),
    "matryoshka": lambda: layers.Matryoshka(layers.BatchTopK(4), (5, 20)),
    "matryoshka-top_k": lambda: layers.Matryoshka(layers.TopK(4), (5, 20, 40)),
}


def compute_densely(patch) -> None:
    """Make every `SparseDense` compute its code without `select`."""
    patch.setattr(SparseDense, "_sparse_activations", lambda *_: None)


@pytest.mark.parametrize("name", SPARSITIES)
def test_training_equals_training_with_dense_products(name, rng, monkeypatch):
    x = rng.normal(size=(32, 3, 4)).astype("float32")
    calls = []
    decode = sparse_code.decode
    monkeypatch.setattr(
        sparse_code, "decode", lambda *args: calls.append(1) or decode(*args)
    )

    def train():
        keras.utils.set_random_seed(0)
        sparsity = SPARSITIES[name]()
        if "deep" in name:
            model = models.deep((3, 4), (20, 40), sparsity, unit_norm=True)
        else:
            activation = "linear" if "linear" in name else "auto"
            options = {"activation": activation, "tied": "tied" in name}
            model = models.shallow((3, 4), 40, sparsity, **options)
        model.compile(keras.optimizers.SGD(0.5))
        logs = [model.train_on_batch(x, return_dict=True) for _ in range(3)]
        return weights_of(model), logs[-1]

    monkeypatch.setattr(aux_k, "_MAX_VALUES", 1000)  # always sparse
    weights, logs = train()
    by_loops = "annealed" in name and not tensorflow_kernels.are_usable()
    assert bool(calls) is not ("tied" in name or by_loops)
    compute_densely(monkeypatch)
    calls.clear()
    expected, expected_logs = train()
    assert not calls
    if "dead" in name:
        assert logs["auxiliary_loss"] > 0
    assert logs == pytest.approx(expected_logs, rel=1e-4)
    for one, other in zip(weights, expected, strict=True):
        # Three times the sums of a hundred float32 products in another order.
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=2e-5)


def sparse_and_dense(train):
    """Return the results of `train()` with sparse and with dense products."""
    sparse = train()
    with pytest.MonkeyPatch.context() as patch:
        compute_densely(patch)
        return sparse, train()


@tensorflow_only
@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("bias", [0.0, -2.0], ids=["many", "few"])
@pytest.mark.parametrize("name", ["jump_relu", "target", "gated", "gated-tied"])
def test_penalized_codes_train_as_with_dense_products(
    name, bias, policy, rng, monkeypatch
):
    """At most 10 of 320 units may be active per sample, or products are dense."""
    steps = 3 if policy == "float32" else 1
    keras.config.set_dtype_policy(policy)
    x = rng.normal(size=(32, 3, 4)).astype("float32")
    jump = {"threshold": 0.2, "bandwidth": 0.3}
    kinds = {
        "jump_relu": lambda: layers.JumpReLU(0.5, **jump),
        "target": lambda: layers.JumpReLU(0.5, target_l0=4, **jump),
        "gated": lambda: layers.Gated(0.1),
        "gated-tied": lambda: layers.Gated(0.1),
    }
    found, calls = [], []
    select = top_k.positive_entries
    monkeypatch.setattr(
        top_k, "positive_entries", lambda *args: calls.append(1) or select(*args)
    )

    def train():
        keras.utils.set_random_seed(0)
        model = models.shallow((3, 4), 320, kinds[name](), tied="tied" in name)
        code = model.sparse_layers[0]
        code.bias.assign(np.full(320, bias))
        model.compile(keras.optimizers.SGD(0.01))
        start = [to_numpy(v) for v in model.trainable_variables]
        logs = [model.train_on_batch(x, return_dict=True) for _ in range(steps)]
        found.append((logs[0]["l0"], len(calls)))
        end = [to_numpy(v) for v in model.trainable_variables]
        return [b - a for a, b in zip(start, end, strict=True)], logs[-1]

    (changes, logs), (expected, expected_logs) = sparse_and_dense(train)
    (l0, sparse_calls), (_, all_calls) = found
    assert 0 < l0 < 10 if bias else l0 > 10
    assert 0 < sparse_calls == all_calls
    # In bfloat16, a rounding error can activate a unit.
    relative, absolute = (1e-4, 2e-5) if policy == "float32" else (0.1, 0.05)
    assert logs == pytest.approx(expected_logs, rel=relative, abs=absolute)
    relative = 1e-3 if policy == "float32" else 0.3
    for one, other in zip(changes, expected, strict=True):
        assert np.linalg.norm(one - other) <= relative * np.linalg.norm(other)


def test_subclasses_of_penalties_that_select_get_dense_activations(rng):
    class Halved(layers.JumpReLU):
        def call(self, inputs, training=None):
            return super().call(ops.relu(inputs) / 2, training=training)

    class Revived(layers.JumpReLU):
        requires_decoder = True
        auxiliary_loss_names = ("auxiliary_loss",)

        def auxiliary_losses(self, step):
            return {"auxiliary_loss": layers.AuxK(8, dead_after=1).loss(step)}

    x = rng.normal(size=(32, 12)).astype("float32")
    for kind in (Halved, Revived):

        def train(kind=kind):
            keras.utils.set_random_seed(0)
            model = models.shallow((12,), 320, kind(0.1, threshold=0.2))
            model.compile(keras.optimizers.SGD(0.1))
            return weights_of(model), model.train_on_batch(x, return_dict=True)

        (weights, logs), (expected, expected_logs) = sparse_and_dense(train)
        assert logs == pytest.approx(expected_logs, rel=1e-4)
        for one, other in zip(weights, expected, strict=True):
            np.testing.assert_allclose(one, other, atol=2e-5)


def test_dead_units_with_zero_pre_activations_are_trained():
    """On blank samples without a bias, every pre-activation is zero."""
    x = np.zeros((4, 6), "float32")
    x[0] = 1

    def bias_after_one_step():
        keras.utils.set_random_seed(0)
        sparsity = layers.TopK(1, auxiliary=layers.AuxK(8, dead_after=1))
        model = models.shallow((6,), 8, sparsity, centering=False)
        model.compile(keras.optimizers.SGD(1.0))
        model.train_on_batch(x)
        return to_numpy(model.sparse_layers[0].bias)

    sparse, dense = sparse_and_dense(bias_after_one_step)
    assert np.count_nonzero(sparse) >= 7
    np.testing.assert_allclose(sparse, dense, rtol=1e-4, atol=1e-7)


def test_layers_before_a_sparse_code_are_trained(rng):
    x = rng.normal(size=(32, 12)).astype("float32")

    def first_kernel_after_one_step():
        keras.utils.set_random_seed(0)
        model = models.deep((12,), (10, 20), layers.TopK(3))
        model.compile(keras.optimizers.SGD(0.5))
        model.train_on_batch(x)
        return to_numpy(model.sparse_layers[0].kernel)

    sparse, dense = sparse_and_dense(first_kernel_after_one_step)
    np.testing.assert_allclose(sparse, dense, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["top_k", "batch_top_k", "dead"])
def test_transposed_kernel_does_not_change_the_results(name, rng):
    x = rng.normal(size=(32, 12)).astype("float32")

    def train(transposed_kernel):
        keras.utils.set_random_seed(0)
        model = models.shallow(
            (12,),
            40,
            SPARSITIES[name](),
            transposed_kernel=transposed_kernel,
            tied_initialization=False,
            kernel_initializer="he_normal",  # depends on the number of inputs alone
        )
        model.compile(keras.optimizers.SGD(0.5))
        model.train_on_batch(x)
        layer = model.sparse_layers[0]
        assert tuple(layer.kernel.shape) == (
            (40, 12) if transposed_kernel else (12, 40)
        )
        others = [to_numpy(v) for v in model.weights if v is not layer.kernel]
        return [matrix(layer), *others]

    for one, other in zip(train(True), train(False), strict=True):
        # Sums of a hundred float32 products in another order.
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
def test_kernel_is_transposed_for_sparse_gradients(sparsity, settings, expected):
    model = models.shallow((12,), 40, sparsity, **settings)
    assert model.sparse_layers[0].transposed_kernel is expected


@tensorflow_only
@pytest.mark.parametrize("auxiliary", [None, "auto"])
def test_a_step_reads_the_kernel_once(auxiliary):
    """Of two reads, grappler may move the gradient's behind the kernel's update."""
    import tensorflow as tf

    model = models.shallow((12,), 20, layers.TopK(3, auxiliary=auxiliary))
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


# Decoders.


def make_model(sparsity, **options):
    """Return a model whose decoder is one `UnitNormDense`."""
    encoder = models.shallow((6,), 8, sparsity, centering=False).encoder
    code = keras.Input((8,))
    decoder = keras.Model(code, layers.UnitNormDense(6, **options)(code))
    model = models.Autoencoder(encoder, decoder)
    model.compile(keras.optimizers.SGD(0.0), jit_compile=False)
    return model


@pytest.mark.parametrize("sparsity", [None, layers.TopK(3, auxiliary=None)])
def test_activity_regularizer_of_the_decoder_is_in_the_loss(sparsity, rng):
    x = rng.normal(size=(10, 6)).astype("float32")
    model = make_model(sparsity, activity_regularizer=keras.regularizers.L2(0.5))
    reconstruction = to_numpy(model(x))
    # Keras divides the penalty by the batch size.
    penalty = 0.5 * (reconstruction**2).sum() / 10
    expected = ((x - reconstruction) ** 2).mean() + penalty
    assert model.train_on_batch(x)[0] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("sparsity", [None, layers.TopK(3), layers.BatchTopK(3)])
def test_float32_decoder_follows_a_half_precision_encoder(sparsity, rng):
    """Keras advises float32 outputs under a mixed precision policy."""
    x = rng.normal(size=(8, 6)).astype("float32")
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = make_model(sparsity, dtype="float32")
    model.train_on_batch(x)
    assert keras.backend.standardize_dtype(model(x).dtype) == "float32"
    # The decoder loses no digits of the code.
    code = to_numpy(model.encoder(x)).astype("float32")
    kernel = to_numpy(model.decoder.layers[-1].kernel)
    np.testing.assert_allclose(to_numpy(model(x)), code @ kernel, rtol=1e-5, atol=1e-5)


def test_a_decoder_may_call_a_layer_twice(rng):
    """Such a decoder is no chain, so it is called with a dense code."""
    x = rng.normal(size=(8, 6)).astype("float32")
    inputs, twice = keras.Input((20,)), keras.layers.Dense(6)
    outputs = twice(twice(layers.UnitNormDense(6)(inputs)))
    encoder = models.shallow((6,), 20, layers.TopK(3)).encoder
    model = models.Autoencoder(encoder, keras.Model(inputs, outputs))
    model.compile(keras.optimizers.SGD(0.0))
    logs = model.train_on_batch(x, return_dict=True)
    error = np.square(model.decode(model.encode(x)) - x).mean()
    assert logs["reconstruction_loss"] == pytest.approx(error, rel=1e-5)


def test_unit_norm_rows_move_along_the_sphere(rng):
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
def test_encoder_starts_as_the_transpose_of_the_decoder(sparsity):
    model = models.shallow((12,), 40, sparsity)
    code, output = model.encoder.get_layer("code"), model.decoder.get_layer("output")
    np.testing.assert_array_equal(matrix(code), to_numpy(output.kernel).T)
    norms = np.linalg.norm(to_numpy(output.kernel), axis=1)
    np.testing.assert_allclose(norms, 1, rtol=1e-6)
