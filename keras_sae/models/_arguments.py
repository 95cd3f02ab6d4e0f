"""What `fit` and `evaluate` take beside the data: by name, and weights of samples."""

import inspect
from typing import Any

import keras
import numpy as np

from keras_sae.models import validation

FIT = inspect.signature(keras.Model.fit)
EVALUATE = inspect.signature(keras.Model.evaluate)


def by_name(
    signature: inspect.Signature, args: tuple, kwargs: dict[str, Any]
) -> dict[str, Any]:
    """Returns the arguments of a Keras method that follow `batch_size`, by name.

    Args:
        signature: `FIT` or `EVALUATE`: of `self`, `x`, `y`, `batch_size` and what
            follows.
        args: What follows by position.
        kwargs: What follows by name.

    Raises:
        TypeError: As a call would.
    """
    given = signature.bind(None, None, None, None, *args, **kwargs).arguments
    named = dict(list(given.items())[4:])
    return named.pop("kwargs", {}) | named


def weighed(x: Any, y: Any, sample_weight: Any) -> tuple[Any, Any]:
    """Returns the target, `x` itself where weights need one, and the weights.

    Keras drops the weights of data without a target, and says nothing. Weights of
    shape `(samples, 1)` are returned as `(samples,)`: a step that Keras has traced
    for the one cannot take the other.

    Args:
        x: As given to `fit` or `evaluate`.
        y: Its target, or None.
        sample_weight: None, or a weight a sample; or one for every value of the loss,
            as the target without its last axis.

    Raises:
        ValueError: The weights are not finite, or of another shape.
    """
    if sample_weight is None or not hasattr(x, "shape"):
        return y, sample_weight
    if isinstance(sample_weight, (list, tuple)):
        raise ValueError(
            "`sample_weight` must be one array. Received: a "
            f"{type(sample_weight).__name__}. Use `numpy.asarray(sample_weight)`."
        )
    weights = validation.as_numpy(sample_weight)
    if not _weighs(weights.shape, tuple(x.shape)) or weights.dtype.kind in "OUS":
        raise ValueError(
            "`sample_weight` must hold one number for each sample. Received: shape "
            f"{weights.shape} of {weights.dtype} for {x.shape[0]} samples. Expected "
            f"shape {tuple(x.shape[:1])}, or one that goes with {tuple(x.shape[:-1])}."
        )
    if not np.isfinite(weights).all():
        raise ValueError(
            "`sample_weight` must be finite. Received: weights with NaN or infinity. "
            "A weight of 0 leaves a sample out."
        )
    if weights.shape == (x.shape[0], 1):
        sample_weight = weights[:, 0]
    return (x if y is None else y), sample_weight


def _weighs(weights: tuple[int, ...], x: tuple[int, ...]) -> bool:
    """Whether weights go with the loss of `x`, which has no last axis any more."""
    if weights in (x[:1], (x[0], 1)):
        return True
    places = weights[:-1] if len(weights) == len(x) and weights[-1] == 1 else weights
    return len(places) == len(x) - 1 and all(
        a in (1, b) and (i or a == b)
        for i, (a, b) in enumerate(zip(places, x, strict=False))
    )
