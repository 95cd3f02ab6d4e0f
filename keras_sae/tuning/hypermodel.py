"""The search space: families of autoencoders and their hyperparameters."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeGuard

import keras
import keras_tuner
import numpy as np

from keras_sae import layers, models, pretraining
from keras_sae.layers.serialization import NAMES
from keras_sae.models import building_blocks
from keras_sae.types import Shape, SparsityLike
from keras_sae.utils import validation

# A constant, a range `(low, high)`, a list of choices, or a function of `hp`.
Function: TypeAlias = Callable[[keras_tuner.HyperParameters], Any]
Range: TypeAlias = SparsityLike | float | tuple[Any, ...] | list[Any] | Function

# The factory of each family, and the hyperparameters that not all families have.
FAMILIES: dict[str, tuple[Callable[..., models.Autoencoder], tuple[str, ...]]] = {
    "shallow": (models.shallow, ("tied",)),
    "deep": (models.deep, ("depth", "tied", "pretraining")),
    "stacked": (models.stacked, ("depth", "tied", "pretraining")),
    "convolutional": (models.convolutional, ("depth",)),
}

# The arguments that are searched for each kind of sparsity.
KINDS: dict[str, tuple[str, ...]] = {
    "l1": ("factor",),
    "kl": ("target", "factor"),
    "top_k": ("k",),
    "batch_top_k": ("k",),
    "lifetime": ("fraction",),
    "jump_relu": ("factor", "target_l0"),
    "gated": ("factor",),
}


class SparsityHyperModel(keras_tuner.HyperModel):
    """Search space over the sparsity settings of one or several families of models.

    Each hyperparameter has a default range. Pass an argument of its name to replace
    that range by a constant, by `(low, high)`, by a list of choices, or by a function
    of the `keras_tuner.HyperParameters` that returns the value. A hyperparameter is
    part of a trial only where it applies:

    - `sparsity`: one or several of the kinds `"l1"`, `"kl"`, `"top_k"`,
      `"batch_top_k"`, `"lifetime"`, `"jump_relu"` and `"gated"`. Each kind has
      hyperparameters of its own: `factor`, `target`, `fraction`, `k`, `target_l0`.
      The argument `factor` holds for all kinds that have a factor, `l1_factor` for
      one kind. A `keras_sae.layers.Sparsity`, or a function of `hp` that returns
      one, takes the place of the names.
    - `units`: width of the code. `depth`: number of layers of deep, stacked and
      convolutional models; each dense layer is half as wide as the one before it.
      `tied`: whether the decoder shares the weights of the encoder.
    - `learning_rate` of Adam, `batch_size`, and `pretraining`: epochs of greedy
      pretraining per level of deep and stacked models, 0 for none.

    Args:
        model: `"shallow"`, `"deep"`, `"stacked"` or `"convolutional"`, or a list of
            these families.
        input_shape: Shape of one sample without the batch, such as `(28, 28, 1)`.
        options: Further arguments of the factory of the family, equal in all trials,
            such as `{"output_activation": "sigmoid"}`.
        **ranges: Ranges by name, as above.

    Raises:
        ValueError: A name is unknown, a value is out of its bounds, or the ends of a
            range are in the wrong order.

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
        input_shape: Shape | None = None,
        *,
        options: Mapping[str, Any] | None = None,
        **ranges: Range,
    ) -> None:
        super().__init__()
        self.input_shape = building_blocks.known_shape(input_shape)
        self.options = dict(options or {})
        self._hyperparameters = _hyperparameters(math.prod(self.input_shape))
        of_kinds = {f"{kind}_{name}": name for kind in KINDS for name in KINDS[kind]}
        known = {*self._hyperparameters, *of_kinds} - {"model"}
        self._ranges: dict[str, Range] = {}
        for name, value in {"model": model, **ranges}.items():
            if name != "model":
                validation.known_name("range", name, known)
            hyperparameter = self._hyperparameters[of_kinds.get(name, name)]
            self._ranges[name] = hyperparameter.check_range(name, value)

    def declare_hyperparameters(self, hp: keras_tuner.HyperParameters) -> None:
        """Register all hyperparameters, so that the first trial has those of `fit`."""
        self._draw_for_build(hp)
        self._draw_for_fit(hp)

    def build(self, hp: keras_tuner.HyperParameters) -> models.Autoencoder:
        """Return the compiled model of one trial.

        Args:
            hp: The hyperparameters of the trial.

        Returns:
            A compiled `keras_sae.models.Autoencoder`.
        """
        values, sparsity = self._draw_for_build(hp)
        self._draw_for_fit(hp)
        factory, _ = FAMILIES[values["model"]]
        units = _widths(values["model"], values["units"], values["depth"])
        options = dict(self.options)
        if values["tied"] is not None:
            options["tied"] = values["tied"]
        layer = layers.get_sparsity(sparsity)
        sparsities: SparsityLike | list[SparsityLike] = layer
        if layer is not None and layer.requires_decoder and isinstance(units, tuple):
            # Only the code can have a sparsity that needs the decoder of the model.
            sparsities = [*[None] * (len(units) - 1), layer]
        model = factory(self.input_shape, units, sparsities, **options)
        model.compile(keras.optimizers.Adam(values["learning_rate"]))
        return model

    def fit(
        self,
        hp: keras_tuner.HyperParameters,
        model: models.Autoencoder,
        x: np.ndarray,
        *args: Any,
        **kwargs: Any,
    ) -> keras.callbacks.History:
        """Train the model of one trial, after greedy pretraining if the trial has it.

        Args:
            hp: The hyperparameters of the trial.
            model: The output of `build`.
            x: Array of shape `(samples, *input_shape)`.
            *args: As in `keras.Model.fit`.
            **kwargs: As in `keras.Model.fit`.

        Returns:
            A `keras.callbacks.History`.
        """
        batch_size, pretraining_epochs = self._draw_for_fit(hp)
        kwargs["batch_size"] = min(batch_size, len(x))
        # Hyperband resumes trials that were pretrained in an earlier round.
        if pretraining_epochs and not kwargs.get("initial_epoch"):
            pretraining.greedy(
                model,
                x,
                pretraining_epochs,
                batch_size=kwargs["batch_size"],
                optimizer=keras.optimizers.Adam(hp.get("learning_rate")),
                verbose=0,
            )
        return model.fit(x, *args, **kwargs)

    def _range(self, name: str, kind: str = "") -> Range:
        default = self._ranges.get(name, self._hyperparameters[name].default)
        return self._ranges.get(f"{kind}_{name}", default)

    def _draw(
        self,
        hp: keras_tuner.HyperParameters,
        name: str,
        kind: str = "",
        active: bool = True,
    ) -> Any:
        """Register a hyperparameter; return its value, or None where it is inactive."""
        hyperparameter, values = self._hyperparameters[name], self._range(name, kind)
        if kind:
            name = f"{kind}_{name}"
        if _is_function(values):
            return hyperparameter.check(name, values(hp)) if active else None
        if isinstance(values, tuple):
            low, high = values
            add = hp.Int if isinstance(low, int) else hp.Float
            sampling, step = hyperparameter.sampling, hyperparameter.step
            value = add(name, low, high, step=step, sampling=sampling)
            # A range of integers with steps holds floats, such as 64.0.
            return value if value is None else type(low)(value)
        if isinstance(values, list):
            # `hp.Choice` would turn False and True into 0 and 1.
            is_flag = isinstance(values[0], bool)
            return hp.Boolean(name) if is_flag else hp.Choice(name, values)
        if isinstance(values, (int, float, str)):
            return hp.Fixed(name, values)
        return values

    def _draw_if_family_has(self, hp: keras_tuner.HyperParameters, name: str) -> Any:
        offered = _as_list(self._range("model"))
        families = [family for family in offered if name in FAMILIES[family][1]]
        if not families:
            return None
        with hp.conditional_scope("model", families):
            return self._draw(hp, name, active=hp.get("model") in families)

    def _draw_for_build(
        self, hp: keras_tuner.HyperParameters
    ) -> tuple[dict[str, Any], SparsityLike]:
        # Seeded searches depend on the order in which hyperparameters are registered.
        values = {name: self._draw(hp, name) for name in ("model", "units")}
        for name in ("depth", "tied"):
            values[name] = self._draw_if_family_has(hp, name)
        for name in ("learning_rate", "sparsity"):
            values[name] = self._draw(hp, name)
        sparsity = values["sparsity"]
        for kind in _as_list(self._range("sparsity")):
            if not isinstance(kind, str):
                continue
            active = kind == values["sparsity"]
            with hp.conditional_scope("sparsity", [kind]):
                drawn = {n: self._draw(hp, n, kind, active) for n in KINDS[kind]}
            if active:
                for count in {"k", "target_l0"} & drawn.keys():
                    drawn[count] = min(drawn[count], values["units"])
                sparsity = NAMES[kind](**drawn)
        return values, sparsity

    def _draw_for_fit(self, hp: keras_tuner.HyperParameters) -> tuple[int, int | None]:
        batch_size = self._draw(hp, "batch_size")
        return batch_size, self._draw_if_family_has(hp, "pretraining")


@dataclass(frozen=True)
class _Hyperparameter:
    """Default range of a hyperparameter, and the check of each value.

    `sampling` is `"log"` or `"linear"` for numbers, and None for names and flags.
    `step` is a factor if the sampling is logarithmic.
    """

    default: Range
    check: Callable[[str, Any], Any]
    sampling: str | None = "log"
    step: int | None = None

    def check_range(self, name: str, values: Range) -> Range:
        """Return `values` with each value checked; raise if it is not a range."""
        if _is_function(values) and name != "model":
            return values
        if not isinstance(values, (list, tuple)):
            return self.check(name, values)
        checked = [self.check(name, value) for value in values]
        if isinstance(values, list) or self.sampling is None:
            if not values or not all(isinstance(v, (int, float, str)) for v in checked):
                raise ValueError(
                    f"`{name}` as a list must hold names or numbers. Received: "
                    f"{name}={values!r}. Choose between objects in a function of `hp`."
                )
            choices = list(dict.fromkeys(checked))
            return choices if len(choices) > 1 else choices[0]
        if len(values) != 2 or checked[0] > checked[1]:
            raise ValueError(
                f"`{name}` must be a constant, a range (low, high) with low <= high, "
                f"or a list of choices. Received: {name}={values!r}."
            )
        if self.sampling == "log" and checked[0] == 0:
            raise ValueError(
                f"`{name}` is sampled on a log scale, so a range must start above 0. "
                f"Received: {name}={values!r}. A list may contain 0."
            )
        low, high = checked
        return low if low == high else (low, high)


def _hyperparameters(size: int) -> dict[str, _Hyperparameter]:
    """Return all hyperparameters, with defaults for samples of `size` values.

    The reconstruction loss is a mean over the values of a sample, so the factors of
    penalties scale with the inverse of the size.
    """
    active_units = (2, max(2, 2 * math.isqrt(size)))
    units = (max(8, min(size // 4, 256)), max(16, min(2 * size, 1024)))
    new, check = _Hyperparameter, validation
    return {
        "model": new("shallow", _check_family, sampling=None),
        "sparsity": new(["l1", "kl", "top_k"], _check_sparsity, sampling=None),
        "factor": new((0.01 / size, 10.0 / size), check.non_negative),
        "target": new((0.01, 0.2), check.fraction),
        "fraction": new((0.01, 0.2), check.fraction),
        "k": new(active_units, check.positive_integer),
        "target_l0": new(active_units, check.positive_integer),
        "units": new(units, check.positive_integer),
        "depth": new((2, 3), check.positive_integer, sampling="linear"),
        "tied": new([False, True], _check_tied, sampling=None),
        "pretraining": new([0, 5], _check_epochs, sampling="linear"),
        "learning_rate": new((3e-4, 1e-2), check.positive_number),
        "batch_size": new((32, 256), check.positive_integer, step=2),
    }


def _check_family(name: str, value: str) -> str:
    return validation.known_name(name, str(value), FAMILIES)


def _check_sparsity(name: str, value: SparsityLike) -> SparsityLike:
    if isinstance(value, str):
        return validation.known_name(name, value, KINDS)
    layers.get_sparsity(value)
    return value


def _check_tied(name: str, value: bool) -> bool:
    if not isinstance(value, bool):
        raise ValueError(
            f"`{name}` must be True, False, or [False, True] to try both. Received: "
            f"{name}={value!r}."
        )
    return value


def _check_epochs(name: str, value: int) -> int:
    return 0 if value == 0 else validation.positive_integer(name, value)


def _widths(family: str, units: int, depth: int) -> int | tuple[int, ...]:
    """Return the `units` argument of a family whose code has `units` units."""
    if family == "shallow":
        return units
    if family == "convolutional":
        return (*(16 * 2**level for level in range(depth)), units)
    return tuple(units * 2**level for level in reversed(range(depth)))


def _as_list(values: Range) -> list[Any]:
    return values if isinstance(values, list) else [values]


def _is_function(value: Range) -> TypeGuard[Function]:
    """Whether `value` computes a value from `hp`. Layers are callable as well."""
    others = (type, keras.layers.Layer, keras.regularizers.Regularizer)
    return callable(value) and not isinstance(value, others)
