"""What the page shows, computed: numbers as JSON, pictures as sheets."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_sae import evaluation
from keras_sae.report import _pictures, _units
from keras_sae.report._figures import cards
from keras_sae.utils import validation as checks

# Samples shown among the best and among the worst rebuilt.
_EXTREMES = 8


@dataclass(frozen=True)
class Contents:
    """The page's data.

    Args:
        payload: JSON values: inputs, classes, and a dict a model.
        sheets: Pictures by the name of their CSS class.
        panels: Names of the learning curves.
        summary: One line on the data.
    """

    payload: dict[str, Any]
    sheets: dict[str, _pictures.Sheet]
    panels: list[str]
    summary: str


@dataclass(frozen=True)
class Data:
    """Samples, and the number of each one's class where there are labels."""

    x: np.ndarray
    labels: np.ndarray | None
    classes: list[str]
    y: np.ndarray | None


def gather(
    models: Mapping[str, Any], data: Any, history: Any, samples: int
) -> Contents:
    """Computes all that the page shows of some models and data."""
    if not models:
        raise ValueError("`model` holds no model. Expected one, or a dict of models.")
    checks.positive_integer("samples", samples)
    held = _data(data)
    parts = [Part(model, held, samples) for model in models.values()]
    histories = _histories(models, history)
    shown = sorted({int(i) for part in parts for i in part.shown()})
    low, high = (float(v) for v in np.percentile(held.x, (0.5, 99.5)))
    sheets = {"inputs": _pictures.inputs(held.x[shown], low, high)}
    for i, part in enumerate(parts):
        sheets[f"atoms-{i}"] = _pictures.atoms(part.model.dictionary())
        sheets[f"rebuilt-{i}"] = _pictures.inputs(part.rebuilt, low, high)
    payload = {
        "inputs": shown,
        "labels": None if held.labels is None else held.labels[shown].tolist(),
        "classes": held.classes,
        "models": [
            {"name": str(name), "history": histories[name], **part.payload()}
            for name, part in zip(models, parts, strict=True)
        ],
    }
    return Contents(payload, sheets, _panels(histories), _summary(held))


class Part:
    """What the page shows of one model."""

    def __init__(self, model: Any, data: Data, samples: int) -> None:
        self.model, self.data = model, data
        codes = model.encode(data.x)
        rebuilt = model.decode(codes)
        errors = ((data.x - rebuilt) ** 2).reshape(len(codes), -1).mean(axis=1)
        order = np.argsort(errors, kind="stable")
        self.best, self.worst = order[:_EXTREMES], order[::-1][:_EXTREMES]
        spread = np.linspace(0, len(codes) - 1, min(samples, len(codes))).astype(int)
        self.samples = np.unique([*self.best, *self.worst, *spread])
        self.errors, self.rebuilt = errors[self.samples], rebuilt[self.samples]
        self.codes = codes[self.samples].astype("<f4")
        self.units = _units.describe(codes, data.labels)

    def shown(self) -> np.ndarray:
        """The samples of which the page needs a picture."""
        return np.unique([*self.samples, *self.units["top"].ravel()])

    def payload(self) -> dict[str, Any]:
        """Its numbers, for JSON."""
        # Nothing can be read from a code that is zero, nor told of a single class.
        readable = self.codes.any() and len(self.data.classes) > 1
        y = self.data.y if readable else None
        figures = evaluation.evaluate(self.model, self.data.x, y)
        return {
            "count": int(self.codes.shape[1]),
            "figures": cards(figures),
            "units": {name: plain(values) for name, values in self.units.items()},
            "samples": self.samples.tolist(),
            "errors": plain(self.errors),
            "best": self.best.tolist(),
            "worst": self.worst.tolist(),
            "codes": base64.b64encode(self.codes.tobytes()).decode("ascii"),
        }


def plain(values: Any) -> Any:
    """An array as lists of numbers of six digits; JSON has no NaN: null."""
    values = np.asarray(values)
    if values.ndim:
        return [plain(v) for v in values]
    if values.dtype.kind in "iu":
        return int(values)
    return float(f"{values:.6g}") if np.isfinite(values) else None


def _data(data: Any) -> Data:
    x, y = data if isinstance(data, (tuple, list)) and len(data) == 2 else (data, None)
    if isinstance(x, (tuple, list)):
        raise ValueError(
            "`data` must be an array of samples, or (x, y) with their labels. "
            f"Received: a {type(x).__name__} in place of x. Of what load_data returns, "
            "pass one part: report.write_report(model, (x_test, y_test), path)."
        )
    x = np.asarray(x)
    if y is None:
        return Data(x, None, [], None)
    y = np.asarray(y)
    if y.shape != x.shape[:1]:
        raise ValueError(
            "`y` must hold one label a sample. Received: x of shape "
            f"{x.shape}, y of shape {y.shape}."
        )
    classes, labels = np.unique(y, return_inverse=True)
    return Data(x, labels, [str(name) for name in classes], y)


def _summary(data: Data) -> str:
    shape = "\N{MULTIPLICATION SIGN}".join(str(side) for side in data.x.shape[1:])
    classes = f" in {len(data.classes)} classes" if data.classes else ""
    return f"{len(data.x):,} held-out samples of shape {shape}{classes}"


def _histories(models: Mapping[str, Any], history: Any) -> dict[str, dict]:
    """The logs of each model, `{}` where there are none."""
    if history is None:
        given = {name: getattr(m, "history", None) for name, m in models.items()}
    else:
        logs = getattr(history, "history", history)
        nested = set(logs) & set(models)
        given = logs if nested else dict.fromkeys(models, logs)
    return {name: _logs(given.get(name)) for name in models}


def _logs(history: Any) -> dict[str, list]:
    logs = getattr(history, "history", history) or {}
    return {str(key): plain(values) for key, values in logs.items()}


def _panels(histories: Mapping[str, Mapping[str, Any]]) -> list[str]:
    keys = [key.removeprefix("val_") for logs in histories.values() for key in logs]
    return [key for key in dict.fromkeys(keys) if key != "learning_rate"]
