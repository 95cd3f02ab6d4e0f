"""A Keras model that checks its data before Keras takes them."""

import inspect
from typing import Any

import keras
import numpy as np

from keras_sae.layers import SparseDense
from keras_sae.models import data_adapter, validation
from keras_sae.models._exported import Exported
from keras_sae.models.levels import flatten
from keras_sae.types import ArrayLike, Data, Tensor


class Checked(Exported):
    """`fit`, `evaluate` and `predict` of an autoencoder."""

    encoder: keras.Model
    decoder: keras.Model

    @property
    def sparse_layers(self) -> list[SparseDense]:
        """The layers whose output is a sparse code, outermost first."""
        return [x for x in flatten(self.encoder) if isinstance(x, SparseDense)]

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """Shape of one sample of the input."""
        return tuple(self.encoder.input_shape[1:])

    def fit(
        self,
        x: Data | None = None,
        y: Tensor | None = None,
        batch_size: int | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> keras.callbacks.History:
        """Train the model as `keras.Model.fit` does; the default target is `x`.

        Args:
            x: Array of shape `(samples, *input_shape)`, or batches of `x` or of
                `(x, target)` in any form that Keras takes.
            y: None, or a target of the shape of `x`, for example clean images.
            batch_size: Samples per step, 32 if None.
            *args: As in Keras.
            **kwargs: As in Keras. `sample_weight` needs no `y`.

        Returns:
            A `keras.callbacks.History`.

        Raises:
            ValueError: `x` or `y` is not finite, of integers, of the wrong shape, or
                outside the range of the output activation; a batch is too small for
                a sparsity; or `adapt` was not called although `scaling=True`.
        """
        x, y = validation.unwrap(x), validation.unwrap(y)
        signature = inspect.signature(super().fit)
        arguments = signature.bind(x, y, batch_size, *args, **kwargs).arguments
        self.check_data(x, y, batch_size or 32)
        self._check_adapted()
        if arguments.get("validation_data") is not None:
            held_out = arguments["validation_data"]
            x_val, y_val, weight = keras.utils.unpack_x_y_sample_weight(held_out)
            self.check_data(x_val, y_val)
            if weight is not None:
                y_val = data_adapter.weighted_target(x_val, y_val, weight)
                arguments["validation_data"] = (x_val, y_val, weight)
        data_adapter.build_optimizer(self)
        return super().fit(**data_adapter.fit_arguments(arguments))

    def train_on_batch(
        self, x: Tensor, y: Tensor | None = None, *args: Any, **kwargs: Any
    ) -> Any:
        """Train one step on one batch, as `keras.Model.train_on_batch` does.

        Args:
            x: Array of shape `(batch, *input_shape)`.
            y: As in `fit`.
            *args: As in Keras.
            **kwargs: As in Keras.

        Returns:
            The metrics of the logs, as in Keras.

        Raises:
            ValueError: As in `fit`.
        """
        self.check_data(x, y, len(x))
        self._check_adapted()
        return super().train_on_batch(x, y, *args, **kwargs)

    def evaluate(
        self,
        x: Data | None = None,
        y: Tensor | None = None,
        batch_size: int | None = None,
        verbose: str | int = "auto",
        sample_weight: ArrayLike | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """Return the metrics of the logs for `x`, as `keras.Model.evaluate` does.

        Args:
            x: As in `fit`.
            y: As in `fit`.
            batch_size: As in Keras.
            verbose: As in Keras.
            sample_weight: As in Keras. Weights need no `y`.
            *args: As in Keras.
            **kwargs: As in Keras.

        Returns:
            A list of floats, or a dict with `return_dict=True`.

        Raises:
            ValueError: As in `fit`.
        """
        x, y = validation.unwrap(x), validation.unwrap(y)
        # Keras passes this argument inside of `fit`, which has checked the data.
        if "_use_cached_eval_dataset" not in kwargs:
            self.check_data(x, y)
            self._check_adapted()
            y = data_adapter.weighted_target(x, y, sample_weight)
        return super().evaluate(
            x, y, batch_size, verbose, sample_weight, *args, **kwargs
        )

    def predict(self, x: Data | None, *args: Any, **kwargs: Any) -> np.ndarray:
        """Return the reconstructions of `x`, as `keras.Model.predict` does.

        Args:
            x: As in `fit`.
            *args: As in Keras.
            **kwargs: As in Keras.

        Returns:
            NumPy array of the shape of `x`.
        """
        x = validation.without_target(validation.unwrap(x))
        validation.check_data(x, self.sample_shape)
        return super().predict(x, *args, **kwargs)

    def check_data(
        self, x: Data | None, y: Tensor | None = None, batch_size: int | None = None
    ) -> None:
        """Raise the errors that `fit` would raise for this data, without training.

        Args:
            x: As in `fit`.
            y: As in `fit`.
            batch_size: Samples per training step. None omits the check that a batch
                is large enough for the sparsity.

        Raises:
            ValueError: As in `fit`.
        """
        bounds = validation.output_bounds(flatten(self.decoder))
        validation.check_data(x, self.sample_shape, y, bounds)
        if batch_size is not None:
            validation.check_batch_size(flatten(self.encoder), batch_size, x)

    def _check_adapted(self) -> None:
        layers = [*flatten(self.encoder), *flatten(self.decoder)]
        validation.check_adapted(self.name, layers)
