"""The scikit-learn transformer: scikit-learn's own checks, and what it computes."""

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

from keras_sae import metrics, models, wrappers
from keras_sae.layers import TopK
from keras_sae.regularizers import L1
from keras_sae.wrappers import sklearn as wrapper_module

X = np.random.default_rng(0).random((40, 6))
Y = (X[:, 0] > X[:, 1]).astype(int)


class EagerFactory:
    """Makes models that run eagerly: tracing would take longer than their one step.

    pytest-xdist needs test names that are equal in all processes. The `repr` of a
    function is not.
    """

    def __call__(self, input_shape, units, sparsity):
        model = models.shallow(input_shape, units, sparsity)
        model.compile = functools.partial(model.compile, run_eagerly=True)
        return model

    def __repr__(self):
        return "eager"


def small(**kwargs):
    return wrappers.SparseAutoencoder(
        **{"units": 3, "epochs": 1, "random_state": 0, **kwargs}
    )


def eager(**kwargs):
    return small(factory=EagerFactory(), **kwargs)


# All of scikit-learn's checks apply: none is expected to fail.
@parametrize_with_checks([eager(units=2, batch_size=256)])
def test_scikit_learn_checks(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def fitted():
    return small().fit(X)


def test_transform_returns_the_code(fitted):
    layer = fitted.model_.sparse_layers[0]
    kernel, bias = (keras.ops.convert_to_numpy(w) for w in (layer.kernel, layer.bias))
    mean = X.astype("float32").mean(axis=0)
    expected = np.maximum((X - mean) @ kernel + bias, 0)
    np.testing.assert_allclose(fitted.transform(X), expected, atol=1e-5)


def test_inverse_transform_returns_the_reconstruction_and_score_rates_it(fitted):
    reconstruction = fitted.inverse_transform(fitted.transform(X))
    expected = fitted.model_.predict(X.astype("float32"), verbose=0)
    np.testing.assert_allclose(reconstruction, expected, atol=1e-6)
    error = ((X - reconstruction) ** 2).sum() / ((X - X.mean(axis=0)) ** 2).sum()
    assert fitted.score(X) == pytest.approx(1 - error, abs=1e-5)


def test_transform_works_in_batches(fitted, monkeypatch):
    codes = fitted.transform(X)
    monkeypatch.setattr(wrapper_module, "_BATCH_SIZE", 7)
    np.testing.assert_allclose(fitted.transform(X), codes, atol=1e-6)


def test_feature_names_are_numbered(fitted):
    names = [f"sparseautoencoder{unit}" for unit in range(3)]
    assert list(fitted.get_feature_names_out()) == names


def test_settings_reach_the_fit():
    optimizer = keras.optimizers.SGD(0.5, momentum=0.25)
    transformer = eager(
        sparsity=L1(0.125),
        epochs=2,
        batch_size=20,
        optimizer=optimizer,
        learning_rate=0.0625,
    ).fit(X)
    model = transformer.model_
    assert model.sparse_layers[0].sparsity.regularizer.factor == 0.125
    assert len(transformer.history_["loss"]) == 2
    assert int(model.optimizer.iterations) == 4
    assert float(model.optimizer.learning_rate) == 0.0625
    assert model.optimizer.momentum == 0.25
    assert model.optimizer is not optimizer
    assert not optimizer.built


def test_factory_makes_deep_models():
    deep = small(units=(5, 2), factory=models.deep).fit(X)
    assert deep.transform(X).shape == (40, 2)
    assert len(deep.get_feature_names_out()) == 2


def test_random_state_makes_fits_equal_and_spares_the_global_generators():
    np.random.seed(3)
    random.seed(3)
    expected = np.random.random(), random.random()
    np.random.seed(3)
    random.seed(3)
    codes = [eager(random_state=5).fit_transform(X) for _ in range(2)]
    assert (np.random.random(), random.random()) == expected
    np.testing.assert_array_equal(*codes)
    other = eager(random_state=6).fit_transform(X)
    assert np.abs(other - codes[0]).max() > 1e-3


def test_pickling_keeps_the_codes(fitted):
    loaded = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_allclose(loaded.transform(X), fitted.transform(X), atol=1e-6)


def test_grid_search_over_a_pipeline():
    pipeline = make_pipeline(eager(), LogisticRegression())
    grid = {
        "sparseautoencoder__units": [2, 8],
        "sparseautoencoder__sparsity": [L1(1e-3)],
    }
    search = GridSearchCV(pipeline, grid, cv=2, error_score="raise").fit(X, Y)
    assert search.best_params_["sparseautoencoder__units"] in (2, 8)
    best = search.best_estimator_
    assert best[0].transform(X).shape == (40, best[0].units)
    assert best.predict(X).shape == (40,)


def test_grid_search_without_labels_selects_by_explained_variance():
    grid = {"units": [1, 12]}
    search = GridSearchCV(eager(), grid, cv=2, error_score="raise").fit(X)
    scores = search.cv_results_["mean_test_score"]
    assert search.best_params_ == {"units": [1, 12][int(np.argmax(scores))]}
    reconstruction = search.inverse_transform(search.transform(X))
    expected = metrics.explained_variance(X, reconstruction)
    assert search.score(X) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"epochs": 0}, "`epochs` must be a positive integer"),
        ({"batch_size": 0}, "`batch_size` must be a positive integer"),
        ({"units": 0}, "positive integer"),
        ({"sparsity": "k1"}, "Did you mean"),
        ({"learning_rate": 0.0}, "`learning_rate` must be a finite number > 0"),
    ],
)
def test_fit_rejects_bad_settings(setting, message):
    with pytest.raises(ValueError, match=message):
        small(**setting).fit(X)


def test_inverse_transform_rejects_codes_of_another_width(fitted):
    with pytest.raises(ValueError, match="must contain codes with 3 units"):
        fitted.inverse_transform(X)


def test_sparse_output_is_transformed_back():
    wide = small(units=50, sparsity=TopK(2), sparse_output=True).fit(X)
    codes = wide.transform(X)
    assert codes.nnz == 2 * len(X)
    np.testing.assert_allclose(codes.toarray(), wide.model_.encode(X), rtol=1e-5)
    reconstruction = wide.inverse_transform(codes)
    np.testing.assert_allclose(
        reconstruction, wide.inverse_transform(codes.toarray()), rtol=1e-4, atol=1e-5
    )
    expected = metrics.explained_variance(X, reconstruction)
    assert wide.score(X) == pytest.approx(expected, abs=1e-5)
    with pytest.raises(ValueError, match="50 units"):
        wide.inverse_transform(codes[:, :7])
