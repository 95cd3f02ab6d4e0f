"""What a setting may be: one value, a range of numbers, or a list of values."""

import math
import numbers
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

from keras_sae.utils import validation as checks


class Range(Protocol):
    """Where the values of a setting come from."""

    def draw(self, hp: Any, name: str) -> Any:
        """Returns the setting's value in the trial `hp`, None where it is inactive."""


@dataclass(frozen=True)
class Fixed:
    """One value, which is not searched."""

    value: Any

    def draw(self, hp: Any, name: str) -> Any:
        """Returns the value; it stands in the trial's settings all the same."""
        return hp.Fixed(name, self.value)


@dataclass(frozen=True)
class Choices:
    """A list of values."""

    values: tuple

    def draw(self, hp: Any, name: str) -> Any:
        """Returns one of the values."""
        # keras-tuner's `Choice` would turn False and True into 0 and 1.
        if set(map(type, self.values)) == {bool}:
            return hp.Boolean(name)
        return hp.Choice(name, list(self.values))


@dataclass(frozen=True)
class Numbers:
    """All numbers from `low` to `high`, on a log scale unless `log` is False."""

    low: Any
    high: Any
    log: bool = True
    step: int | None = None  # on a log scale a factor

    def draw(self, hp: Any, name: str) -> Any:
        """Returns one of the numbers, whole if `low` is."""
        make = hp.Int if isinstance(self.low, int) else hp.Float
        sampling = "log" if self.log else "linear"
        value = make(name, self.low, self.high, step=self.step, sampling=sampling)
        # keras-tuner's grid has 64.0 on its ladder from 32 by factors of 2.
        return value if value is None else type(self.low)(value)


@dataclass(frozen=True)
class Setting:
    """A setting's default, and the check of each value given in its place."""

    default: Range
    check: Callable[[str, Any], Any]

    def given(self, name: str, value: Any) -> Range:
        """Returns the range that a user's argument stands for.

        Args:
            name: Of the argument.
            value: One value, `(low, high)`, or a list of values.

        Returns:
            A `Range`.

        Raises:
            ValueError: A value is out of its bounds, or the range turned round.
        """
        if isinstance(value, list):
            return _choices(name, [self.check(name, one) for one in value])
        if not isinstance(value, tuple):
            return Fixed(self.check(name, value))
        if not isinstance(self.default, Numbers):
            return _choices(name, [self.check(name, one) for one in value])
        return self._between(name, value, self.default)

    def _between(self, name: str, value: tuple, default: Numbers) -> Range:
        if len(value) != 2:
            raise ValueError(
                f"`{name}` must be one value, a range (low, high), or a list of "
                f"values. Received: {name}={value!r}."
            )
        low, high = (self.check(name, one) for one in value)
        if low > high:
            raise ValueError(
                f"`{name}` must run from its lowest to its highest value. Received: "
                f"{name}={value!r}. Write ({value[1]!r}, {value[0]!r})."
            )
        if default.log and low == 0:
            raise ValueError(
                f"`{name}` is searched on a log scale, so a range of it starts above "
                f"0. Received: {name}={value!r}. A list may hold 0: [0, {high!r}]."
            )
        # A ladder of steps from another start would have other rungs.
        return Fixed(low) if low == high else replace(default, low=low, high=high)


def _choices(name: str, values: list) -> Range:
    if not values:
        raise ValueError(
            f"`{name}` holds no value to choose. Received: {name}=[]. Leave it out "
            "for its default."
        )
    unique = tuple(dict.fromkeys(values))
    return Fixed(unique[0]) if len(unique) == 1 else Choices(unique)


def positive_number(name: str, value: Any) -> float:
    """Returns `value` as a float, if it is a finite number above 0."""
    number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not number or not (math.isfinite(value) and value > 0):
        raise ValueError(
            f"`{name}` must be a finite number above 0. Received: {name}={value!r}."
        )
    return float(value)


def whole_number(name: str, value: Any) -> int:
    """Returns `value` as an int, if it is a whole number of at least 0."""
    return checks.positive_integer(name, value) if value else 0


def yes_or_no(name: str, value: Any) -> bool:
    """Returns `value`, if it is True or False."""
    if not isinstance(value, bool):
        raise ValueError(
            f"`{name}` must be True, False, or [False, True] to try both. Received: "
            f"{name}={value!r}."
        )
    return value


def one_of(known: Any) -> Callable[[str, Any], str]:
    """Returns the check of a name that a table holds."""
    return lambda name, value: checks.known_name(name, str(value), known)
