"""Tests of `evaluation.fidelity`, `feature_effects` and `sparse_probe`."""

import keras
import numpy as np
import pytest
from activation_models import CASES, HUB, functional, plain, sequential, transformer
from test_activations_splice import copying

from keras_sae import activations, evaluation, layers, models


def compiled(model=None, **kwargs) -> keras.Model:
    model = model or sequential()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, **{"metrics": ["accuracy"], **kwargs})
    return model


def constant(value: np.ndarray):
    """Return a function that replaces every row by a value."""
    return lambda outputs: (
        keras.ops.zeros_like(outputs) + keras.ops.cast(value, outputs.dtype)
    )


@pytest.fixture(scope="module")
def trained():
    """A classifier that has learned its labels, and data with a short last batch."""
    keras.utils.set_random_seed(0)
    model, x = compiled(), CASES["sequential"].inputs(70)
    y = x[:, :3].argmax(axis=1)
    model.optimizer.learning_rate = 0.02
    model.fit(x, y, epochs=30, verbose=0)
    return model, x, y


def test_rows_are_the_losses_of_the_variants(trained):
    model, x, y = trained
    autoencoder = models.shallow((6,), 12, layers.TopK(3))
    table = evaluation.fidelity(model, "hidden", autoencoder, x, y)
    assert list(table.index) == ["original", "splice", "random", "mean", "zero"]
    expected = model.evaluate(x, y, verbose=0, return_dict=True)
    for name in ("loss", "accuracy"):
        assert table[name]["original"] == pytest.approx(expected[name], rel=1e-5)
    spliced = activations.splice(model, "hidden", autoencoder)
    expected = spliced.evaluate(x, y, verbose=0)
    assert table.loss["splice"] == pytest.approx(expected[0], rel=1e-4)
    mean = activations.capture(model, "hidden", x).mean(axis=0)
    for name, value in (("mean", mean), ("zero", 0 * mean)):
        with activations.intercept("hidden", constant(value), model):
            expected = model.evaluate(x, y, verbose=0)
        assert table.loss[name] == pytest.approx(expected[0], rel=1e-4)
    assert 0 < table.loss["random"] != table.loss["splice"]


def test_recovered_shares(trained):
    model, x, y = trained
    table = evaluation.fidelity(model, "hidden", copying(6), x, y)
    loss = table.loss
    for name in ("mean", "zero"):
        shares = table[f"recovered_of_{name}"]
        expected = (loss[name] - loss) / (loss[name] - loss["original"])
        np.testing.assert_allclose(shares, expected)
        assert shares["original"] == 1
        assert shares["splice"] == pytest.approx(1, abs=1e-5)
        assert shares[name] == 0


def test_recovered_share_is_nan_where_the_mean_is_no_worse():
    model, x = compiled(), CASES["sequential"].inputs(20)
    y = np.argmin(plain(model(x)), axis=1)  # the model is wrong for every sample
    table = evaluation.fidelity(model, "hidden", copying(6), x, y)
    assert table.loss["mean"] < table.loss["original"]
    assert table["recovered_of_mean"].isna().all()


@pytest.mark.parametrize("sparsity", [layers.BatchTopK(3), "gated", "jump_relu"])
def test_random_dictionary_is_adapted_and_the_given_one_is_unchanged(trained, sparsity):
    model, x, y = trained
    autoencoder = models.shallow((6,), 12, sparsity, scaling=True)
    autoencoder.adapt(activations.capture(model, "hidden", x))
    before = [plain(weight) for weight in autoencoder.weights]
    table = evaluation.fidelity(model, "hidden", autoencoder, x, y)
    assert np.isfinite(table.loss).all()
    for weight, value in zip(autoencoder.weights, before, strict=True):
        np.testing.assert_array_equal(plain(weight), value)


def test_sample_weights_leave_padding_out():
    model = compiled(transformer(), metrics=[], weighted_metrics=["accuracy"])
    x = CASES["block"].inputs(10)
    y = np.roll(x, -1, axis=1)
    weight = (x != 0).astype("float32")
    autoencoder = models.shallow((8,), 12, layers.TopK(3))
    arguments = (model, "block_1", autoencoder)
    table = evaluation.fidelity(*arguments, x, y, weight, batch_size=4)
    logits = plain(model(x)).astype("float64")
    peak = logits.max(axis=-1, keepdims=True)
    total = np.log(np.exp(logits - peak).sum(axis=-1)) + peak[..., 0]
    losses = total - np.take_along_axis(logits, y[..., None], axis=-1)[..., 0]
    assert table.loss["original"] == pytest.approx(losses[x != 0].mean(), rel=1e-5)
    right = logits.argmax(axis=-1) == y
    assert table.accuracy["original"] == pytest.approx(right[x != 0].mean(), rel=1e-5)
    rows = activations.capture(model, "block_1", x)[x != 0]
    with activations.intercept("block_1", constant(rows.mean(axis=0)), model):
        logits = plain(model(x)).astype("float64")
    assert np.ptp(logits, axis=(0, 1)).max() < 1e-4
    losses = (
        np.log(np.exp(logits).sum(-1))
        - np.take_along_axis(logits, y[..., None], axis=-1)[..., 0]
    )
    assert table.loss["mean"] == pytest.approx(losses[x != 0].mean(), rel=1e-4)
    batches = [(x[:4], y[:4], weight[:4]), (x[4:], y[4:], weight[4:])]
    again = evaluation.fidelity(*arguments, iter(batches))
    np.testing.assert_allclose(
        again.loss.drop("random"), table.loss.drop("random"), rtol=1e-4
    )


def test_splice_loss_of_a_convolution_equals_evaluate():
    model, x = compiled(functional()), CASES["functional"].inputs(10)
    autoencoder = models.shallow((4,), 8, layers.TopK(2))
    y = np.arange(10) % 3
    table = evaluation.fidelity(model, "conv", autoencoder, x, y, np.ones(10))
    spliced = activations.splice(model, "conv", autoencoder)
    expected = spliced.evaluate(x, y, verbose=0)[0]
    assert table.loss["splice"] == pytest.approx(expected, rel=1e-4)


def test_feature_effects_are_the_changes_of_the_loss(trained):
    model, x, y = trained
    autoencoder = models.shallow((6,), 12, layers.TopK(3))
    table = evaluation.feature_effects(model, "hidden", autoencoder, x, y)
    assert sorted(table.index) == list(range(12))
    assert table.loss_change.is_monotonic_decreasing
    before = model.evaluate(x, y, verbose=0)[0]
    codes = autoencoder.encode(activations.capture(model, "hidden", x))
    for unit in table.index[[0, 5, -1]]:
        edit = activations.ablate([int(unit)])
        spliced = activations.splice(model, "hidden", autoencoder, edit, error=True)
        change = spliced.evaluate(x, y, verbose=0)[0] - before
        assert table.loss_change[unit] == pytest.approx(change, abs=1e-5)
        active = codes[:, unit] != 0
        assert table.frequency[unit] == pytest.approx(active.mean())
        assert table.mean_activation[unit] == pytest.approx(codes[:, unit].mean())


def test_feature_effects_are_weighted():
    model = compiled(transformer(), metrics=[])
    x = CASES["block"].inputs(10)
    weight = (x != 0).astype("float32")
    autoencoder = models.shallow((8,), 40, layers.TopK(3))
    arguments = (model, "block_1", autoencoder, x, np.roll(x, -1, axis=1))
    codes = autoencoder.encode(activations.capture(model, "block_1", x)[x != 0])
    table = evaluation.feature_effects(*arguments, sample_weight=weight)
    means = codes.mean(axis=0)
    assert set(table.index) == set(np.argsort(-means)[:32])
    np.testing.assert_allclose(table.mean_activation, means[table.index], rtol=1e-4)
    frequency = (codes != 0).mean(axis=0)[table.index]
    np.testing.assert_allclose(table.frequency, frequency, rtol=1e-6)


def test_feature_effects_do_not_concatenate_the_codes(monkeypatch):
    model, x = compiled(), CASES["sequential"].inputs(70)
    autoencoder = models.shallow((6,), 40, layers.TopK(3))
    concatenate, shapes = np.concatenate, []

    def spy(arrays, *args, **kwargs):
        result = concatenate(arrays, *args, **kwargs)
        shapes.append(result.shape)
        return result

    monkeypatch.setattr(np, "concatenate", spy)
    evaluation.feature_effects(model, "hidden", autoencoder, x, np.arange(70) % 3)
    assert (70, 40) not in shapes


def test_changed_sparsity_is_traced_anew(trained):
    model, x, y = trained
    autoencoder = models.shallow((6,), 12, layers.TopK(3))
    arguments = (model, "hidden", autoencoder, x, y)
    evaluation.fidelity(*arguments)
    evaluation.feature_effects(*arguments)
    autoencoder.encoder.get_layer("code").sparsity.k = 1
    spliced = activations.splice(model, "hidden", autoencoder)
    loss = spliced.evaluate(x, y, verbose=0)[0]
    table = evaluation.fidelity(*arguments)
    assert table.loss["splice"] == pytest.approx(loss, rel=1e-4)
    table = evaluation.feature_effects(*arguments)
    assert table.frequency.sum() == pytest.approx(1, abs=1e-6)


def test_feature_effects_of_chosen_units(trained):
    model, x, y = trained
    autoencoder = models.shallow((6,), 40, layers.TopK(3))
    arguments = (model, "hidden", autoencoder, x, y)
    assert len(evaluation.feature_effects(*arguments)) == 32
    chosen = evaluation.feature_effects(*arguments, units=[7, 2])
    assert sorted(chosen.index) == [2, 7]
    with pytest.raises(ValueError, match="unit 40"):
        evaluation.feature_effects(*arguments, units=[40])


@pytest.mark.slow
def test_language_model_of_keras_hub():
    keras.utils.set_random_seed(0)
    model = compiled(HUB.make(), metrics=[], weighted_metrics=["accuracy"])
    inputs = HUB.inputs(10)
    tokens, mask = inputs["token_ids"], inputs["padding_mask"]
    targets, weight = np.roll(tokens, -1, axis=1), mask.astype("float32")
    autoencoder = models.shallow((8,), 12, layers.TopK(3))
    hidden = activations.capture(model, HUB.layer, inputs)
    backbone = model.backbone

    def loss(rows):
        """Return the weighted loss if the last block returns these rows."""
        normed = backbone.layer_norm(keras.ops.convert_to_tensor(rows))
        logits = plain(backbone.token_embedding(normed, reverse=True))
        logits = logits.astype("float64")
        total = np.log(np.exp(logits).sum(axis=-1))
        right = np.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
        return np.average(total - right, weights=weight)

    arguments = (model, HUB.layer, autoencoder, inputs, targets)
    table = evaluation.fidelity(*arguments, weight, batch_size=4)
    codes = autoencoder.encode(hidden.reshape(-1, 8))
    reconstruction = autoencoder.decode(codes)
    mean = hidden[mask == 1].mean(axis=0)
    expected = {
        "original": loss(hidden),
        "splice": loss(reconstruction.reshape(hidden.shape)),
        "mean": loss(np.broadcast_to(mean, hidden.shape)),
        "zero": loss(np.zeros_like(hidden)),
    }
    for name, value in expected.items():
        assert table.loss[name] == pytest.approx(value, rel=1e-4)

    unit = int(codes.mean(axis=0).argmax())
    effects = evaluation.feature_effects(*arguments, [unit], weight, batch_size=4)
    without = codes.copy()
    without[:, unit] = 0
    change = (autoencoder.decode(without) - reconstruction).reshape(hidden.shape)
    assert effects.loss_change[unit] == pytest.approx(
        loss(hidden + change) - loss(hidden), abs=1e-5
    )


# Sparse probes.


def test_sparse_probe_chooses_the_features_of_the_classes(rng):
    y = rng.integers(0, 3, 300)
    codes = rng.exponential(size=(300, 20)) * (rng.random((300, 20)) < 0.2)
    codes[:, 4] += 3 * (y == 1)
    codes[:, 9] += 3 * (y == 2)
    codes[:, 5] = 0
    half = slice(0, 150), slice(150, 300)
    data = [part for h in half for part in (codes[h], y[h])]
    result = evaluation.sparse_probe(*data, k=2)
    assert sorted(result["units"]) == [4, 9]
    assert result["accuracy"] > 0.9
    assert "dense_accuracy" not in result
    one = evaluation.sparse_probe(*data, k=1)
    assert one["accuracy"] < result["accuracy"]
    dense = evaluation.sparse_probe(
        *data, k=1, activations_train=codes[half[0]], activations_test=codes[half[1]]
    )
    assert dense["dense_accuracy"] == evaluation.probe(*data)


def test_sparse_probe_checks_its_arguments():
    codes, y = np.eye(4), np.array([0, 1, 0, 1])
    with pytest.raises(ValueError, match="k=5, units=4"):
        evaluation.sparse_probe(codes, y, codes, y, 5)
    with pytest.raises(ValueError, match="given together"):
        evaluation.sparse_probe(codes, y, codes, y, 2, activations_train=codes)


# Errors.


def test_bad_arguments_are_errors(trained):
    model, x, y = trained
    autoencoder = copying(6)
    with pytest.raises(ValueError, match="must be compiled"):
        evaluation.fidelity(sequential(), "hidden", autoencoder, x, y)
    with pytest.raises(ValueError, match="`y` must be given"):
        evaluation.fidelity(model, "hidden", autoencoder, x)
    with pytest.raises(ValueError, match="layer's width"):
        evaluation.fidelity(model, "hidden", copying(7), x, y)
    with pytest.raises(ValueError, match="a pair of layers for a transcoder"):
        evaluation.fidelity(model, "hidden", models.transcoder((6,), (6,), 4), x, y)
    with pytest.raises(ValueError, match=r"must be a `keras_sae\.models\.Autoenc"):
        evaluation.fidelity(model, "hidden", model, x, y)
    with pytest.raises(ValueError, match="is not a layer"):
        evaluation.fidelity(model, "hiddn", autoencoder, x, y)
    with pytest.raises(ValueError, match="positive sum"):
        evaluation.fidelity(model, "hidden", autoencoder, x, y, np.zeros(70))
    with pytest.raises(ValueError, match="same number of samples"):
        evaluation.fidelity(model, "hidden", autoencoder, x, y[:5])
    with pytest.raises(ValueError, match=r"`y` must be arrays of numbers.*\(\)"):
        evaluation.fidelity(model, "hidden", autoencoder, x, np.float32(1))
    with pytest.raises(ValueError, match="must be None for batches"):
        evaluation.fidelity(model, "hidden", autoencoder, iter([x]), y)
