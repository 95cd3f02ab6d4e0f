"""The transformer holds scikit-learn's contract, and its output is the code."""

import functools
import pickle
import random

import keras
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

from keras_sae import models, wrappers
from keras_sae.regularizers import L1
from keras_sae.wrappers import autoencoder

X = np.random.default_rng(0).random((40, 6))
Y = (X[:, 0] > X[:, 1]).astype(int)


def _small(**kwargs):
    return wrappers.SparseAutoencoder(
        **{"units": 3, "epochs": 1, "random_state": 0, **kwargs}
    )


class _Eager:
    """Makes models of which no step is traced: the checks fit a hundred, a step each.

    Its name is the same in every process of a test run, as a function's is not.
    """

    def __call__(self, input_shape, units, sparsity):
        model = models.shallow(input_shape, units, sparsity)
        model.compile = functools.partial(model.compile, run_eagerly=True)
        return model

    def __repr__(self):
        return "eager"


# All of scikit-learn's checks apply: none is expected to fail.
@parametrize_with_checks([_small(units=2, batch_size=256, factory=_Eager())])
def test_scikit_learns_contract(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def fitted():
    return _small().fit(X)


def test_the_output_is_the_code(fitted):
    model = fitted.model_
    layer = model.sparse_layers[0]
    kernel, bias = (keras.ops.convert_to_numpy(w) for w in (layer.kernel, layer.bias))
    mean = X.astype("float32").mean(axis=0)
    expected = np.maximum((X - mean) @ kernel + bias, 0)
    np.testing.assert_allclose(fitted.transform(X), expected, atol=1e-5)
    np.testing.assert_allclose(
        fitted.transform(X), model.encode(X.astype("float32")), atol=1e-6
    )


def test_back_to_the_input_and_the_score(fitted):
    rebuilt = fitted.inverse_transform(fitted.transform(X))
    np.testing.assert_allclose(
        rebuilt, fitted.model_.predict(X.astype("float32"), verbose=0), atol=1e-6
    )
    error = ((X - rebuilt) ** 2).sum() / ((X - X.mean(axis=0)) ** 2).sum()
    assert fitted.score(X) == pytest.approx(1 - error, abs=1e-5)


def test_more_samples_than_are_encoded_at_once(fitted, monkeypatch):
    whole = fitted.transform(X)
    monkeypatch.setattr(autoencoder, "_CHUNK", 7)
    np.testing.assert_allclose(fitted.transform(X), whole, atol=1e-6)


def test_names_of_the_features(fitted):
    assert list(fitted.get_feature_names_out()) == [
        "sparseautoencoder0",
        "sparseautoencoder1",
        "sparseautoencoder2",
    ]


def test_the_settings_reach_the_fit():
    optimizer = keras.optimizers.SGD(0.5, momentum=0.25)
    fitted = _small(
        sparsity=L1(0.125),
        epochs=2,
        batch_size=20,
        optimizer=optimizer,
        learning_rate=0.0625,
    ).fit(X)
    assert fitted.model_.sparse_layers[0].sparsity.regularizer.factor == 0.125
    assert len(fitted.history_["loss"]) == 2
    assert int(fitted.model_.optimizer.iterations) == 4
    assert float(fitted.model_.optimizer.learning_rate) == 0.0625
    assert fitted.model_.optimizer.momentum == 0.25
    assert fitted.model_.optimizer is not optimizer
    assert not optimizer.built


def test_another_family():
    deep = _small(units=(5, 2), factory=models.deep).fit(X)
    assert deep.transform(X).shape == (40, 2)
    assert len(deep.get_feature_names_out()) == 2


def test_the_same_seed_and_the_callers_generators():
    np.random.seed(3)
    random.seed(3)
    expected = np.random.random(), random.random()
    np.random.seed(3)
    random.seed(3)
    codes = [_small(random_state=5).fit(X).transform(X) for _ in range(2)]
    assert (np.random.random(), random.random()) == expected
    np.testing.assert_array_equal(*codes)
    other = _small(random_state=6).fit(X).transform(X)
    assert np.abs(other - codes[0]).max() > 1e-3


def test_pickling_keeps_the_codes(fitted):
    again = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_allclose(again.transform(X), fitted.transform(X), atol=1e-6)


def test_in_a_pipeline_and_a_grid_search():
    pipeline = make_pipeline(_small(factory=_Eager()), LogisticRegression())
    grid = {
        "sparseautoencoder__units": [2, 8],
        "sparseautoencoder__sparsity": [L1(1e-3)],
    }
    search = GridSearchCV(pipeline, grid, cv=2, error_score="raise").fit(X, Y)
    assert search.best_params_["sparseautoencoder__units"] in (2, 8)
    best = search.best_estimator_
    assert best[0].transform(X).shape == (40, best[0].units)
    assert best.predict(X).shape == (40,)


def test_a_grid_search_without_labels_goes_by_explained_variance():
    search = GridSearchCV(
        _small(factory=_Eager()), {"units": [1, 12]}, cv=2, error_score="raise"
    ).fit(X)
    scores = search.cv_results_["mean_test_score"]
    assert search.best_params_ == {"units": [1, 12][int(np.argmax(scores))]}
    rebuilt = search.inverse_transform(search.transform(X))
    error = ((X - rebuilt) ** 2).sum() / ((X - X.mean(axis=0)) ** 2).sum()
    assert search.score(X) == pytest.approx(1 - error, abs=1e-5)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"epochs": 0}, "`epochs` must be a positive integer"),
        ({"batch_size": 0}, "`batch_size` must be a positive integer"),
        ({"units": 0}, "positive integer"),
        ({"sparsity": "k1"}, "Did you mean"),
        ({"learning_rate": 0.0}, "`learning_rate` must be positive"),
    ],
)
def test_bad_settings_are_said_when_it_is_fitted(setting, message):
    with pytest.raises(ValueError, match=message):
        _small(**setting).fit(X)


def test_codes_of_another_width(fitted):
    with pytest.raises(ValueError, match="must be codes of 3 units"):
        fitted.inverse_transform(X)


def test_what_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Sparse'"):
        wrappers.Sparse  # noqa: B018
