"""Argument checks whose errors name the argument and the value received."""

import difflib
import math
import numbers
from collections.abc import Iterable
from typing import TypeGuard

import numpy as np


def non_negative(name: str, value: object) -> float:
    """Return `value` as a float if it is a finite number of at least 0."""
    if not _is_finite(value) or value < 0:
        raise ValueError(
            f"`{name}` must be a finite number >= 0. Received: {name}={value!r}."
        )
    return float(value)


def positive_number(name: str, value: object) -> float:
    """Return `value` as a float if it is a finite number above 0."""
    if not _is_finite(value) or value <= 0:
        raise ValueError(
            f"`{name}` must be a finite number > 0. Received: {name}={value!r}."
        )
    return float(value)


def fraction(name: str, value: object) -> float:
    """Return `value` as a float if it is strictly between 0 and 1."""
    if not _is_finite(value) or not 0 < value < 1:
        raise ValueError(
            f"`{name}` must be strictly between 0 and 1. Received: "
            f"{name}={value!r}. A typical value is 0.05."
        )
    return float(value)


def positive_integer(name: str, value: object) -> int:
    """Return `value` as an int if it is an integer of at least 1."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < 1:
        raise ValueError(
            f"`{name}` must be a positive integer. Received: {name}={value!r}."
        )
    return int(value)


def known_name(kind: str, name: str, known: Iterable[str]) -> str:
    """Return `name` if it is in `known`, or raise an error that suggests a name."""
    names = sorted(known)
    if name in names:
        return name
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
    hint = f"Did you mean {near[0]!r}? " if near else ""
    raise ValueError(f"Unknown {kind}: {name!r}. {hint}Known: {', '.join(names)}.")


def _is_finite(value: object) -> TypeGuard[float]:
    kinds = (int, float, np.integer, np.floating)
    return isinstance(value, kinds) and math.isfinite(value)
