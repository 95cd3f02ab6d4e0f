"""A Keras model that looks at its data before it does anything with them."""

from typing import Any

import keras
import numpy as np

from keras_sae.layers import SparseDense
from keras_sae.models import (
    _adapting,
    _arguments,
    _demands,
    _feeding,
    _ranges,
    _steps,
    validation,
)
from keras_sae.models._exported import Exported
from keras_sae.models.levels import flatten


class Checked(Exported):
    """`fit`, `evaluate` and `predict` of an autoencoder, with a look at the data.

    What Keras would broadcast, cast or train on in silence is a `ValueError` here,
    before anything has changed.
    """

    encoder: keras.Model
    decoder: keras.Model

    @property
    def sparse_layers(self) -> list[SparseDense]:
        """The layers whose output is a sparse code, from the input inwards."""
        return [x for x in flatten(self.encoder) if isinstance(x, SparseDense)]

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """Shape of one sample of the input."""
        return tuple(self.encoder.input_shape[1:])

    def fit(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> keras.callbacks.History:
        """Trains as `keras.Model.fit` does; the target is `x` if `y` is None.

        Args:
            x: Array of shape `(samples, *input_shape)`, or a dataset of batches
                of `x` or of `(x, target)`.
            y: None, or a target of the shape of `x`, e.g. clean images.
            batch_size: Samples a step, 32 if None.
            *args: As in Keras.
            **kwargs: As in Keras; `sample_weight` weighs samples with a `y` and
                without.

        Returns:
            A `keras.callbacks.History`.

        Raises:
            ValueError: `x` is empty, not finite, of another shape, of integers, or
                beyond an output activation that is bounded on both sides; there
                are fewer samples than `batch_size`; `y` is not a target of the
                shape of `x`; weights are not of its samples, or not finite.
        """
        kwargs = _arguments.by_name(_arguments.FIT, args, kwargs)
        self.check_data(x, y, batch_size)
        _demands.check_batch(flatten(self.encoder), x, batch_size)
        _adapting.check_adapted(self)
        y, weights = _arguments.weighed(x, y, kwargs.get("sample_weight"))
        if weights is not None:
            kwargs["sample_weight"] = weights
        if kwargs.get("class_weight") is not None:
            raise ValueError(
                "`class_weight` weighs classes, and an autoencoder has none. Received: "
                f"class_weight={kwargs['class_weight']!r}. Use sample_weight."
            )
        if kwargs.get("validation_data") is not None:
            held_out = self._held_out(kwargs["validation_data"])
            kwargs["validation_data"] = held_out
        if hasattr(x, "element_spec"):
            # Keras would warn that it does not shuffle a dataset, asked or not.
            kwargs.setdefault("shuffle", False)
        _steps.build_optimizer(self)
        x, y, batch_size, kwargs = _feeding.fed(x, y, batch_size, kwargs)
        return super().fit(x, y, batch_size, **kwargs)

    def _held_out(self, data: Any) -> Any:
        """Validation data, checked, and with a target where it has weights."""
        parts = data if isinstance(data, (tuple, list)) else [data]
        self.check_data(*parts[:2])
        if len(parts) < 3:
            return data
        return (parts[0], *_arguments.weighed(*parts[:3]), *parts[3:])

    def train_on_batch(self, x: Any, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Trains one step on one batch, as `keras.Model.train_on_batch` does.

        Args:
            x: Array of shape `(batch, *input_shape)`.
            y: As in `fit`.
            *args: As in Keras.
            **kwargs: As in Keras.

        Returns:
            The figures of the logs, as in Keras.

        Raises:
            ValueError: As in `fit`.
        """
        self.check_data(x, y)
        if hasattr(x, "shape"):
            _demands.check_batch(flatten(self.encoder), x, x.shape[0])
        _adapting.check_adapted(self)
        return super().train_on_batch(x, y, *args, **kwargs)

    def evaluate(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """Returns the figures of the logs for `x`, as `keras.Model.evaluate` does.

        Args:
            x: As in `fit`.
            y: As in `fit`.
            batch_size: As in Keras.
            *args: As in Keras.
            **kwargs: As in Keras.

        Returns:
            A list of floats, or a dict with `return_dict=True`.

        Raises:
            ValueError: As in `fit`.
        """
        kwargs = _arguments.by_name(_arguments.EVALUATE, args, kwargs)
        # Keras itself evaluates inside `fit`, with what `fit` has checked.
        if "_use_cached_eval_dataset" not in kwargs:
            self.check_data(x, y)
            _adapting.check_adapted(self)
            weights = kwargs.get("sample_weight")
            y, kwargs["sample_weight"] = _arguments.weighed(x, y, weights)
        return super().evaluate(x, y, batch_size, **kwargs)

    def predict(self, x: Any, *args: Any, **kwargs: Any) -> np.ndarray:
        """Returns the reconstructions of `x`, as `keras.Model.predict` does.

        Args:
            x: As in `fit`.
            *args: As in Keras.
            **kwargs: As in Keras.

        Returns:
            NumPy array of the shape of `x`.
        """
        validation.check_inputs(x, self.sample_shape)
        return super().predict(x, *args, **kwargs)

    def check_data(self, x: Any, y: Any = None, batch_size: int | None = None) -> None:
        """Raises what `fit` would raise for these data; trains nothing.

        Args:
            x: As in `fit`.
            y: As in `fit`.
            batch_size: As in `fit`.

        Raises:
            ValueError: As in `fit`.
        """
        validation.check_data(x, y, self.sample_shape, batch_size)
        target = x if y is None else y
        validation.check_range(target, self._output_bounds())

    def _output_bounds(self) -> tuple[float, float]:
        return _ranges.bounds(flatten(self.decoder))
