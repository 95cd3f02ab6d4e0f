"""The search space: families of autoencoders and their hyperparameters."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import keras
import keras_tuner
import numpy as np
from keras_tuner import HyperParameters

from keras_sae import models, pretraining
from keras_sae.models import building_blocks, families
from keras_sae.models.families import KINDS
from keras_sae.types import SparsityLike
from keras_sae.utils import validation

# A constant, a range `(low, high)`, a list of choices, or a function of `hp`.
Range: TypeAlias = (
    SparsityLike | float | tuple[Any, ...] | list[Any] | Callable[..., Any]
)

# The hyperparameters that only some families have.
FAMILIES: dict[str, tuple[str, ...]] = {
    "shallow": ("tied",),
    "deep": ("depth", "tied", "pretraining"),
    "stacked": ("depth", "tied", "pretraining"),
    "convolutional": ("depth",),
    "variational": ("depth", "beta"),
}


class SparsityHyperModel(keras_tuner.HyperModel):
    """Search space of one or several model families and their sparsity settings.

    Each hyperparameter has a default range. To replace this range, pass an argument of
    the same name: a constant, `(low, high)`, a list of choices, or a function that
    takes the `keras_tuner.HyperParameters` and returns the value. A trial contains only
    those of the following hyperparameters that apply to it:

    - `sparsity`: one or several of the kinds `"l1"`, `"kl"`, `"top_k"`,
      `"batch_top_k"`, `"lifetime"`, `"jump_relu"`, `"gated"`, `"matryoshka"` and
      `"none"`, or a `keras_sae.layers.Sparsity`. Each kind has some of the
      hyperparameters `factor`, `target`, `fraction`, `k` and `target_l0`. The argument
      `factor` applies to all kinds that have a factor, and `l1_factor` to `"l1"` only.
    - `units`: width of the code. A function may also return a tuple with the widths of
      all layers, the code last.
    - `depth`: number of encoder layers, or of convolutions before the code layer.
      Each dense layer is half as wide as the previous one. `depth` has no effect if
      `units` is a tuple.
    - `tied`: whether the decoder shares the encoder's weights.
    - `learning_rate`: learning rate of Adam.
    - `batch_size`: number of samples per step.
    - `pretraining`: epochs of greedy pretraining per level of deep and stacked models,
      or 0 for none.
    - `beta`: weight of the KL divergence in variational models.

    Args:
        model: `"shallow"`, `"deep"`, `"stacked"`, `"convolutional"` or
            `"variational"`, or a list of these families.
        input_shape: Shape of one sample, such as `(28, 28, 1)`.
        options: Further arguments of the family's factory, such as
            `{"output_activation": "sigmoid"}`. They are the same in all trials.
        **ranges: Ranges by name, as described above.

    Raises:
        ValueError: A name is unknown, or a range or one of its values is invalid.

    Example:

    >>> import keras_tuner
    >>> from keras_sae import tuning
    >>> hypermodel = tuning.SparsityHyperModel(
    ...     "shallow", (8, 8, 1), sparsity="l1", units=32, l1_factor=(1e-4, 1e-2)
    ... )
    >>> hp = keras_tuner.HyperParameters()
    >>> model = hypermodel.build(hp)
    >>> sorted(hp.values)
    ['batch_size', 'l1_factor', 'learning_rate', 'model', 'sparsity', 'tied', 'units']
    """

    def __init__(
        self,
        model: str | list[str] = "shallow",
        input_shape: int | Sequence[int] = (),
        *,
        options: Mapping[str, Any] | None = None,
        **ranges: Range,
    ) -> None:
        super().__init__()
        self.input_shape = building_blocks.known_shape(input_shape)
        self.options = dict(options or {})
        self._defaults = _default_ranges(math.prod(self.input_shape))
        of_kinds = {f"{kind}_{name}" for kind in KINDS for name in KINDS[kind]}
        for name in ranges:
            validation.known_name("range", name, {*self._defaults, *of_kinds})
        self._ranges = {**self._defaults, "model": model, **ranges}
        self._families = [model] if isinstance(model, str) else list(model)
        for family in self._families:
            validation.known_name("model", family, FAMILIES)
        sparsity = self._ranges["sparsity"]
        offered = sparsity if isinstance(sparsity, (list, tuple)) else [sparsity]
        self._kinds = [kind for kind in offered if isinstance(kind, str)]
        for kind in self._kinds:
            validation.known_name("sparsity", kind, KINDS)
        # Raise errors about the ranges of each kind here rather than in a trial.
        for kind in self._kinds or [""]:
            hp = HyperParameters()
            hp.values = {"sparsity": kind} if kind else {}
            self._draw_all(hp)

    def declare_hyperparameters(self, hp: HyperParameters) -> None:
        """Register all hyperparameters, including those that only `fit` uses."""
        self._draw_all(hp)

    def build(self, hp: HyperParameters) -> models.Autoencoder:
        """Return the compiled model of one trial."""
        values = self._draw_all(hp)
        options = dict(self.options)
        for name in ("depth", "tied", "beta"):
            if values[name] is not None:
                options[name] = values[name]
        model = families.build(
            values["model"],
            self.input_shape,
            values["units"],
            values["sparsity"],
            **options,
        )
        rate = validation.positive_number("learning_rate", values["learning_rate"])
        model.compile(keras.optimizers.Adam(rate))
        return model

    def fit(
        self,
        hp: HyperParameters,
        model: models.Autoencoder,
        x: np.ndarray,
        *args: Any,
        **kwargs: Any,
    ) -> keras.callbacks.History:
        """Train the model of one trial, after greedy pretraining if requested."""
        values = self._draw_all(hp)
        kwargs["batch_size"] = min(values["batch_size"], len(x))
        # Hyperband resumes trials. A resumed trial has already been pretrained.
        if values["pretraining"] and not kwargs.get("initial_epoch"):
            pretraining.greedy(
                model,
                x,
                values["pretraining"],
                batch_size=kwargs["batch_size"],
                optimizer=keras.optimizers.Adam(values["learning_rate"]),
                verbose=0,
            )
        return model.fit(x, *args, **kwargs)

    def _draw_all(self, hp: HyperParameters) -> dict[str, Any]:
        """Register all hyperparameters, and return their values (None if inactive)."""
        # Seeded searches depend on the order in which hyperparameters are registered.
        values = {"model": self._draw(hp, "model")}
        values["units"] = self._draw(hp, "units")
        *_, width = building_blocks.layer_units(values["units"])
        for name in ("depth", "tied"):
            values[name] = self._draw_if_family_has(hp, name)
        for name in ("learning_rate", "sparsity"):
            values[name] = self._draw(hp, name)
        chosen = values["sparsity"]
        for kind in self._kinds:
            active = kind == chosen
            with hp.conditional_scope("sparsity", [kind]):
                drawn = {n: self._draw(hp, n, kind, active) for n in KINDS[kind]}
            if active:
                for count in {"k", "target_l0"} & drawn.keys():
                    drawn[count] = min(drawn[count], width)
                values["sparsity"] = families.make_sparsity(kind, drawn)
        values["batch_size"] = self._draw(hp, "batch_size")
        for name in ("pretraining", "beta"):
            values[name] = self._draw_if_family_has(hp, name)
        return values

    def _draw_if_family_has(self, hp: HyperParameters, name: str) -> Any:
        having = [family for family in self._families if name in FAMILIES[family]]
        if not having:
            return None
        with hp.conditional_scope("model", having):
            return self._draw(hp, name, active=hp.get("model") in having)

    def _draw(
        self, hp: HyperParameters, name: str, kind: str = "", active: bool = True
    ) -> Any:
        """Register a hyperparameter, and return its value (None if inactive)."""
        values = self._ranges.get(f"{kind}_{name}", self._ranges[name])
        dtype = type(self._defaults[name][0])
        key = f"{kind}_{name}" if kind else name
        not_functions = (type, keras.layers.Layer, keras.regularizers.Regularizer)
        if callable(values) and not isinstance(values, not_functions):
            return values(hp) if active else None
        if isinstance(values, (tuple, list)) and dtype is float:
            values = type(values)(float(value) for value in values)
        if isinstance(values, (tuple, list)) and len(values) == 1:
            values = values[0]
        if isinstance(values, tuple) and dtype in (int, float):
            if len(values) != 2:
                raise ValueError(
                    f"`{key}` must be a constant, a range (low, high), a list of "
                    f"choices, or a function of `hp`. Received: {key}={values!r}."
                )
            value = (hp.Int if dtype is int else hp.Float)(
                key,
                *values,
                step=2 if name == "batch_size" else None,
                sampling="linear" if name in ("depth", "pretraining") else "log",
            )
            # For integer ranges with steps, keras-tuner returns floats such as 64.0.
            return value if value is None else dtype(value)
        if isinstance(values, (tuple, list)):
            # `hp.Choice` would turn False and True into 0 and 1.
            return hp.Boolean(key) if dtype is bool else hp.Choice(key, values)
        if isinstance(values, (int, float, str)):
            return hp.Fixed(key, values)
        return values


def _default_ranges(size: int) -> dict[str, Any]:
    """Return the default ranges by hyperparameter, for samples of `size` values."""
    active_units = (2, max(2, 2 * math.isqrt(size)))
    return {
        "model": ["shallow"],
        "sparsity": ["l1", "kl", "top_k"],
        # The error is a mean over a sample's values, so factors scale with `1 / size`.
        "factor": (0.01 / size, 10.0 / size),
        "target": (0.01, 0.2),
        "fraction": (0.01, 0.2),
        "k": active_units,
        "target_l0": active_units,
        "units": (max(8, min(size // 4, 256)), max(16, min(2 * size, 1024))),
        "depth": (2, 3),
        "tied": [False, True],
        "pretraining": [0, 5],
        "learning_rate": (3e-4, 1e-2),
        "batch_size": (32, 256),
        "beta": (1e-3, 1.0),
    }
