"""One short test per module: what must work with every version that is admitted.

The continuous integration runs this file a second time with the lowest versions.
"""

import keras
import numpy as np
import pytest
from helpers import tensorflow_only

from keras_sae import (
    callbacks,
    datasets,
    evaluation,
    export,
    layers,
    metrics,
    models,
    plots,
    pretraining,
    regularizers,
    report,
    tuning,
    wrappers,
)

X = np.random.default_rng(0).random((32, 4, 4, 1), dtype="float32")


@pytest.fixture(scope="module")
def model():
    """A shallow model after two epochs, with two callbacks."""
    keras.utils.set_random_seed(0)
    model = models.shallow((4, 4, 1), 8, regularizers.L1(1e-3))
    model.compile("adam")
    watch = [callbacks.SparsityWarmup(1), callbacks.DeadUnits()]
    model.fit(X, epochs=2, validation_data=X, verbose=0, callbacks=watch)
    return model


def test_model_is_saved_and_loaded(model, tmp_path):
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.encode(X), model.encode(X))


@pytest.mark.parametrize(
    "make",
    [
        lambda: models.deep((4, 4, 1), (8, 4), layers.TopK(2), tied=True),
        lambda: models.convolutional((4, 4, 1), (4, 8), "kl"),
        lambda: models.variational((4, 4, 1), 8, latent_dim=2),
        lambda: models.shallow((4, 4, 1), 8, layers.Matryoshka(layers.BatchTopK(2))),
    ],
    ids=["deep", "convolutional", "variational", "matryoshka"],
)
def test_families_are_trained(make):
    model = make()
    model.compile("adam")
    history = model.fit(X, verbose=0).history
    assert np.isfinite(history["loss"]).all()


def test_classifier_is_trained(model):
    classifier = models.classifier(model, 2)
    classifier.compile("adam", "sparse_categorical_crossentropy")
    classifier.fit(X, np.arange(32) % 2, verbose=0)
    assert classifier.predict(X, verbose=0).shape == (32, 2)


def test_levels_are_pretrained():
    stack = models.stacked((4, 4, 1), (8, 4), "l1")
    assert len(pretraining.greedy(stack, X, 1, batch_size=16, verbose=0)) == 2
    binary = models.deep(
        (4, 4, 1), (8, 4), activation="sigmoid", code_activation="linear"
    )
    assert len(pretraining.boltzmann(binary, X, 1, batch_size=16, verbose=0)) == 2


def test_digits_are_prepared_and_loaded():
    (x, y), _ = datasets.load_data("digits")
    assert x.shape == (1437, 8, 8, 1)
    assert y.max() == 9
    task = datasets.superposition(8, 4, firing_probability=0.1)
    assert task.sample(3)[0].shape == (3, 4)


def test_models_are_compared(model):
    y = np.arange(32) % 2

    def build():
        copy = keras.models.clone_model(model)
        copy.compile("adam")
        return copy

    table = evaluation.compare({"L1": build}, (X, y), (X, y), 1, batch_size=16)
    assert "L1" in set(table["model"])
    assert metrics.l0(model.encode(X)) <= 8


@pytest.mark.slow
def test_settings_are_searched(tmp_path):
    hypermodel = tuning.SparsityHyperModel("shallow", input_shape=(4, 4, 1), units=4)
    tuner = tuning.search(hypermodel, X, X, 2, 1, directory=tmp_path)
    assert len(tuning.trials(tuner)) == 2


@tensorflow_only
def test_saved_model_is_written(model, tmp_path):
    path = export.export_saved_model(model, tmp_path / "sae")
    assert (path / "saved_model.pb").exists()


@tensorflow_only
def test_pictures_and_report_are_drawn(model, tmp_path):
    plots.filters(model).savefig(tmp_path / "filters.png")
    page = report.write_report(model, X, tmp_path / "report.html")
    assert page.stat().st_size > 1000


def test_transformer_follows_scikit_learn():
    rows = X.reshape(len(X), -1)
    transformer = wrappers.SparseAutoencoder(units=4, epochs=1)
    assert transformer.fit_transform(rows).shape == (32, 4)


@tensorflow_only
def test_command_line_trains(tmp_path):
    from typer.testing import CliRunner

    from keras_sae.cli.app import app

    output = str(tmp_path / "run")
    command = ["train", "--dataset", "digits", "--epochs", "1", "--output", output]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "run" / "table.csv").exists()
