"""Soft sparsity: penalties that are pure functions of a code.

Keras divides the value of an activity regularizer by the batch size, so each of
these returns `batch * penalty`; what reaches the loss is the penalty itself,
the same for a batch and for that batch repeated.
"""

from typing import Any

import keras
from keras import ops

from keras_sae.utils import validation as checks
from keras_sae.utils.serialization import register

# Below this the series of u - log(1 + u) is exact in float32, where the
# difference itself has already lost half of its digits.
_SERIES_BELOW = 0.1
# Means are kept this far from 0 and 1; 1 minus it is exact in float32.
_EPSILON = 2.0**-23


@register
class L1(keras.regularizers.Regularizer):
    """L1 activity penalty: the sum of a code's magnitudes, mean over the batch.

    `penalty = factor * mean_i(sum_j |h_ij|)`

    The sum runs over everything but the batch axis and is taken in float32
    under any dtype policy. With units that have no upper bound (ReLU, linear)
    it can be lowered for nothing by scaling the encoder down and the decoder
    up: keep the decoder's atoms at unit norm, as `keras_sae.models.shallow` does.

    Args:
        factor: Weight of the penalty, in units of the reconstruction loss for
            one unit of activation in one sample. Finite, >= 0.

    Call arguments:
        x: Code of shape `(batch, ...)`.

    Returns:
        Scalar float32 tensor, `batch * penalty` (Keras divides it by `batch`).

    Raises:
        ValueError: `factor` is negative or not finite.

    Reference:
        Ng, CS294A lecture notes "Sparse autoencoder", 2011; Keras's
        `keras.regularizers.L1` has the same sum.

    Example:

    >>> import numpy as np
    >>> from keras_sae.regularizers import L1
    >>> code = np.array([[1.0, -2.0], [0.0, 3.0]], "float32")
    >>> float(L1(0.5)(code)) / len(code)  # 0.5 * (3 + 3) / 2
    1.5
    """

    # What `SparseDense` takes for `activation="auto"`.
    activation = "relu"
    # Whether shrinking the code lowers the penalty, so that atoms need a norm.
    scale_dependent = True

    def __init__(self, factor: float = 1e-4) -> None:
        self.factor = checks.finite_factor("factor", factor)

    def __call__(self, x: Any) -> Any:
        """Returns `batch * penalty` of the code `x`."""
        return self.factor * ops.sum(ops.abs(ops.cast(x, "float32")))

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {"factor": self.factor}


@register
class KLDivergence(keras.regularizers.Regularizer):
    """KL activity penalty: keeps each unit's mean activation near a small target.

    `penalty = factor * sum_j KL(rho, r_j)`, with
    `KL(rho, r) = rho log(rho / r) + (1 - rho) log((1 - rho) / (1 - r))`,

    where `rho = target` and `r_j = mean_i(h_ij)` is the mean of unit `j` over
    the batch. It needs activations in (0, 1), so a sigmoid. Where a mean lies
    outside [0, 1] the divergence does not exist and the value is NaN;
    `SparseDense` refuses such an activation beforehand, and rescales one with
    values in (-1, 1) such as tanh.

    The divergence is convex, so a small batch over-estimates it: take batches
    with `batch * target >= 5`, or `momentum`.

    Args:
        target: The mean activation aimed at, in (0, 1).
        factor: Weight of the penalty, in units of the reconstruction loss for
            one nat of one unit. Finite, >= 0. `from_ufldl` and `from_matlab`
            convert published settings.
        momentum: None, or a number in (0, 1): `r` becomes a running mean over
            batches, `r <- momentum * r + (1 - momentum) * mean`, whose gradient
            flows through the present batch as if it were that batch's mean. A
            regularizer can hold no such state: `SparseDense` does, and other
            layers get an error.

    Call arguments:
        x: Code of shape `(batch, ...)`, values in (0, 1).

    Returns:
        Scalar float32 tensor, `batch * penalty` (Keras divides it by `batch`).

    Raises:
        ValueError: `target` or `momentum` is outside (0, 1); `factor` is
            negative or not finite; `momentum` outside a `SparseDense`.

    Reference:
        Ng, CS294A lecture notes "Sparse autoencoder", 2011.

    Example:

    >>> import numpy as np
    >>> from keras_sae.regularizers import KLDivergence
    >>> code = np.full((4, 3), 0.05, "float32")
    >>> float(KLDivergence(target=0.05)(code))
    0.0
    """

    activation = "sigmoid"
    scale_dependent = False

    def __init__(
        self,
        target: float = 0.05,
        factor: float = 1e-3,
        momentum: float | None = None,
    ) -> None:
        self.target = checks.fraction("target", target)
        self.factor = checks.finite_factor("factor", factor)
        self.momentum = (
            None if momentum is None else checks.fraction("momentum", momentum)
        )

    @classmethod
    def from_ufldl(cls, rho: float, beta: float, input_dim: int) -> "KLDivergence":
        """The settings of CS294A / UFLDL, in the units of Keras's `"mse"`.

        UFLDL's data term is half the squared error summed over the `D` inputs,
        `D / 2` times `"mse"`: `factor = beta / (D / 2)`. Its weight decay
        `lambda / 2 * sum(W^2)` is, by the same division,
        `keras.regularizers.L2(lambda / D)`.

        Args:
            rho: Target mean activation.
            beta: UFLDL's weight of the sparsity penalty.
            input_dim: Number of inputs `D`, e.g. 784.

        Returns:
            A `KLDivergence`.

        Raises:
            ValueError: An argument is outside its range.

        Example:

        >>> from keras_sae.regularizers import KLDivergence
        >>> round(KLDivergence.from_ufldl(0.1, 3.0, 784).factor, 5)
        0.00765
        """
        dimension = checks.positive_integer("input_dim", input_dim)
        return cls(
            target=rho, factor=checks.finite_factor("beta", beta) * 2 / dimension
        )

    @classmethod
    def from_matlab(
        cls,
        sparsity_proportion: float,
        sparsity_regularization: float,
        input_dim: int,
    ) -> "KLDivergence":
        """The settings of MATLAB's `trainAutoencoder`, in the units of `"mse"`.

        MATLAB's `msesparse` sums the squared error over the `D` inputs, `D`
        times `"mse"`: `factor = SparsityRegularization / D`. Its
        `L2WeightRegularization` `l` becomes `keras.regularizers.L2(l / (2 * D))`.

        Args:
            sparsity_proportion: MATLAB's `SparsityProportion`, in (0, 1).
            sparsity_regularization: MATLAB's `SparsityRegularization`.
            input_dim: Number of inputs `D`.

        Returns:
            A `KLDivergence`.

        Raises:
            ValueError: An argument is outside its range.

        Example:

        >>> from keras_sae.regularizers import KLDivergence
        >>> KLDivergence.from_matlab(0.05, 1.0, 100).factor
        0.01
        """
        weight = checks.finite_factor(
            "sparsity_regularization", sparsity_regularization
        )
        dimension = checks.positive_integer("input_dim", input_dim)
        return cls(target=sparsity_proportion, factor=weight / dimension)

    def __call__(self, x: Any) -> Any:
        """Returns `batch * penalty` of the code `x`."""
        if self.momentum is not None:
            raise ValueError(
                "`momentum` needs a running mean, which a regularizer on a plain "
                f"layer cannot hold. Received: momentum={self.momentum}. Use "
                "`keras_sae.layers.SparseDense(units, sparsity=...)`, or "
                "`momentum=None`."
            )
        x = ops.cast(x, "float32")
        batch = ops.cast(ops.shape(x)[0], "float32")
        return batch * self.penalty(ops.mean(x, axis=0))

    def penalty(self, mean: Any) -> Any:
        """Returns the penalty of the mean activations, one a unit.

        With `d = r - rho` the two logarithms cancel to first order in `d`, and
        float32 is left with noise near the target. Written with
        `g(u) = u - log(1 + u)` the divergence is `rho * g(d / rho) +
        (1 - rho) * g(-d / (1 - rho))`: two terms that are never negative.

        Args:
            mean: float32 tensor of any shape, mean activations in [0, 1].

        Returns:
            Scalar float32 tensor. NaN where a mean is outside [0, 1].
        """
        rho = self.target
        inside = ops.logical_and(mean >= 0, mean <= 1)
        r = ops.clip(mean, _EPSILON, 1 - _EPSILON)
        on = rho * _excess(r / rho, (r - rho) / rho)
        off = (1 - rho) * _excess((1 - r) / (1 - rho), (rho - r) / (1 - rho))
        return self.factor * ops.sum(ops.where(inside, on + off, float("nan")))

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {
            "target": self.target,
            "factor": self.factor,
            "momentum": self.momentum,
        }


def _excess(ratio: Any, u: Any) -> Any:
    """`u - log(ratio)` for `ratio = 1 + u`, exact near `u = 0` and `u = -1` alike."""
    near = ops.abs(u) < _SERIES_BELOW
    small = ops.where(near, u, 0.0)
    series = 0.0
    for n in range(9, 1, -1):  # Horner: u^2/2 - u^3/3 + u^4/4 - ...
        series = (1 - 2 * (n % 2)) / n + small * series
    # The branch not taken gets an argument whose gradient is finite.
    far = u - ops.log(ops.where(near, 1.0, ratio))
    return ops.where(near, small * small * series, far)
