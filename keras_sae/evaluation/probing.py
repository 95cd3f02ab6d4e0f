"""Classifiers that are trained on codes."""

import numpy as np
from scipy import sparse

from keras_sae import models
from keras_sae.types import ArrayLike, Codes, CodesLike, LabeledData


def probe(
    codes_train: CodesLike,
    y_train: ArrayLike,
    codes_test: CodesLike,
    y_test: ArrayLike,
) -> float:
    """Return the accuracy of a linear classifier on codes.

    The classifier is scikit-learn's multinomial logistic regression with an L2 penalty
    and `C = 1`. Each unit is first scaled to unit variance, so the scale of the units
    does not matter. A high accuracy means that the features separate the classes
    linearly.

    Args:
        codes_train: Codes of the training data, shape `(samples, units)`, as an array
            or a SciPy sparse matrix.
        y_train: Class labels of shape `(samples,)`.
        codes_test: Codes of the test data, in the same form.
        y_test: Class labels of the test data.

    Returns:
        Fraction of test samples that are classified correctly, in `[0, 1]`.

    Raises:
        ValueError: The numbers of codes and labels differ, `y_train` has only one
            class, or all training or test codes are zero.

    Reference:
        [Alain & Bengio, "Understanding intermediate layers using linear classifier
        probes", 2016](https://arxiv.org/abs/1610.01644).

    Example:

    >>> import numpy as np
    >>> from keras_sae import evaluation
    >>> codes, y = np.eye(2)[[0, 1] * 10], np.array([0, 1] * 10)
    >>> evaluation.probe(codes, y, codes, y)
    1.0
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    train, labels = _labeled_codes("train", codes_train, y_train)
    test, expected = _labeled_codes("test", codes_test, y_test)
    for name, codes in {"codes_train": train, "codes_test": test}.items():
        if not abs(codes).max():
            raise ValueError(
                f"`{name}` must not be all zero. Received: {codes.shape[0]} codes with "
                f"{codes.shape[1]} units, all of them dead. Lower the penalty's "
                "factor, or train for more epochs."
            )
    regression = LogisticRegression(max_iter=1000, tol=1e-3)
    # The regression has an intercept, so centering does not change the result.
    is_sparse = sparse.issparse(train) or sparse.issparse(test)
    scaler = StandardScaler(with_mean=not is_sparse)
    classifier = make_pipeline(scaler, regression).fit(train, labels)
    return float(classifier.score(test, expected))


def two_fold_probe(codes: Codes, y: ArrayLike, seed: int) -> float:
    """Estimate the accuracy of `probe` by stratified two-fold cross-validation.

    The result is NaN if there is only one class, or if all codes in a half are zero.
    """
    from sklearn.model_selection import train_test_split

    codes, y = _labeled_codes("test", codes, y)
    if not abs(codes).max() or len(np.unique(y)) < 2:
        return float("nan")
    split = {"test_size": 0.5, "stratify": y, "random_state": seed}
    a, b, y_a, y_b = train_test_split(codes, y, **split)
    if not (abs(a).max() and abs(b).max()):
        return float("nan")
    return (probe(a, y_a, b, y_b) + probe(b, y_b, a, y_a)) / 2


def subset_probes(
    codes_train: Codes,
    y_train: ArrayLike,
    codes_test: Codes,
    y_test: ArrayLike,
    seed: int,
) -> dict[str, float]:
    """Return the accuracies of probes fitted to all, 100 and 1,000 training samples.

    The subsets are stratified. A subset that cannot be stratified is left out. An
    accuracy is NaN if all training or test codes are zero, or if the training labels
    have only one class.
    """
    from sklearn.model_selection import train_test_split

    y_train = np.asarray(y_train)
    every = np.arange(len(y_train))
    subsets = {"probe_accuracy": every}
    counts = np.unique(y_train, return_counts=True)[1]
    for size in (100, 1000):
        # Both parts of a stratified split need at least one sample per class.
        if len(counts) <= size <= len(y_train) - len(counts) and counts.min() >= 2:
            split = {"train_size": size, "stratify": y_train, "random_state": seed}
            subsets[f"probe_accuracy_{size}"], _ = train_test_split(every, **split)
    result = dict.fromkeys(subsets, float("nan"))
    for name, rows in subsets.items():
        codes, labels = codes_train[rows], y_train[rows]
        active = abs(codes).max() and abs(codes_test).max()
        if active and len(np.unique(labels)) > 1:
            result[name] = probe(codes, labels, codes_test, y_test)
    return result


def fine_tuned_accuracy(
    model: models.Autoencoder,
    train: LabeledData,
    test: LabeledData,
    epochs: int,
    batch_size: int,
) -> float:
    """Return the encoder's test accuracy after fine-tuning with a softmax layer."""
    check_classes(train, test)
    classes, labels = np.unique(np.asarray(train[1]), return_inverse=True)
    labels_test = np.searchsorted(classes, np.asarray(test[1]))
    classifier = models.classifier(model, len(classes))
    loss, steps = "sparse_categorical_crossentropy", model.steps_per_execution
    classifier.compile("adam", loss, metrics=["accuracy"], steps_per_execution=steps)
    classifier.fit(train[0], labels, epochs=epochs, batch_size=batch_size, verbose=0)
    result = classifier.evaluate(test[0], labels_test, verbose=0, return_dict=True)
    return float(result["accuracy"])


def check_classes(train: LabeledData, test: LabeledData) -> None:
    """Check that a classifier can be trained on `train` and tested on `test`."""
    y_train, y_test = np.asarray(train[1]), np.asarray(test[1])
    _check_labels("train", y_train, np.shape(train[0])[0])
    _check_labels("test", y_test, np.shape(test[0])[0])
    unknown = np.setdiff1d(y_test, y_train)
    if len(unknown):
        raise ValueError(
            "`y_test` must contain only classes of `y_train`. Received: "
            f"{unknown[:5].tolist()}, which `y_train` does not contain."
        )


def _labeled_codes(
    name: str, codes: CodesLike, y: ArrayLike
) -> tuple[Codes, np.ndarray]:
    y = np.asarray(y)
    values: Codes = codes if sparse.issparse(codes) else np.asarray(codes, "float64")
    if values.ndim < 2:
        raise ValueError(
            f"`codes_{name}` must have shape (samples, units). Received: "
            f"codes_{name}.shape={values.shape}."
        )
    _check_labels(name, y, values.shape[0])
    if sparse.issparse(values):
        return sparse.csr_array(values, dtype="float64"), y
    return values.reshape(len(values), -1), y


def _check_labels(name: str, y: np.ndarray, samples: int) -> None:
    if y.ndim != 1 or len(y) != samples or not samples:
        raise ValueError(
            f"`y_{name}` must have one label per sample, and at least one. Received: "
            f"y_{name}.shape={y.shape} for {samples} samples."
        )
    if y.dtype.kind not in "biuUSO":
        raise ValueError(
            f"`y_{name}` must contain class labels. Received: dtype={y.dtype}. Convert "
            "the labels to integers, for example with y.astype(int)."
        )
    try:
        classes = np.unique(y)
    except TypeError as error:  # for example, None cannot be compared with 1
        raise ValueError(
            f"`y_{name}` must contain labels of one type. Received: labels that cannot "
            f"be sorted ({error}). Convert them, or remove samples without a label."
        ) from error
    if name == "train" and len(classes) < 2:
        raise ValueError(
            "`y_train` must have at least two classes. "
            f"Received: {len(y)} labels, all equal to {y[0]!r}."
        )
