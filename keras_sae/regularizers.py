"""Activity regularizers that make a code sparse.

Keras divides the value of an activity regularizer by the batch size. Each regularizer
here therefore returns `batch * penalty`, so that the loss contains the penalty itself.
Duplicating the samples of a batch does not change the penalty.
"""

import keras
from keras import ops

from keras_sae.types import Config, Tensor
from keras_sae.utils import validation
from keras_sae.utils.serialization import register

# If |u| is below this value, the series of u - log(1 + u) is exact in float32, whereas
# the direct subtraction loses half of the digits.
_SERIES_BELOW = 0.1

# Means are clipped to stay at least this far from 0 and 1. `1 - _EPSILON` is exact in
# float32.
_EPSILON = 2.0**-23


@register
class L1(keras.regularizers.Regularizer):
    """L1 activity penalty: the sum of a code's magnitudes, averaged over a batch.

    `penalty = factor * mean_i(sum_j |h_ij|)`

    The penalty pushes small activations to exactly zero, so a ReLU code becomes sparse.
    The sum runs over all axes but the first, in float32 under any dtype policy.

    Smaller encoder weights and larger decoder weights also lower the penalty, without
    changing the reconstruction. If activations have no upper bound, keep the rows of
    the decoder at unit norm, as `keras_sae.models.shallow` does by default.

    As an activity regularizer, `keras.regularizers.L1` adds the same penalty.

    Args:
        factor: Weight of the penalty relative to the reconstruction loss, a finite
            number >= 0.

    Call arguments:
        x: Code of shape `(batch, ...)`.

    Returns:
        Scalar float32 tensor, `batch * penalty`.

    Raises:
        ValueError: `factor` is negative or not finite.

    Example:

    >>> import numpy as np
    >>> from keras_sae.regularizers import L1
    >>> code = np.array([[1.0, -2.0], [0.0, 3.0]], "float32")
    >>> float(L1(0.5)(code)) / len(code)  # 0.5 * (3 + 3) / 2
    1.5
    """

    # Activation that `SparseDense(activation="auto")` uses with this regularizer.
    activation = "relu"

    def __init__(self, factor: float = 1e-4) -> None:
        self.factor = validation.non_negative("factor", factor)

    def __call__(self, x: Tensor) -> Tensor:
        """Return `batch * penalty` for the code `x`."""
        return self.factor * ops.sum(ops.abs(ops.cast(x, "float32")))

    def get_config(self) -> Config:
        """Return the constructor's arguments."""
        return {"factor": self.factor}


@register
class KLDivergence(keras.regularizers.Regularizer):
    """KL activity penalty: keep the mean activation of each unit near a small target.

    `penalty = factor * sum_j KL(rho, r_j)`, where
    `KL(rho, r) = rho log(rho / r) + (1 - rho) log((1 - rho) / (1 - r))`

    with `rho = target` and `r_j = mean_i(h_ij)`, the mean of unit `j` over the batch.
    The penalty makes each unit active for a small share of the samples, and prevents
    dead units.

    The penalty requires activations in (0, 1), such as those of a sigmoid. If a mean is
    outside [0, 1], the divergence is undefined and the value is NaN. `SparseDense`
    rejects unbounded activations, and rescales bounded activations with another range,
    such as tanh.

    The divergence is convex, so a small batch overestimates it on average. Use batches
    with `batch * target >= 5`, or set `momentum`.

    Args:
        target: Target mean activation, in (0, 1).
        factor: Weight of the penalty relative to the reconstruction loss, a finite
            number >= 0. `from_ufldl` and `from_matlab` convert settings of UFLDL and
            MATLAB.
        momentum: None, or a number in (0, 1) that makes `r` a running mean over
            batches: `r <- momentum * r + (1 - momentum) * mean`. The gradient flows
            only through the mean of the current batch. Only `SparseDense` and
            `ActivityPenalty` keep this mean; in other layers, the regularizer raises an
            error.

    Call arguments:
        x: Code of shape `(batch, ...)` with values in (0, 1).

    Returns:
        Scalar float32 tensor, `batch * penalty`.

    Raises:
        ValueError: `target` or `momentum` is not in (0, 1), `factor` is negative or not
            finite, or `momentum` is used in a layer that does not keep a running mean.

    References:
        [Ng, "Sparse autoencoder", CS294A lecture notes, 2011](
        https://web.stanford.edu/class/cs294a/sparseAutoencoder_2011new.pdf).

    Example:

    >>> import numpy as np
    >>> from keras_sae.regularizers import KLDivergence
    >>> code = np.full((4, 3), 0.05, "float32")
    >>> float(KLDivergence(target=0.05)(code))
    0.0
    """

    # Activation that `SparseDense(activation="auto")` uses with this regularizer.
    activation = "sigmoid"

    def __init__(
        self,
        target: float = 0.05,
        factor: float = 1e-3,
        momentum: float | None = None,
    ) -> None:
        self.target = validation.fraction("target", target)
        self.factor = validation.non_negative("factor", factor)
        self.momentum = momentum
        if momentum is not None:
            self.momentum = validation.fraction("momentum", momentum)

    @classmethod
    def from_ufldl(cls, rho: float, beta: float, input_dim: int) -> "KLDivergence":
        """Convert CS294A and UFLDL settings to the scale of Keras's `"mse"`.

        UFLDL's data loss is half the squared error, summed over the `D` inputs: `D / 2`
        times `"mse"`. Hence `factor = beta / (D / 2)`. UFLDL's weight decay
        `lambda / 2 * sum(W^2)` becomes `keras.regularizers.L2(lambda / D)`.

        Args:
            rho: Target mean activation, in (0, 1).
            beta: UFLDL's weight for the sparsity penalty.
            input_dim: Number of inputs `D`, for example 784.

        Example:

        >>> from keras_sae.regularizers import KLDivergence
        >>> round(KLDivergence.from_ufldl(0.1, 3.0, 784).factor, 5)
        0.00765
        """
        dimension = validation.positive_integer("input_dim", input_dim)
        weight = validation.non_negative("beta", beta)
        return cls(target=rho, factor=weight * 2 / dimension)

    @classmethod
    def from_matlab(
        cls,
        sparsity_proportion: float,
        sparsity_regularization: float,
        input_dim: int,
    ) -> "KLDivergence":
        """Convert settings of MATLAB's `trainAutoencoder` to the scale of `"mse"`.

        MATLAB's `msesparse` sums the squared error over the `D` inputs: `D` times
        `"mse"`. Hence `factor = SparsityRegularization / D`. MATLAB's
        `L2WeightRegularization`, here `l`, becomes
        `keras.regularizers.L2(l / (2 * D))`.

        Args:
            sparsity_proportion: MATLAB's `SparsityProportion`, in (0, 1).
            sparsity_regularization: MATLAB's `SparsityRegularization`.
            input_dim: Number of inputs `D`.

        References:
            [MATLAB documentation of `trainAutoencoder`](
            https://www.mathworks.com/help/deeplearning/ref/trainautoencoder.html).

        Example:

        >>> from keras_sae.regularizers import KLDivergence
        >>> KLDivergence.from_matlab(0.05, 1.0, 100).factor
        0.01
        """
        dimension = validation.positive_integer("input_dim", input_dim)
        weight = validation.non_negative(
            "sparsity_regularization", sparsity_regularization
        )
        return cls(target=sparsity_proportion, factor=weight / dimension)

    def __call__(self, x: Tensor) -> Tensor:
        """Return `batch * penalty` for the code `x`."""
        if self.momentum is not None:
            raise ValueError(
                "`momentum` needs a running mean, which this layer does not keep. "
                f"Received: momentum={self.momentum}. Use "
                "`keras_sae.layers.SparseDense(units, sparsity=...)`, or momentum=None."
            )
        x = ops.cast(x, "float32")
        batch = ops.cast(ops.shape(x)[0], "float32")
        return batch * self.penalty(ops.mean(x, axis=0))

    def penalty(self, mean: Tensor) -> Tensor:
        """Return the penalty for the mean activations.

        Near the target, the two logarithmic terms almost cancel, and mostly rounding
        errors remain. Therefore, with `g(u) = u - log(1 + u)` and `d = r - rho`, the
        divergence is computed as `rho * g(d / rho) + (1 - rho) * g(-d / (1 - rho))`.
        Neither term is negative, so they cannot cancel.

        Args:
            mean: float32 tensor of any shape, one mean activation in [0, 1] per unit.

        Returns:
            Scalar float32 tensor, NaN if a mean is outside [0, 1].
        """
        rho = self.target
        inside = ops.logical_and(mean >= 0, mean <= 1)
        r = ops.clip(mean, _EPSILON, 1 - _EPSILON)
        on = rho * _minus_log(r / rho, (r - rho) / rho)
        off = (1 - rho) * _minus_log((1 - r) / (1 - rho), (rho - r) / (1 - rho))
        return self.factor * ops.sum(ops.where(inside, on + off, float("nan")))

    def get_config(self) -> Config:
        """Return the constructor's arguments."""
        return {
            "target": self.target,
            "factor": self.factor,
            "momentum": self.momentum,
        }


def _minus_log(ratio: Tensor, u: Tensor) -> Tensor:
    """Return `u - log(ratio)` for `ratio = 1 + u`, exact near `u = 0` and `u = -1`."""
    near = ops.abs(u) < _SERIES_BELOW
    small = ops.where(near, u, 0.0)
    series = 0.0
    for n in range(9, 1, -1):  # Horner: u^2/2 - u^3/3 + u^4/4 - ...
        series = (1 - 2 * (n % 2)) / n + small * series
    # Both branches are differentiated, so each gets an argument with a finite gradient.
    far = u - ops.log(ops.where(near, 1.0, ratio))
    return ops.where(near, small * small * series, far)
