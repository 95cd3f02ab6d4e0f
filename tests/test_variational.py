"""Sampling, variational autoencoders and their evidence lower bound against NumPy."""

import pickle

import keras
import numpy as np
import pytest
from helpers import gradient, to_numpy, total

from keras_sae import callbacks, layers, models, regularizers

D, LATENT = 6, 3


def closed_form(mean, log_variance) -> np.ndarray:
    """Return the KL divergence per unit from the standard normal, in float64."""
    mean, log_variance = (
        np.asarray(mean, "float64"),
        np.asarray(log_variance, "float64"),
    )
    return (mean**2 + np.exp(log_variance) - 1 - log_variance) / 2


def log_normal(z, mean, log_variance) -> np.ndarray:
    """Return the log density of independent Gaussians, summed over units."""
    scaled = (z - mean) ** 2 / np.exp(log_variance)
    return -0.5 * (scaled + log_variance + np.log(2 * np.pi)).sum(axis=-1)


@pytest.fixture
def inputs(rng):
    return rng.normal(size=(5, 2 * LATENT)).astype("float32")


def halves(inputs):
    return inputs[:, :LATENT].astype("float64"), inputs[:, LATENT:].astype("float64")


def divergence(inputs, **kwargs) -> float:
    layer = layers.Sampling(**kwargs)
    layer(inputs)
    return total(layer.losses)


# Sampling.


def test_divergence_equals_the_closed_form(inputs):
    expected = closed_form(*halves(inputs)).sum(axis=1).mean()
    assert divergence(inputs) == pytest.approx(expected, rel=1e-5)
    assert divergence(inputs, factor=0.25) == pytest.approx(expected / 4, rel=1e-5)


def test_divergence_equals_its_monte_carlo_estimate(inputs):
    """`E_q[log q(z) - log p(z)]` over samples of the layer itself."""
    mean, log_variance = halves(inputs)
    layer = layers.Sampling(seed=1)
    many = np.repeat(inputs, 2000, axis=0)
    z = to_numpy(layer(many, training=True)).reshape(5, 2000, LATENT)
    q = log_normal(z, mean[:, None], log_variance[:, None])
    ratio = q - log_normal(z, np.zeros(LATENT), np.zeros(LATENT))
    error = np.sqrt(ratio.var(axis=1).mean() / ratio.size)
    assert abs(ratio.mean() - divergence(inputs)) < 4 * error
    assert error < 0.05 * ratio.mean()  # otherwise the bound above says nothing


def test_divergence_is_accurate_near_the_prior():
    inputs = np.full((2, 2), 1e-3, "float32")
    expected = closed_form(np.float32(1e-3), np.float32(1e-3))
    assert divergence(inputs) == pytest.approx(float(expected), rel=1e-3)


def test_samples_have_the_mean_and_the_standard_deviation():
    inputs = np.tile(np.array([1.0, -2.0, 0.0, 2.0], "float32"), (20_000, 1))
    z = to_numpy(layers.Sampling(seed=1)(inputs, training=True))
    deviation = np.array([1.0, np.e])
    assert (abs(z.mean(axis=0) - [1, -2]) < 5 * deviation / np.sqrt(20_000)).all()
    np.testing.assert_allclose(z.std(axis=0), deviation, rtol=0.03)


def test_code_is_the_mean_at_inference(inputs):
    layer = layers.Sampling()
    np.testing.assert_array_equal(to_numpy(layer(inputs)), inputs[:, :LATENT])
    one, two = (to_numpy(layer(inputs, training=True)) for _ in range(2))
    assert not np.array_equal(one, two)


def test_free_bits_are_not_penalized(inputs):
    units = closed_form(*halves(inputs)).mean(axis=0)
    free = float(np.sort(units)[1])  # between the least unit and the greatest
    expected = np.maximum(units, free).sum()
    assert expected > units.sum()
    assert divergence(inputs, free_bits=free) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("raw", [-1e4, 1e4])
def test_gradient_of_the_log_variance_is_not_clipped(raw):
    inputs = np.array([[0.5, raw]], "float32")
    value = divergence(inputs)
    limit = -20 if raw < 0 else 10
    # The clip is an addition of float32 numbers of about 1e4.
    expected = closed_form(0.5, limit)
    assert value == pytest.approx(float(expected), rel=1e-3)
    slope = gradient(layer_loss, inputs)[0, 1]
    assert slope == pytest.approx((np.exp(limit) - 1) / 2, rel=1e-3)


def layer_loss(x):
    layer = layers.Sampling()
    layer(x)
    return sum(layer.losses)


def test_divergence_is_a_mean_over_the_batch(inputs):
    once = divergence(inputs, free_bits=0.3)
    assert divergence(np.tile(inputs, (4, 1)), free_bits=0.3) == pytest.approx(
        once, rel=1e-5
    )


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_divergence_is_float32_under_any_policy(policy):
    layer = layers.Sampling(dtype=policy)
    code = layer(np.full((2, 4), 9.0, "float16"), training=True)  # exp(9) is 8103
    assert keras.backend.standardize_dtype(layer.losses[0].dtype) == "float32"
    assert total(layer.losses) == pytest.approx(2 * closed_form(9, 9), rel=1e-5)
    assert np.isfinite(to_numpy(code)).all()


def test_inputs_must_have_an_even_width():
    with pytest.raises(
        ValueError, match=r"`Sampling` inputs must be even.*\(None, 5\)"
    ):
        layers.Sampling().build((None, 5))


@pytest.mark.parametrize("name", ["factor", "free_bits"])
def test_weights_must_not_be_negative(name):
    with pytest.raises(ValueError, match=f"`{name}`.*{name}=-1"):
        layers.Sampling(**{name: -1})


# The model.


@pytest.fixture
def x(rng):
    return rng.uniform(size=(8, D)).astype("float32")


def make(**kwargs):
    return models.variational((D,), 5, LATENT, **kwargs)


def numpy_posterior(model, x):
    """Return the posterior from an encoder of one hidden ReLU layer, in float64."""
    w1, b1, w2, b2 = (to_numpy(v) for v in model.encoder.trainable_weights)
    return np.split(np.maximum(x @ w1 + b1, 0) @ w2 + b2, 2, axis=1)


def test_posterior_and_encode_equal_numpy(x):
    model = make()
    mean, log_variance = numpy_posterior(model, x)
    # Float32 products over at most 6 numbers.
    close = {"rtol": 1e-4, "atol": 1e-6}
    np.testing.assert_allclose(model.posterior(x)[0], mean, **close)
    np.testing.assert_allclose(model.posterior(x)[1], log_variance, **close)
    np.testing.assert_allclose(model.encode(x), mean, **close)
    np.testing.assert_array_equal(model.encode(x), model.encode(x))


@pytest.mark.parametrize("beta", [0.0, 1.0, 4.0])
def test_loss_is_mse_and_the_weighted_divergence(beta, x):
    model = make(beta=beta)
    model.compile(jit_compile=False)
    logs = model.test_on_batch(x, return_dict=True)
    nats = closed_form(*numpy_posterior(model, x)).sum(axis=1).mean()
    mse = ((x - to_numpy(model(x))) ** 2).mean()
    assert logs["kl_loss"] == pytest.approx(beta * nats / D, rel=1e-4)
    assert logs["reconstruction_loss"] == pytest.approx(mse, rel=1e-5)
    assert logs["loss"] == pytest.approx(mse + beta * nats / D, rel=1e-4)
    assert "sparsity_loss" not in logs


def test_loss_of_a_bernoulli_likelihood_is_the_cross_entropy(x):
    model = make(likelihood="bernoulli", beta=2.0)
    model.compile(jit_compile=False)
    logs = model.test_on_batch(x, return_dict=True)
    p = to_numpy(model(x))
    entropy = -(x * np.log(p) + (1 - x) * np.log(1 - p)).mean()
    nats = closed_form(*numpy_posterior(model, x)).sum(axis=1).mean()
    assert logs["reconstruction_loss"] == pytest.approx(entropy, rel=1e-5)
    assert logs["kl_loss"] == pytest.approx(2 * nats / D, rel=1e-4)


def test_logs_of_fit_add_up_to_the_loss(x):
    model = make()
    model.compile("adam")
    logs = model.fit(x, validation_data=x, verbose=0, batch_size=4).history
    for prefix in ("", "val_"):
        parts = logs[f"{prefix}reconstruction_loss"][0] + logs[f"{prefix}kl_loss"][0]
        assert logs[f"{prefix}loss"][0] == pytest.approx(parts, rel=1e-5)


@pytest.mark.parametrize("variance", [0.5, 0.1])
def test_elbo_of_an_affine_model_equals_the_closed_form(variance, x):
    """The expected error is `|x - r(mean)|^2 + sum_j s_j^2 |a_j|^2`."""
    likelihood = models.GaussianLikelihood(variance)
    model = make(activation="linear", likelihood=likelihood)
    w1, b1, w2, b2 = (to_numpy(v) for v in model.encoder.trainable_weights)
    mean, log_variance = np.split((x @ w1 + b1) @ w2 + b2, 2, axis=1)
    v1, c1, v2, c2 = (to_numpy(v) for v in model.decoder.trainable_weights)
    error = ((x - ((mean @ v1 + c1) @ v2 + c2)) ** 2).sum(axis=1)
    error += np.exp(log_variance) @ ((v1 @ v2) ** 2).sum(axis=1)
    fit = -error / (2 * variance) - D / 2 * np.log(2 * np.pi * variance)
    exact = (fit - closed_form(mean, log_variance).sum(axis=1)).mean()
    draws = [model.elbo(x, samples=40, seed=seed) for seed in range(10)]
    standard_error = np.std(draws, ddof=1) / np.sqrt(len(draws))
    assert abs(np.mean(draws) - exact) < 4 * standard_error
    assert standard_error < 0.02 * abs(exact)


def test_more_samples_reduce_the_variance_of_the_elbo(x):
    model = make(activation="linear")
    one = np.std([model.elbo(x, samples=1, seed=s) for s in range(5)])
    many = np.std([model.elbo(x, samples=16, seed=s) for s in range(5)])
    assert many < 0.6 * one  # 1/4 is expected
    assert model.elbo(x, seed=3) == model.elbo(x, seed=3)


def test_loss_is_the_negative_elbo_but_for_a_constant(x):
    """A decoder with zero weights is deterministic, so the ELBO has no expectation."""
    for likelihood in (models.GaussianLikelihood(0.2), models.BernoulliLikelihood()):
        model = make(likelihood=likelihood)
        for weight in model.decoder.trainable_weights:
            weight.assign(np.zeros(weight.shape))
        model.compile(jit_compile=False)
        loss = model.test_on_batch(x, return_dict=True)["loss"]
        constant = 0.0
        if isinstance(likelihood, models.GaussianLikelihood):
            constant = D / 2 * np.log(2 * np.pi * 0.2)
        bound = -loss * D / likelihood.scale - constant
        assert model.elbo(x) == pytest.approx(bound, rel=1e-4)


def test_log_likelihoods_equal_their_densities(x, rng):
    r = rng.uniform(0.05, 0.95, size=x.shape)
    ones = (x > 0.5).astype("float64")
    expected = np.log(np.where(ones == 1, r, 1 - r)).sum(axis=1)
    value = models.BernoulliLikelihood().log_likelihood(ones, r)
    np.testing.assert_allclose(value, expected, rtol=1e-12)
    value = models.GaussianLikelihood(0.3).log_likelihood(x, r)
    np.testing.assert_allclose(
        value, log_normal(x.astype("float64"), r, np.log(np.full(D, 0.3))), rtol=1e-6
    )
    assert np.isfinite(
        models.BernoulliLikelihood().log_likelihood(ones, 1 - ones)
    ).all()


# A sparse mean.


def numpy_sparse_mean(model, x):
    """Return the posterior if only the mean has a ReLU as well."""
    w1, b1 = (to_numpy(v) for v in model.encoder.get_layer("encode_1").weights)
    hidden = np.maximum(x @ w1 + b1, 0)
    w2, b2 = model.encoder.get_layer("mean").trainable_weights
    w3, b3 = model.encoder.get_layer("log_variance").weights
    mean = np.maximum(hidden @ to_numpy(w2) + to_numpy(b2), 0)
    return mean, hidden @ to_numpy(w3) + to_numpy(b3)


def test_penalty_of_a_sparse_mean_is_added_to_the_divergence(x):
    model = make(sparsity=regularizers.L1(0.25), beta=2.0)
    model.compile(jit_compile=False)
    logs = model.test_on_batch(x, return_dict=True)
    mean, log_variance = numpy_sparse_mean(model, x)
    np.testing.assert_allclose(model.encode(x), mean, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(model.posterior(x)[0], mean, rtol=1e-4, atol=1e-6)
    nats = closed_form(mean, log_variance).sum(axis=1).mean()
    l1 = 0.25 * mean.sum(axis=1).mean()
    mse = ((x - to_numpy(model(x))) ** 2).mean()
    assert logs["sparsity_loss"] == pytest.approx(l1, rel=1e-4)
    assert logs["kl_loss"] == pytest.approx(2 * nats / D, rel=1e-4)
    assert logs["loss"] == pytest.approx(mse + 2 * nats / D + l1, rel=1e-4)


def test_l0_counts_the_units_of_the_mean(x):
    model = make(sparsity=layers.TopK(2, auxiliary=None), code_activation="linear")
    model.compile(keras.optimizers.SGD(0.0), jit_compile=False)
    assert model.train_on_batch(x, return_dict=True)["l0"] == pytest.approx(2)
    assert (np.count_nonzero(model.encode(x), axis=1) == 2).all()


@pytest.mark.parametrize("unit_norm", [False, True])
def test_decoder_gets_a_sparse_mean_with_noise(x, unit_norm):
    """Without noise, the loss of equal weights would be equal."""
    sparsity = layers.TopK(1, auxiliary=None)
    model = make(sparsity=sparsity, unit_norm=unit_norm)
    model.compile(keras.optimizers.SGD(0.0), jit_compile=False)
    losses = []
    for _ in range(2):
        model.reset_metrics()
        logs = model.train_on_batch(x, return_dict=True)
        losses.append(logs["reconstruction_loss"])
    assert losses[0] != losses[1]


def test_auxiliary_loss_reaches_dead_units_of_a_sparse_mean(x):
    auxiliary = layers.AuxK(dead_after=1)
    model = make(sparsity=layers.TopK(1, auxiliary=auxiliary))
    model.encoder.get_layer("mean").steps_since_active.assign(np.full(LATENT, 5.0))
    model.compile(jit_compile=False)
    assert model.test_on_batch(x, return_dict=True)["auxiliary_loss"] > 0


def test_sparsity_target_reaches_the_l0_of_a_sparse_mean(rng):
    x = rng.uniform(size=(256, 16)).astype("float32")
    options = {"beta": 1e-3, "sparsity": "l1", "centering": True}
    # Without unit norms, the decoder grows, and ever larger penalties are needed.
    model = models.variational((16,), 32, 24, unit_norm=True, **options)
    model.compile(keras.optimizers.Adam(0.01))
    steer = callbacks.SparsityTarget(l0=8)  # warns, which is an error, if it misses
    model.fit(x, epochs=60, batch_size=16, verbose=0, callbacks=[steer])
    assert np.count_nonzero(model.encode(x), axis=1).mean() == pytest.approx(8, rel=0.1)


@pytest.mark.parametrize("sparsity", [None, "l1"])
def test_dictionaries_start_transposed_and_stay_at_unit_norm(x, sparsity):
    model = make(sparsity=sparsity, unit_norm=True, tied_initialization=True)
    output, inner = (model.decoder.get_layer(n) for n in ("output", "decode_2"))
    mean = model.encoder.get_layer("mean" if sparsity else "posterior")
    for layer, mirror in ((model.encoder.get_layer("encode_1"), output), (mean, inner)):
        rows = to_numpy(mirror.kernel)
        # The other columns of a posterior's kernel are those of the log variance.
        np.testing.assert_array_equal(to_numpy(layer.kernel)[:, : len(rows)], rows.T)
    model.compile(keras.optimizers.Adam(0.05), jit_compile=False)
    for _ in range(3):
        model.train_on_batch(x)
    for layer in (output, inner):
        norms = np.linalg.norm(to_numpy(layer.kernel), axis=1)
        np.testing.assert_allclose(norms, 1, rtol=1e-5)


def test_scaling_excludes_a_bounded_likelihood():
    with pytest.raises(ValueError, match=r"`scaling`.*'sigmoid' with values"):
        make(likelihood="bernoulli", scaling=True)


def test_l0_of_a_partly_sparse_mean_counts_the_code(x):
    """No single layer computes the mean, so metrics are those of the code."""
    inputs = keras.Input((D,))
    sparse = layers.SparseDense(1, sparsity=layers.TopK(1, auxiliary=None))(inputs)
    dense = keras.layers.Dense(LATENT - 1)(inputs)
    log_variance = keras.layers.Dense(LATENT)(inputs)
    parts = keras.layers.Concatenate()([sparse, dense, log_variance])
    encoder = keras.Model(inputs, layers.Sampling()(parts))
    model = models.VariationalAutoencoder(encoder, make().decoder)
    model.compile(jit_compile=False)
    assert model.train_on_batch(x, return_dict=True)["l0"] == pytest.approx(LATENT)


def test_samples_are_decoded_codes_from_the_prior():
    model = make()
    images = model.sample(7, seed=4)
    codes = np.random.default_rng(4).normal(size=(7, LATENT))
    np.testing.assert_allclose(images, model.decode(codes), rtol=1e-6)
    assert not np.array_equal(model.sample(2), model.sample(2))


@pytest.mark.parametrize("likelihood", [models.GaussianLikelihood(0.2), "bernoulli"])
def test_model_is_equal_after_saving_cloning_and_pickling(likelihood, x, tmp_path):
    model = make(likelihood=likelihood, free_bits=0.1, batch_normalization=True)
    model.compile("adam", jit_compile=False)
    model.train_on_batch(x)
    model.save(tmp_path / "model.keras")
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.loss == model.loss == model.likelihood.loss
    for again in (loaded, clone, pickle.loads(pickle.dumps(model))):
        assert type(again) is type(model)
        assert type(again.likelihood) is type(model.likelihood)
        assert again.likelihood.get_config() == model.likelihood.get_config()
        np.testing.assert_allclose(to_numpy(again(x)), to_numpy(model(x)), rtol=1e-6)
        assert again.encoder.get_layer("code").free_bits == 0.1
    assert loaded.elbo(x) == pytest.approx(model.elbo(x), rel=1e-6)


def test_training_raises_the_elbo(rng):
    """Two factors explain twelve values."""
    factors = rng.normal(size=(256, 2))
    x = (factors @ rng.normal(size=(2, 12)) / 4).astype("float32")
    likelihood = models.GaussianLikelihood(0.01)
    model = models.variational((12,), 16, 2, likelihood=likelihood)
    model.compile(keras.optimizers.Adam(0.02))
    before = model.elbo(x)
    for _ in range(80):
        logs = model.train_on_batch(x, return_dict=True)
    assert model.elbo(x) > before
    # The metric is a mean over all steps since the first.
    assert logs["explained_variance"] > 0.5
    assert logs["kl_loss"] > 0


def test_unknown_likelihoods_are_refused():
    with pytest.raises(ValueError, match=r"likelihood.*'gausian'.*gaussian"):
        make(likelihood="gausian")
    with pytest.raises(ValueError, match=r"`likelihood`.*Received"):
        make(likelihood=models.BernoulliLikelihood)
    with pytest.raises(ValueError, match=r"`variance`.*> 0"):
        models.GaussianLikelihood(0)
    with pytest.raises(ValueError, match=r"`output_activation`.*'linear'.*sigmoid"):
        make(likelihood="bernoulli", output_activation="linear")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"latent_dim": 0}, r"`latent_dim`.*positive integer.*latent_dim=0"),
        ({"units": ()}, r"`units`.*Received: units=\(\)"),
        ({"units": (5, -1)}, r"`units\[1\]`.*positive integer"),
        ({"beta": -1}, r"`beta`.*beta=-1"),
        ({"free_bits": float("nan")}, r"`free_bits`.*finite"),
        ({"input_shape": (None, 2)}, r"`input_shape`.*positive"),
    ],
)
def test_arguments_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        models.variational(
            **{"input_shape": (D,), "units": 5, "latent_dim": 2, **settings}
        )


def test_counts_must_be_positive(x):
    with pytest.raises(ValueError, match=r"`n`.*n=0"):
        make().sample(0)
    with pytest.raises(ValueError, match=r"`samples`.*samples=0"):
        make().elbo(x, samples=0)


def test_elbo_needs_data_within_the_bounds_of_the_likelihood(x):
    import tensorflow as tf

    model = models.variational((D,), 5, 2, likelihood="bernoulli")
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\]"):
        model.elbo(np.abs(x) + 2)
    data = tf.data.Dataset.from_tensor_slices(x).batch(4)
    assert model.elbo(data) == pytest.approx(model.elbo(x), rel=1e-5)
    for of_data, of_array in zip(
        model.posterior(data), model.posterior(x), strict=True
    ):
        np.testing.assert_allclose(of_data, of_array, rtol=1e-5, atol=1e-6)


def test_an_encoder_without_sampling_is_refused():
    plain = models.shallow((D,), 4)
    with pytest.raises(ValueError, match=r"`encoder`.*Sampling"):
        models.VariationalAutoencoder(plain.encoder, plain.decoder)
