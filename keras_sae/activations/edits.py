"""Edits that change individual units of a code."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from keras import ops

from keras_sae.types import Config, Tensor
from keras_sae.utils.serialization import register


@register
class Edit:
    """Set or multiply the activations of some units in every row of a code.

    `ablate`, `clamp` and `scale` create edits.

    Args:
        units: Indices of the units.
        values: One number per unit.
        multiply: Whether to multiply the activations by `values`. If False, `values`
            replace the activations.

    Raises:
        ValueError: A unit is repeated, negative or not an integer, a value is not
            finite, or `units` and `values` differ in length.

    Example:

    >>> import numpy as np
    >>> from keras_sae import activations
    >>> edit = activations.Edit([1], [0.5], multiply=True)
    >>> np.asarray(edit(np.array([[1.0, 2.0, 3.0]]))).tolist()
    [[1.0, 1.0, 3.0]]
    """

    def __init__(
        self, units: Sequence[int], values: Sequence[float], multiply: bool = False
    ) -> None:
        whole = all(isinstance(unit, (int, np.integer)) for unit in units)
        if not whole or len(set(units)) < len(units) or min(units, default=0) < 0:
            raise ValueError(
                "`units` must be the indices of different units, counted from 0. "
                f"Received: units={list(units)}."
            )
        if len(values) != len(units):
            raise ValueError(
                "`values` must have one number per unit. Received: "
                f"{len(values)} values for {len(units)} units."
            )
        if not np.isfinite(np.asarray(values, "float64")).all():
            raise ValueError(
                f"`values` must be finite. Received: values={list(values)}."
            )
        self.units = [int(unit) for unit in units]
        self.values = [float(value) for value in values]
        self.multiply = multiply

    def check(self, width: int) -> None:
        """Check that a code of `width` units has every unit of the edit."""
        if max(self.units, default=0) >= width:
            raise ValueError(
                f"An edit can only change the {width} units of the code, which are "
                f"counted from 0. Received: unit {max(self.units)}."
            )

    def __call__(self, code: Tensor) -> Tensor:
        """Return the edited code."""
        width = code.shape[-1]
        self.check(width)
        if self.multiply:
            factors = np.ones(width)
            factors[self.units] = self.values
            return ops.multiply(code, ops.cast(factors, code.dtype))
        changed, values = np.zeros(width, bool), np.zeros(width)
        changed[self.units], values[self.units] = True, self.values
        return ops.where(changed, ops.cast(values, code.dtype), code)

    def get_config(self) -> Config:
        """Return the constructor's arguments."""
        return {
            "units": self.units,
            "values": self.values,
            "multiply": self.multiply,
        }

    @classmethod
    def from_config(cls, config: Config) -> "Edit":
        """Create an edit from its config."""
        return cls(**config)


def ablate(units: Iterable[int]) -> Edit:
    """Create an edit that sets units of a code to zero.

    Args:
        units: Indices of the units.

    Returns:
        An `Edit`, for `keras_sae.activations.splice`.

    Example:

    >>> import numpy as np
    >>> from keras_sae import activations
    >>> np.asarray(activations.ablate([0, 2])(np.ones((1, 3)))).tolist()
    [[0.0, 1.0, 0.0]]
    """
    units = list(units)
    return Edit(units, [0.0] * len(units))


def clamp(values: Mapping[int, float]) -> Edit:
    """Create an edit that sets units of a code to given values.

    Each unit is set to its value in every row, even if it was inactive there.

    Args:
        values: The new value per unit.

    Returns:
        An `Edit`, for `keras_sae.activations.splice`.

    Example:

    >>> import numpy as np
    >>> from keras_sae import activations
    >>> np.asarray(activations.clamp({1: 5.0})(np.ones((1, 3)))).tolist()
    [[1.0, 5.0, 1.0]]
    """
    return Edit(list(values), list(values.values()))


def scale(factors: Mapping[int, float]) -> Edit:
    """Create an edit that multiplies units of a code by given factors.

    Args:
        factors: The factor per unit.

    Returns:
        An `Edit`, for `keras_sae.activations.splice`.

    Example:

    >>> import numpy as np
    >>> from keras_sae import activations
    >>> np.asarray(activations.scale({1: 2.0})(np.ones((1, 3)))).tolist()
    [[1.0, 2.0, 1.0]]
    """
    return Edit(list(factors), list(factors.values()), multiply=True)
