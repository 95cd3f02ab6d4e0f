"""The model that every family returns: encoder, decoder, losses, figures."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_sae import metrics
from keras_sae.layers import ActivityPenalty, _forward, tying
from keras_sae.layers import serialization as sparsity
from keras_sae.models import _adapting, _demands, _objectives, _steps, validation
from keras_sae.models._checked import Checked
from keras_sae.models._contraction import Contraction
from keras_sae.models.levels import Level, flatten, levels_of
from keras_sae.utils import validation as checks
from keras_sae.utils.serialization import register

_local = threading.local()
# Small beside the range of a sigmoid, large beside float32's rounding.
_STEP = 0.05
_NO_STEP = (None, None, None)


@contextmanager
def _inside_step(data: Any) -> Iterator[None]:
    """Inside, `call` also returns the code and the named terms of the loss.

    Trace time, one thread: a replica traces its own step.
    """
    outer = getattr(_local, "step", None)
    _local.step = keras.utils.unpack_x_y_sample_weight(data)
    try:
        yield
    finally:
        _local.step = outer


@register
class Autoencoder(Checked):
    """Encoder and decoder trained together to rebuild their input.

    `loss = reconstruction_loss + sparsity_loss + auxiliary_loss + weight decay`

    The factories in `keras_sae.models` make it; any two Keras models that fit
    may be passed. `model(x)` is the reconstruction. `fit(x)` takes the input as
    the target; a loop of one's own calls `model(x, training=True)`, and finds every
    term but the first in `model.losses`. The logs hold the loss, its parts,
    `explained_variance`, and `l0`, or `expected_l0` where the code is bounded and so
    never exactly zero; all come from the one forward pass of the step. Which way they
    should go Keras does not know: `EarlyStopping("val_reconstruction_loss",
    mode="min")`.

    Args:
        encoder: Model from `(batch, *input_shape)` to `(batch, units)`.
        decoder: Model from `(batch, units)` to `(batch, *input_shape)`.
        contractive: Weight of `mean_i(|dh_i / dx_i|_F^2)`, the squared norm of the
            Jacobian of the code, logged in `auxiliary_loss`.
        **kwargs: Those of `keras.Model`.

    Raises:
        ValueError: The shapes of encoder and decoder do not fit, or `contractive`
            meets an encoder whose Jacobian is unknown.

    Example:

    >>> import numpy as np
    >>> from keras_sae import models
    >>> model = models.shallow((8, 8, 1), units=16, sparsity="l1")
    >>> model.compile("adam")
    >>> x = np.zeros((4, 8, 8, 1), "float32")
    >>> tuple(model(x).shape), model.encode(x).shape
    ((4, 8, 8, 1), (4, 16))
    """

    def __init__(
        self,
        encoder: keras.Model,
        decoder: keras.Model,
        contractive: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if tuple(encoder.output_shape[1:]) != tuple(decoder.input_shape[1:]) or tuple(
            decoder.output_shape[1:]
        ) != tuple(encoder.input_shape[1:]):
            raise ValueError(
                "`decoder` must turn the encoder's output back into its input. "
                f"Received: encoder {encoder.input_shape} -> {encoder.output_shape}, "
                f"decoder {decoder.input_shape} -> {decoder.output_shape}."
            )
        self.contractive = checks.finite_factor("contractive", contractive)
        self._contraction = Contraction(encoder) if self.contractive else None
        self.encoder = encoder
        self.decoder = decoder
        _demands.check_sparsities(flatten(encoder), self.sparse_layers)
        self.explained_variance = metrics.ExplainedVariance(
            int(np.prod(self.sample_shape))
        )
        self.activity = self._activity_metric()
        self.term_means = {
            name: keras.metrics.Mean(name=name) for name in self._term_names()
        }
        self.build(encoder.input_shape)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Does nothing: encoder and decoder are built already."""

    @property
    def levels(self) -> list[Level]:
        """The levels of a dense model with a mirrored decoder, outermost first.

        Raises:
            ValueError: The model is built otherwise.
        """
        return levels_of(self)

    def adapt(self, x: Any, location: str = "mean") -> None:
        """Learns the data's centre and scale, before `fit`.

        The centring layer gets the centre, the output's bias too if the output is
        linear (the published pre-bias), and scaling layers the root mean square of
        the centred data. `fit` goes on averaging from a mean, and leaves a geometric
        median where it is.

        Args:
            x: Array of shape `(samples, *input_shape)`; some ten thousand samples
                are enough.
            location: `"mean"` or `"geometric_median"`.

        Raises:
            ValueError: `x` is no array or of another shape, `location` is unknown, or
                the model scales data that do not vary.
        """
        validation.check_whole(x, self.sample_shape)
        _adapting.adapt(self, x, location)

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Returns the reconstruction of `inputs`, in their shape."""
        with _forward.collect(inputs) as forward:
            code = self._encode(inputs, training)
            made = self._made(forward)
            entries = getattr(made, "entries", None)
            reconstruction = _objectives.decode(
                self.decoder, entries, lambda: code, training
            )
            step = getattr(_local, "step", None)
            if step or training:  # in a loop of one's own it rebuilds its input
                data = (inputs, *(step or _NO_STEP)[1:])
                _objectives.add_terms(self, made, data, reconstruction)
            if step is None:
                return reconstruction
        if made is not None:
            # As many of the entries are on as of the code.
            code = made.code if entries is None else entries.values
        terms = dict(forward.terms)
        return {"reconstruction": reconstruction, "code": code, "terms": terms}

    def _made(self, forward: _forward.Forward) -> Any:
        """What the layer told whose output is the code, or None."""
        return _objectives.innermost(self.encoder, forward)

    def _encode(self, inputs: Any, training: bool | None) -> Any:
        if self._contraction is None:
            return self.encoder(inputs, training=training)
        code, norm = self._contraction(inputs, training)
        _forward.add(self, "auxiliary_loss", self.contractive * norm)
        return code

    def train_step(self, *args: Any, **kwargs: Any) -> Any:
        """Keras's own step, in which `call` returns all that the logs need."""
        with _inside_step(args[-1]):
            return super().train_step(*args, **kwargs)

    def test_step(self, *args: Any, **kwargs: Any) -> Any:
        """Keras's own step, in which `call` returns all that the logs need."""
        with _inside_step(args[-1]):
            return super().test_step(*args, **kwargs)

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """Returns the loss against `y`, or against `x` where there is no `y`."""
        y = x if y is None else y
        step = y_pred if isinstance(y_pred, dict) else {"reconstruction": y_pred}
        reconstruction = step["reconstruction"]
        validation.check_target(tuple(y.shape), tuple(reconstruction.shape))
        sample_weight = _objectives.weigh(sample_weight, y)
        if "code" in step:
            self._update_figures(y, step, sample_weight)
        return super().compute_loss(
            x, y, reconstruction, sample_weight, training=training
        )

    def _update_figures(self, y: Any, step: dict[str, Any], sample_weight: Any) -> None:
        batch = ops.shape(step["code"])[0]
        reconstruction = step["reconstruction"]
        terms = dict(step["terms"])
        if self._compile_loss is not None:
            # Keras divides a loss by the number of replicas, which each take a share.
            terms["reconstruction_loss"] = _steps.replicas(self) * self._compile_loss(
                y, reconstruction, sample_weight
            )
        for name, value in terms.items():
            self.term_means[name].update_state(value, sample_weight=batch)
        self.explained_variance.update_state(y, reconstruction)
        self.activity.update_state(step["code"])

    def compute_metrics(
        self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None
    ) -> dict[str, Any]:
        """Returns the logs, among them the metrics given to `compile`."""
        y = x if y is None else y
        step = y_pred if isinstance(y_pred, dict) else {"reconstruction": y_pred}
        return super().compute_metrics(x, y, step["reconstruction"], sample_weight)

    def compile(
        self, optimizer: Any = "adam", loss: Any = "mse", **kwargs: Any
    ) -> None:
        """Configures training as `keras.Model.compile` does, `loss="mse"` by default.

        Args:
            optimizer: As in Keras.
            loss: Data term, between the reconstruction and the input. `"mse"` is
                a mean over batch and values; the factors of the penalties are in
                its units.
            **kwargs: As in Keras.
        """
        super().compile(optimizer=optimizer, loss=loss, **kwargs)

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compiles as saved; Keras leaves this to models with their own `compile`."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        self.optimizer.build(self.trainable_variables)

    def encode(self, x: Any, batch_size: int = 256) -> np.ndarray:
        """Returns the codes of `x`.

        Args:
            x: Array of shape `(samples, *input_shape)`, or a dataset of batches.
            batch_size: Samples at a time.

        Returns:
            NumPy array of shape `(samples, units)`.
        """
        validation.check_inputs(x, self.sample_shape)
        x = validation.first(x)
        return self.encoder.predict(x, batch_size=batch_size, verbose=0)

    def decode(self, code: Any, batch_size: int = 256) -> np.ndarray:
        """Returns the reconstructions of codes.

        Args:
            code: Array of shape `(samples, units)`.
            batch_size: Samples at a time.

        Returns:
            NumPy array of shape `(samples, *input_shape)`.
        """
        validation.check_inputs(code, tuple(self.decoder.input_shape[1:]))
        return self.decoder.predict(code, batch_size=batch_size, verbose=0)

    def dictionary(self) -> np.ndarray:
        """Return what each unit adds to a reconstruction.

        `row_j = (decode(s e_j) - decode(0)) / s` with `s = 0.05`: a small step from the
        empty code, which an output activation does not saturate. For a shallow model
        with a linear output it is row `j` of the decoder's kernel.

        Returns:
            NumPy array of shape `(units, *input_shape)`.

        Example:

        >>> from keras_sae import models
        >>> models.shallow((4, 4, 1), 8).dictionary().shape
        (8, 4, 4, 1)
        """
        units = int(self.decoder.input_shape[-1])
        codes = np.concatenate([np.zeros((1, units)), _STEP * np.eye(units)])
        outputs = self.decode(codes.astype("float32"))
        return (outputs[1:] - outputs[:1]) / _STEP

    def _activity_metric(self) -> keras.metrics.Metric:
        last = self.sparse_layers[-1:]
        # What is not a penalty chooses units, and leaves the others at zero.
        chooses = last and not isinstance(
            last[0].sparsity, (ActivityPenalty, type(None))
        )
        if not last or chooses or not sparsity.never_zero(last[0].activation):
            return metrics.L0()
        low, high = last[0].bounds
        return metrics.ExpectedL0((low, high) if low < 0 else (0.0, 1.0))

    def _term_names(self) -> list[str]:
        layers = [*flatten(self.encoder), *flatten(self.decoder)]
        terms = {x.term for x in layers if hasattr(x, "term")}
        for code in self.sparse_layers[-1:]:
            terms |= set(getattr(code.sparsity, "extra_terms", ()))
        terms |= {"auxiliary_loss"} if self.contractive else set()
        return ["reconstruction_loss", *sorted(terms)]

    def get_config(self) -> dict[str, Any]:
        """Returns the configs of encoder and decoder, and the penalty's weight."""
        serialize = keras.saving.serialize_keras_object
        return {
            **super().get_config(),
            "encoder": serialize(self.encoder),
            "decoder": serialize(self.decoder),
            "contractive": self.contractive,
        }

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: Any = None
    ) -> "Autoencoder":
        """Makes the model that `get_config` describes; tied layers are tied again."""
        deserialize = keras.saving.deserialize_keras_object
        config = dict(config)
        encoder = deserialize(config.pop("encoder"), custom_objects)
        with tying(flatten(encoder)):
            decoder = deserialize(config.pop("decoder"), custom_objects)
        return cls(encoder, decoder, **config)
