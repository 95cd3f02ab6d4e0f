"""Synthetic data with known features: many directions in few dimensions."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from keras_sae.utils.validation import non_negative, positive_integer

if TYPE_CHECKING:
    import tensorflow as tf


@dataclass(frozen=True)
class Superposition:
    """Synthetic data of sparse sums of known features, returned by `superposition`.

    `x = sum_j a_j f_j`, where `a_j = max(0, magnitude + magnitude_std * n_j)` if
    feature `j` fires and 0 otherwise, and `n_j` is standard normal.

    Args:
        features: Unit vectors `f_j`, shape `(num_features, dimension)`.
        probabilities: Firing probability per feature, shape `(num_features,)`.
        magnitude: Mean of `a_j` for a firing feature, before clipping at 0.
        magnitude_std: Standard deviation of `a_j`, also before clipping.
        group_size: Number of consecutive features per group. The firing of features in
            the same group is correlated.
        correlation: Correlation within a group, as in `superposition`.

    Example:

    >>> from keras_sae import datasets
    >>> task = datasets.superposition(16, 8, firing_probability=0.1)
    >>> x, activations = task.sample(100)
    >>> x.shape, activations.shape, round(task.l0, 3)
    ((100, 8), (100, 16), 1.6)
    """

    features: np.ndarray
    probabilities: np.ndarray
    magnitude: float
    magnitude_std: float
    group_size: int
    correlation: float

    @property
    def l0(self) -> float:
        """Mean number of firing features per sample."""
        return float(self.probabilities.sum())

    def sample(self, samples: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Return the data and the feature activations as float32 arrays.

        Args:
            samples: Number of samples.
            seed: Random seed. `dataset` returns different data for the same seed.
        """
        import tensorflow as tf

        samples = positive_integer("samples", samples)
        with tf.device("CPU"):
            x, activations = self._draw(samples, (seed, 2**20))
        return x.numpy(), activations.numpy()

    def dataset(
        self, samples: int, batch_size: int = 1024, seed: int = 0
    ) -> "tf.data.Dataset":
        """Return a dataset of float32 batches, which are the same in every epoch.

        Args:
            samples: Number of samples per epoch. An incomplete last batch is dropped.
            batch_size: Samples per batch.
            seed: Random seed.

        Raises:
            ValueError: `samples` is smaller than `batch_size`.
        """
        import tensorflow as tf

        positive_integer("samples", samples)
        steps = samples // positive_integer("batch_size", batch_size)
        if steps == 0:
            raise ValueError(
                "`samples` must fill at least one batch. Received: "
                f"samples={samples}, batch_size={batch_size}."
            )
        batches = tf.data.Dataset.range(steps).map(
            lambda step: self._draw(batch_size, (seed, step))[0], tf.data.AUTOTUNE
        )
        return batches.prefetch(tf.data.AUTOTUNE)

    def _draw(
        self, samples: int, seed: tuple[int, "int | tf.Tensor"]
    ) -> tuple["tf.Tensor", "tf.Tensor"]:
        import tensorflow as tf
        from scipy.stats import norm

        seeds = tf.random.experimental.stateless_split(tf.cast(seed, "int32"), 3)
        count = len(self.features)
        normal = tf.random.stateless_normal((samples, count), seeds[0])
        if self.correlation:
            groups = -(-count // self.group_size)
            common = tf.random.stateless_normal((samples, groups), seeds[1])
            common = tf.repeat(common, self.group_size, axis=1)[:, :count]
            own = (1 - self.correlation) ** 0.5 * normal
            normal = self.correlation**0.5 * common + own
        fires = normal < norm.ppf(self.probabilities).astype("float32")
        noise = tf.random.stateless_normal((samples, count), seeds[2])
        size = tf.nn.relu(self.magnitude + self.magnitude_std * noise)
        activations = tf.where(fires, size, 0.0)
        return activations @ self.features, activations


def superposition(
    num_features: int,
    dimension: int,
    firing_probability: float | Sequence[float] | np.ndarray,
    *,
    magnitude: float = 1.0,
    magnitude_std: float = 0.0,
    group_size: int = 1,
    correlation: float = 0.0,
    features: npt.ArrayLike | None = None,
    seed: int = 0,
) -> Superposition:
    """Return synthetic data whose features are known.

    There may be more features than dimensions. Unlike with real data,
    `metrics.recovery_score(task.features, model.dictionary())` can compare the learned
    features with the true ones.

    Args:
        num_features: Number of features.
        dimension: Number of values per sample.
        firing_probability: Probability that a feature fires in a sample: one number, or
            one per feature, for example from `zipf`.
        magnitude: Mean activation of a firing feature, before negative activations are
            clipped to 0.
        magnitude_std: Standard deviation of that activation, also before clipping.
        group_size: Size of the groups in which firing is correlated.
        correlation: Correlation of the normal variables that decide which features of
            a group fire. It must be at least 0 and below 1. The firing probabilities
            do not depend on it.
        features: Array of shape `(num_features, dimension)`, whose rows are scaled to
            unit norm. If None, the features are random, and orthogonal if
            `num_features <= dimension`.
        seed: Random seed for the features.

    Returns:
        A `Superposition` with `features`, `sample(...)` and `dataset(...)`.

    Raises:
        ValueError: A number is out of range, an array has the wrong shape, or a row of
            `features` is zero or not finite.

    References:
        - [Elhage et al., 2022](https://arxiv.org/abs/2209.10652)
        - [Sharkey et al., 2022](https://www.alignmentforum.org/posts/z6QQJbtpkEAX3Aojj)

    Example:

    >>> from keras_sae import datasets
    >>> task = datasets.superposition(64, 32, 0.05, magnitude_std=0.1)
    >>> round(task.l0, 2), task.dataset(2048, batch_size=256).cardinality().numpy()
    (3.2, np.int64(8))
    """
    shape = (
        positive_integer("num_features", num_features),
        positive_integer("dimension", dimension),
    )
    if features is None:
        directions = np.random.default_rng(seed).standard_normal(shape)
        if num_features <= dimension:
            directions = np.linalg.qr(directions.T)[0].T
    else:
        directions = np.asarray(features)
    if directions.shape != shape:
        raise ValueError(
            "`features` must have the shape (num_features, dimension). Received: "
            f"features.shape={directions.shape}. Expected: {shape}."
        )
    norms = np.linalg.norm(directions, axis=1, keepdims=True)
    bad = np.flatnonzero(~((norms > 0) & np.isfinite(norms)))
    if len(bad):
        raise ValueError(
            "Each row of `features` must be finite and not all zero. Received: "
            f"features[{bad[0]}]={directions[bad[0]]!r}, and {len(bad) - 1} more "
            "invalid rows."
        )
    if not 0 <= correlation < 1:
        raise ValueError(
            "`correlation` must be at least 0 and below 1. Received: "
            f"correlation={correlation!r}."
        )
    probabilities = np.array(firing_probability, "float64")
    if probabilities.shape not in ((), (num_features,)):
        raise ValueError(
            "`firing_probability` must be one number, or one per feature. Received: "
            f"shape {probabilities.shape} for num_features={num_features}."
        )
    if not ((probabilities > 0) & (probabilities <= 1)).all():
        raise ValueError(
            "`firing_probability` must be above 0 and at most 1. Received: values "
            f"from {probabilities.min():g} to {probabilities.max():g}. For k active "
            "features per sample, pass k / num_features."
        )
    return Superposition(
        features=(directions / norms).astype("float32"),
        probabilities=np.broadcast_to(probabilities, num_features).copy(),
        magnitude=non_negative("magnitude", magnitude),
        magnitude_std=non_negative("magnitude_std", magnitude_std),
        group_size=positive_integer("group_size", group_size),
        correlation=float(correlation),
    )


def zipf(
    num_features: int, low: float = 0.01, high: float = 0.3, exponent: float = 1.0
) -> np.ndarray:
    """Return firing probabilities that decrease like `1 / rank ** exponent`.

    `p_j = low + (high - low) (j^-s - n^-s) / (1 - n^-s)` for `j = 1, ..., n`

    Args:
        num_features: Number of features, `n`.
        low: Probability of the rarest feature.
        high: Probability of the most frequent feature.
        exponent: Exponent `s`, above 0.

    Returns:
        A decreasing array of shape `(num_features,)`.

    Raises:
        ValueError: `0 < low < high <= 1` does not hold, or `exponent` is not positive.

    Example:

    >>> from keras_sae import datasets
    >>> datasets.zipf(3, low=0.1, high=0.4).round(3).tolist()
    [0.4, 0.175, 0.1]
    """
    n = positive_integer("num_features", num_features)
    if not 0 < low < high <= 1 or not exponent > 0:
        raise ValueError(
            "`low` and `high` must satisfy 0 < low < high <= 1, and `exponent` must be "
            f"positive. Received: low={low!r}, high={high!r}, exponent={exponent!r}."
        )
    weights = np.arange(1, n + 1, dtype="float64") ** -exponent
    spread = (weights - weights[-1]) / (weights[0] - weights[-1]) if n > 1 else 1.0
    return np.broadcast_to(low + (high - low) * spread, n).copy()
