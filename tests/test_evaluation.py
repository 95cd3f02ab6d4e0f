"""Evaluation against NumPy and scikit-learn, and the comparison's table and files."""

import json

import keras
import numpy as np
import pytest
from sklearn import decomposition

from keras_sae import evaluation, metrics, models, regularizers
from keras_sae.evaluation import training

RNG = np.random.default_rng(0)
X = RNG.random((60, 4, 4, 1), dtype="float32")
Y = np.arange(60) % 3


class Identity:
    """Copies its input: what an autoencoder must not become."""

    parameters = 0

    def encode(self, x):
        return np.asarray(x).reshape(len(x), -1)

    def decode(self, code):
        return code.reshape(-1, 4, 4, 1)


def test_figures_are_those_of_numpy():
    model = models.shallow((4, 4, 1), 8, "l1")
    figures = evaluation.evaluate(model, X)
    codes, rebuilt = model.encode(X), model.predict(X, verbose=0)
    error = ((X - rebuilt) ** 2).mean()
    expected = {
        "reconstruction": error,
        "reconstruction_sum": 16 * error,
        "explained_variance": 1
        - ((X - rebuilt) ** 2).sum() / ((X - X.mean(axis=0)) ** 2).sum(),
        "l0": (codes != 0).sum(axis=1).mean(),
        "dead_fraction": (codes == 0).all(axis=0).mean(),
        "mean_activation": codes.mean(),
        "parameters": 2 * 16 * 8 + 8 + 16,
    }
    for name, value in expected.items():  # float32 sums against float64 ones
        assert figures[name] == pytest.approx(value, rel=1e-4), name


def test_a_bounded_code_reports_its_expected_l0():
    model = models.shallow((4, 4, 1), 8, "kl")
    figures = evaluation.evaluate(model, X)
    assert "l0" not in figures
    expected = model.encode(X).sum(axis=1).mean()
    assert figures["expected_l0"] == pytest.approx(expected, rel=1e-4)


def test_the_identity_copies_and_the_mean_does_not():
    class Mean(Identity):
        def decode(self, code):
            return np.broadcast_to(X.mean(axis=0), (len(code), 4, 4, 1))

    assert evaluation.copying(Identity(), X) == pytest.approx(1.0)
    # The noise has the data's mean, up to its own error on 60 samples.
    assert evaluation.copying(Mean(), X) == pytest.approx(0.0, abs=0.05)
    figures = evaluation.evaluate(Identity(), X)
    assert figures["copying_gap"] == pytest.approx(0.0, abs=1e-6)


def test_noise_has_the_means_and_variances_of_the_data():
    seen = []

    class Spy(Identity):
        def encode(self, x):
            seen.append(np.asarray(x))
            return super().encode(x)

    many = np.tile(X, (100, 1, 1, 1))
    evaluation.copying(Spy(), many)
    noise = seen[0].reshape(len(seen[0]), -1)
    data = many.reshape(len(many), -1)
    # 6,000 draws: an error of the mean of 0.3/sqrt(6000) = 0.004, times 4
    np.testing.assert_allclose(noise.mean(axis=0), data.mean(axis=0), atol=0.016)
    np.testing.assert_allclose(noise.std(axis=0), data.std(axis=0), atol=0.016)
    correlation = np.corrcoef(noise.T) - np.eye(16)
    assert np.abs(correlation).max() < 0.06  # independent: 4.6 / sqrt(6000)


def test_probe_reads_separable_codes_and_not_noise():
    codes = np.eye(3)[Y] + 0.01 * RNG.normal(size=(60, 3))
    assert evaluation.probe(codes, Y, codes, Y) == 1.0
    noise = RNG.normal(size=(600, 3))
    labels = np.arange(600) % 3
    accuracy = evaluation.probe(noise[:300], labels[:300], noise[300:], labels[300:])
    assert accuracy == pytest.approx(1 / 3, abs=0.11)  # 4 sd of 300 coin throws


def test_probe_does_not_depend_on_a_units_scale():
    codes = RNG.normal(size=(60, 4)) + np.eye(4)[Y]
    scaled = codes * [1e-3, 1.0, 10.0, 1e3]
    assert evaluation.probe(codes, Y, codes, Y) == evaluation.probe(
        scaled, Y, scaled, Y
    )


@pytest.mark.parametrize(
    ("codes", "y", "message"),
    [
        (np.ones((4, 2)), np.zeros(4, int), "at least two"),
        (np.zeros((4, 2)), np.arange(4) % 2, "`codes_train` are all zero"),
        (np.ones((4, 2)), np.arange(3), "one label for each sample"),
        (np.ones((4, 2)), np.linspace(0, 1, 4), "must hold class labels"),
        (np.ones(4), np.arange(4), "must be \\(samples, units\\)"),
    ],
)
def test_probe_refuses(codes, y, message):
    with pytest.raises(ValueError, match=message):
        evaluation.probe(codes, y, codes, y)


def test_probe_refuses_codes_of_a_test_that_are_all_zero():
    y = np.arange(4) % 2
    with pytest.raises(ValueError, match="`codes_test` are all zero"):
        evaluation.probe(np.eye(4), y, np.zeros((4, 4)), y)


def test_labels_of_too_few_are_refused_before_a_split():
    with pytest.raises(ValueError, match="each at least twice"):
        evaluation.evaluate(models.shallow((4, 4, 1), 8), X, np.arange(60))


def test_baselines_against_their_references():
    rows = X.reshape(60, -1)
    pca = evaluation.PCA(5).fit(X)
    reference = decomposition.PCA(5).fit(rows)
    expected = metrics.explained_variance(
        rows, reference.inverse_transform(reference.transform(rows))
    )
    figures = evaluation.evaluate(pca, X)
    assert figures["explained_variance"] == pytest.approx(expected, rel=1e-6)
    assert figures["parameters"] == 5 * 16 + 16
    raw = evaluation.evaluate(evaluation.Identity().fit(X), X)
    assert raw["explained_variance"] == 1.0
    random = evaluation.RandomEncoder(32).fit(X)
    codes = random.encode(X)
    solution = np.linalg.lstsq(
        np.c_[codes, np.ones(60)], rows.astype("float64"), rcond=None
    )[0]
    on = (codes > 0).mean(axis=0)  # data that are not centred are on one side
    assert 0.1 < on.min() < on.max() < 0.9
    best = metrics.explained_variance(rows, np.c_[codes, np.ones(60)] @ solution)
    found = evaluation.evaluate(random, X)["explained_variance"]
    assert best - 0.02 < found <= best + 1e-6  # ridge, a little below least squares


def _compare(builders, epochs, **kwargs):
    return evaluation.compare(builders, (X, Y), (X, Y), epochs, batch_size=16, **kwargs)


def _builders():
    return {
        "L1": lambda: models.shallow((4, 4, 1), 8, "l1"),
        "KL": lambda: models.shallow((4, 4, 1), 8, regularizers.KLDivergence(0.1)),
    }


def test_compare_has_a_row_a_model_and_seed_and_the_baselines():
    table = _compare(_builders(), 1, seeds=(0, 1))
    baselines = ["PCA", "raw pixels", "random encoder", "dictionary learning"]
    drawn = baselines[2:]  # the first two are the same with every seed
    assert list(table["model"]) == ["L1", "L1", "KL", "KL", *baselines, *drawn]
    assert list(table["seed"]) == [0, 1, 0, 1, 0, 0, 0, 0, 1, 1]
    errors = table.loc[table["model"] == "random encoder", "reconstruction"]
    assert errors.nunique() == 2
    assert table["probe_accuracy"].between(0, 1).all()
    assert (table["seconds"] >= 0).all()


def test_the_same_seed_gives_the_same_numbers():
    tables = [_compare(_builders(), 2).drop(columns="seconds") for _ in range(2)]
    assert tables[0].equals(tables[1])


def test_finished_models_are_not_trained_again(tmp_path):
    trainings = []

    def noted(name):
        begun = keras.callbacks.LambdaCallback(
            on_train_begin=lambda logs: trainings.append(name)
        )
        return [begun]

    build = _builders()["L1"]
    first = _compare({"a": build}, 1, directory=tmp_path, callbacks=noted)
    again = _compare({"a": build}, 1, directory=tmp_path, callbacks=noted)
    assert trainings == ["a, seed 0"]
    # The baselines are timed anew; the model's seconds are those of its training.
    assert first.drop(columns="seconds").equals(again.drop(columns="seconds"))
    assert first["seconds"][0] == again["seconds"][0]


class _Stop(keras.callbacks.Callback):
    """Ends a fit the hard way when an epoch begins, and notes which ones began."""

    def __init__(self, at):
        super().__init__()
        self.at, self.begun = at, []

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.at:
            raise KeyboardInterrupt
        self.begun.append(epoch)


# A backup is made after every epoch, or not again within minutes.
@pytest.mark.parametrize(("old", "first"), [(0.0, 2), (600.0, 1)])
def test_an_interrupted_training_goes_on_and_leaves_nothing_half_written(
    old, first, tmp_path, monkeypatch
):
    monkeypatch.setattr(training, "_OLD", old)
    build = _builders()["L1"]
    stop = _Stop(at=2)
    with pytest.raises(KeyboardInterrupt):
        _compare({"L1": build}, 4, directory=tmp_path, callbacks=lambda _: [stop])
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == []
    rest = _Stop(at=None)
    _compare({"L1": build}, 4, directory=tmp_path, callbacks=lambda _: [rest])
    assert stop.begun == [0, 1]
    assert rest.begun == list(range(first, 4))
    files = sorted(p.name for p in tmp_path.iterdir() if p.is_file())
    assert files == ["l1-seed0.json", "l1-seed0.keras"]
    history = json.loads((tmp_path / "l1-seed0.json").read_text())["history"]
    assert len(history["loss"]) == 4


class _Clock(keras.callbacks.Callback):
    """Time that passes at the start of epochs alone, ten seconds each."""

    def __init__(self):
        super().__init__()
        self.now = 100.0

    def on_epoch_begin(self, epoch, logs=None):
        self.now += 10

    def perf_counter(self):
        return self.now

    def monotonic(self):
        return self.now


def test_the_seconds_of_an_interrupted_training_are_of_all_of_it(tmp_path, monkeypatch):
    clock = _Clock()
    monkeypatch.setattr(training, "time", clock)

    def prepare(model, x):
        clock.now += 5

    options = {"directory": tmp_path, "prepare": {"L1": prepare}}
    builders = {"L1": _builders()["L1"]}
    stop = [_Stop(at=3), clock]
    with pytest.raises(KeyboardInterrupt):
        _compare(builders, 4, callbacks=lambda _: stop, **options)
    clock.now += 1000  # nothing ran
    table = _compare(builders, 4, callbacks=lambda _: [clock], **options)
    assert table["seconds"][0] == 5 + 4 * 10


def test_a_class_that_few_labels_leave_out_costs_that_probe_alone():
    """Of 1,300 labels three are of a class: none of a hundred in its share."""
    rng = np.random.default_rng(0)
    x = rng.random((1300, 6), dtype="float32")
    y = np.zeros(1300, int)
    y[:3] = 1
    figures = evaluation.held_out(models.shallow((6,), 4), (x, y), (x, y))
    assert np.isnan(figures["probe_accuracy_100"])
    assert figures["probe_accuracy"] > 0.9


def test_a_likelihood_of_other_data_is_refused_before_training():
    sigmoid = {"output_activation": "sigmoid", "likelihood": "bernoulli"}
    built = []

    def build():
        built.append(models.variational((4, 4, 1), (8,), 2, **sigmoid))
        return built[-1]

    with pytest.raises(ValueError, match=r"must lie in \[0, 1\]"):
        evaluation.compare({"VAE": build}, (X, Y), (2 * X, Y), 1, batch_size=16)
    assert [model.optimizer.iterations for model in built] == [0]


def test_what_is_prepared_is_not_prepared_again_where_training_goes_on(
    tmp_path, monkeypatch
):
    """It would undo the epochs that the backup holds."""
    monkeypatch.setattr(training, "_OLD", 0.0)
    prepared = []
    options = {
        "directory": tmp_path,
        "prepare": {"L1": lambda model, x: prepared.append(len(x))},
    }
    builders = {"L1": _builders()["L1"]}
    with pytest.raises(KeyboardInterrupt):
        _compare(builders, 4, callbacks=lambda _: [_Stop(at=2)], **options)
    _compare(builders, 4, **options)
    assert prepared == [60]


class _Enough(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        self.model.stop_training = epoch == 3


def test_the_history_ends_where_a_resumed_training_was_stopped(tmp_path, monkeypatch):
    """Further on there are logs of the first attempt, whose weights are gone."""
    monkeypatch.setattr(training, "_OLD", 600.0)
    builders = {"L1": _builders()["L1"]}
    with pytest.raises(KeyboardInterrupt):
        _compare(builders, 9, directory=tmp_path, callbacks=lambda _: [_Stop(at=7)])
    _compare(builders, 9, directory=tmp_path, callbacks=lambda _: [_Enough()])
    history = json.loads((tmp_path / "l1-seed0.json").read_text())["history"]
    assert len(history["loss"]) == 4


def _with_folder(folder, builder=None, epochs=1, x=X, y=Y, **options):
    builders = {"L1": builder or _builders()["L1"]}
    options = {"batch_size": 20, "directory": folder, **options}
    return evaluation.compare(builders, (x, y), (X, Y), epochs, **options)


OTHER_TRAININGS = {
    "epochs": ({"epochs": 2}, "epochs was 1 and is now 2"),
    "batch": ({"batch_size": 30}, "batch_size was 20 and is now 30"),
    "data": ({"x": 1 - X}, "train was"),
    "labels": ({"y": Y[::-1]}, "train was"),
    "penalty": ({"builder": _builders()["KL"]}, "model was"),
    "optimizer": ({"optimizer": "sgd"}, "model was"),
    "preparation": ({"prepare": {"L1": lambda model, x: None}}, "prepared was False"),
}


@pytest.mark.parametrize("changed", OTHER_TRAININGS)
@pytest.mark.parametrize("interrupted", [False, True])
def test_a_folder_of_another_training_is_refused(changed, interrupted, tmp_path):
    """Its figures are not those that were asked for."""
    if interrupted:
        with pytest.raises(KeyboardInterrupt):
            _with_folder(tmp_path, callbacks=lambda _: [_Stop(at=0)])
    else:
        _with_folder(tmp_path)
    options, message = OTHER_TRAININGS[changed]
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    with pytest.raises(ValueError, match=f"other settings.*{message}.*Choose another"):
        _with_folder(tmp_path, **options)
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")} == before
    _with_folder(tmp_path)  # and the same goes on


def test_names_that_leave_the_same_files_are_refused(tmp_path):
    build = _builders()["L1"]
    with pytest.raises(ValueError, match="'BN \\+' and 'BN -', both 'bn-seed0'"):
        _compare({"BN +": build, "BN -": build}, 1, directory=tmp_path)
    assert not list(tmp_path.iterdir())
    table = _compare({"BN +": build, "BN -": build}, 1)  # no file, no clash
    assert list(table["model"])[:2] == ["BN +", "BN -"]


NOT_COMPARABLE = {
    "shape of test data": ({"test": (X[:, :2], Y)}, "must have shape"),
    "bytes as test data": ({"test": ((X * 255).astype("uint8"), Y)}, "integers"),
    "NaN in test data": ({"test": (X * np.nan, Y)}, "must be finite"),
    "shape of a later model": (
        {"builders": _builders() | {"other": lambda: models.shallow((5,), 3)}},
        r"must have shape \(samples, 5\)",
    ),
    "a name to prepare": (
        {"prepare": {"l1": lambda model, x: None}},
        "Unknown name in `prepare`: 'l1'. Did you mean 'L1'",
    ),
    "no pair": ({"train": X}, r"`train` must be a pair.*ndarray.*`\(x, None\)`"),
    "no samples": (
        {"train": (X[:0], Y[:0]), "batch_size": None},
        "`y_train` must be one label|`x` holds no samples",
    ),
    "no data": ({"test": None}, "`test` must be a pair.*NoneType"),
    "a model for a builder": (
        {"builders": {"L1": models.shallow((4, 4, 1), 8)}},
        "A builder must be a function",
    ),
    "a builder of nothing": ({"builders": {"L1": lambda: None}}, "gave None"),
    "a list of builders": ({"builders": [_builders()["L1"]]}, "`builders` holds no"),
    "labels of two kinds": (
        {"train": (X, np.array([None, 0, 1] * 20, object))},
        "labels of one kind.*NoneType, int",
    ),
    "fine-tuning": ({"fine_tuning": -1}, "`fine_tuning` must be a positive"),
    "one seed": ({"seeds": 0}, "`seeds` is empty, or not of whole numbers"),
    "no seed": ({"seeds": ()}, "`seeds` is empty, or not of whole numbers"),
    "a seed in parts": ({"seeds": [0.5]}, "`seeds` is empty, or not of whole"),
}


@pytest.mark.parametrize(
    ("given", "message"), NOT_COMPARABLE.values(), ids=NOT_COMPARABLE
)
def test_nothing_is_trained_where_one_part_is_wrong(given, message):
    def begun(name):
        raise AssertionError("A training has begun.")

    given = {"builders": _builders(), "train": (X, Y), "test": (X, Y)} | given
    with pytest.raises(ValueError, match=message):
        evaluation.compare(**{"batch_size": 20} | given, epochs=1, callbacks=begun)


def test_seeds_may_be_an_array_and_labels_may_be_of_the_training_alone():
    builders = {"L1": _builders()["L1"]}
    data, seeds = ((X, Y), (X, None)), np.arange(2)
    table = evaluation.compare(builders, *data, 1, seeds, batch_size=20, fine_tuning=1)
    assert list(table["seed"])[:2] == [0, 1]
    assert "fine_tuned_accuracy" not in table


@pytest.mark.parametrize(("activation", "low"), [("sigmoid", 0), ("tanh", -1)])
def test_the_distance_from_a_target_is_that_of_the_code(activation, low):
    """The divergence sees a tanh's code on (0, 1): a target of .2 is one of -.6."""
    sparsity = regularizers.KLDivergence(0.2)
    model = models.shallow((4, 4, 1), 8, sparsity, activation=activation)
    rho = low + (1 - low) * 0.2
    assert evaluation.target(model) == pytest.approx(rho)
    expected = np.abs(model.encode(X).mean(axis=0) - rho).mean()
    found = evaluation.evaluate(model, X)["target_distance"]
    assert found == pytest.approx(expected, rel=1e-5)


def test_fine_tuning_counts_no_class_as_another():
    model = models.shallow((4, 4, 1), 8)
    with pytest.raises(ValueError, match=r"must hold classes of `y_train`.*\[1\]"):
        evaluation.fine_tuned(model, (X, 2 * (Y % 2)), (X, Y % 2), 1, 20)


def test_a_code_without_life_has_all_its_figures_but_the_probe():
    model = models.shallow((4, 4, 1), 8, "l1")
    model.sparse_layers[0].bias.assign(np.full(8, -1e3))
    figures = evaluation.evaluate(model, X, Y)
    assert np.isnan(figures["probe_accuracy"])
    assert figures["dead_fraction"] == 1
    assert figures.keys() - {"probe_accuracy"} == evaluation.evaluate(model, X).keys()


def test_figures_of_a_dataset_are_refused_with_the_way_to_an_array():
    import tensorflow as tf

    data = tf.data.Dataset.from_tensor_slices(X).batch(20)
    with pytest.raises(ValueError, match=r"must be an array.*as_numpy_iterator"):
        evaluation.evaluate(models.shallow((4, 4, 1), 8), data)


def test_compare_needs_a_model():
    with pytest.raises(ValueError, match="holds no model"):
        evaluation.compare({}, (X, Y), (X, Y), epochs=1)


@pytest.mark.parametrize(
    ("y", "y_test", "message"),
    [
        (np.zeros(60, int), Y, "needs at least two. Received: 60 labels"),
        (Y[:50], Y, r"y_train.shape=\(50,\) for 60 samples"),
        (Y, Y[:50], r"y_test.shape=\(50,\) for 60 samples"),
        (Y, Y + 1, "must hold classes of `y_train`"),
        (np.linspace(0, 1, 60), Y, "must hold class labels"),
    ],
)
def test_bad_labels_are_refused_before_anything_is_trained(y, y_test, message):
    def build():
        raise AssertionError("A model was made.")

    with pytest.raises(ValueError, match=message):
        evaluation.compare({"L1": build}, (X, y), (X, y_test), epochs=1)


def test_no_seed_is_refused():
    with pytest.raises(ValueError, match="`seeds` is empty"):
        _compare(_builders(), 1, seeds=())


def test_labels_may_be_words():
    words = np.array(["ant", "bee", "cat", "dog"])[Y % 4]
    builders = {"L1": _builders()["L1"]}
    data = (X, words), (X, words)
    table = evaluation.compare(builders, *data, 1, batch_size=16, fine_tuning=1)
    assert table["fine_tuned_accuracy"][:1].between(0, 1).all()


def test_more_classes_than_labels_leave_a_probe_out():
    y = np.arange(240) % 120
    figures = evaluation.held_out(
        evaluation.Identity().fit(np.tile(X, (4, 1, 1, 1))),
        (np.tile(X, (4, 1, 1, 1)), y),
        (X[:10], y[:10]),
    )
    assert "probe_accuracy" in figures
    assert "probe_accuracy_100" not in figures


def test_what_comes_before_the_fit_comes_before_it():
    seen = []

    def prepare(model, x):
        seen.append((model.name, len(x), int(model.optimizer.iterations)))

    _compare(_builders(), 1, prepare={"KL": prepare})
    assert seen == [("shallow", 60, 0)]


def test_fine_tuning_leaves_the_model_as_it_is():
    model = models.shallow((4, 4, 1), 8, "l1")
    before = model.get_weights()
    accuracy = evaluation.fine_tuned(model, (X, Y), (X, Y), epochs=2, batch_size=16)
    assert 0 <= accuracy <= 1
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def _hoyer(codes):
    root = codes.shape[1] ** 0.5
    on = codes[(codes != 0).any(axis=1)]
    ratio = np.abs(on).sum(axis=1) / np.linalg.norm(on, axis=1)
    return ((root - ratio) / (root - 1)).sum() / len(codes)


def test_what_is_fitted_is_of_the_training_data_and_what_is_told_of_the_test_data(
    tmp_path,
):
    """Test images are dimmer, and their labels are those of the next class."""
    rng, classes = np.random.default_rng(1), np.arange(120) % 3
    patterns = rng.random((3, 4, 4, 1))
    noise = rng.normal(0, 0.05, (2, 120, 4, 4, 1))
    x, x_test = (patterns[classes] + noise).clip(0, 1).astype("float32")
    x_test = x_test * 0.9
    train, test = (x, classes), (x_test, (classes + 1) % 3)
    builders = {
        "L1": lambda: models.shallow((4, 4, 1), 8, "l1", output_activation="linear"),
        "VAE": lambda: models.variational((4, 4, 1), 16, latent_dim=4),
    }
    table = evaluation.compare(
        builders, train, test, 20, batch_size=16, fine_tuning=40, directory=tmp_path
    ).set_index("model")
    # Each classifier knows the classes, and so never says the next one.
    learned = table.loc[["L1", "VAE", "PCA", "raw pixels", "random encoder"]]
    assert (learned[["probe_accuracy", "probe_accuracy_100"]] < 0.1).all(axis=None)
    assert (table["fine_tuned_accuracy"].dropna() < 0.1).all()
    assert table["fine_tuned_accuracy"].count() == 2

    model = keras.saving.load_model(tmp_path / f"{evaluation.run_name('L1', 0)}.keras")
    codes = model.encode(x_test)
    error = (model.decode(codes) - x_test) ** 2
    expected = {
        "hoyer": _hoyer(codes),
        "dead_fraction": (codes == 0).all(axis=0).mean(),
        "l0": (codes != 0).sum(axis=1).mean(),
        "mean_activation": codes.mean(),
        "reconstruction": error.mean(),
        "reconstruction_sum": error.sum() / 120,
    }
    for name, value in expected.items():
        assert table.loc["L1", name] == pytest.approx(value, rel=1e-5), name
    model = keras.saving.load_model(tmp_path / f"{evaluation.run_name('VAE', 0)}.keras")
    assert table.loc["VAE", "elbo"] == pytest.approx(model.elbo(x_test), rel=1e-5)

    rows, held = x.reshape(120, -1), x_test.reshape(120, -1)
    known = decomposition.PCA(8).fit(rows)
    found = known.inverse_transform(known.transform(held))
    of_pca = table.loc["PCA", "explained_variance"]
    assert of_pca == pytest.approx(metrics.explained_variance(held, found), rel=1e-4)


def test_the_contracts_call_has_every_column():
    table = evaluation.compare(_builders(), (X, Y), (X, Y), 1)
    assert table["fine_tuned_accuracy"].count() == 2  # of models, not of baselines


def test_figures_need_something_that_encodes():
    classifier = models.classifier(models.shallow((4, 4, 1), 8), 3)
    with pytest.raises(ValueError, match="`model` must be an autoencoder"):
        evaluation.evaluate(classifier, X)


def test_fine_tuning_learns():
    x = np.eye(6, dtype="float32")[np.arange(120) % 6]
    y = np.arange(120) % 3
    keras.utils.set_random_seed(0)
    model = models.shallow((6,), 16)
    assert evaluation.fine_tuned(model, (x, y), (x, y), 60, 10) == 1.0


def test_probes_on_few_labels_are_named_after_their_number():
    x = RNG.random((150, 6), dtype="float32")
    y = np.arange(150) % 3
    figures = evaluation.held_out(models.shallow((6,), 4), (x, y), (x, y))
    assert "probe_accuracy_100" in figures
    assert "probe_accuracy_1000" not in figures  # there are not so many


def test_few_keeps_the_classes_shares():
    chosen = evaluation.few(np.repeat([0, 1, 2], [60, 30, 10]), 10)
    counts = np.bincount(np.repeat([0, 1, 2], [60, 30, 10])[chosen])
    assert counts.tolist() == [6, 3, 1]


def test_a_code_with_a_target_reports_its_distance():
    model = models.shallow((4, 4, 1), 8, regularizers.KLDivergence(0.2))
    means = model.encode(X).mean(axis=0)
    found = evaluation.evaluate(model, X)["target_distance"]
    assert found == pytest.approx(np.abs(means - 0.2).mean(), rel=1e-5)
    assert "target_distance" not in evaluation.evaluate(
        models.shallow((4, 4, 1), 8, "l1"), X
    )


def test_summary_is_mean_and_spread_over_seeds():
    table = _compare(_builders(), 1, seeds=(0, 1))
    summary = evaluation.summarize(table).set_index("model")
    values = table[table["model"] == "L1"]["reconstruction"]
    assert summary.loc["L1", "reconstruction"] == pytest.approx(values.mean())
    spread = abs(values.iloc[0] - values.iloc[1]) / 2**0.5
    assert summary.loc["L1", "reconstruction_spread"] == pytest.approx(spread)


def test_a_sweep_has_a_row_a_factor_and_more_penalty_fewer_units():
    def build(factor):
        model = models.shallow((4, 4, 1), 8, regularizers.L1(factor))
        model.compile(keras.optimizers.Adam(0.01))
        return model

    factors = [0.0, 1.0]
    table = evaluation.sweep(build, factors, (X, None), (X, None), 10, batch_size=16)
    assert list(table["factor"]) == factors
    l0 = list(table["l0"])
    assert l0[1] < l0[0]


def test_weights_that_are_nearly_the_same_are_two_points():
    factors = [1e-3, 1e-3 + 1e-10]
    build = lambda f: models.shallow((4, 4, 1), 8, regularizers.L1(f))  # noqa: E731
    table = evaluation.sweep(build, factors, (X, None), (X, None), 1, batch_size=16)
    assert list(table["factor"]) == factors


@pytest.mark.parametrize("factors", [[], [1e-3], [1e-3, 1e-3], 1e-3, iter([1e-3])])
def test_a_sweep_of_one_point_is_refused(factors):
    with pytest.raises(ValueError, match="at least two different"):
        evaluation.sweep(lambda f: None, factors, (X, None), (X, None), 1)


def test_dictionary_learning_has_the_atoms_it_was_asked_for():
    model = evaluation.DictionaryLearning(8).fit(X)
    codes = model.encode(X)
    assert codes.shape == (60, 8)
    rows = codes @ model.learner.components_ + X.reshape(60, -1).mean(axis=0)
    np.testing.assert_allclose(model.decode(codes).reshape(60, -1), rows)
