"""Content of the report page: metrics, units and samples per model, and a table."""

import base64
import math
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse

from keras_sae import evaluation
from keras_sae.evaluation.evaluate import compact_codes
from keras_sae.models import Autoencoder
from keras_sae.types import ArrayLike, Codes

# Number of top samples, top classes and histogram bars per unit.
_TOP_SAMPLES, _TOP_CLASSES, _BINS = 8, 10, 24
# Maximum numbers of units on the page, and of dense code values in memory at once.
_MAX_UNITS, _VALUES = 1000, 2**24
# The page shows this many of the best reconstructions, and as many of the worst.
_EXTREMES = 8

# Name, format and description of each metric, in the order of the page.
METRICS = {
    "reconstruction": ("Squared error", ".5f", "mean per value"),
    "explained_variance": ("Explained variance", ".3f", "1 if there is no error"),
    "copying": ("Copying", ".3f", "explained variance on noise; 1 for the identity"),
    "copying_gap": ("Copying gap", ".3f", "explained variance minus copying"),
    "units": ("Units", ",.0f", "values in a code"),
    "l0": ("L0", ".1f", "active units per sample"),
    "effective_l0": ("Effective L0", ".1f", "effective number of active units"),
    "expected_l0": ("Expected L0", ".1f", "sum of activations per sample"),
    "dead_fraction": ("Dead units", ".1%", "zero for every sample"),
    "hoyer": ("Hoyer sparsity", ".3f", "0 if all units are equal, 1 if one is active"),
    "mean_activation": ("Mean activation", ".4f", "over all units and samples"),
    "target_distance": ("Distance to target", ".4f", "of the units' mean activations"),
    "probe_accuracy": ("Probe accuracy", ".1%", "of a linear classifier on the codes"),
    "probe_accuracy_100": ("Probe, 100", ".1%", "probe accuracy with 100 labels"),
    "probe_accuracy_1000": ("Probe, 1,000", ".1%", "probe accuracy with 1,000 labels"),
    "fine_tuned_accuracy": ("Fine-tuned", ".1%", "accuracy with a softmax layer"),
    "elbo": ("ELBO", ".1f", "evidence lower bound in nats per sample"),
    "reconstruction_sum": ("Summed error", ".3f", "squared error per sample"),
    "parameters": ("Parameters", ",.0f", "learned parameters"),
    "seconds": ("Seconds", ".1f", "training time"),
}
# The probes in the comparison table are fitted to the training data. A `ModelSection`
# has no training data, so its probe needs another description.
_PROBE_OF_MODEL = (
    "of a linear classifier on the codes, trained on half of these samples and tested "
    "on the other half"
)


class ModelSection:
    """The metrics, units and samples of one model.

    Attributes:
        samples: Indices of the samples whose code and reconstruction are shown.
        samples_with_image: Indices of all samples that the page shows.
        shown: Indices of the units that the page shows: all, or those with the largest
            mean magnitude.
    """

    def __init__(
        self, model: Autoencoder, x: np.ndarray, y: np.ndarray | None, samples: int
    ) -> None:
        self.model = model
        codes = compact_codes(model, x)
        reconstructions = model.decode(codes)
        gaps = model.reconstruction_target(x) - reconstructions
        errors = (gaps**2).reshape(len(x), -1).mean(axis=1)
        order = np.argsort(errors, kind="stable")
        self.best, self.worst = order[:_EXTREMES], order[::-1][:_EXTREMES]
        spread = np.linspace(0, len(x) - 1, min(samples, len(x))).astype(int)
        self.samples = np.unique([*self.best, *self.worst, *spread])
        self.errors = errors[self.samples]
        self.reconstructions = reconstructions[self.samples]
        peaks = unit_peaks(codes, model.decoder.input_shape[-1])
        means = abs(peaks).mean(axis=0)
        self.shown = np.sort(np.argsort(-means, kind="stable")[:_MAX_UNITS])
        self.total = len(means)
        self.active = np.asarray((peaks[self.samples] != 0).sum(axis=1))
        peaks = peaks[:, self.shown]
        self.codes = _dense(peaks[self.samples]).astype("<f4")
        columns = peaks if isinstance(peaks, np.ndarray) else peaks.tocsc()
        step = max(1, _VALUES // len(x))
        parts = [
            unit_statistics(_dense(columns[:, begin : begin + step]), y)
            for begin in range(0, len(self.shown), step)
        ]
        self.units = {
            name: np.concatenate([part[name] for part in parts]) for name in parts[0]
        }
        self.samples_with_image = np.union1d(self.samples, self.units["top"])
        # A probe needs at least one non-zero activation and two classes.
        can_probe = y is not None and abs(codes).max() > 0 and len(np.unique(y)) > 1
        labels = y if can_probe else None
        self.metrics = evaluation.evaluate(model, x, labels, codes=codes)

    def to_json(self) -> dict[str, Any]:
        """Return the section as JSON-compatible values."""
        cards = [
            {
                "key": key,
                "name": name,
                "text": _text(key, self.metrics[key]),
                "description": _PROBE_OF_MODEL if key == "probe_accuracy" else text,
            }
            for key, (name, _, text) in METRICS.items()
            if key in self.metrics
        ]
        return {
            "total": self.total,
            "shown": self.shown.tolist(),
            "metrics": cards,
            "units": {name: to_json(values) for name, values in self.units.items()},
            "samples": self.samples.tolist(),
            "errors": to_json(self.errors),
            "active": self.active.tolist(),
            "best": self.best.tolist(),
            "worst": self.worst.tolist(),
            "codes": base64.b64encode(self.codes.tobytes()).decode("ascii"),
        }


def unit_peaks(codes: Codes, units: int) -> Codes:
    """Return each unit's largest activation over all positions, per sample."""
    samples, width = codes.shape[0], math.prod(codes.shape[1:])
    if width == units:
        return codes
    step = max(1, _VALUES // width)
    blocks = [
        _dense(codes[begin : begin + step]).reshape(-1, width // units, units)
        for begin in range(0, samples, step)
    ]
    return sparse.vstack([sparse.csr_array(b.max(axis=1)) for b in blocks], "csr")


def _dense(codes: Codes) -> np.ndarray:
    return codes if isinstance(codes, np.ndarray) else codes.toarray()


def unit_statistics(codes: np.ndarray, y: np.ndarray | None) -> dict[str, np.ndarray]:
    """Return statistics over all samples, as arrays with one row per unit.

    `rate` is the fraction of samples for which the unit is not zero. `mean` and `peak`
    are the mean and the maximum of its magnitude. `low`, `high` and `counts` describe a
    histogram of the non-zero activations. `top` and `top_values` are the indices and
    activations of the samples that activate the unit most. With labels, `classes` are
    the indices of the classes with the largest mean magnitudes. `shares` are these
    means, divided by the sum over all classes.
    """
    magnitude = np.abs(codes)
    low, high = np.minimum(codes.min(axis=0), 0.0), np.maximum(codes.max(axis=0), 0.0)
    high = np.where(high > low, high, low + 1.0)
    histograms = [
        np.histogram(unit[unit != 0], _BINS, bounds)[0]
        for unit, bounds in zip(codes.T, np.stack([low, high], axis=1), strict=True)
    ]
    top = np.argsort(-magnitude, axis=0, kind="stable")[:_TOP_SAMPLES]
    statistics = {
        "rate": (codes != 0).mean(axis=0),
        "mean": magnitude.mean(axis=0, dtype="float64"),
        "peak": magnitude.max(axis=0),
        "low": low,
        "high": high,
        "counts": np.stack(histograms),
        "top": top.T,
        "top_values": np.take_along_axis(codes, top, axis=0).T,
    }
    if y is not None:
        means = np.stack([magnitude[y == c].mean(axis=0) for c in np.unique(y)])
        shares = means / np.maximum(means.sum(axis=0), np.finfo("float32").tiny)
        order = np.argsort(-shares, axis=0, kind="stable")[:_TOP_CLASSES]
        statistics["classes"] = order.T
        statistics["shares"] = np.take_along_axis(shares, order, axis=0).T
    return statistics


def comparison_table(table: pd.DataFrame) -> dict[str, list]:
    """Return the headings and rows of the model table, averaged over random seeds.

    A heading is a pair `(name, description)`. A cell is a pair `(value, text)`. The
    page sorts rows by `value`, which is None for a missing metric.
    """
    if "model" not in table.columns:
        raise ValueError(
            "`table` must have the column 'model', as in the result of "
            "`keras_sae.evaluation.compare`. Received columns: "
            f"{', '.join(map(str, table.columns))}."
        )
    means = evaluation.summarize(table) if "seed" in table.columns else table
    keys = [key for key in METRICS if key in means.columns]
    rows = []
    for row in means.to_dict("records"):
        cells: list[tuple[Any, str]] = [(row["model"], str(row["model"]))]
        for key in keys:
            text, deviation = _text(key, row[key]), row.get(f"{key}_std", np.nan)
            if not np.isnan(deviation):
                text += f" \N{PLUS-MINUS SIGN} {_text(key, deviation)}"
            is_missing = np.isnan(row[key])
            cells.append((None, "") if is_missing else (float(row[key]), text))
        rows.append(cells)
    headings = [("Model", ""), *((METRICS[key][0], METRICS[key][2]) for key in keys)]
    return {"headings": headings, "rows": rows}


def to_json(values: ArrayLike) -> Any:
    """Return an array as nested lists that JSON can represent.

    Floats are rounded to six significant digits. NaN and infinity become None.
    """
    values = np.asarray(values)
    if values.ndim:
        return [to_json(value) for value in values]
    if values.dtype.kind in "iu":
        return int(values)
    return float(f"{values:.6g}") if np.isfinite(values) else None


def _text(key: str, value: float) -> str:
    return "undefined" if np.isnan(value) else format(value, METRICS[key][1])
