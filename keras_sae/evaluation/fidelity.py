"""Loss of a model when a layer's output is replaced by its reconstruction."""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keras_sae.activations.capture import CapturingModel
from keras_sae.activations.data import labeled_batches
from keras_sae.activations.edits import ablate
from keras_sae.activations.paths import LayerKey, find_layer
from keras_sae.activations.splice import check_autoencoder, check_width
from keras_sae.activations.substitute import SubstitutedModel
from keras_sae.models import Autoencoder, loops
from keras_sae.types import ArrayLike, Data

if TYPE_CHECKING:
    import pandas as pd

# Maximum number of rows to which the random autoencoder is adapted.
_ADAPT_ROWS = 10_000


class _Substitution:
    """Evaluate a model with other activations in place of a layer's output."""

    def __init__(
        self,
        model: keras.Model,
        layer: LayerKey,
        autoencoder: Autoencoder,
        data: tuple[Data, Any, ArrayLike | None],
        batch_size: int,
    ) -> None:
        place = find_layer(model, layer)
        if not model.compiled:
            raise ValueError(
                "`model` must be compiled, with its loss and metrics. Received: "
                f"model={model.name!r}. For example, call "
                "`model.compile(loss='sparse_categorical_crossentropy')`."
            )
        check_autoencoder(autoencoder, [place])
        self.autoencoder = autoencoder
        capturing = CapturingModel(model, [place])
        self.batches = list(labeled_batches(data[0], batch_size, *data[1:]))
        if any(y is None for _, y, _ in self.batches):
            raise ValueError(
                "`y` must be given, because the loss of the model needs targets. "
                "Received: data without targets."
            )
        self.activations = [
            capturing.arrays(x)[0].astype("float32") for x, _, _ in self.batches
        ]
        shape = self.activations[0].shape
        check_width(autoencoder, shape, shape, place.path)
        weights = [np.ravel(w) for _, _, w in self.batches if w is not None]
        self.model = SubstitutedModel(model, place, drop_masks=bool(weights))
        total = np.concatenate(weights) if weights else np.ones(1)
        if not total.sum() > 0:
            raise ValueError(
                "`sample_weight` must have a positive sum. Received: a sum of "
                f"{total.sum():g}."
            )
        # Keras divides the weighted loss by the number of weights, including zeros.
        self.weight_scale = total.size / total.sum()

    def batch(self, n: int, activations: np.ndarray) -> tuple[Any, ...]:
        """Return batch `n` with the given activations, as the model expects it."""
        x, y, weight = self.batches[n]
        inputs = {"inputs": x, "activations": activations}
        if weight is None:
            return inputs, y
        return inputs, y, weight * self.weight_scale

    def evaluate(
        self, replacement: Callable[[np.ndarray], np.ndarray]
    ) -> dict[str, float]:
        """Evaluate the model with `replacement(output)` as the layer's output."""
        data = _Batches(self, replacement)
        return self.model.evaluate(data, verbose=0, return_dict=True)

    def loss(self, n: int, activations: np.ndarray) -> float:
        """Return the loss of batch `n` with the given activations."""
        batch = self.batch(n, activations)
        return float(self.model.test_on_batch(*batch, return_dict=True)["loss"])

    def rows(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield the rows of activations of each batch, and the weight of each row."""
        for (_, _, weight), output in zip(self.batches, self.activations, strict=True):
            shape = output.shape[:-1]
            ones = np.ones(shape)
            if weight is not None and weight.shape == shape[: weight.ndim]:
                ones *= weight.reshape(
                    *weight.shape, *(1,) * (len(shape) - weight.ndim)
                )
            yield output.reshape(-1, output.shape[-1]), ones.ravel()


class _Batches(keras.utils.PyDataset):
    """Batches in which `replacement(output)` replaces the layer's output."""

    def __init__(
        self,
        substitution: _Substitution,
        replacement: Callable[[np.ndarray], np.ndarray],
    ) -> None:
        super().__init__()
        self.substitution = substitution
        self.replacement = replacement

    def __len__(self) -> int:
        return len(self.substitution.batches)

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        activations = self.replacement(self.substitution.activations[index])
        return self.substitution.batch(index, activations)


def _reconstructed(autoencoder: Autoencoder, activations: np.ndarray) -> np.ndarray:
    """Return the reconstruction of activations of any shape."""
    rows = activations.reshape(-1, activations.shape[-1])
    with loops.protected(autoencoder):
        return autoencoder.predict_on_batch(rows).reshape(activations.shape)


def fidelity(
    model: keras.Model,
    layer: LayerKey,
    autoencoder: Autoencoder,
    x: Data,
    y: Any = None,
    sample_weight: ArrayLike | None = None,
    *,
    batch_size: int = 32,
) -> "pd.DataFrame":
    """Return a model's loss and metrics when a layer's output is reconstructed.

    `recovered_of_mean = (L_mean - L) / (L_mean - L_original)`

    `L` is the loss in one row of the returned table. `L_mean` and `L_original` are the
    losses in the rows `mean` and `original`. `recovered_of_zero` uses the row `zero`
    instead of `mean`. A low reconstruction error does not imply a low loss. Compare
    `splice` with `random` and `mean`: even a random dictionary often has a high
    `recovered_of_zero`.

    Args:
        model: A compiled Keras model.
        layer: A layer, its path, the end of its path, or its name. If the model calls
            the layer several times, the output of the first call is replaced.
        autoencoder: A trained `keras_sae.models.Autoencoder` whose samples have the
            width of the layer.
        x: Inputs of the model, or batches of `(x, y)` or `(x, y, sample_weight)`.
        y: Targets of the model, if `x` consists of arrays.
        sample_weight: None, or weights as in `keras.Model.evaluate`. Give padding a
            weight of 0. Weights apply to the loss and to the `weighted_metrics` of
            `compile`.
        batch_size: Samples per batch, if `x` consists of arrays. The activations of all
            samples are kept in memory.

    Returns:
        A data frame with one row per variant of the layer's output: `original`,
        `splice` (the reconstruction), `random` (the reconstruction by an autoencoder
        with the same configuration and new weights, adapted to the data), `mean` (the
        mean of the activations, weighted by `sample_weight`) and `zero`. The columns
        are `loss`, the metrics of the model, `recovered_of_mean` and
        `recovered_of_zero`. `recovered_of_mean` is NaN unless the loss of `mean`
        exceeds that of `original`. The same applies to `recovered_of_zero` and `zero`.

    Raises:
        ValueError: The layer is not in the model, the model is not compiled, `y` is
            missing, the sum of the weights is not positive, or the widths of the
            autoencoder and the layer differ.

    Reference:
        [Gao et al., Scaling and evaluating sparse autoencoders,
        2024](https://arxiv.org/abs/2406.04093)

    Example:

    >>> import keras
    >>> import numpy as np
    >>> from keras_sae import evaluation, models
    >>> layers = [keras.layers.Dense(8, "relu", name="hidden"), keras.layers.Dense(3)]
    >>> model = keras.Sequential([keras.Input((5,)), *layers])
    >>> model.compile(loss="mse")
    >>> x, y = np.random.default_rng(0).random((20, 5)), np.zeros((20, 3))
    >>> autoencoder = models.shallow((8,), 16, "l1")
    >>> list(evaluation.fidelity(model, "hidden", autoencoder, x, y).index)
    ['original', 'splice', 'random', 'mean', 'zero']
    """
    import pandas as pd

    data = (x, y, sample_weight)
    substitution = _Substitution(model, layer, autoencoder, data, batch_size)
    rows, weights = map(np.concatenate, zip(*substitution.rows(), strict=True))
    mean = np.average(rows, axis=0, weights=weights).astype("float32")
    random = keras.models.clone_model(autoencoder)
    sample = rows[weights > 0][:_ADAPT_ROWS]
    random.adapt(sample)
    # A training call lets `BatchTopK` estimate its threshold, which starts at 0.
    random(sample, training=True)
    variants: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "original": lambda h: h,
        "splice": lambda h: _reconstructed(autoencoder, h),
        "random": lambda h: _reconstructed(random, h),
        "mean": lambda h: np.broadcast_to(mean, h.shape).copy(),
        "zero": np.zeros_like,
    }
    logs = {name: substitution.evaluate(change) for name, change in variants.items()}
    table = pd.DataFrame.from_dict(logs, orient="index")
    for name in ("mean", "zero"):
        span = table.loss[name] - table.loss["original"]
        share = (table.loss[name] - table.loss) / (span if span > 0 else np.nan)
        table[f"recovered_of_{name}"] = share
    return table


def feature_effects(
    model: keras.Model,
    layer: LayerKey,
    autoencoder: Autoencoder,
    x: Data,
    y: Any = None,
    units: Sequence[int] | None = None,
    sample_weight: ArrayLike | None = None,
    *,
    batch_size: int = 32,
) -> "pd.DataFrame":
    """Return the change in a model's loss when single units of a code are ablated.

    `L(h + decode(code without the unit) - decode(code)) - L(h)`

    `L` is the loss, and `h` is the layer's output. The reconstruction error stays in
    the output, so only the unit's contribution is removed.

    Args:
        model: A compiled Keras model.
        layer: As in `fidelity`.
        autoencoder: As in `fidelity`.
        x: As in `fidelity`.
        y: As in `fidelity`.
        units: Indices of the units. None means the 32 units with the largest mean
            activation.
        sample_weight: As in `fidelity`.
        batch_size: As in `fidelity`.

    Returns:
        A data frame with one row per unit, in descending order of `loss_change`. The
        index contains the units. The columns are `loss_change`, `frequency` (the
        fraction of activation rows in which the unit is active) and `mean_activation`.
        `sample_weight` also weights the rows for `frequency` and `mean_activation`.

    Raises:
        ValueError: As in `fidelity`, or a unit does not exist.

    Example:

    >>> import keras
    >>> import numpy as np
    >>> from keras_sae import evaluation, models
    >>> layers = [keras.layers.Dense(8, "relu", name="hidden"), keras.layers.Dense(3)]
    >>> model = keras.Sequential([keras.Input((5,)), *layers])
    >>> model.compile(loss="mse")
    >>> x, y = np.random.default_rng(0).random((20, 5)), np.zeros((20, 3))
    >>> autoencoder = models.shallow((8,), 16, "l1")
    >>> evaluation.feature_effects(model, "hidden", autoencoder, x, y, [3, 5]).shape
    (2, 3)
    """
    import pandas as pd

    data = (x, y, sample_weight)
    substitution = _Substitution(model, layer, autoencoder, data, batch_size)
    encoder, decoder = autoencoder.encoder, autoencoder.decoder
    codes = []
    means = frequency = total = np.zeros(())
    for rows, weights in substitution.rows():
        with loops.protected(autoencoder, encoder):
            codes.append(encoder.predict_on_batch(rows))
        means = means + weights @ codes[-1]
        frequency = frequency + weights @ (codes[-1] != 0)
        total = total + weights.sum()
    means, frequency = means / total, frequency / total
    chosen = np.argsort(-means)[:32] if units is None else np.asarray(units)
    ablate(chosen.tolist()).check(len(means))
    samples = [len(keras.tree.flatten(y)[0]) for _, y, _ in substitution.batches]
    changes = np.zeros(len(chosen))
    with loops.protected(autoencoder, decoder):
        for n, (h, code) in enumerate(
            zip(substitution.activations, codes, strict=True)
        ):
            original = decoder.predict_on_batch(code)
            before = substitution.loss(n, h)
            for place, unit in enumerate(chosen):
                if not code[:, unit].any():
                    continue
                edited = code.copy()
                edited[:, unit] = 0
                change = decoder.predict_on_batch(edited) - original
                after = substitution.loss(n, h + change.reshape(h.shape))
                changes[place] += (after - before) * samples[n]
    table = pd.DataFrame(
        {
            "loss_change": changes / sum(samples),
            "frequency": frequency[chosen],
            "mean_activation": means[chosen],
        },
        index=pd.Index(chosen, name="unit"),
    )
    return table.sort_values("loss_change", ascending=False)
