"""A linear classifier on the best few features of a code."""

from typing import Any

import numpy as np
from scipy import sparse

from keras_sae.evaluation.probing import probe
from keras_sae.types import ArrayLike, CodesLike
from keras_sae.utils.validation import positive_integer


def sparse_probe(
    codes_train: CodesLike,
    y_train: ArrayLike,
    codes_test: CodesLike,
    y_test: ArrayLike,
    k: int,
    *,
    activations_train: ArrayLike | None = None,
    activations_test: ArrayLike | None = None,
) -> dict[str, Any]:
    """Return the accuracy of a linear classifier on the `k` best features.

    The `k` features with the largest F-statistic on the training data are selected. The
    F-statistic is the ratio of the variance between classes to the variance within
    classes. The classifier is the one that `keras_sae.evaluation.probe` uses.

    A high accuracy shows that a few features separate these classes. It does not show
    that each feature has a single meaning, that the model uses the features, or that
    the dictionary contains other concepts. Compare the result with a dense probe on the
    layer itself, which is usually more accurate. If a single input value separates the
    classes, even an untrained dictionary can reach a high accuracy.

    Args:
        codes_train: Codes of the training data, shape `(samples, units)`, as an array
            or a SciPy sparse matrix.
        y_train: Class labels of shape `(samples,)`.
        codes_test: Codes of the test data, in the same form.
        y_test: Class labels of the test data.
        k: Number of features.
        activations_train: None, or the encoded layer's outputs of shape
            `(samples, width)`, for a dense probe.
        activations_test: The layer's outputs for the test data, in the same form.

    Returns:
        A dict with the keys `accuracy` and `units`. `units` lists the selected
        features, with the best one first. If activations are given, the dict also
        contains `dense_accuracy`, the accuracy of a probe on all values of the layer.

    Raises:
        ValueError: `k` is not positive or exceeds the number of units, only one of
            `activations_train` and `activations_test` is given, or codes and labels do
            not match.

    Reference:
        [Gurnee et al., Finding neurons in a haystack,
        2023](https://arxiv.org/abs/2305.01610)

    Example:

    >>> import numpy as np
    >>> from keras_sae import evaluation
    >>> y = np.arange(20) % 2
    >>> codes = np.stack([np.arange(20) % 3, y], axis=1)
    >>> evaluation.sparse_probe(codes, y, codes, y, k=1)
    {'accuracy': 1.0, 'units': [1]}
    """
    from sklearn.feature_selection import f_classif
    from sklearn.utils.sparsefuncs import min_max_axis

    train, test = (
        sparse.csr_array(codes) if sparse.issparse(codes) else np.asarray(codes)
        for codes in (codes_train, codes_test)
    )
    units = train.shape[-1]
    if positive_integer("k", k) > units:
        raise ValueError(
            f"`k` must not exceed the number of units. Received: k={k}, units={units}."
        )
    if (activations_train is None) != (activations_test is None):
        raise ValueError(
            "`activations_train` and `activations_test` must be given together. "
            "Received: only one of them."
        )
    if sparse.issparse(train):
        lowest, highest = min_max_axis(train, axis=0)
        varies = lowest < highest
    else:
        varies = train.std(axis=0) > 0
    scores = np.full(units, -np.inf)
    with np.errstate(divide="ignore"):  # for units that are constant in each class
        scores[varies] = f_classif(train[:, varies], np.asarray(y_train))[0]
    best = np.argsort(-scores, kind="stable")[:k]
    accuracy = probe(train[:, best], y_train, test[:, best], y_test)
    result: dict[str, Any] = {"accuracy": accuracy, "units": best.tolist()}
    if activations_train is not None and activations_test is not None:
        arrays = np.asarray(activations_train), np.asarray(activations_test)
        result["dense_accuracy"] = probe(arrays[0], y_train, arrays[1], y_test)
    return result
