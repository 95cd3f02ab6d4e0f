"""Tests of sample weights: losses are `sum(w l) / B`, means are `sum(w v) / sum(w)`."""

import keras
import numpy as np
import pytest
from helpers import to_numpy
from keras import ops

from keras_sae import layers, metrics, models
from keras_sae.regularizers import L1, KLDivergence
from keras_sae.utils.serialization import register

AUX = layers.AuxK(2, dead_after=1)


@register
class SquarePenalty(layers.Sparsity):
    """A sparsity of a user, with one penalty per sample."""

    has_penalty = True

    def call(self, inputs, training=None):
        self.add_penalty(ops.sum(ops.square(inputs), axis=-1), inputs)
        return inputs


SPARSITIES = {
    "none": None,
    "l1": L1(0.1),
    "kl": KLDivergence(0.2, 0.1),
    "kl-momentum": KLDivergence(0.2, 0.1, momentum=0.5),
    "top_k": layers.TopK(2, auxiliary=AUX),
    "top_k-annealed": layers.TopK(2, initial_k=4, auxiliary=layers.AuxK(dead_after=1)),
    "batch_top_k": layers.BatchTopK(2, auxiliary=AUX),
    "batch_top_k-annealed": layers.BatchTopK(2, initial_k=4),
    "jump_relu": layers.JumpReLU(0.1, bandwidth=0.5),
    "jump_relu-target": layers.JumpReLU(0.1, target_l0=2, bandwidth=0.5),
    "gated": layers.Gated(0.1),
    "lifetime": layers.LifetimeSparsity(0.3),
    "matryoshka": layers.Matryoshka(layers.BatchTopK(3), (2, 5)),
    "custom": SquarePenalty(),
}


def make(name: str) -> keras.Model:
    keras.utils.set_random_seed(0)
    if name == "contractive":
        model = models.deep((6,), (7, 8), activation="tanh", contractive=0.5)
    elif name == "convolutional":
        penalties = [L1(0.1), KLDivergence(0.2, 0.1, momentum=0.5)]
        model = models.convolutional(
            (2, 3, 1), (3, 8), penalties, activation="sigmoid", centering=True
        )
    else:
        model = models.shallow((6,), 8, SPARSITIES[name])
    model.compile(keras.optimizers.SGD(0.5), run_eagerly=True)
    return model


@pytest.mark.parametrize("name", [*SPARSITIES, "contractive", "convolutional"])
def test_samples_of_weight_zero_have_no_influence(name, rng):
    """With as many again of weight 0, every loss is half as large."""
    good = rng.normal(size=(3, 10, 6)).astype("float32")
    junk = np.full_like(good, 20.0)
    padded = np.concatenate([good, junk], axis=1)[:, rng.permutation(20)]
    weight = (padded[:, :, 0] != 20).astype("float32")
    results = []
    for batches, weights in (
        (good, np.full((3, 10), 0.5, "float32")),
        (padded, weight),
    ):
        model = make(name)
        logs = []
        for x, w in zip(batches, weights, strict=True):
            x = x.reshape(-1, *model.sample_shape)
            logs.append(model.train_on_batch(x, x, w, return_dict=True))
        x = batches[0].reshape(-1, *model.sample_shape)
        logs.append(
            model.evaluate(
                x, sample_weight=weights[0], batch_size=20, verbose=0, return_dict=True
            )
        )
        results.append((model.get_weights(), logs, model.input_range))
        # The count of `Centering` is the sum of the weights.
        factor = 1 if weights is weight else 2
        for layer in model.encoder.layers:
            if isinstance(layer, layers.Centering):
                layer.count.assign(factor * to_numpy(layer.count))
        results[-1] = (model.get_weights(), *results[-1][1:])
    alone, padded_ = results
    for one, other in zip(alone[0], padded_[0], strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
    for one, other in zip(alone[1], padded_[1], strict=True):
        assert one == pytest.approx(other, rel=1e-4, abs=1e-6)
    assert padded_[2] == pytest.approx((good.min(), good.max()))


def test_logs_of_a_weighted_set_equal_numpy(rng):
    x = rng.normal(size=(20, 6)).astype("float32")
    weight = rng.uniform(size=20).astype("float32")
    model = make("l1")
    logs = model.evaluate(
        x, x, 8, sample_weight=weight, verbose=0, return_dict=True
    )  # the last batch has 4 samples
    code, reconstruction = model.encode(x), model.predict(x, verbose=0)
    share = weight / weight.sum()
    squares = (x - reconstruction) ** 2
    mean = share @ x
    expected = {
        "reconstruction_loss": (weight * squares.mean(axis=1)).mean(),
        "sparsity_loss": 0.1 * (weight * np.abs(code).sum(axis=1)).mean(),
        "l0": share @ (code != 0).sum(axis=1),
        "explained_variance": 1
        - (share @ squares).sum() / (share @ (x - mean) ** 2).sum(),
    }
    expected["loss"] = expected["reconstruction_loss"] + expected["sparsity_loss"]
    assert logs == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("shape", [(6,), (2, 3), (2, 3, 1)])
def test_missing_values_have_no_influence(shape, rng):
    """Targets may hold anything where the weight of a value is 0."""
    x = rng.normal(size=(20, *shape)).astype("float32")
    known = rng.uniform(size=x.shape) > 0.3
    target = np.where(known, x, 50.0).astype("float32")
    keras.utils.set_random_seed(0)
    model = models.shallow(shape, 8, layers.Gated(0.1))
    model.compile(keras.optimizers.SGD(0.0), weighted_metrics=["mae"], run_eagerly=True)
    logs = model.fit(
        x, target, 20, sample_weight=known.astype("float32"), verbose=0
    ).history
    reconstruction = to_numpy(model(x))
    errors = np.where(known, x - reconstruction, 0)
    means = (x * known).sum(axis=0) / known.sum(axis=0)
    total = ((x - means) ** 2)[known].sum()
    assert logs["reconstruction_loss"][0] == pytest.approx((errors**2).mean(), rel=1e-4)
    assert logs["explained_variance"][0] == pytest.approx(
        1 - (errors**2).sum() / total, rel=1e-4
    )
    assert logs["mae"][0] == pytest.approx(np.abs(errors).sum() / known.sum(), rel=1e-4)
    gate = to_numpy(
        model.sparse_layers[0].pre_activations(
            model.encoder.get_layer("center")(x.reshape(20, -1))
        )
    )
    decoded = model.decode(np.maximum(gate, 0)).reshape(x.shape)
    auxiliary = (np.where(known, x - decoded, 0) ** 2).mean()
    assert logs["auxiliary_loss"][0] == pytest.approx(auxiliary, rel=1e-4)
    center = to_numpy(model.encoder.get_layer("center").mean)
    np.testing.assert_allclose(center, means.ravel(), rtol=1e-4, atol=1e-5)


def test_a_keras_regularizer_sees_zeros_for_samples_of_weight_zero(rng):
    x = rng.normal(size=(10, 6)).astype("float32")
    weight = np.repeat([2.0, 0.0], 5).astype("float32")
    model = models.shallow((6,), 8, keras.regularizers.L2(0.1))
    model.compile(run_eagerly=True)
    logs = model.test_on_batch(x, x, weight, return_dict=True)
    expected = 0.1 * (model.encode(x)[:5] ** 2).sum() / 10
    assert logs["sparsity_loss"] == pytest.approx(expected, rel=1e-5)


def test_divergence_of_a_variational_code_is_weighted(rng):
    x = rng.normal(size=(10, 6)).astype("float32")
    weight = rng.uniform(size=10).astype("float32")
    model = models.variational((6,), 8, 2, beta=0.5)
    model.compile(run_eagerly=True)
    logs = model.test_on_batch(x, x, weight, return_dict=True)
    mean, log_variance = model.posterior(x)
    nats = (mean**2 + np.exp(log_variance) - log_variance - 1).sum(axis=1) / 2
    # "mse" is a mean over six values, and a Gaussian has half the squared error.
    factor = model.encoder.get_layer("code").factor
    assert logs["kl_loss"] == pytest.approx(factor * (weight * nats).mean(), rel=1e-4)


def test_explained_variance_of_weighted_batches_is_that_of_repeated_samples(rng):
    x = rng.normal(5.0, 1.0, size=(12, 2, 3)).astype("float32")
    reconstruction = x + rng.normal(size=x.shape).astype("float32")
    weight = rng.integers(0, 4, size=12)
    metric = metrics.ExplainedVariance(6)
    for part in np.split(np.arange(12), 3):
        metric.update_state(x[part], reconstruction[part], weight[part])
    repeated = [np.repeat(v, weight, axis=0) for v in (x, reconstruction)]
    expected = metrics.explained_variance(*repeated)
    assert float(metric.result()) == pytest.approx(expected, rel=1e-4)
