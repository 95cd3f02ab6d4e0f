"""Evaluation against NumPy and scikit-learn; the table and files of a comparison."""

import json
import shutil
import warnings

import keras
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from sklearn import decomposition

from keras_sae import evaluation, layers, metrics, models, regularizers
from keras_sae.evaluation.comparison import sparsity_metric
from keras_sae.evaluation.evaluate import target_activation
from keras_sae.evaluation.probing import fine_tuned_accuracy, two_fold_probe

RNG = np.random.default_rng(0)
X = RNG.random((60, 4, 4, 1), dtype="float32")
Y = np.arange(60) % 3
ONE_HOT = np.eye(6, dtype="float32")[np.arange(120) % 6]


def l1_model():
    return models.shallow((4, 4, 1), 8, "l1")


def kl_model():
    return models.shallow((4, 4, 1), 8, regularizers.KLDivergence(0.1))


@pytest.fixture(scope="module")
def model():
    """An untrained model."""
    keras.utils.set_random_seed(0)
    return l1_model()


@pytest.fixture(scope="module")
def result(model):
    return evaluation.evaluate(model, X, Y)


class Copy:
    """The identity: what an autoencoder must not become."""

    def encode(self, x):
        return np.asarray(x).reshape(len(x), -1)

    def decode(self, code):
        return code.reshape(-1, 4, 4, 1)


# Metrics of one model.


def test_metrics_equal_numpy(model, result):
    codes, reconstruction = model.encode(X), model.predict(X, verbose=0)
    error = ((X - reconstruction) ** 2).mean()
    expected = {
        "reconstruction": error,
        "reconstruction_sum": 16 * error,
        "explained_variance": 1
        - ((X - reconstruction) ** 2).sum() / ((X - X.mean(axis=0)) ** 2).sum(),
        "l0": (codes != 0).sum(axis=1).mean(),
        "dead_fraction": (codes == 0).all(axis=0).mean(),
        "mean_activation": codes.mean(),
        "parameters": 2 * 16 * 8 + 8 + 16,
    }
    for name, value in expected.items():  # float32 sums against float64 ones
        assert result[name] == pytest.approx(value, rel=1e-4), name
    gap = result["explained_variance"] - result["copying"]
    assert result["copying_gap"] == pytest.approx(gap)
    assert "target_distance" not in result


def test_shared_weights_are_counted_once():
    tied = models.shallow((4, 4, 1), 8, "l1", tied=True)
    assert evaluation.evaluate(tied, X)["parameters"] == 16 * 8 + 8 + 16


@pytest.mark.parametrize(("activation", "low"), [("sigmoid", 0), ("tanh", -1)])
def test_bounded_code_with_target_has_expected_l0_and_target_distance(activation, low):
    """The divergence rescales tanh to (0, 1): a target of 0.2 is a mean of -0.6."""
    sparsity = regularizers.KLDivergence(0.2)
    model = models.shallow((4, 4, 1), 8, sparsity, activation=activation)
    target = low + (1 - low) * 0.2
    assert target_activation(model) == pytest.approx(target)
    found, codes = evaluation.evaluate(model, X), model.encode(X)
    distance = np.abs(codes.mean(axis=0) - target).mean()
    assert found["target_distance"] == pytest.approx(distance, rel=1e-5)
    rescaled = (codes - low) / (1 - low)
    assert found["expected_l0"] == pytest.approx(rescaled.sum(axis=1).mean(), rel=1e-4)
    assert found["l0"] == found["units"] == 8
    effective = metrics.effective_l0(codes, model.dictionary())
    assert found["effective_l0"] == pytest.approx(effective) != found["l0"]


def test_transcoders_are_refused():
    model = models.transcoder((4, 4, 1), (4, 4, 1), 8, "l1")
    with pytest.raises(ValueError, match=r"reconstruct its input.*`model\.evaluate\("):
        evaluation.evaluate(model, X)
    with pytest.raises(ValueError, match="a transcoder does not"):
        evaluation.copying(model, X)


def test_preprocessing_in_front_of_a_trained_model_changes_no_measure(rng):
    """Its reconstruction is compared with the output of the preprocessing."""
    tf = pytest.importorskip("tensorflow")
    keras.utils.set_random_seed(0)
    model = models.shallow((6,), 4, "l1", output_activation=None)
    model.compile("adam", metrics=["mae"])
    raw = rng.normal(50, 9, (80, 6)).astype("float32")
    normalize = keras.layers.Normalization(
        mean=np.full(6, 50.0), variance=np.full(6, 81.0)
    )
    rows = keras.ops.convert_to_numpy(normalize(raw))
    inputs = keras.Input((6,))
    encoder = keras.Model(inputs, model.encoder(normalize(inputs)))
    whole = models.Autoencoder(encoder, model.decoder)
    whole.compile("adam", metrics=["mae"])

    expected, got = evaluation.evaluate(model, rows), evaluation.evaluate(whole, raw)
    assert got == pytest.approx(expected, rel=1e-4, abs=1e-5)
    assert got["reconstruction"] < 5  # and not about 2,500
    weights = rng.random(80, "float32")
    for form in (
        lambda x: {"x": x},
        lambda x: {"x": tf.data.Dataset.from_tensor_slices(x).batch(32)},
        lambda x: {"x": x, "sample_weight": weights},
    ):
        expected, got = (
            each.evaluate(**form(x), verbose=0, return_dict=True)
            for each, x in ((model, rows), (whole, raw))
        )
        assert got == pytest.approx(expected, rel=1e-4)
    expected, got = (
        metrics.explained_variance_at(each, x, 2)
        for each, x in ((model, rows), (whole, raw))
    )
    assert got == pytest.approx(expected, rel=1e-4)


def test_validation_in_the_first_fit_has_the_target_of_the_training(rng):
    keras.utils.set_random_seed(0)
    scale = keras.layers.Rescaling(1 / 255)
    encoder = keras.Sequential([keras.Input((6,)), scale, layers.SparseDense(4)])
    decoder = keras.Sequential([keras.Input((4,)), keras.layers.Dense(6)])
    model = models.Autoencoder(encoder, decoder)
    model.compile(keras.optimizers.SGD(0.0))
    x = rng.uniform(0, 255, (32, 6)).astype("float32")
    logs = model.fit(x, validation_data=x, batch_size=32, verbose=0).history
    assert logs["val_loss"] == pytest.approx(logs["loss"], rel=1e-4)


def test_elbo_of_preprocessed_input_is_that_of_the_scaled_rows(rng):
    keras.utils.set_random_seed(0)
    model = models.variational((6,), 8, 2)
    rows = rng.random((20, 6), "float32")
    inputs = keras.Input((6,))
    outputs = keras.layers.Rescaling(1 / 255)(inputs)
    for layer in model.encoder.layers[1:]:
        outputs = type(layer).from_config(layer.get_config())(outputs)
    encoder = keras.Model(inputs, outputs)
    encoder.set_weights(model.encoder.get_weights())
    whole = models.VariationalAutoencoder(encoder, model.decoder)
    expected, got = model.elbo(rows, seed=0), whole.elbo(255 * rows, seed=0)
    assert got == pytest.approx(expected, rel=1e-3)


def test_identity_copies_and_mean_does_not():
    class Mean(Copy):
        def decode(self, code):
            return np.broadcast_to(X.mean(axis=0), (len(code), 4, 4, 1))

    assert evaluation.copying(Copy(), X) == pytest.approx(1.0)
    # The noise has the mean of the data, up to its standard error over 60 samples.
    assert evaluation.copying(Mean(), X) == pytest.approx(0.0, abs=0.05)
    found = evaluation.evaluate(Copy(), X)
    assert found["copying_gap"] == pytest.approx(0.0, abs=1e-6)


def test_noise_has_means_and_variances_of_the_data():
    seen = []

    class Spy(Copy):
        def encode(self, x):
            seen.append(np.asarray(x))
            return super().encode(x)

    many = np.tile(X, (100, 1, 1, 1))
    evaluation.copying(Spy(), many)
    noise = seen[0].reshape(len(seen[0]), -1)
    data = many.reshape(len(many), -1)
    # 4 standard errors of a mean of 6,000 draws: 4 * 0.3 / sqrt(6000).
    np.testing.assert_allclose(noise.mean(axis=0), data.mean(axis=0), atol=0.016)
    np.testing.assert_allclose(noise.std(axis=0), data.std(axis=0), atol=0.016)
    correlation = np.corrcoef(noise.T) - np.eye(16)
    assert np.abs(correlation).max() < 0.06  # independent: 4.6 / sqrt(6000)


def test_dead_code_has_every_metric_but_the_probe(result):
    model = l1_model()
    model.sparse_layers[0].bias.assign(np.full(8, -1e3))
    found = evaluation.evaluate(model, X, Y)
    assert np.isnan(found["probe_accuracy"])
    assert found["dead_fraction"] == 1
    assert found.keys() == result.keys()


def test_probes_fitted_to_training_data_are_named_by_their_number_of_labels():
    x, y = RNG.random((150, 6), dtype="float32"), np.arange(150) % 3
    codec = evaluation.Identity().fit(x)
    found = evaluation.evaluate(codec, x, y, train=(x, y))
    assert "probe_accuracy_100" in found
    assert "probe_accuracy_1000" not in found  # there are 150 labels
    unlabeled = evaluation.evaluate(codec, x, y, train=(x, None))
    assert not [name for name in unlabeled if name.startswith("probe")]


def test_probe_is_left_out_if_there_are_more_classes_than_labels():
    x, y = np.tile(X, (4, 1, 1, 1)), np.arange(240) % 120
    codec = evaluation.Identity().fit(x)
    found = evaluation.evaluate(codec, X[:10], y[:10], train=(x, y))
    assert "probe_accuracy" in found
    assert "probe_accuracy_100" not in found


def test_probe_is_nan_if_its_subset_has_a_single_class(rng):
    """3 of 1,300 labels belong to one class, so a stratified 100 have none of it."""
    x, y = rng.random((1300, 6), dtype="float32"), np.zeros(1300, int)
    y[:3] = 1
    found = evaluation.evaluate(evaluation.Identity().fit(x), x, y, train=(x, y))
    assert np.isnan(found["probe_accuracy_100"])
    assert found["probe_accuracy"] > 0.9


def test_two_fold_probe_is_nan_if_a_half_has_only_zeros():
    codes, y = np.zeros((8, 3)), np.arange(8) % 2
    codes[0] = 1
    assert np.isnan(two_fold_probe(codes, y, 0))
    assert np.isnan(two_fold_probe(np.ones((8, 3)), np.zeros(8, int), 0))


def test_objects_that_cannot_encode_raise(model):
    with pytest.raises(ValueError, match=r"`model` must be a.*`encode` and `decode`"):
        evaluation.evaluate(models.classifier(model, 3), X)


def test_datasets_and_tables_are_evaluated_as_their_arrays(model):
    import tensorflow as tf

    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(20)
    expected = evaluation.evaluate(model, X, Y)
    assert evaluation.evaluate(model, data) == pytest.approx(expected, nan_ok=True)
    rows, model = X.reshape(60, 16), models.shallow((16,), 8)
    expected = evaluation.evaluate(model, rows)
    found = evaluation.evaluate(model, pd.DataFrame(rows))
    # A table is stored by columns, so float32 products round differently.
    assert found == pytest.approx(expected, rel=1e-4, nan_ok=True)
    with pytest.raises(ValueError, match=r"x\.toarray\(\)"):
        evaluation.evaluate(model, scipy.sparse.csr_array(rows))


def test_classes_with_a_single_sample_raise(model):
    with pytest.raises(ValueError, match=r"least populated class.* only 1 member"):
        evaluation.evaluate(model, X, np.arange(60))


# Probes and fine-tuning.


def test_probe_is_perfect_on_separable_codes_and_at_chance_on_noise():
    codes = np.eye(3)[Y] + 0.01 * RNG.normal(size=(60, 3))
    assert evaluation.probe(codes, Y, codes, Y) == 1.0
    noise = RNG.normal(size=(600, 3))
    labels = np.arange(600) % 3
    accuracy = evaluation.probe(noise[:300], labels[:300], noise[300:], labels[300:])
    # 4 standard deviations of a mean over 300 guesses
    assert accuracy == pytest.approx(1 / 3, abs=0.11)


def test_probe_does_not_depend_on_the_scale_of_a_unit():
    codes = RNG.normal(size=(60, 4)) + np.eye(4)[Y]
    scaled = codes * [1e-3, 1.0, 10.0, 1e3]
    accuracy = evaluation.probe(codes, Y, codes, Y)
    assert accuracy == evaluation.probe(scaled, Y, scaled, Y)


@pytest.mark.parametrize(
    ("codes", "y", "message"),
    [
        (np.ones((4, 2)), np.zeros(4, int), "at least two classes"),
        (np.zeros((4, 2)), np.arange(4) % 2, "`codes_train` must not be all zero"),
        (np.ones((4, 2)), np.arange(3), "one label per sample"),
        (np.ones((4, 2)), np.linspace(0, 1, 4), "must contain class labels"),
        (np.ones(4), np.arange(4), "must have shape \\(samples, units\\)"),
    ],
)
def test_invalid_codes_or_labels_raise(codes, y, message):
    with pytest.raises(ValueError, match=message):
        evaluation.probe(codes, y, codes, y)


def test_test_codes_that_are_all_zero_raise():
    y = np.arange(4) % 2
    with pytest.raises(ValueError, match="`codes_test` must not be all zero"):
        evaluation.probe(np.eye(4), y, np.zeros((4, 4)), y)


def test_fine_tuning_learns_words_and_leaves_the_model_unchanged():
    keras.utils.set_random_seed(0)
    model = models.shallow((6,), 16)
    model.compile()
    before = model.get_weights()
    data = ONE_HOT, np.array(["ant", "bee", "cat"])[np.arange(120) % 3]
    assert fine_tuned_accuracy(model, data, data, 30, 10) == 1.0
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    found = evaluation.evaluate(model, *data, train=data)
    assert found["probe_accuracy"] == 1.0


def test_fine_tuning_raises_if_test_has_a_class_that_train_does_not_have(model):
    with pytest.raises(ValueError, match=r"only classes of `y_train`.*\[1\]"):
        fine_tuned_accuracy(model, (X, 2 * (Y % 2)), (X, Y % 2), 1, 20)


# Baselines.


def test_pca_and_identity_equal_their_references():
    rows = X.reshape(60, -1)
    reference = decomposition.PCA(5).fit(rows)
    expected = metrics.explained_variance(
        rows, reference.inverse_transform(reference.transform(rows))
    )
    pca = evaluation.evaluate(evaluation.PCA(5).fit(X), X)
    assert pca["explained_variance"] == pytest.approx(expected, rel=1e-6)
    assert pca["parameters"] == 5 * 16 + 16
    identity = evaluation.evaluate(evaluation.Identity().fit(X), X)
    assert identity["explained_variance"] == 1.0
    assert identity["parameters"] == 0


def test_random_encoder_decodes_almost_as_well_as_least_squares():
    rows, random = X.reshape(60, -1), evaluation.RandomEncoder(32).fit(X)
    codes = random.encode(X)
    active = (codes > 0).mean(axis=0)  # without centering, units would never vary
    assert 0.1 < active.min() < active.max() < 0.9
    inputs = np.c_[codes, np.ones(60)]
    solution = np.linalg.lstsq(inputs, rows.astype("float64"), rcond=None)[0]
    best = metrics.explained_variance(rows, inputs @ solution)
    found = evaluation.evaluate(random, X)["explained_variance"]
    assert best - 0.02 < found <= best + 1e-6  # ridge is slightly worse


def test_dictionary_learning_decodes_by_its_dictionary():
    model = evaluation.DictionaryLearning(8).fit(X)
    codes = model.encode(X)
    assert codes.shape == (60, 8)
    mean = X.reshape(60, -1).mean(axis=0)
    dictionary = model.decode(np.eye(8)).reshape(8, -1) - mean
    rows = codes @ dictionary + mean
    np.testing.assert_allclose(model.decode(codes).reshape(60, -1), rows, atol=1e-6)
    error = ((model.decode(codes) - X) ** 2).sum(axis=(1, 2, 3))
    assert (error < ((X.reshape(60, -1) - mean) ** 2).sum(axis=1)).all()


# Comparisons.


def builders():
    return {"L1": l1_model, "KL": kl_model}


def compare(directory=None, x=X, y=Y, **options):
    options = {
        "builders": builders(),
        "train": (x, y),
        "test": (X, Y),
        "epochs": 1,
        "seeds": (0, 1),
        "batch_size": 20,
        "fine_tuning": 0,
        "directory": directory,
        **options,
    }
    return evaluation.compare(**options)


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """The table and folder of a comparison."""
    folder = tmp_path_factory.mktemp("compared")
    return compare(folder), folder


class StartedError(Exception):
    """A training has started."""


def stop_at(*trainings):
    """Return callbacks that raise `StartedError` when one of `trainings` starts."""

    def callbacks(name):
        def start(*_):
            if not trainings or name in trainings:
                raise StartedError(name)

        return [keras.callbacks.LambdaCallback(on_epoch_begin=start)]

    return callbacks


def test_table_has_a_row_per_model_and_seed_and_the_baselines(compared):
    table, _ = compared
    names = ["PCA", "raw pixels", "random encoder", "dictionary learning"]
    random = names[2:]  # the others do not depend on the seed
    assert list(table["model"]) == ["L1", "L1", "KL", "KL", *names, *random]
    assert list(table["seed"]) == [0, 1, 0, 1, 0, 0, 0, 0, 1, 1]
    for name in ("L1", "random encoder"):
        assert table.loc[table["model"] == name, "reconstruction"].nunique() == 2
    assert table["probe_accuracy"].between(0, 1).all()
    assert (table["seconds"] >= 0).all()


def test_summary_has_mean_and_standard_deviation_over_seeds(compared):
    table, _ = compared
    summary = evaluation.summarize(table).set_index("model")
    values = table[table["model"] == "L1"]["reconstruction"]
    assert summary.loc["L1", "reconstruction"] == pytest.approx(values.mean())
    assert summary.loc["L1", "reconstruction_std"] == pytest.approx(values.std())


def test_every_row_has_l0_and_effective_l0(compared):
    table, _ = compared
    assert table[["l0", "effective_l0", "units"]].notna().all(axis=None)
    assert (table["effective_l0"] <= table["units"]).all()
    pixels = table.set_index("model").loc["raw pixels"]
    assert pixels["effective_l0"] == pytest.approx(metrics.effective_l0(X))


def test_codes_that_are_never_zero_are_ranked_by_effective_l0(compared):
    table, _ = compared
    sparse = table[table["model"] == "L1"]
    assert sparsity_metric(table) == "effective_l0"
    assert sparsity_metric(table[table["model"].isin(["L1", "KL"])]) == "effective_l0"
    assert sparsity_metric(table[table["model"].isin(["L1", "PCA"])]) == "effective_l0"
    assert sparsity_metric(sparse) == "l0"
    assert sparsity_metric(sparse.drop(columns=["effective_l0", "units"])) == "l0"
    front = evaluation.pareto_front(table)
    assert front["effective_l0"].is_monotonic_increasing
    assert front["reconstruction"].is_monotonic_decreasing


def test_dictionary_of_pca_has_its_components(compared):
    pca = evaluation.PCA(3).fit(X)
    rows = pca.dictionary().reshape(3, -1)
    np.testing.assert_allclose(rows @ rows.T, np.eye(3), atol=1e-5)
    code = pca.encode(X)
    result = evaluation.evaluate(pca, X)
    assert result["l0"] == result["units"] == 3
    assert result["effective_l0"] == pytest.approx(metrics.effective_l0(code), rel=1e-4)


def test_each_training_saves_its_model_and_a_record(compared):
    table, folder = compared
    stems = ["l1-seed0", "l1-seed1", "kl-seed0", "kl-seed1"]
    files = {f"{stem}.{kind}" for stem in stems for kind in ("json", "keras")}
    assert {path.name for path in folder.iterdir()} == files
    record = json.loads((folder / "l1-seed0.json").read_text())
    assert record["metrics"]["l0"] == table["l0"][0]
    assert len(record["history"]["loss"]) == record["settings"]["epochs"] == 1
    model = keras.saving.load_model(folder / "l1-seed0.keras")
    found = evaluation.evaluate(model, X)["reconstruction"]
    assert found == pytest.approx(table["reconstruction"][0], rel=1e-5)


def test_finished_trainings_are_not_repeated(compared):
    table, folder = compared
    again = compare(folder, callbacks=stop_at())
    # The baselines are fitted again, so only the models have the same seconds.
    assert again["seconds"][:4].equals(table["seconds"][:4])
    pd.testing.assert_frame_equal(
        again.drop(columns="seconds"), table.drop(columns="seconds"), check_exact=True
    )


def test_interrupted_comparison_resumes_with_the_same_numbers(compared, tmp_path):
    table, finished = compared
    folder = shutil.copytree(finished, tmp_path / "run")
    for path in folder.glob("kl-seed1.*"):
        path.unlink()
    with pytest.raises(StartedError, match="KL, seed 1"):
        compare(folder, callbacks=stop_at("KL, seed 1"))
    assert not list(folder.glob("*kl-seed1*"))
    others = ("L1, seed 0", "L1, seed 1", "KL, seed 0")
    again = compare(folder, callbacks=stop_at(*others))
    pd.testing.assert_frame_equal(
        again.drop(columns="seconds"), table.drop(columns="seconds"), check_exact=True
    )


DAMAGE = {
    "half a record": ("l1-seed0.json", lambda p: p.write_bytes(p.read_bytes()[:99])),
    "empty record": ("l1-seed0.json", lambda p: p.write_bytes(b"")),
    "a list as record": ("l1-seed0.json", lambda p: p.write_bytes(b"[]")),
    "record without metrics": (
        "l1-seed0.json",
        lambda p: p.write_text('{"settings": {}, "history": {}, "metrics": 3}'),
    ),
    "half a model": ("l1-seed0.keras", lambda p: p.write_bytes(p.read_bytes()[:999])),
    "missing model": ("l1-seed0.keras", lambda p: p.unlink()),
}


@pytest.mark.parametrize(("name", "damage"), DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_file_is_set_aside_and_its_model_is_trained_again(
    name, damage, compared, tmp_path
):
    table, finished = compared
    folder = shutil.copytree(finished, tmp_path / "run")
    (folder / ".unfinished-99999999-a").mkdir()
    damage(folder / name)
    others = ("L1, seed 1", "KL, seed 0", "KL, seed 1")
    with warnings.catch_warnings(record=True, action="always") as caught:
        again = compare(folder, callbacks=stop_at(*others), baselines=False)
    messages = [str(w.message) for w in caught if "renamed to" in str(w.message)]
    assert messages
    assert name in messages[0]
    columns = table.columns.drop("seconds")
    pd.testing.assert_frame_equal(again[columns], table[columns][:4], check_exact=True)
    assert (folder / "l1-seed0.json.unused-1").exists()
    assert not list(folder.glob(".unfinished-*"))
    compare(folder, callbacks=stop_at(), baselines=False)  # nothing is left to do


def test_nan_is_read_from_a_record(compared, tmp_path):
    folder = shutil.copytree(compared[1], tmp_path / "run")
    record = json.loads((folder / "l1-seed0.json").read_text())
    record["metrics"]["probe_accuracy"] = None
    (folder / "l1-seed0.json").write_text(json.dumps(record))
    table = compare(folder, callbacks=stop_at(), baselines=False)
    assert list(table["model"]) == ["L1", "L1", "KL", "KL"]
    assert table["probe_accuracy"].isna().tolist() == [True, False, False, False]


def test_datasets_are_compared_as_their_arrays(compared):
    import tensorflow as tf

    table, _ = compared
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(25)
    found = compare(train=data, test=(X, pd.Series(Y)), baselines=False)
    columns = table.columns.drop("seconds")
    pd.testing.assert_frame_equal(found[columns], table[columns][:4], check_exact=True)
    model = l1_model()
    targets = tf.data.Dataset.from_tensor_slices((X, X)).batch(25)
    assert "probe_accuracy" not in evaluation.evaluate(model, targets)
    one, other = (evaluation.evaluate(model, X, Y, train=d) for d in (data, (X, Y)))
    assert one == other


OTHER_SETTINGS = {
    "epochs": ({"epochs": 2}, "epochs was 1 and is now 2"),
    "batch size": ({"batch_size": 30}, "batch_size was 20 and is now 30"),
    "data": ({"x": 1 - X}, "train was"),
    "labels": ({"y": Y[::-1]}, "train was"),
    "test data": ({"test": (1 - X, Y)}, "test was"),
    "penalty": ({"builders": {"L1": kl_model}}, "model was"),
    "optimizer": ({"optimizer": "sgd"}, "model was"),
    "preparation": ({"prepare": {"L1": lambda model, x: None}}, "prepared was False"),
}


@pytest.mark.parametrize(
    ("options", "message"), OTHER_SETTINGS.values(), ids=OTHER_SETTINGS
)
def test_folder_with_other_settings_raises_and_is_unchanged(options, message, compared):
    _, folder = compared
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*")}
    with pytest.raises(
        ValueError, match=f"different settings.*{message}.*Choose another"
    ):
        compare(folder, **options)
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*")} == before


def test_models_of_the_same_file_name_raise(tmp_path):
    same = {"BN +": l1_model, "BN -": l1_model}
    with pytest.raises(
        ValueError, match="'BN \\+' and 'BN -', which both become 'bn-seed0'"
    ):
        compare(tmp_path, builders=same)
    assert not list(tmp_path.iterdir())
    with pytest.raises(StartedError):  # without files there is no conflict
        compare(builders=same, callbacks=stop_at())


def test_prepare_is_called_before_fit_with_model_and_training_data():
    prepared = []

    def prepare(model, x):
        prepared.append((model.sparse_layers[0].units, len(x)))
        assert model.optimizer.iterations == 0

    table = compare(
        prepare={"KL": prepare},
        seeds=np.arange(1),
        test=(X, None),
        fine_tuning=1,
        baselines=False,
    )
    assert prepared == [(8, 60)]
    assert list(table["model"]) == ["L1", "KL"]
    assert not {"fine_tuned_accuracy", "probe_accuracy"} & set(table)


INVALID = {
    "shape of test data": ({"test": (X[:, :2], Y)}, "must have shape"),
    "bytes as test data": ({"test": ((X * 255).astype("uint8"), Y)}, "dtype=uint8"),
    "NaN in test data": ({"test": (X * np.nan, Y)}, "must be finite"),
    "shape of a later model": (
        {"builders": builders() | {"other": lambda: models.shallow((5,), 3)}},
        r"must have shape .*samples.*5\)",
    ),
    "unknown name to prepare": (
        {"prepare": {"l1": lambda model, x: None}},
        "Unknown name in `prepare`: 'l1'. Did you mean 'L1'",
    ),
    "array instead of pair": (
        {"train": X},
        r"`train` must be a pair.*ndarray.*`\(x, None\)`",
    ),
    "None instead of pair": ({"test": None}, "`test` must be a pair.*NoneType"),
    "no samples": (
        {"train": (X[:0], Y[:0]), "batch_size": None},
        "`y_train` must have one label per sample",
    ),
    "model instead of builder": (
        {"builders": {"L1": models.shallow((4, 4, 1), 8)}},
        "A builder must be a function",
    ),
    "builder of None": ({"builders": {"L1": lambda: None}}, "returned None"),
    "list of builders": ({"builders": [l1_model]}, "`builders` must be a dict"),
    "no builder": ({"builders": {}}, "`builders` must be a dict"),
    "labels of two types": (
        {"train": (X, np.array([None, 0, 1] * 20, object))},
        "labels of one type.*'int' and 'NoneType'",
    ),
    "batch size": ({"batch_size": 0}, "`batch_size` must be a positive"),
    "epochs": ({"epochs": 0}, "`epochs` must be a positive"),
    "fine-tuning": ({"fine_tuning": -1}, "`fine_tuning` must be a positive"),
    "seed instead of seeds": (
        {"seeds": 0},
        "`seeds` must be a sequence of at least one",
    ),
    "no seed": ({"seeds": ()}, "`seeds` must be a sequence of at least one"),
    "fractional seed": ({"seeds": [0.5]}, "`seeds` must be.*one integer"),
}


@pytest.mark.parametrize(("options", "message"), INVALID.values(), ids=INVALID)
def test_invalid_argument_raises_before_any_training(options, message):
    with pytest.raises(ValueError, match=message):
        compare(**options, callbacks=stop_at())


def test_invalid_argument_creates_no_folder(tmp_path):
    with pytest.raises(ValueError, match="must be finite"):
        compare(tmp_path / "new", x=X * np.nan)
    assert not list(tmp_path.iterdir())


def test_data_outside_the_range_of_a_likelihood_raise_before_any_training():
    def build():
        sigmoid = {"output_activation": "sigmoid", "likelihood": "bernoulli"}
        return models.variational((4, 4, 1), (8,), 2, **sigmoid)

    with pytest.raises(ValueError, match=r"must lie in \[0, 1\]"):
        compare(builders={"VAE": build}, test=(2 * X, Y), callbacks=stop_at())


@pytest.mark.parametrize(
    ("y", "y_test", "message"),
    [
        (np.zeros(60, int), Y, "at least two classes. Received: 60 labels"),
        (Y[:50], Y, r"y_train.shape=\(50,\) for 60 samples"),
        (Y, Y[:50], r"y_test.shape=\(50,\) for 60 samples"),
        (Y, Y + 1, "only classes of `y_train`"),
        (np.linspace(0, 1, 60), Y, "must contain class labels"),
    ],
)
def test_invalid_labels_raise_before_any_model_is_built(y, y_test, message):
    def build():
        raise AssertionError("A model was built.")

    with pytest.raises(ValueError, match=message):
        compare(builders={"L1": build}, y=y, test=(X, y_test))


def hoyer(codes):
    root = codes.shape[1] ** 0.5
    active = codes[(codes != 0).any(axis=1)]
    ratio = np.abs(active).sum(axis=1) / np.linalg.norm(active, axis=1)
    return ((root - ratio) / (root - 1)).sum() / len(codes)


def test_models_are_fitted_to_training_data_and_measured_on_test_data(tmp_path):
    """Test images are dimmer, and their labels are those of the next class."""
    rng, classes = np.random.default_rng(1), np.arange(120) % 3
    patterns = rng.random((3, 4, 4, 1))
    noise = rng.normal(0, 0.05, (2, 120, 4, 4, 1))
    x, x_test = (patterns[classes] + noise).clip(0, 1).astype("float32")
    x_test = x_test * 0.9
    train, test = (x, classes), (x_test, (classes + 1) % 3)
    families = {
        "L1": lambda: models.shallow((4, 4, 1), 8, "l1", output_activation="linear"),
        "VAE": lambda: models.variational((4, 4, 1), 16, latent_dim=4),
    }
    table = evaluation.compare(
        families, train, test, 5, batch_size=4, directory=tmp_path
    ).set_index("model")
    # Each classifier knows the classes, and so never predicts the next one.
    learned = table.loc[["L1", "VAE", "PCA", "raw pixels", "random encoder"]]
    assert (learned[["probe_accuracy", "probe_accuracy_100"]] < 0.1).all(axis=None)
    assert (table["fine_tuned_accuracy"].dropna() < 0.1).all()
    assert table["fine_tuned_accuracy"].count() == 2  # not of the baselines

    model = keras.saving.load_model(tmp_path / "l1-seed0.keras")
    codes = model.encode(x_test)
    error = (model.decode(codes) - x_test) ** 2
    expected = {
        "hoyer": hoyer(codes),
        "dead_fraction": (codes == 0).all(axis=0).mean(),
        "l0": (codes != 0).sum(axis=1).mean(),
        "mean_activation": codes.mean(),
        "reconstruction": error.mean(),
        "reconstruction_sum": error.sum() / 120,
    }
    for name, value in expected.items():
        assert table.loc["L1", name] == pytest.approx(value, rel=1e-5), name
    model = keras.saving.load_model(tmp_path / "vae-seed0.keras")
    assert table.loc["VAE", "elbo"] == pytest.approx(model.elbo(x_test), rel=1e-5)

    pca = decomposition.PCA(8).fit(x.reshape(120, -1))
    rows = x_test.reshape(120, -1)
    expected = metrics.explained_variance(
        rows, pca.inverse_transform(pca.transform(rows))
    )
    found = table.loc["PCA", "explained_variance"]
    assert found == pytest.approx(expected, rel=1e-4)


# Sweeps and fronts.


def test_sweep_has_a_row_per_factor_and_a_larger_penalty_has_fewer_active_units():
    def build(factor):
        model = models.shallow((4, 4, 1), 8, regularizers.L1(factor))
        model.compile(keras.optimizers.Adam(0.01))
        return model

    factors = [0.0, 1.0, 1.0 + 1e-10]  # the last two are different
    table = evaluation.sweep(build, factors, (X, None), (X, None), 10, batch_size=16)
    assert list(table["factor"]) == factors
    assert table["l0"][1] < table["l0"][0]


@pytest.mark.parametrize("factors", [[], [1e-3], [1e-3, 1e-3], 1e-3, iter([1e-3])])
def test_sweep_of_less_than_two_factors_raises(factors):
    with pytest.raises(ValueError, match="at least two different"):
        evaluation.sweep(lambda f: None, factors, (X, None), (X, None), 1)


def test_pareto_front_has_the_rows_that_no_other_row_beats():
    rng = np.random.default_rng(0)
    table = pd.DataFrame(rng.integers(0, 6, (40, 2)), columns=["l0", "reconstruction"])
    values = table.to_numpy()
    beaten = [
        any((other <= row).all() and (other < row).any() for other in values)
        for row in values
    ]
    front = evaluation.pareto_front(table)
    assert sorted(front.index) == np.flatnonzero(~np.array(beaten)).tolist()
    assert front["l0"].is_monotonic_increasing
    missing = pd.DataFrame({"l0": [1, np.nan], "reconstruction": [1, 0]})
    assert list(evaluation.pareto_front(missing).index) == [0]
