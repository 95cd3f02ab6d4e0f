"""Figures of every unit of a code, as the page's explorer shows them."""

from typing import Any

import numpy as np

# Inputs that drive a unit most, classes it prefers, bars of its histogram.
TOP, CLASSES, BINS = 8, 10, 24


def describe(codes: np.ndarray, labels: np.ndarray | None) -> dict[str, Any]:
    """Figures of each unit over all samples.

    Args:
        codes: Array of shape `(samples, units)`.
        labels: None, or the number of each sample's class, shape `(samples,)`.

    Returns:
        A dict of arrays, a row a unit: `fires` (share of samples where it is not
        zero), `mean` and `peak` (of its magnitude), `low`, `high` and `counts` (a
        histogram of its activations that are not zero), `top` and `top_values` (the
        samples that drive it most), and with labels `classes` and `shares` (mean
        magnitude in a class, over the sum of these means).
    """
    size = np.abs(codes)
    figures = {
        "fires": (codes != 0).mean(axis=0),
        "mean": size.mean(axis=0, dtype="float64"),
        "peak": size.max(axis=0),
        **histograms(codes),
        **driving(codes, size),
    }
    return figures if labels is None else figures | preferred(size, labels)


def histograms(codes: np.ndarray) -> dict[str, np.ndarray]:
    """Counts of the activations that are not zero, between their bounds or zero."""
    low = np.minimum(codes.min(axis=0), 0.0)
    high = np.maximum(codes.max(axis=0), 0.0)
    high = np.where(high > low, high, low + 1.0)
    counts = [
        np.histogram(unit[unit != 0], BINS, bounds)[0]
        for unit, bounds in zip(codes.T, zip(low, high, strict=True), strict=True)
    ]
    return {"low": low, "high": high, "counts": np.stack(counts)}


def driving(codes: np.ndarray, size: np.ndarray) -> dict[str, np.ndarray]:
    """The samples with the strongest activations, and these; zeros come last."""
    top = np.argsort(-size, axis=0, kind="stable")[:TOP]
    return {"top": top.T, "top_values": np.take_along_axis(codes, top, axis=0).T}


def preferred(size: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    """The classes in which a unit is strongest, and their shares."""
    members = np.eye(int(labels.max()) + 1)[labels]
    means = (members.T @ size) / members.sum(axis=0)[:, None]
    shares = means / np.maximum(means.sum(axis=0), np.finfo("float64").tiny)
    order = np.argsort(-shares, axis=0, kind="stable")[:CLASSES]
    return {"classes": order.T, "shares": np.take_along_axis(shares, order, axis=0).T}
