"""Bad arguments become errors that say what came, what was expected, what to do."""

import difflib
import math
import numbers
from collections.abc import Iterable
from typing import Any

import numpy as np


def finite_factor(name: str, value: Any) -> float:
    """Returns `value` as a float, if it is a finite number and not negative."""
    if not isinstance(value, (int, float, np.integer, np.floating)) or not (
        math.isfinite(value) and value >= 0
    ):
        raise ValueError(
            f"`{name}` weighs a penalty, so it must be a finite number >= 0. "
            f"Received: {name}={value!r}. Use 0 to switch the penalty off."
        )
    return float(value)


def fraction(name: str, value: Any) -> float:
    """Returns `value` as a float, if it lies strictly between 0 and 1."""
    if (
        not isinstance(value, (int, float, np.integer, np.floating))
        or not 0 < value < 1
    ):
        raise ValueError(
            f"`{name}` must lie strictly between 0 and 1. "
            f"Received: {name}={value!r}. A usual value is 0.05."
        )
    return float(value)


def positive_number(name: str, value: Any) -> float:
    """Returns `value` as a float, if it is a finite number above 0."""
    if not isinstance(value, (int, float, np.integer, np.floating)) or not (
        math.isfinite(value) and value > 0
    ):
        raise ValueError(
            f"`{name}` must be a finite number > 0. Received: {name}={value!r}."
        )
    return float(value)


def non_negative(name: str, value: Any) -> float:
    """Return `value` as a float if it is a finite number of at least 0."""
    if not isinstance(value, (int, float, np.integer, np.floating)) or not (
        math.isfinite(value) and value >= 0
    ):
        raise ValueError(
            f"`{name}` must be a finite number >= 0. Received: {name}={value!r}."
        )
    return float(value)


def positive_integer(name: str, value: Any) -> int:
    """Returns `value` as an int, if it is a whole number of at least 1."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < 1:
        raise ValueError(
            f"`{name}` must be a positive integer. Received: {name}={value!r}."
        )
    return int(value)


def known_name(kind: str, name: str, known: Iterable[str]) -> str:
    """Returns `name` if it is among `known`, else says which one is nearest."""
    names = sorted(known)
    if name in names:
        return name
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
    hint = f"Did you mean {near[0]!r}? " if near else ""
    raise ValueError(f"Unknown {kind}: {name!r}. {hint}Known: {', '.join(names)}.")
