"""How well a linear classifier reads the classes from a code."""

from typing import Any

import numpy as np


def probe(
    codes_train: Any,
    y_train: Any,
    codes_test: Any,
    y_test: Any,
    max_iter: int = 1000,
) -> float:
    """Accuracy of a linear classifier that sees only the codes.

    Multinomial logistic regression (scikit-learn, L2, `C = 1`) on codes scaled
    to unit variance, so that the strength of a code does not count.

    Args:
        codes_train: Shape `(samples, units)`.
        y_train: Integer labels of shape `(samples,)`.
        codes_test: As `codes_train`, held out.
        y_test: As `y_train`.
        max_iter: Most iterations of the solver.

    Returns:
        Share of the test samples that it labels correctly, in `[0, 1]`.

    Raises:
        ValueError: Codes and labels differ in number, there is one class only,
            or the codes are all zero.

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

    train, labels = _labelled("train", codes_train, y_train)
    test, expected = _labelled("test", codes_test, y_test)
    _check_two(labels)
    if train.shape[1] != test.shape[1]:
        raise ValueError(
            "`codes_train` and `codes_test` must be of the same units. Received: "
            f"{train.shape[1]} and {test.shape[1]} of them."
        )
    if not (train.any() and test.any()):
        name = "codes_test" if train.any() else "codes_train"
        raise ValueError(
            f"`{name}` are all zero: every unit is dead, and nothing can be "
            "read from them. Lower the penalty's factor, or train for longer."
        )
    classifier = make_pipeline(
        StandardScaler(), LogisticRegression(max_iter=max_iter, tol=1e-3)
    )
    return float(classifier.fit(train, labels).score(test, expected))


def _labelled(name: str, codes: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
    codes, y = np.asarray(codes, "float64"), np.asarray(y)
    if codes.ndim < 2:
        raise ValueError(
            f"`codes_{name}` must be (samples, units). Received: shape {codes.shape}."
        )
    _check_labels(name, y, len(codes))
    return codes.reshape(len(codes), -1), y


def check_classes(y_train: Any, samples_train: int, y_test: Any, samples: int) -> None:
    """Raises where labels cannot be learned, or asked for afterwards.

    Args:
        y_train: Labels to learn from.
        samples_train: How many there must be.
        y_test: Labels that are held out.
        samples: How many there must be of them.

    Raises:
        ValueError: Another number of labels, not class labels, one class only, or
            a class that is only held out.

    Example:

    >>> from keras_sae.evaluation import probing
    >>> probing.check_classes([0, 1, 1], 3, [1], 1)
    """
    y_train, y_test = np.asarray(y_train), np.asarray(y_test)
    _check_labels("train", y_train, samples_train)
    _check_labels("test", y_test, samples)
    _check_two(y_train)
    unknown = np.setdiff1d(y_test, y_train)
    if len(unknown):
        raise ValueError(
            "`y_test` must hold classes of `y_train`. Received: "
            f"{unknown[:5].tolist()}, which no training sample has."
        )


def _check_two(y: np.ndarray) -> None:
    if len(np.unique(y)) < 2:
        raise ValueError(
            "A probe tells classes apart, so `y_train` needs at least two. "
            f"Received: {len(y)} labels, all {y[0]!r}."
        )


def _check_labels(name: str, y: np.ndarray, samples: int) -> None:
    if y.ndim != 1 or len(y) != samples or not samples:
        raise ValueError(
            f"`y_{name}` must be one label for each sample. Received: "
            f"y_{name}.shape={y.shape} for {samples} samples."
        )
    if not (np.issubdtype(y.dtype, np.integer) or y.dtype.kind in "bUSO"):
        raise ValueError(
            f"`y_{name}` must hold class labels. Received: dtype={y.dtype}. Use "
            "integers, e.g. y.astype(int)."
        )
    try:
        np.unique(y)
    except TypeError as error:  # None beside numbers, say: nothing can order them
        names = ", ".join(sorted({type(label).__name__ for label in y.tolist()}))
        raise ValueError(
            f"`y_{name}` must hold labels of one kind. Received: {names}. Leave "
            "samples without a label out."
        ) from error


def few(y: Any, count: int, seed: int = 0) -> np.ndarray:
    """Chooses `count` samples with every class in its share.

    Args:
        y: Labels of shape `(samples,)`.
        count: How many to choose, fewer than there are.
        seed: Draws them.

    Returns:
        Indices of shape `(count,)`.

    Example:

    >>> import numpy as np
    >>> from keras_sae import evaluation
    >>> y = np.array([0, 1] * 10)
    >>> sorted(y[evaluation.few(y, 4)].tolist())
    [0, 0, 1, 1]
    """
    from sklearn.model_selection import train_test_split

    y = np.asarray(y)
    chosen, _ = train_test_split(
        np.arange(len(y)), train_size=count, stratify=y, random_state=seed
    )
    return chosen


def enough(y: Any, count: int) -> bool:
    """Whether `few` can choose `count` labels, with each class on both sides.

    Args:
        y: Labels of shape `(samples,)`.
        count: How many to choose.

    Example:

    >>> from keras_sae.evaluation import probing
    >>> probing.enough([0, 1] * 10, 4), probing.enough([0, 1] * 10, 19)
    (True, False)
    """
    classes = np.unique(np.asarray(y), return_counts=True)[1]
    return bool(classes.min() >= 2 and len(classes) <= count <= len(y) - len(classes))


def cross_probe(codes: Any, y: Any, seed: int = 0) -> float:
    """Mean accuracy of two probes, each tested on the half the other learned from.

    Args:
        codes: Shape `(samples, units)`.
        y: Integer labels of shape `(samples,)`.
        seed: Draws the halves, stratified by label.

    Returns:
        A float in `[0, 1]`.

    Raises:
        ValueError: A class has fewer than two samples, or as in `probe`.

    Example:

    >>> import numpy as np
    >>> from keras_sae import evaluation
    >>> evaluation.cross_probe(np.eye(2)[[0, 1] * 10], np.array([0, 1] * 10))
    1.0
    """
    from sklearn.model_selection import train_test_split

    codes, y = _labelled("test", codes, y)
    counts = np.unique(y, return_counts=True)[1]
    if len(counts) < 2 or counts.min() < 2:
        raise ValueError(
            "`y` must hold at least two classes, each at least twice: one half is "
            f"tested with what the other taught. Received: counts {counts.tolist()}."
        )
    a, b, y_a, y_b = train_test_split(
        codes, y, test_size=0.5, stratify=y, random_state=seed
    )
    return (probe(a, y_a, b, y_b) + probe(b, y_b, a, y_a)) / 2
