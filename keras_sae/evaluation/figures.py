"""What a model has learned, in figures of held-out data."""

from typing import Any

import keras
import numpy as np

from keras_sae import metrics
from keras_sae.evaluation.probing import cross_probe

# Rows of a figure that costs a pass through the model are capped here: the
# error of a mean over so many samples is below a percent of its spread.
_NOISE_SAMPLES = 10_000


def evaluate(model: Any, x: Any, y: Any = None, seed: int = 0) -> dict[str, float]:
    """Figures of a model on held-out data.

    - `reconstruction`: squared error a value; `reconstruction_sum`: a sample.
    - `explained_variance`: `keras_sae.metrics.explained_variance`.
    - `copying`: explained variance on noise, each value drawn on its own with the
      mean and variance that it has over the data. The identity scores 1; a model
      of what the data has in common, about 0.
    - `copying_gap`: `explained_variance - copying`.
    - `l0`: mean non-zero units a sample, or `expected_l0`: mean sum of the
      activations, where the code is bounded and never exactly zero.
    - `dead_fraction`: units that are zero for every sample.
    - `mean_activation`, `hoyer`: of the codes. `target_distance`: mean over the
      units of the distance between mean activation and target, where the code has
      a target (KL divergence).
    - `elbo`: nats a sample, of a variational model.
    - `parameters`: number of trainable weights.
    - `probe_accuracy`: only with `y`; `probe` on two halves, each tested on the
      other, mean of both; NaN if the codes are all zero.

    Args:
        model: A trained `keras_sae.models.Autoencoder`, or anything else with its
            `encode` and `decode`, such as a baseline.
        x: Array of shape `(samples, *input_shape)`.
        y: None, or labels of shape `(samples,)`.
        seed: Draws the noise and the halves.

    Returns:
        A dict of floats.

    Raises:
        ValueError: `model` has no `encode` or `decode`, `x` does not fit it, or `y`
            does not fit `x`.

    Example:

    >>> import numpy as np
    >>> from keras_sae import evaluation, models
    >>> x = np.random.default_rng(0).random((20, 6), dtype="float32")
    >>> figures = evaluation.evaluate(models.shallow((6,), 4, "l1"), x)
    >>> sorted(figures)[:4]
    ['copying', 'dead_fraction', 'explained_variance', 'hoyer']
    """
    if hasattr(x, "element_spec"):
        raise ValueError(
            f"`x` must be an array of held-out samples. Received: {x!r}. Of batches of "
            "x alone, `numpy.concatenate(list(dataset.as_numpy_iterator()))` makes one."
        )
    if not (hasattr(model, "encode") and hasattr(model, "decode")):
        raise ValueError(
            "`model` must be an autoencoder, or have `encode` and `decode` as one has. "
            f"Received: {model!r}."
        )
    x = np.asarray(x)
    codes = model.encode(x)
    reconstruction = model.decode(codes)
    error = float(np.mean((x - reconstruction) ** 2, dtype="float64"))
    explained = metrics.explained_variance(x, reconstruction)
    copied = copying(model, x, seed)
    figures = {
        "reconstruction": error,
        "reconstruction_sum": error * x[0].size,
        "explained_variance": explained,
        "copying": copied,
        "copying_gap": explained - copied,
        **_activity(model, codes),
        "dead_fraction": metrics.dead_fraction(codes),
        "mean_activation": float(codes.mean(dtype="float64")),
        "hoyer": metrics.hoyer(codes) if codes.shape[1] > 1 else float("nan"),
        "parameters": float(parameters(model)),
    }
    rho = target(model)
    if rho is not None:
        means = codes.mean(axis=0, dtype="float64")
        figures["target_distance"] = float(np.abs(means - rho).mean())
    if hasattr(model, "elbo"):
        figures["elbo"] = float(model.elbo(x))
    if y is not None:
        # Nothing can be read from a code that is all zero; the rest still can be.
        read = cross_probe(codes, np.asarray(y), seed) if codes.any() else float("nan")
        figures["probe_accuracy"] = read
    return figures


def copying(model: Any, x: Any, seed: int = 0) -> float:
    """Explained variance on noise with the data's means and variances.

    `z_ij ~ Normal(mean_j(x), variance_j(x))`, drawn for every value on its own.

    Args:
        model: A trained `keras_sae.models.Autoencoder`.
        x: Array of shape `(samples, *input_shape)`.
        seed: Draws the noise.

    Returns:
        A float, at most 1: 1 is the identity, 0 and below is no copying.

    Example:

    >>> import numpy as np
    >>> from keras_sae import evaluation, models
    >>> x = np.random.default_rng(0).random((20, 6), dtype="float32")
    >>> evaluation.copying(models.shallow((6,), 4, "l1"), x) < 1
    True
    """
    x = np.asarray(x)
    size = (min(len(x), _NOISE_SAMPLES), *x.shape[1:])
    rng = np.random.default_rng(seed)
    noise = rng.normal(x.mean(axis=0), x.std(axis=0), size).astype("float32")
    return metrics.explained_variance(noise, model.decode(model.encode(noise)))


def parameters(model: Any) -> int:
    """Number of trainable numbers in a model, shared ones counted once.

    Args:
        model: A Keras model, or a baseline, which counts its own.

    Returns:
        An int.

    Example:

    >>> from keras_sae import evaluation, models
    >>> evaluation.parameters(models.shallow((6,), 4, "l1", tied=True))
    34
    """
    if not isinstance(model, keras.Model):
        return int(model.parameters)
    return int(sum(np.prod(v.shape, dtype=int) for v in model.trainable_variables))


def target(model: Any) -> float | None:
    """The mean activation that a model's code is pressed to, None without one.

    Args:
        model: An autoencoder, or a baseline.

    Returns:
        A float between the bounds of the activation, or None: the divergence's
        target is a share of the way from one to the other.

    Example:

    >>> from keras_sae import evaluation, models
    >>> evaluation.target(models.shallow((6,), 4, "kl"))
    0.05
    """
    layers = getattr(model, "sparse_layers", [])
    sparse: Any = layers[-1].sparsity if layers else None
    share = getattr(getattr(sparse, "regularizer", None), "target", None)
    if share is None:
        return None
    low, high = sparse.bounds
    return low + (high - low) * share


def _activity(model: Any, codes: np.ndarray) -> dict[str, float]:
    """The figure that the model logs, `l0` or `expected_l0`, of all codes at once."""
    if not hasattr(model, "activity"):
        return {"l0": metrics.l0(codes)}
    metric = type(model.activity).from_config(model.activity.get_config())
    metric.update_state(codes)
    return {metric.name: float(metric.result())}
