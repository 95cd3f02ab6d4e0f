"""The space of models that a search walks through."""

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import keras
import keras_tuner

from keras_sae import pretraining
from keras_sae.models import building_blocks
from keras_sae.tuning import space
from keras_sae.tuning.ranges import Fixed, Range
from keras_sae.utils import validation as checks


class SparsityHyperModel(keras_tuner.HyperModel):
    """Autoencoders of a family, with their sparsity settings to be searched.

    Each setting has a default range and takes an argument in its place: one value
    fixes it, `(low, high)` is a range, a list the values to choose from. A setting
    is drawn only where it applies:

    - `sparsity`: names of kinds, such as `"l1"` or `["l1", "kl"]`; of each kind its
      own arguments: `factor` on a log scale, `target` (KL), `k`, `target_l0`.
      `factor=` is for all kinds that have one, `l1_factor=` for that kind.
    - `units`: width of the code; `depth`: number of layers of a deep family, each
      half as wide as the one before; `tied`.
    - `learning_rate` of Adam, `batch_size`, `pretraining`: epochs of greedy
      pretraining a level (deep and stacked models), 0 for none.

    Args:
        model: Family, `"shallow"`, `"deep"`, `"stacked"` or `"convolutional"`, or a
            list of families to choose from.
        input_shape: Shape of one sample without the batch, e.g. `(28, 28, 1)`.
        options: Further arguments of the family's factory, the same in every trial,
            e.g. `{"output_activation": "sigmoid"}`.
        **ranges: Settings by name, as above.

    Raises:
        ValueError: A family, a setting or a kind of sparsity is unknown, a value is
            out of its bounds, or a range turned round.

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
        model: Any = "shallow",
        input_shape: Any = None,
        *,
        options: Mapping[str, Any] | None = None,
        **ranges: Any,
    ) -> None:
        super().__init__()
        self.input_shape = building_blocks.known_shape(input_shape)
        self.options = dict(options or {})
        self._settings = space.settings(building_blocks.size(self.input_shape))
        prefixed = {f"{k}_{s}": s for k, drawn in space.KINDS.items() for s in drawn}
        for name in ranges:
            checks.known_name("range", name, {*self._settings, *prefixed} - {"model"})
        self._given = {
            name: self._settings[prefixed.get(name, name)].given(name, value)
            for name, value in {"model": model, **ranges}.items()
        }

    def range_of(self, name: str, kind: str | None = None) -> Range:
        """Returns the range of a setting.

        Args:
            name: Of the setting.
            kind: Of sparsity that the setting belongs to, if it does.

        Returns:
            What was given for it, else its default.
        """
        given = self._given.get(name, self._settings[name].default)
        return self._given.get(f"{kind}_{name}", given)

    def declare_hyperparameters(self, hp: Any) -> None:
        """Declares what only `fit` draws, so that the first trial has it too."""
        self._draw_for_build(hp)
        self._draw_for_fit(hp)

    def build(self, hp: Any) -> Any:
        """Makes and compiles the model of one trial.

        Args:
            hp: `keras_tuner.HyperParameters`.

        Returns:
            A compiled `keras_sae.models.Autoencoder`.
        """
        values, sparsity = self._draw_for_build(hp)
        self._draw_for_fit(hp)
        family = space.FAMILIES[values["model"]]
        options = dict(self.options)
        if values["tied"] is not None:
            options["tied"] = values["tied"]
        units = family.widths(values["units"], values["depth"])
        sparsity = space.placed(values["sparsity"], sparsity, units)
        model = family.factory(self.input_shape, units, sparsity, **options)
        model.compile(keras.optimizers.Adam(values["learning_rate"]))
        return model

    def fit(self, hp: Any, model: Any, x: Any, *args: Any, **kwargs: Any) -> Any:
        """Trains the model of one trial, after greedy pretraining if that is drawn.

        Args:
            hp: `keras_tuner.HyperParameters`.
            model: What `build` returned.
            x: Array of shape `(samples, *input_shape)`.
            *args: As in `keras.Model.fit`.
            **kwargs: As in `keras.Model.fit`.

        Returns:
            A `keras.callbacks.History`.
        """
        values = self._draw_for_fit(hp)
        # The whole set is the largest batch there is.
        kwargs["batch_size"] = min(values["batch_size"], len(x))
        # Hyperband goes on with a trial that has been pretrained already.
        if values["pretraining"] and not kwargs.get("initial_epoch"):
            pretraining.greedy(
                model,
                x,
                values["pretraining"],
                batch_size=kwargs["batch_size"],
                optimizer=keras.optimizers.Adam(hp.get("learning_rate")),
                verbose=0,
            )
        return model.fit(x, *args, **kwargs)

    def get_config(self) -> dict[str, Any]:
        """Returns what tells this space from another, JSON values only."""
        serialize = keras.saving.serialize_keras_object
        ranges = {name: repr(value) for name, value in sorted(self._given.items())}
        return {
            "input_shape": list(self.input_shape),
            "options": serialize(self.options),
            "ranges": ranges,
        }

    def _draw(self, hp: Any, name: str) -> Any:
        return self.range_of(name).draw(hp, name)

    def _draw_where(self, hp: Any, name: str) -> Any:
        """Draws a setting that only some families have."""
        offered = _values(self.range_of("model"))
        have = [model for model in offered if name in space.FAMILIES[model].settings]
        if not have:
            return None
        everywhere = len(have) == len(offered)
        scope = nullcontext() if everywhere else hp.conditional_scope("model", have)
        with scope:
            return self._draw(hp, name)

    def _draw_for_build(self, hp: Any) -> tuple[dict[str, Any], Any]:
        values = {name: self._draw(hp, name) for name in ("model", "units")}
        for name in ("depth", "tied"):
            values[name] = self._draw_where(hp, name)
        for name in ("learning_rate", "sparsity"):
            values[name] = self._draw(hp, name)
        return values, self._draw_sparsity(hp, values["sparsity"], values["units"])

    def _draw_for_fit(self, hp: Any) -> dict[str, Any]:
        return {
            "batch_size": self._draw(hp, "batch_size"),
            "pretraining": self._draw_where(hp, "pretraining"),
        }

    def _draw_sparsity(self, hp: Any, chosen: str, units: int) -> Any:
        drawn = {}
        for kind in _values(self.range_of("sparsity")):
            with hp.conditional_scope("sparsity", [kind]):
                drawn[kind] = {
                    name: self.range_of(name, kind).draw(hp, f"{kind}_{name}")
                    for name in space.KINDS[kind]
                }
        return space.kind_of(chosen, drawn[chosen], units)


def _values(names: Any) -> tuple:
    """The names that a range of names holds."""
    return (names.value,) if isinstance(names, Fixed) else names.values
