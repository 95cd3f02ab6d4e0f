"""What a model learns of its data before training."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from keras_sae.layers import Centering, Scaling
from keras_sae.models.levels import flatten
from keras_sae.utils import validation as checks

# What may stand between the last kernel and the data that its bias is the centre of.
_BEHIND = (Scaling, keras.layers.Cropping2D, keras.layers.Reshape)


def mean(rows: np.ndarray) -> np.ndarray:
    """Returns the mean of the rows."""
    return rows.mean(axis=0)


def geometric_median(rows: np.ndarray, steps: int = 100) -> np.ndarray:
    """Returns the point with the least sum of distances to the rows (Weiszfeld)."""
    point = rows.mean(axis=0)
    for _ in range(steps):
        distance = np.linalg.norm(rows - point, axis=1)
        weight = 1 / np.maximum(distance, 1e-12)
        moved = (weight[:, None] * rows).sum(axis=0) / weight.sum()
        if np.linalg.norm(moved - point) <= 1e-7 * np.linalg.norm(moved):
            return moved
        point = moved
    return point


LOCATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "mean": mean,
    "geometric_median": geometric_median,
}


def adapt(model: Any, x: Any, location: str) -> None:
    """Sets centring, scaling and the output's bias of `model` from the data `x`."""
    center = LOCATIONS[checks.known_name("location", location, LOCATIONS)]
    rows = np.asarray(x, "float64").reshape(len(x), -1)
    point = center(rows)
    centered = rows
    layers = [x for x in flatten(model.encoder) if isinstance(x, Centering)]
    means = [_of_width(point, layer.mean.shape[0]) for layer in layers]
    for mean in means:
        centered = rows.reshape(-1, len(mean)) - mean
    rms = np.sqrt(np.mean(centered**2))
    scalings = scaling_layers(model)
    if scalings and rms == 0:
        raise ValueError(
            "`x` does not vary, so it has no scale. Received: samples that are all "
            "the same. Adapt to the training data, or build with scaling=False."
        )
    for layer, mean in zip(layers, means, strict=True):
        layer.mean.assign(mean)
        # Places, as in training, which may go on with a mean and with nothing else.
        of_mean = center is LOCATIONS["mean"]
        layer.count.assign(rows.size // len(mean) if of_mean else np.inf)
    for layer in scalings:
        layer.rms.assign(rms)
    bias = _output_bias(model)
    if bias is not None:
        at = _of_width(point, bias.shape[0])
        bias.assign(at / rms if scalings else at)


def _of_width(point: np.ndarray, width: int) -> np.ndarray:
    """A mean of each value becomes one of each channel, where a layer has those."""
    return point.reshape(-1, width).mean(axis=0)


def _output_bias(model: Any) -> Any:
    """The bias in which a linear decoder holds the centre of the data."""
    layers = flatten(model.decoder)
    behind = []
    while layers and not hasattr(layers[-1], "kernel"):
        behind.append(layers.pop())
    last = layers[-1] if layers else None
    linear = getattr(last, "activation", None) is keras.activations.linear
    linear = linear and all(isinstance(x, _BEHIND) for x in behind)
    # A dense layer has one a value, a convolution one a channel.
    widths = (int(np.prod(model.sample_shape)), model.sample_shape[-1])
    bias = getattr(last, "bias", None)
    fits = linear and bias is not None and bias.shape[0] in widths
    return bias if fits else None


def scaling_layers(model: Any) -> list[Scaling]:
    """Returns the layers whose scale `adapt` sets."""
    parts = [model.encoder, getattr(model, "decoder", None)]  # a classifier has one
    both = [layer for part in parts if part is not None for layer in flatten(part)]
    return [x for x in both if isinstance(x, Scaling)]
