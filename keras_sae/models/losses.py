"""Losses, metrics and sparse decoding of a training step."""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import keras
from keras import ops

from keras_sae import metrics
from keras_sae.layers import (
    ActivityPenalty,
    Centering,
    Sampling,
    Scaling,
    SparseDense,
    Sparsity,
    TiedDense,
    UnitNormDense,
    forward_pass,
)
from keras_sae.layers.forward_pass import Activations, ForwardPass
from keras_sae.layers.serialization import activation_bounds
from keras_sae.models.levels import chain_layers, code_layer, code_sparsity, flatten
from keras_sae.models.loops import replicas
from keras_sae.ops import tensorflow_kernels
from keras_sae.ops.sparse_code import SparseCode
from keras_sae.ops.statistics import expand_weight
from keras_sae.types import Tensor

# Layers that may follow the dictionary layer in a decoder that decodes sparse codes.
_AFTER_DICTIONARY = (Scaling, keras.layers.Dense, keras.layers.Reshape)


def code_activations(encoder: keras.Model, step: ForwardPass) -> Activations | None:
    """Return the activations of the sparse layer that computes the code, if any.

    For a variational encoder, these are the activations of the mean, without noise.
    """
    layer = code_layer(encoder)
    is_noisy = layer is not encoder.outputs[0]._keras_history.operation
    found = [entry for entry in step.activations if entry.layer is layer]
    if not found:
        return None
    # The decoder receives the noisy code, not the active entries of the mean.
    return replace(found[-1], sparse_code=None) if is_noisy else found[-1]


def decode_sparsely(
    decoder: keras.Model, code: SparseCode | None, widths: Sequence[int] = ()
) -> list[Tensor] | None:
    """Return reconstructions from a code's active entries, or None if impossible.

    For each width in `widths`, the list contains the reconstruction from that many
    leading units of the code. The last entry is the reconstruction from the whole code.

    Sparse decoding requires a sparse code in the decoder's compute dtype, and a decoder
    that is a `UnitNormDense` followed by `Scaling`, `Dense` or `Reshape` layers.
    """
    layers = chain_layers(decoder)
    if code is None or layers is None or (widths and code.dense is not None):
        return None
    dictionary, *rest = layers
    # A subclass may override `call`.
    if type(dictionary) is not UnitNormDense or not all(
        isinstance(layer, _AFTER_DICTIONARY) for layer in rest
    ):
        return None
    # Keras adds an activity penalty only in the layer's `__call__`, which sparse
    # decoding bypasses.
    if dictionary.activity_regularizer is not None:
        return None
    kernel = ops.convert_to_tensor(dictionary.kernel)  # an outer model may autocast it
    kernel_dtype, code_dtype = (
        keras.backend.standardize_dtype(x.dtype) for x in (kernel, code.values)
    )
    if code_dtype != dictionary.compute_dtype or kernel_dtype not in (
        dictionary.compute_dtype,
        dictionary.variable_dtype,
    ):
        return None
    x = dictionary.call(code, widths=widths)
    for layer in rest:
        x = layer(x)
    return ops.split(x, len(widths) + 1)


def begin_step(model: keras.Model, data: Tensor, training: bool = False) -> ForwardPass:
    """Create the forward pass of a step from the data of `keras.Model.train_step`."""
    x, target, weight = keras.utils.unpack_x_y_sample_weight(data)
    if weight is not None:
        shape = (ops.shape(weight)[0], *model.decoder.output_shape[1:])
        weight = expand_weight(weight, model.decoder.outputs[0])
        if any(size != 1 for size in weight.shape[1:]):
            weight = ops.broadcast_to(weight, shape)
    step = ForwardPass(model, True, target, weight)
    if training and replicas(model) > 1:
        # Update the mean of the data now, because replicas must not wait for each
        # other during the forward pass. The moving means of hidden layers are
        # synchronized at the end of the step.
        layers = [x for x in model.encoder.layers if isinstance(x, Centering)]
        layers = [layer for layer in layers if layer.window is None]
        x = ops.reshape(x, (-1, *model.sample_shape))
        with forward_pass.activate(step):
            for layer in layers:
                below = keras.Model(model.encoder.inputs, layer.input)
                layer.update(below(x, training=True))
        forward_pass.synchronize(step)
        step.centered = layers
    return step


def loss_arguments(
    target: Tensor, reconstruction: Tensor, sample_weight: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Reshape the arguments of a Keras loss so that it weights values correctly.

    Keras multiplies the means over the last axis by the weights, and would broadcast
    weights of shape `(batch,)` against the columns of images. Weights of single values
    need an additional last axis.

    Args:
        target: Tensor of shape `(batch, *input_shape)`.
        reconstruction: Tensor of the same shape.
        sample_weight: None, or a tensor whose axes are the first axes of `target`.
    """
    if sample_weight is None:
        return target, reconstruction, None
    weight = expand_weight(sample_weight, target)
    if weight.shape[-1] == 1:
        return target, reconstruction, ops.squeeze(weight, -1)
    return ops.expand_dims(target, -1), ops.expand_dims(reconstruction, -1), weight


def update_metrics(
    step: ForwardPass, y: Tensor, y_pred: Tensor, sample_weight: Tensor | None
) -> None:
    """Update the metrics of a model and, with several replicas, the layers' state.

    This function is called after Keras has read the losses, when replicas may wait for
    each other.
    """
    model, batch_size = step.model, ops.shape(step.code)[0]
    if model._compile_loss is not None:
        data_loss = model._compile_loss(*loss_arguments(y, y_pred, sample_weight))
        # Keras divides a loss by the number of replicas, so undo that here.
        step.losses["reconstruction_loss"] = replicas(model) * data_loss
    for name, mean in model.loss_means.items():
        if name in step.losses:
            mean.update_state(step.losses[name], sample_weight=batch_size)
    model.explained_variance.update_state(y, y_pred, sample_weight)
    weight = forward_pass.sample_weight()
    model.activity.update_state(step.code, weight)
    if model.effective_l0 is not None:
        model.effective_l0.update_state(step.code, row_lengths(model.decoder), weight)
    if replicas(model) > 1:
        forward_pass.synchronize(step)


def widen_input_range(model: keras.Model, inputs: Tensor) -> None:
    """Widen an autoencoder's input range to include a training batch."""

    def assign(lows: Tensor, highs: Tensor) -> None:
        model.minimum.assign(ops.minimum(model.minimum, ops.min(lows)))
        model.maximum.assign(ops.maximum(model.maximum, ops.max(highs)))

    low = high = ops.convert_to_tensor(inputs, "float32", sparse=False)
    weight = forward_pass.value_weight(inputs)
    if weight is not None:
        low = ops.where(weight > 0, low, float("inf"))
        high = ops.where(weight > 0, high, float("-inf"))
    forward_pass.update(assign, ops.min(low), ops.max(high))


def make_loss_means(
    encoder: keras.Model, decoder: keras.Model, contractive: float
) -> dict[str, keras.metrics.Mean]:
    """Return one metric per part of the loss, by its name in the logs."""
    names = {"auxiliary_loss"} if contractive else set()
    for layer in (*flatten(encoder), *flatten(decoder)):
        if isinstance(layer, Sparsity) and layer.has_penalty:
            names.add("sparsity_loss")
        if isinstance(layer, Sampling):
            names.add("kl_loss")
    sparsity = code_sparsity(encoder)
    if sparsity is not None:
        names.update(sparsity.auxiliary_loss_names)
    names_in_order = ["reconstruction_loss", *sorted(names)]
    return {name: keras.metrics.Mean(name, "float32") for name in names_in_order}


def make_activity_metrics(
    encoder: keras.Model,
) -> tuple[metrics.L0, metrics.EffectiveL0 | None]:
    """Return the metrics that count the active units of the code.

    The second metric is None if the code can be exactly zero.
    """
    layers = flatten(encoder)
    sparse_layers = [layer for layer in layers if isinstance(layer, SparseDense)]
    if not sparse_layers:
        samples = any(isinstance(layer, Sampling) for layer in layers)
        return metrics.L0(), metrics.EffectiveL0() if samples else None
    code = sparse_layers[-1]
    if not isinstance(code.sparsity, ActivityPenalty | None):
        return metrics.L0(), None  # Every other sparsity sets units to zero.
    tail = code.activation(ops.convert_to_tensor([[-4.0, -5.0]], "float32"))
    if bool(ops.all(ops.equal(tail, 0))):  # as for a ReLU
        return metrics.L0(), None
    low, high = activation_bounds(code.activation)
    if math.inf in (-low, high):
        return metrics.L0(), metrics.EffectiveL0()
    bounds = (low, high) if low < 0 else (0.0, 1.0)
    return metrics.L0(bounds), metrics.EffectiveL0()


def row_lengths(decoder: keras.Model) -> Callable[[], Tensor] | None:
    """Return a function that computes the row norms of the decoder's first kernel.

    In a shallow model with a linear output, these are the norms of the dictionary rows.
    The result is None if the decoder is not a chain of layers, or if the first layer is
    not dense.
    """
    first, *_ = chain_layers(decoder) or [None]
    if isinstance(first, TiedDense):
        return functools.partial(ops.norm, first.kernel, axis=0)
    if isinstance(first, keras.layers.Dense):
        return functools.partial(ops.norm, first.kernel, axis=1)
    return None


class AutoencoderStep:
    """The step that is passed to `keras_sae.layers.Sparsity.auxiliary_losses`.

    Additional decoder calls run in inference mode, so that batch normalization sees
    each batch only once.

    Args:
        step: The forward pass.
        activations: Activations of the layer that computes the code.
        inputs: Inputs of the model. They are the target if `step.target` is None.
        reconstruction: The reconstruction from the whole code.
        prefixes: Reconstructions from the code's prefixes, or `()` to compute them.
    """

    def __init__(
        self,
        step: ForwardPass,
        activations: Activations,
        inputs: Tensor,
        reconstruction: Tensor,
        prefixes: Sequence[Tensor] = (),
    ) -> None:
        self.prefixes = prefixes
        self.model = step.model
        self.activations = activations
        target = inputs if step.target is None else step.target
        if None in target.shape[1:]:
            target = ops.reshape(target, (-1, *reconstruction.shape[1:]))
        self.target = target
        self.sample_weight = step.sample_weight
        self.reconstruction = reconstruction
        self.code = activations.code
        self.pre_activations = activations.pre_activations
        self.top_pre_activations = activations.top_pre_activations
        self.steps_since_active = activations.layer.steps_since_active

    def decode(self, code: Tensor | SparseCode) -> Tensor:
        """Return the reconstruction of a code."""
        decoder = self.model.decoder
        if isinstance(code, SparseCode):
            reconstructions = decode_sparsely(decoder, code)
            if reconstructions is not None:
                return reconstructions[0]
            code = code.to_dense(self.code.shape[-1])
        return decoder(code, training=False)

    def prefix_reconstructions(self) -> Sequence[Tensor]:
        """Return the reconstruction from each prefix of the code."""
        if self.prefixes:
            return self.prefixes
        unit, zeros = ops.arange(self.code.shape[-1]), ops.zeros_like(self.code)
        widths = self.activations.layer.sparsity.prefixes
        return [self.decode(ops.where(unit < w, self.code, zeros)) for w in widths]

    def decode_with_frozen_decoder(self, code: Tensor | SparseCode) -> Tensor:
        """Decode without propagating gradients to the decoder's weights."""
        decoder = self.model.decoder
        trainable = [ops.stop_gradient(v) for v in decoder.trainable_variables]
        # TensorFlow's graph optimizer could move this second read of the weights after
        # their update.
        self.reconstruction = tensorflow_kernels.read_first(
            trainable, self.reconstruction
        )
        if isinstance(code, SparseCode):
            pairs = zip(decoder.trainable_variables, trainable, strict=True)
            with keras.StatelessScope(pairs):
                reconstructions = decode_sparsely(decoder, code)
            if reconstructions is not None:
                return reconstructions[0]
            code = code.to_dense(self.code.shape[-1])
        others = [ops.convert_to_tensor(v) for v in decoder.non_trainable_variables]
        return decoder.stateless_call(trainable, others, code, training=False)[0]

    def data_loss(self, reconstruction: Tensor) -> Tensor:
        """Return the compiled loss of a reconstruction.

        If the model is not compiled, the mean squared error is returned.
        """
        loss = self.model._compile_loss or keras.losses.MeanSquaredError()
        # Keras divides a loss by the number of replicas, so undo that here.
        scale = replicas(self.model)
        arguments = loss_arguments(self.target, reconstruction, self.sample_weight)
        return scale * loss(*arguments)
