"""The autoencoder model: an encoder, a decoder, losses and metrics."""

import inspect
import math
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops
from scipy.sparse import csr_array, issparse, vstack

from keras_sae import metrics
from keras_sae.export.saved_model import write_model
from keras_sae.export.signatures import Signature, autoencoder_signatures
from keras_sae.layers import SparseDense, forward_pass, tying
from keras_sae.layers.base import layer_state
from keras_sae.layers.forward_pass import ForwardPass
from keras_sae.layers.normalization import adapt_layers
from keras_sae.models import data_adapter, loops, losses, sparse_codes, validation
from keras_sae.models.building_blocks import set_output_bias
from keras_sae.models.contractive import ContractivePenalty
from keras_sae.models.levels import flatten, levels_of
from keras_sae.ops import fused_adam
from keras_sae.types import Config, Data, LossLike, OptimizerLike, Shape, Tensor
from keras_sae.utils.serialization import config_errors, register
from keras_sae.utils.validation import non_negative


@register
class Autoencoder(keras.Model):
    """An encoder and a decoder that are trained together to reconstruct the input.

    `loss = reconstruction_loss + sparsity_loss + auxiliary_loss + weight decay`

    Most model factories return this model. You can also create it from any two Keras
    models with matching shapes. `model(x)` returns the reconstruction, and `fit(x)`
    uses the input as the target.

    The logs contain the loss and its parts, `explained_variance` and `l0`. If the code
    is never exactly zero, they also contain `effective_l0`. If the code is bounded as
    well, `expected_l0` replaces `l0`. Callbacks that monitor a metric need its
    direction, as in `EarlyStopping("val_reconstruction_loss", mode="min")`.

    In a custom training loop, call `model(x, training=True)`, and add `model.losses` to
    the reconstruction loss. If this model is part of a larger model, Keras adds the
    same terms to the larger model's loss. The larger model's `evaluate` leaves out the
    losses of `Sparsity.auxiliary_losses`.

    Args:
        encoder: Functional or sequential model from `(batch, *input_shape)` to codes
            of shape `(batch, ..., units)`.
        decoder: Functional or sequential model from codes to reconstructions.
        contractive: Weight of the contractive penalty `mean_i(|dh_i / dx_i|_F^2)`, the
            squared norm of the code's Jacobian. It is logged as `auxiliary_loss`.
        columns: Names of the table columns that contain the values of a sample, or
            None. The command line reads these columns. You can also set the attribute
            `columns` later.
        label: Name of the table column that contains the labels, or None.
        **kwargs: Arguments of `keras.Model`.

    Raises:
        ValueError: The shapes of the encoder and the decoder do not match, or
            `contractive` does not support the encoder.

    Example:

    >>> import numpy as np
    >>> from keras_sae import models
    >>> model = models.shallow((8, 8, 1), units=16, sparsity="l1")
    >>> model.compile("adam")
    >>> x = np.zeros((4, 8, 8, 1), "float32")
    >>> tuple(model(x).shape), model.encode(x).shape, model.dictionary().shape
    ((4, 8, 8, 1), (4, 16), (16, 8, 8, 1))
    """

    reconstructs_input = True  # False for a transcoder, whose target is not its input
    levels = property(levels_of)

    def __init__(
        self,
        encoder: keras.Model,
        decoder: keras.Model,
        contractive: float = 0.0,
        columns: Sequence[str] | None = None,
        label: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.columns, self.label = columns, label
        self.lock, self.traced_structure = threading.RLock(), ""
        validation.check_parts(encoder, decoder, self.reconstructs_input)
        self.contractive = non_negative("contractive", contractive)
        self.contraction = ContractivePenalty(encoder) if self.contractive else None
        self.encoder, self.decoder = encoder, decoder
        values = math.prod(decoder.output_shape[1:])
        self.explained_variance = metrics.ExplainedVariance(values)
        self.activity, self.effective_l0 = losses.make_activity_metrics(encoder)
        self.loss_means = losses.make_loss_means(encoder, decoder, self.contractive)
        self.minimum = layer_state("minimum", initial=float("inf"))
        self.maximum = layer_state("maximum", initial=float("-inf"))
        self(keras.Input(self.sample_shape))  # creates `input` and `output`

    def build(self, input_shape: Shape) -> None:
        """Do nothing: the encoder and the decoder are already built."""

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Return the shape of the reconstruction."""
        return (input_shape[0], *self.decoder.output_shape[1:])

    @property
    def losses(self) -> list[Tensor]:
        """All losses except the data loss, cast to `keras.config.floatx()`."""
        return [ops.cast(loss, keras.config.floatx()) for loss in super().losses]

    @property
    def sparse_layers(self) -> list[SparseDense]:
        """The `SparseDense` layers of the encoder, outermost first."""
        return [x for x in flatten(self.encoder) if isinstance(x, SparseDense)]

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """Shape of one input sample."""
        return tuple(self.encoder.input_shape[1:])

    @property
    def input_range(self) -> tuple[float, float] | None:
        """Lowest and highest input values seen in training, or None before training."""
        low, high = map(ops.convert_to_numpy, (self.minimum, self.maximum))
        return (float(low), float(high)) if low <= high else None

    def adapt(self, x: Data, location: str = "mean") -> None:
        """Compute the center and the scale of the data before `fit`.

        The centering layer is set to the center, and so is the bias of a linear output
        layer. The scale is the root mean square of the centered data. With
        `scaling=True`, the bias is the center divided by the scale. `fit` continues to
        update the center if it is a mean, but not if it is a median.

        Args:
            x: Array of shape `(samples, *input_shape)`, or a finite stream of batches.
                Ten thousand samples are usually enough.
            location: Center of the data, `"mean"` or `"geometric_median"`.

        Raises:
            ValueError: `x` has the wrong shape, or the model was built with
                `scaling=True` and all samples are equal.
        """
        samples, _ = data_adapter.as_arrays(x)
        validation.check_data(samples, self.sample_shape)
        parts = flatten(self.encoder), flatten(self.decoder)
        center = adapt_layers(*parts, samples.astype("float64"), location)
        set_output_bias(self.decoder, center)

    def fit(
        self,
        x: Data | None = None,
        y: Tensor | None = None,
        batch_size: int | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> keras.callbacks.History:
        """Train the model as `keras.Model.fit` does, with `x` as the default target.

        Args:
            x: Array of shape `(samples, *input_shape)`, or batches of `x` or of
                `(x, target)` in any form that Keras accepts.
            y: None, or a target with the shape of `x`, for example clean images.
            batch_size: Samples per batch of an array, 32 if None.
            *args: Further arguments of `keras.Model.fit`.
            **kwargs: Further keyword arguments of `keras.Model.fit`. You can pass
                `sample_weight` without `y`.

        Raises:
            ValueError: `x` or `y` has the wrong shape, is not finite, or contains
                integers other than 0 and 1; the target is outside the output
                activation's range; a batch is too small for a sparsity; or `adapt` was
                not called on a model with `scaling=True`. Only the first batch of a
                stream is checked.
        """
        bound = inspect.signature(super().fit).bind(x, y, batch_size, *args, **kwargs)
        arguments = data_adapter.fit_arguments(self, bound.arguments)
        validation.check_adapted(self)
        loops.build_optimizer(self)
        with loops.protected(self):
            return super().fit(**arguments)

    def train_on_batch(
        self, x: Tensor, y: Tensor | None = None, *args: Any, **kwargs: Any
    ) -> Any:
        """Train as `keras.Model.train_on_batch` does, with the checks of `fit`."""
        x, y = self.check_data(x, y, sys.maxsize)
        validation.check_adapted(self)
        with loops.protected(self):
            return super().train_on_batch(x, y, *args, **kwargs)

    def evaluate(
        self,
        x: Data | None = None,
        y: Tensor | None = None,
        batch_size: int | None = None,
        verbose: str | int = "auto",
        sample_weight: Tensor | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """Evaluate as `keras.Model.evaluate` does, with the data checks of `fit`."""
        # `fit` passes this argument for validation data that it has already checked.
        if "_use_cached_eval_dataset" not in kwargs:
            validation.check_adapted(self)
            # Without a target, Keras would compare the output with the raw `x`.
            if y is None and validation.preprocessing_layers(self):
                x, _, (_, target) = data_adapter.open_data(x)
                if target is None:
                    x, _ = data_adapter.as_arrays(x)
                    y = self.reconstruction_target(x)
            data = (x, y, sample_weight)
            x, y, sample_weight = data_adapter.test_data(self, data, batch_size)
        args = (batch_size, verbose, sample_weight, *args)
        with loops.protected(self):
            return super().evaluate(x, y, *args, **kwargs)

    def predict(
        self, x: Data | None, batch_size: int | None = None, *args: Any, **kwargs: Any
    ) -> np.ndarray:
        """Return the reconstructions of `x`, as `keras.Model.predict` does."""
        x = data_adapter.open_samples(x, self.sample_shape, batch_size)
        with loops.protected(self):
            return super().predict(x, batch_size, *args, **kwargs)

    def check_data(
        self,
        x: Data | None,
        y: Tensor | None = None,
        batch_size: int | None = None,
        sample_weight: Tensor | None = None,
    ) -> tuple[Data, Tensor | None]:
        """Raise the errors that `fit` would raise for this data, without training.

        If `batch_size` is given, also check that batches are large enough for every
        sparsity. Return `x` and `y` as `data_adapter.open_data` does.
        """
        x, y, (first_x, first_y) = data_adapter.open_data(x, y, sample_weight)
        bounds = validation.output_bounds(flatten(self.decoder))
        validation.check_data(first_x, self.sample_shape, first_y, bounds)
        validation.check_batch_size(self.encoder, x, first_x, batch_size)
        return x, y

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        """Return the reconstruction, and add all losses except the data loss."""
        if None in inputs.shape[1:]:  # for example in a dataset of windows
            inputs = ops.reshape(inputs, (-1, *self.sample_shape))
        samples, step = ops.shape(inputs)[0], forward_pass.current()
        if step is None or step.model is not self:
            step = ForwardPass(self)
        with forward_pass.activate(step):
            if self.contraction is None:
                code = self.encoder(inputs, training=training)
            else:
                code, norm = self.contraction(inputs, training)
                penalty = self.contractive * norm
                forward_pass.add_loss(self, "auxiliary_loss", penalty, samples)
            activations = losses.code_activations(self.encoder, step)
            sparse_code = None if activations is None else activations.sparse_code
            if training:
                losses.widen_input_range(self, inputs)
            sparsity = None
            if activations is not None and (training or step.in_step):
                sparsity = activations.layer.sparsity
            widths = () if sparsity is None else sparsity.prefixes
            *prefixes, reconstruction = losses.decode_sparsely(
                self.decoder, sparse_code, widths
            ) or [self.decoder(code, training=training)]
            if activations is not None and sparsity is not None:
                view = losses.AutoencoderStep(
                    step, activations, inputs, reconstruction, prefixes
                )
                for name, loss in sparsity.auxiliary_losses(view).items():
                    forward_pass.add_loss(self, name, loss, samples)
                reconstruction = view.reconstruction
        if activations is not None:  # the mean of a variational code, without its noise
            code = activations.code if sparse_code is None else sparse_code.values
        step.code = code
        return reconstruction

    def stateless_call(self, *args: Any, **kwargs: Any) -> Any:
        """Call the model as `keras.Model.stateless_call` does."""
        # Keras clears the losses of the previous call only in `__call__`. It identifies
        # a layer's losses by `id`, so a new loss that reuses an `id` would count twice.
        self._clear_losses()
        return super().stateless_call(*args, **kwargs)

    def train_step(self, *args: Any, **kwargs: Any) -> Any:
        """Run Keras's training step, and keep the parts of the loss for the metrics."""
        with forward_pass.activate(losses.begin_step(self, args[-1], training=True)):
            return super().train_step(*args, **kwargs)

    def test_step(self, *args: Any, **kwargs: Any) -> Any:
        """Run Keras's test step, and keep the parts of the loss for the metrics."""
        with forward_pass.activate(losses.begin_step(self, args[-1])):
            return super().test_step(*args, **kwargs)

    def compute_loss(
        self,
        x: Tensor = None,
        y: Tensor = None,
        y_pred: Tensor = None,
        sample_weight: Tensor = None,
        training: bool = True,
    ) -> Tensor:
        """Return the loss and update the metrics. If `y` is None, `x` is the target."""
        y = x if y is None else y
        validation.check_target(tuple(y.shape), tuple(y_pred.shape))
        arguments = losses.loss_arguments(y, y_pred, sample_weight)
        loss = super().compute_loss(x, *arguments, training=training)
        step = forward_pass.current()
        if step is not None and step.model is self and step.code is not None:
            losses.update_metrics(step, y, y_pred, sample_weight)
        return loss

    def compute_metrics(
        self, x: Tensor, y: Tensor, y_pred: Tensor, sample_weight: Tensor = None
    ) -> dict[str, Any]:
        """Return the logs, including the metrics passed to `compile`."""
        arguments = losses.loss_arguments(x if y is None else y, y_pred, sample_weight)
        return super().compute_metrics(x, *arguments)

    def compile(
        self, optimizer: OptimizerLike = "adam", loss: LossLike = "mse", **kwargs: Any
    ) -> None:
        """Configure training as `keras.Model.compile` does, by default with `"mse"`.

        `loss` is the data term of the total loss. `"mse"` is the mean over all samples
        and their values. Choose the factors of penalties relative to this mean.
        """
        super().compile(optimizer=optimizer, loss=loss, **kwargs)
        fused_adam.fuse(self.optimizer)

    def compile_from_config(self, config: Config) -> None:
        """Compile a loaded model. Keras requires this if `compile` is overridden."""
        with config_errors(type(self).__name__):
            self.compile(**keras.saving.deserialize_keras_object(config))
        self.optimizer.build(self.trainable_variables)

    def encode(
        self, x: Data, batch_size: int = 256, sparse: bool = False
    ) -> np.ndarray | csr_array:
        """Return the codes of `x`, of shape `(samples, ..., units)`.

        Args:
            x: Array of shape `(samples, *input_shape)`, a dataset of batches, or a
                `keras_sae.activations.ActivationStore`.
            batch_size: Samples per batch.
            sparse: Whether to return a `scipy.sparse.csr_array` with one row per
                sample.
        """
        if sparse:
            return vstack(list(sparse_codes.batches(self, x, batch_size)), "csr")
        return loops.predict(self, self.encoder, x, batch_size)

    def decode(self, code: Data | csr_array, batch_size: int = 256) -> np.ndarray:
        """Decode codes to reconstructions of shape `(samples, *input_shape)`.

        Args:
            code: Array of shape `(samples, ..., units)`, a dataset of batches, or a
                sparse matrix from `encode`.
            batch_size: Samples per batch.
        """
        if issparse(code):
            return sparse_codes.decode(self, code, batch_size)
        return loops.predict(self, self.decoder, code, batch_size)

    def serving_signatures(self, top_k: int) -> dict[str, Signature]:
        """Return the signatures of an exported model by name, the default one first."""
        preprocessing = validation.preprocessing_layers(self)
        return autoencoder_signatures(self.encoder, self.decoder, top_k, preprocessing)

    def reconstruction_target(self, x: np.ndarray) -> np.ndarray:
        """Return the target for the reconstruction of `x`.

        The target is `x` itself, or the output of the `Normalization` and `Rescaling`
        layers that were added in front of a trained encoder.
        """
        for layer in validation.preprocessing_layers(self):
            x = validation.as_numpy(layer(x))
        return x

    def dictionary(self) -> np.ndarray:
        """Return the decoder's dictionary, an array of shape `(units, *input_shape)`.

        Each row is the contribution of one unit to a reconstruction:
        `row_j = (decode(s e_j) - decode(0)) / s`, where `e_j` is 1 for unit `j` at all
        of its positions. `s = 0.05` is too small to saturate a sigmoid or tanh output.
        The rows of a linear decoder are read from its kernel.
        """
        return sparse_codes.dictionary(self)

    def export(
        self,
        filepath: str | Path,
        format: str = "tf_saved_model",
        verbose: bool | None = None,
        **kwargs: Any,
    ) -> None:
        """Export the model as an artifact for inference.

        A SavedModel has the same signatures as with
        `keras_sae.export.export_saved_model`, but no version number. In any other
        format, Keras exports the single function `model(x)`.
        """
        write_model(self, self.sample_shape, filepath, format, verbose, **kwargs)

    def get_config(self) -> Config:
        """Return the constructor's arguments."""
        return {
            **super().get_config(),
            "encoder": keras.saving.serialize_keras_object(self.encoder),
            "decoder": keras.saving.serialize_keras_object(self.decoder),
            "contractive": self.contractive,
            "columns": self.columns,
            "label": self.label,
        }

    @classmethod
    def from_config(
        cls, config: Config, custom_objects: dict[str, Any] | None = None
    ) -> "Autoencoder":
        """Create a model from its config, and tie the kernels of tied layers again."""
        deserialize = keras.saving.deserialize_keras_object
        config = dict(config)
        with config_errors(cls.__name__):
            encoder = deserialize(config.pop("encoder"), custom_objects)
            with tying(flatten(encoder)):
                decoder = deserialize(config.pop("decoder"), custom_objects)
            return cls(encoder, decoder, **config)
