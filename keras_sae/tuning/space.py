"""The tables of the search: families, kinds of sparsity, and their default ranges."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from keras_sae import models
from keras_sae.layers import serialization as sparsity
from keras_sae.tuning.ranges import (
    Choices,
    Numbers,
    Setting,
    one_of,
    positive_number,
    whole_number,
    yes_or_no,
)
from keras_sae.utils import validation as checks


@dataclass(frozen=True)
class Family:
    """How a family is made, and which settings it has beside those of all."""

    factory: Callable[..., Any]
    settings: tuple[str, ...]
    widths: Callable[[int, int], Any]  # of the code's width and the depth


def _code_alone(units: int, depth: int) -> int:
    del depth
    return units


def _narrowing(units: int, depth: int) -> tuple[int, ...]:
    """Each layer half as wide as the one before it, down to the code."""
    return tuple(units * 2**level for level in reversed(range(depth)))


def _filters(units: int, depth: int) -> tuple[int, ...]:
    return (*(16 * 2**level for level in range(depth)), units)


FAMILIES = {
    "shallow": Family(models.shallow, ("tied",), _code_alone),
    "deep": Family(models.deep, ("depth", "tied", "pretraining"), _narrowing),
    "stacked": Family(models.stacked, ("depth", "tied", "pretraining"), _narrowing),
    "convolutional": Family(models.convolutional, ("depth",), _filters),
}

# What is drawn for each kind of sparsity: arguments of its class.
_DRAWN = {
    "l1": ("factor",),
    "kl": ("target", "factor"),
    "top_k": ("k",),
    "batch_top_k": ("k",),
    "lifetime": ("fraction",),
    "jump_relu": ("factor", "target_l0"),
    "gated": ("factor",),
}
KINDS = {name: drawn for name, drawn in _DRAWN.items() if name in sparsity.NAMES}
# What needs the decoder of the whole model: hidden layers have no sparsity then.
_INNERMOST = {"gated"}
# One penalty of each school, and a hard limit.
_USUAL = tuple(name for name in ("l1", "kl", "top_k") if name in KINDS)


def kind_of(name: str, values: Mapping[str, Any], units: int) -> Any:
    """Returns the sparsity object of the kind `name` with the drawn `values`."""
    # More units than there are cannot be on.
    counts = {"k", "target_l0"} & values.keys()
    return sparsity.NAMES[name](
        **{**values, **{count: min(values[count], units) for count in counts}}
    )


def placed(kind: str, made: Any, units: Any) -> Any:
    """Returns the `sparsity` argument of a family with these `units`."""
    if kind in _INNERMOST and isinstance(units, tuple):
        return [*[None] * (len(units) - 1), made]
    return made


def settings(size: int) -> dict[str, Setting]:
    """Returns every setting by name, with defaults for `size` values a sample.

    The loss is a mean over the values of a sample, so weights of a penalty that
    mean the same shrink as a sample grows.
    """
    active = max(2, 2 * math.isqrt(size))
    share = Setting(Numbers(0.01, 0.2), checks.fraction)
    count = Setting(Numbers(2, active), checks.positive_integer)
    wide = Numbers(max(8, min(size // 4, 256)), max(16, min(2 * size, 1024)))
    return {
        "model": Setting(Choices(("shallow",)), one_of(FAMILIES)),
        "sparsity": Setting(Choices(_USUAL), one_of(KINDS)),
        "factor": Setting(Numbers(0.01 / size, 10.0 / size), checks.finite_factor),
        "target": share,
        "fraction": share,
        "k": count,
        "target_l0": count,
        "units": Setting(wide, checks.positive_integer),
        "depth": Setting(Numbers(2, 3, log=False), checks.positive_integer),
        "tied": Setting(Choices((False, True)), yes_or_no),
        "pretraining": Setting(Choices((0, 5)), whole_number),
        "learning_rate": Setting(Numbers(3e-4, 1e-2), positive_number),
        "batch_size": Setting(Numbers(32, 256, step=2), checks.positive_integer),
    }
