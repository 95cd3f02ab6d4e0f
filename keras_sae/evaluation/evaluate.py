"""Metrics of a trained model on test data."""

import math

import keras
import numpy as np

from keras_sae import metrics
from keras_sae.evaluation.baselines import (
    Baseline,
    Codec,
    Identity,
    linear_dictionary,
)
from keras_sae.evaluation.probing import subset_probes, two_fold_probe
from keras_sae.layers import ActivityPenalty
from keras_sae.models import Autoencoder, VariationalAutoencoder
from keras_sae.models.data_adapter import as_arrays, labeled_arrays
from keras_sae.models.validation import is_array
from keras_sae.regularizers import KLDivergence
from keras_sae.types import ArrayLike, Codes, Data, LabeledData

# Maximum number of noise samples. The standard error of their mean is 1% of a standard
# deviation.
_NOISE_SAMPLES = 10_000


def evaluate(
    model: Codec,
    x: Data,
    y: ArrayLike | None = None,
    seed: int = 0,
    *,
    train: LabeledData | Data | None = None,
    codes: Codes | None = None,
) -> dict[str, float]:
    """Return the metrics of a model on test data.

    - `reconstruction`: mean squared error per value.
    - `reconstruction_sum`: squared error per sample, averaged over the samples.
    - `explained_variance`: `keras_sae.metrics.explained_variance`.
    - `copying`: `keras_sae.evaluation.copying`, the explained variance on noise. The
      identity scores 1. A model that can only reconstruct structured data scores about
      0.
    - `copying_gap`: `explained_variance - copying`.
    - `units`: number of values in a code. A unit of a convolutional code counts once
      per position.
    - `l0`: mean number of non-zero values per sample.
    - `effective_l0`: `keras_sae.metrics.effective_l0`, which is also meaningful for
      codes that are never exactly zero.
    - `expected_l0`, for bounded codes that are never exactly zero: the activations are
      scaled to [0, 1], summed per sample, and averaged over samples.
    - `dead_fraction`: fraction of units that are zero in every sample.
    - `mean_activation`: mean of the codes.
    - `hoyer`: `keras_sae.metrics.hoyer`.
    - `parameters`, for Keras models and baselines: number of learned parameters.
      Shared weights are counted once.
    - `target_distance`, for a KL divergence penalty: mean absolute difference between
      the units' mean activations and the target.
    - `elbo`, for variational models: evidence lower bound in nats per sample.
    - `probe_accuracy`, with labels: accuracy of a linear classifier on the codes. The
      classifier is fitted to `train`. If `train` is None, it is fitted to each half of
      `x` and tested on the other half.
    - `probe_accuracy_100`, `probe_accuracy_1000`, with `train`: accuracy of a
      classifier fitted to a stratified subset of 100 or 1,000 training samples. The
      metric is missing if `train` has too few samples overall or in one class, or more
      classes than the subset has samples.

    Args:
        model: A trained `keras_sae.models.Autoencoder`, a fitted baseline, or another
            object with `encode` and `decode`.
        x: Test data of shape `(samples, *input_shape)`, or a finite dataset of batches
            of `x` or `(x, y)`. A `y` with the shape of `x` is ignored.
        y: None, or labels of shape `(samples,)`.
        seed: Random seed for the noise and for selecting the probes' training samples.
        train: Training data of the probes: None, a pair `(x_train, y_train)`, or a
            dataset of such batches. With `(x_train, None)`, no probes are fitted.
        codes: Codes of `x` from `model.encode(x)` or `model.encode(x, sparse=True)`. If
            None, they are computed.

    Returns:
        A dict of floats. The accuracy of a probe is NaN if all of its training or test
        codes are zero, or if its training labels have only one class.

    Raises:
        ValueError: `model` is a transcoder or has no `encode` or `decode`, `x` does
            not match the model, or `y` does not match `x`.

    Example:

    >>> import numpy as np
    >>> from keras_sae import evaluation, models
    >>> x = np.random.default_rng(0).random((20, 6), dtype="float32")
    >>> result = evaluation.evaluate(models.shallow((6,), 4, "l1"), x)
    >>> sorted(result)[:4]
    ['copying', 'copying_gap', 'dead_fraction', 'effective_l0']
    """
    x, y = labeled_arrays(x, y)
    copied = copying(model, x, seed)  # also checks the model
    codes = compact_codes(model, x) if codes is None else codes
    compared = model.reconstruction_target(x) if isinstance(model, Autoencoder) else x
    reconstruction = model.decode(codes)
    error = float(np.mean((compared - reconstruction) ** 2, dtype="float64"))
    explained = metrics.explained_variance(compared, reconstruction)
    units = math.prod(codes.shape[1:])
    activity = {"l0": metrics.l0(codes)}
    if isinstance(model, Autoencoder) and model.activity.bounds is not None:
        low, high = model.activity.bounds  # see `metrics.L0`
        mean = codes.mean(dtype="float64")
        activity["expected_l0"] = float(units * (mean - low) / (high - low))
    dictionary = None
    if isinstance(model, Autoencoder):
        if len(model.decoder.input_shape) == 2:  # one position per unit
            dictionary = model.dictionary()
    elif isinstance(model, Baseline):
        # The dictionary of `Identity` may be very large, and all its rows have norm 1.
        if not isinstance(model, Identity):
            dictionary = model.dictionary()
    elif codes.ndim == 2:
        dictionary = linear_dictionary(model, codes)
    activity["effective_l0"] = metrics.effective_l0(codes, dictionary)
    result = {
        "reconstruction": error,
        "reconstruction_sum": error * x[0].size,
        "explained_variance": explained,
        "copying": copied,
        "copying_gap": explained - copied,
        "units": float(units),
        **activity,
        "dead_fraction": metrics.dead_fraction(codes),
        "mean_activation": float(codes.mean(dtype="float64")),
        "hoyer": metrics.hoyer(codes) if units > 1 else float("nan"),
    }
    if isinstance(model, keras.Model):
        sizes = [np.prod(weight.shape) for weight in model.trainable_variables]
        result["parameters"] = float(np.sum(sizes))
    elif isinstance(model, Baseline):
        result["parameters"] = float(model.parameters)
    target = target_activation(model)
    if target is not None:
        means = codes.mean(axis=0, dtype="float64")
        result["target_distance"] = float(np.abs(means - target).mean())
    if isinstance(model, VariationalAutoencoder):
        result["elbo"] = float(model.elbo(x))
    if y is not None and train is None:
        result["probe_accuracy"] = two_fold_probe(codes, y, seed)
    elif y is not None:
        x_train, y_train = labeled_data("train", train)
        if y_train is not None:
            train_codes = compact_codes(model, x_train)
            result |= subset_probes(train_codes, y_train, codes, y, seed)
    return result


def compact_codes(model: Codec, x: np.ndarray) -> Codes:
    """Return the codes of `x`.

    The result is a sparse matrix for autoencoders whose activations can be zero.
    """
    if isinstance(model, Autoencoder) and model.effective_l0 is None:
        return model.encode(x, sparse=True)
    return model.encode(x)


def labeled_data(
    name: str, data: LabeledData | Data | None
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the samples and labels of `data`. Error messages call it `name`."""
    parts = data if isinstance(data, (tuple, list)) else (data,)
    if data is None or is_array(data) or len(parts) > 2:
        raise ValueError(
            f"`{name}` must be a pair of data and labels, or a dataset of such "
            f"batches. Received: {type(data).__name__}. Without labels, pass "
            "`(x, None)`."
        )
    x, y = (*parts, None)[:2]
    return labeled_arrays(x, y, name)


def copying(model: Codec, x: Data, seed: int = 0) -> float:
    """Return the explained variance on noise with the data's means and variances.

    Each value `j` is drawn independently from `Normal(mean_j(x), variance_j(x))`.

    This noise has no structure. A model that reconstructs it well copies any input, so
    a low reconstruction error is no evidence that the model's features are good.

    Args:
        model: As in `evaluate`.
        x: Array of shape `(samples, *input_shape)`, or a finite dataset of batches.
        seed: Random seed for the noise.

    Returns:
        A float, at most 1. The identity scores 1.

    Raises:
        ValueError: `model` has no `encode` or `decode`, or is a transcoder.

    Example:

    >>> import numpy as np
    >>> from keras_sae import evaluation, models
    >>> x = np.random.default_rng(0).random((20, 6), dtype="float32")
    >>> evaluation.copying(models.shallow((6,), 4, "l1"), x) < 1
    True
    """
    if not isinstance(model, Codec):
        raise ValueError(
            "`model` must be a `keras_sae.models.Autoencoder`, or have the methods "
            f"`encode` and `decode`. Received: model={model!r}."
        )
    if isinstance(model, Autoencoder) and not model.reconstructs_input:
        raise ValueError(
            "`model` must reconstruct its input, which a transcoder does not. "
            f"Received: model={model.name!r}. Use `model.evaluate(x, y)`."
        )
    x, _ = as_arrays(x)
    size = (min(len(x), _NOISE_SAMPLES), *x.shape[1:])
    rng = np.random.default_rng(seed)
    noise = rng.normal(x.mean(axis=0), x.std(axis=0), size).astype("float32")
    reconstruction = model.decode(compact_codes(model, noise))
    if isinstance(model, Autoencoder):
        noise = model.reconstruction_target(noise)
    return metrics.explained_variance(noise, reconstruction)


def target_activation(model: Codec) -> float | None:
    """Return the target mean activation of a code with a KL penalty, or None.

    The penalty's `target` is a fraction of the activation's range. For tanh, a `target`
    of 0.2 corresponds to a mean of -0.6.
    """
    layers = model.sparse_layers if isinstance(model, Autoencoder) else []
    penalty = layers[-1].sparsity if layers else None
    if isinstance(penalty, ActivityPenalty):
        regularizer, (low, high) = penalty.regularizer, penalty.bounds
        if isinstance(regularizer, KLDivergence):
            return low + (high - low) * regularizer.target
    return None
