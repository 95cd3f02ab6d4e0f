"""Synthetic data whose features are known: many directions in few dimensions."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import tensorflow as tf


@dataclass(frozen=True)
class Superposition:
    """Data that are sparse sums of known features; `superposition` makes it.

    `x = sum_j a_j f_j`, with `a_j = max(0, magnitude + magnitude_std * n_j)` where
    feature `j` fires and 0 elsewhere, `n_j` standard normal

    Args:
        features: The features `f_j`, unit vectors, shape `(num_features, dimension)`.
        probabilities: How often each fires, shape `(num_features,)`.
        magnitude: Mean of `a_j` where it fires.
        magnitude_std: Its standard deviation.
        group_size: Features that fire together, in groups of neighbours.
        correlation: Of the Gaussian variables behind the firing within a group.

    Example:

    >>> from keras_sae import datasets
    >>> task = datasets.superposition(num_features=16, dimension=8, firing_probability=0.1)
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
        """Mean number of features that fire in a sample."""
        return float(self.probabilities.sum())

    def sample(self, samples: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Returns data and the activations of their features.

        Args:
            samples: How many.
            seed: Makes the draws; another than that of `dataset` gives other data.

        Returns:
            float32 arrays of shapes `(samples, dimension)`, `(samples, num_features)`.
        """
        import tensorflow as tf

        with tf.device("CPU"):
            x, activations = self._draw(_positive("samples", samples), (seed, 2**20))
        return x.numpy(), activations.numpy()

    def dataset(
        self, samples: int, batch_size: int = 1024, seed: int = 0
    ) -> "tf.data.Dataset":
        """Returns fresh data in batches, made in the graph as they are asked for.

        The same data come in each epoch: more epochs see no more than `samples`.

        Args:
            samples: How many an epoch; a rest that fills no batch is left out.
            batch_size: Samples a batch.
            seed: Makes the draws.

        Returns:
            A dataset of float32 batches of shape `(batch_size, dimension)`.

        Raises:
            ValueError: There are fewer samples than one batch.
        """
        import tensorflow as tf

        steps = _positive("samples", samples) // _positive("batch_size", batch_size)
        if steps == 0:
            raise ValueError(
                "`samples` must fill at least one batch. Received: "
                f"samples={samples} with batch_size={batch_size}."
            )
        batches = tf.data.Dataset.range(steps).map(
            lambda step: self._draw(batch_size, (seed, step))[0],
            num_parallel_calls=tf.data.AUTOTUNE,
        )
        return batches.prefetch(tf.data.AUTOTUNE)

    def _draw(self, samples: int, seed: Any) -> Any:
        import tensorflow as tf

        seeds = tf.random.experimental.stateless_split(tf.cast(seed, "int32"), 3)
        count = len(self.features)
        own = tf.random.stateless_normal((samples, count), seeds[0])
        if self.correlation:
            groups = -(-count // self.group_size)
            common = tf.random.stateless_normal((samples, groups), seeds[1])
            common = tf.repeat(common, self.group_size, axis=1)[:, :count]
            share = self.correlation
            own = share**0.5 * common + (1 - share) ** 0.5 * own
        fires = own < self._cuts()
        noise = tf.random.stateless_normal((samples, count), seeds[2])
        size = tf.nn.relu(self.magnitude + self.magnitude_std * noise)
        activations = tf.where(fires, size, 0.0)
        return activations @ self.features, activations

    def _cuts(self) -> np.ndarray:
        """A standard normal is below the cut as often as the feature fires."""
        from scipy.stats import norm

        return norm.ppf(self.probabilities).astype("float32")


def superposition(
    num_features: int,
    dimension: int,
    firing_probability: float | Sequence[float] | np.ndarray,
    *,
    magnitude: float = 1.0,
    magnitude_std: float = 0.0,
    group_size: int = 1,
    correlation: float = 0.0,
    features: Any = None,
    seed: int = 0,
) -> Superposition:
    """Makes a task of known features, more of them than dimensions if you like.

    What a sparse autoencoder finds can be held against them:
    `metrics.recovery_score(task.features, model.dictionary())`.

    Args:
        num_features: How many features.
        dimension: Values of a sample.
        firing_probability: Probability that a feature fires in a sample: one for all, or one a
            feature, as `zipf` gives them.
        magnitude: Mean of an activation.
        magnitude_std: Its standard deviation; what falls below 0 is 0.
        group_size: Size of the groups within which firing is correlated.
        correlation: Between the Gaussian variables behind the firing of one group,
            at least 0 and below 1. The probabilities stay as given.
        features: Array of shape `(num_features, dimension)`, scaled to unit norm;
            None draws them, orthogonal where the dimension allows it.
        seed: Makes the features.

    Returns:
        A `Superposition`, with `features`, `sample(...)` and `dataset(...)`.

    Raises:
        ValueError: A number is out of its range, more features would fire than
            there are, or `features` has another shape.

    Reference:
        Elhage et al., "Toy Models of Superposition", 2022; Sharkey et al., "Taking
        features out of superposition with sparse autoencoders", 2022.

    Example:

    >>> from keras_sae import datasets
    >>> task = datasets.superposition(64, 32, firing_probability=0.05, magnitude_std=0.1)
    >>> round(task.l0, 2), task.dataset(2048, batch_size=256).cardinality().numpy()
    (3.2, np.int64(8))
    """
    shape = (_positive("num_features", num_features), _positive("dimension", dimension))
    found = _directions(*shape, seed) if features is None else np.asarray(features)
    if found.shape != shape:
        raise ValueError(
            "`features` must have the shape (num_features, dimension). Received: "
            f"features.shape={found.shape} for {shape}."
        )
    lengths = np.linalg.norm(found, axis=1, keepdims=True)
    bad = np.flatnonzero(~((lengths > 0) & np.isfinite(lengths)))
    if len(bad):
        raise ValueError(
            "Each of `features` must be a direction: finite, and not all zero. "
            f"Received: features[{bad[0]}]={found[bad[0]]!r}, and {len(bad) - 1} more "
            "such rows. Leave them out, and lower `num_features`."
        )
    for name, value in {"magnitude": magnitude, "magnitude_std": magnitude_std}.items():
        if not (np.isfinite(value) and value >= 0):
            raise ValueError(
                f"`{name}` must be a finite number >= 0. Received: {name}={value!r}."
            )
    if not 0 <= correlation < 1:
        raise ValueError(
            "`correlation` must be at least 0 and below 1. Received: "
            f"correlation={correlation!r}."
        )
    return Superposition(
        features=(found / lengths).astype("f4"),
        probabilities=_probabilities(firing_probability, shape[0]),
        magnitude=float(magnitude),
        magnitude_std=float(magnitude_std),
        group_size=_positive("group_size", group_size),
        correlation=float(correlation),
    )


def zipf(
    num_features: int, low: float = 0.01, high: float = 0.3, exponent: float = 1.0
) -> np.ndarray:
    """Returns probabilities that fall off like `1 / rank ** exponent`.

    `p_j = low + (high - low) (j^-s - n^-s) / (1 - n^-s)`, `j = 1 ... n`

    Args:
        num_features: How many, `n`.
        low: Probability of the rarest.
        high: Probability of the most frequent.
        exponent: `s`, above 0.

    Returns:
        Array of shape `(num_features,)`, falling.

    Raises:
        ValueError: The probabilities are not `0 < low < high <= 1`, or `exponent`
            is not positive.

    Example:

    >>> from keras_sae import datasets
    >>> datasets.zipf(3, low=0.1, high=0.4).round(3).tolist()
    [0.4, 0.175, 0.1]
    """
    n = _positive("num_features", num_features)
    if not 0 < low < high <= 1 or not exponent > 0:
        raise ValueError(
            "`zipf` needs probabilities 0 < low < high <= 1 and an exponent above 0. "
            f"Received: low={low!r}, high={high!r}, exponent={exponent!r}."
        )
    rank = np.arange(1, n + 1, dtype="float64") ** -exponent
    spread = (rank - rank[-1]) / (rank[0] - rank[-1]) if n > 1 else np.ones(1)
    return low + (high - low) * spread


def _directions(count: int, dimension: int, seed: int) -> np.ndarray:
    """Random directions, orthogonal if there are no more than dimensions."""
    rng = np.random.default_rng(seed)
    found = rng.standard_normal((count, dimension))
    if count <= dimension:
        return np.linalg.qr(found.T)[0].T
    return found


def _probabilities(firing_probability: Any, count: int) -> np.ndarray:
    values = np.broadcast_to(
        np.asarray(firing_probability, "float64"), np.shape(firing_probability) or count
    )
    if values.shape != (count,):
        raise ValueError(
            "`firing_probability` must be one probability, or one for each feature. Received: "
            f"firing of shape {values.shape} for num_features={count}."
        )
    if not ((values > 0) & (values <= 1)).all():
        raise ValueError(
            "`firing_probability` is the probability that a feature fires, above 0 and at most 1; "
            "with more, more features would be active than there are. Received: "
            f"firing between {values.min():g} and {values.max():g}. For k active "
            "features a sample pass k / num_features."
        )
    return values.copy()


def _positive(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise ValueError(
            f"`{name}` must be a positive integer. Received: {name}={value!r}."
        )
    return int(value)
