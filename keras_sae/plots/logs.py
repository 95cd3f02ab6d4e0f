"""Training logs, and labels for their metrics in plots and reports."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import keras
import numpy as np

Logs: TypeAlias = Mapping[str, Sequence[float]]
History: TypeAlias = keras.callbacks.History | Logs

LOGARITHMIC = 20  # an axis is logarithmic if the ratio of its limits exceeds this
# Labels of metrics, in the order of the panels. Other metrics are labeled by name.
_LABELS = {
    "loss": "total loss",
    "reconstruction_loss": "reconstruction loss",
    "reconstruction": "mean squared error per value",
    "explained_variance": "explained variance",
    "l0": "active units per sample (L0)",
    "effective_l0": "effective number of active units per sample",
    "expected_l0": "sum of activations per sample",
    "dead_units": "fraction of dead units",
    "sparsity_loss": "sparsity penalty",
    "kl_loss": "KL divergence from the prior",
    "auxiliary_loss": "auxiliary loss",
}


def metric_label(name: str) -> str:
    """Return the label of a metric."""
    return _LABELS.get(name, name.replace("_", " "))


def read_logs(history: History | Mapping[str, History]) -> dict[str, Logs]:
    """Return training logs by name. Logs without a name get the empty string."""
    given: Mapping[str, Any] = (
        history.history if isinstance(history, keras.callbacks.History) else history
    )
    named = {
        name: logs.history if isinstance(logs, keras.callbacks.History) else logs
        for name, logs in given.items()
    }
    if all(isinstance(logs, Mapping) for logs in named.values()):
        return named
    return {"": named}


def logged_metrics(histories: Iterable[Logs]) -> list[str]:
    """Return the names of all logged metrics, without `val_` and the learning rate."""
    names = {key.removeprefix("val_"): None for logs in histories for key in logs}
    names.pop("learning_rate", None)
    known = [name for name in _LABELS if name in names]
    return [*known, *(name for name in names if name not in _LABELS)]


def axis_limits(metric: str, histories: Iterable[Logs]) -> tuple[list[float], bool]:
    """Return the limits of the axis of a metric, and whether it is logarithmic.

    The limits ignore the first tenth of the epochs, because the first values are often
    many times larger than all others.
    """
    settled = [np.zeros(0)]
    for logs in histories:
        for key in (metric, f"val_{metric}"):
            values = np.asarray(logs.get(key, ()), "float64")
            first = math.ceil(len(values) / 10) if len(values) > 2 else 0
            settled.append(values[first:])
    values = np.concatenate(settled)
    values = values[np.isfinite(values)]
    low, high = (values.min(), values.max()) if values.size else (0.0, 1.0)
    if low > 0 and high > LOGARITHMIC * low:
        margin = (high / low) ** 0.05
        return [float(low / margin), float(high * margin)], True
    margin = 0.05 * ((high - low) or abs(high) or 1.0)
    return [float(low - margin), float(high + margin)], False
