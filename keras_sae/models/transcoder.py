"""Transcoder: a sparse model that predicts one layer's output from another's."""

import math
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_sae.export.signatures import Signature, encoder_signatures
from keras_sae.layers import (
    ActivityPenalty,
    SparseDense,
    forward_pass,
    get_sparsity,
)
from keras_sae.layers.normalization import adapt_layers
from keras_sae.models import building_blocks, data_adapter, validation
from keras_sae.models.autoencoder import Autoencoder
from keras_sae.models.levels import code_sparsity, flatten
from keras_sae.types import Config, Data, Shape, SparsityLike, Tensor
from keras_sae.utils.serialization import register
from keras_sae.utils.validation import positive_integer


@register
class Transcoder(Autoencoder):
    """Sparse model that predicts the output of one layer from that of another.

    `y = decoder(encoder(x))`, plus `x W_skip` with `skip=True`

    Create the model with `keras_sae.models.transcoder`.

    Args:
        encoder: Model from `(batch, *input_shape)` to `(batch, units)`.
        decoder: Model from `(batch, units)` to `(batch, *output_shape)`.
        skip: Whether to add a linear map of the input to the output. The map is
            initialized to zero.
        **kwargs: Arguments of `Autoencoder`.

    Example:

    >>> from keras_sae import models
    >>> model = models.transcoder((6,), (4,), units=16, sparsity="l1", skip=True)
    >>> model.dictionary().shape, tuple(model.skip.kernel.shape)
    ((16, 4), (6, 4))
    """

    reconstructs_input = False

    def __init__(
        self,
        encoder: keras.Model,
        decoder: keras.Model,
        skip: bool = False,
        **kwargs: Any,
    ) -> None:
        self.has_skip = skip
        super().__init__(encoder, decoder, **kwargs)

    def build(self, input_shape: Shape) -> None:
        """Create the linear map of the input if `skip` is True."""
        del input_shape
        if self.has_skip:
            self.skip = keras.layers.Dense(
                math.prod(self.decoder.output_shape[1:]),
                use_bias=False,
                kernel_initializer="zeros",
                name="skip",
            )
            self.skip.build((None, math.prod(self.sample_shape)))

    def skipped(self, inputs: Tensor) -> Tensor:
        """Return the linear map of the inputs, or zeros if `skip` is False."""
        shape = tuple(self.decoder.output_shape[1:])
        if not self.has_skip:
            return ops.zeros((ops.shape(inputs)[0], *shape), self.compute_dtype)
        flat = ops.reshape(inputs, (-1, math.prod(self.sample_shape)))
        return ops.reshape(self.skip(flat), (-1, *shape))

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        """Return the output, and add all losses except the data loss.

        Raises:
            ValueError: An auxiliary loss needs a target, but the call is not part of a
                training step.
        """
        step = forward_pass.current()
        target = step.target if step is not None and step.model is self else None
        sparsity = code_sparsity(self.encoder)
        auxiliary = sparsity is not None and sparsity.auxiliary_loss_names
        if training and auxiliary and target is None:
            raise ValueError(
                "The auxiliary losses of a transcoder need targets. Received: a call "
                "with training=True outside `fit`. Use `fit(x, y)` or "
                "`train_on_batch(x, y)`."
            )
        if not self.has_skip:
            return super().call(inputs, training=training)
        linear = self.skipped(inputs)
        if step is not None and target is not None:
            # Auxiliary losses compare the target with the decoder's output alone.
            step.target = target - ops.cast(linear, target.dtype)
        return super().call(inputs, training=training) + linear

    def adapt(
        self, x: Data, location: str = "mean", *, y: Tensor | None = None
    ) -> None:
        """Compute the center of the inputs before `fit`.

        Args:
            x: Array of shape `(samples, *input_shape)`, or batches of `(x, y)`.
            location: Center of the inputs, `"mean"` or `"geometric_median"`.
            y: None, or targets. Their mean becomes the bias of the output layer.

        Raises:
            ValueError: `x` or `y` has the wrong shape.
        """
        samples, targets = data_adapter.as_arrays(x, y)
        validation.check_data(samples, self.sample_shape)
        if targets is not None:
            validation.check_data(targets, self.decoder.output_shape[1:], name="y")
        adapt_layers(flatten(self.encoder), [], samples.astype("float64"), location)
        if targets is not None:
            center = np.asarray(targets, "float64").mean(axis=0)
            building_blocks.set_output_bias(self.decoder, center)

    def check_data(
        self,
        x: Data | None,
        y: Tensor | None = None,
        batch_size: int | None = None,
        sample_weight: Tensor | None = None,
    ) -> tuple[Data, Tensor | None]:
        """Raise the errors that `fit` would raise for this data, without training."""
        x, y, (first_x, first_y) = data_adapter.open_data(x, y, sample_weight)
        expected = (first_x.shape[0], *self.decoder.output_shape[1:])
        if first_y is None or tuple(np.shape(first_y)) != expected:
            raise ValueError(
                "A transcoder needs targets with the shape of its output: `fit(x, y)`. "
                f"Received: y of shape {None if first_y is None else first_y.shape}. "
                f"Expected: {expected}."
            )
        validation.check_data(first_x, self.sample_shape)
        validation.check_data(first_y, expected[1:], name="y")
        validation.check_batch_size(self.encoder, x, first_x, batch_size)
        return x, y

    def serving_signatures(self, top_k: int) -> dict[str, Signature]:
        """Return the signatures `transcode`, `encode` and `top_features`."""

        def transcode(x: Tensor) -> dict[str, Tensor]:
            return {"output": self(x, training=False)}

        return {
            "transcode": Signature(transcode, self.sample_shape),
            **encoder_signatures(self.encoder, top_k),
        }

    def get_config(self) -> Config:
        """Return the constructor's arguments."""
        return {**super().get_config(), "skip": self.has_skip}


def transcoder(
    input_shape: int | tuple[int, ...],
    output_shape: int | tuple[int, ...],
    units: int,
    sparsity: SparsityLike = None,
    *,
    skip: bool = False,
    centering: bool = True,
    name: str = "transcoder",
    **kwargs: Any,
) -> Transcoder:
    """Create a sparse model that predicts one layer's output from another's.

    `h = sparsity(activation((x - mean) W + b))`, `y = h W' + c`, plus `x W_skip` with
    `skip=True`

    An autoencoder decomposes the activations of one layer into features. A transcoder
    decomposes the computation between two layers: it predicts the output of the second
    layer from a few active features of the first.

    Args:
        input_shape: Shape of one sample of `x`.
        output_shape: Shape of one sample of `y`.
        units: Width of the code.
        sparsity: As in `keras_sae.models.shallow`.
        skip: Whether to add a linear map of the input, so that the code explains only
            the nonlinear part of the output.
        centering: As in `keras_sae.models.shallow`.
        name: Name of the model.
        **kwargs: Further arguments of `keras_sae.layers.SparseDense`.

    Returns:
        A `keras_sae.models.Transcoder`. Train it with `fit(x, y)`.

    Raises:
        ValueError: An argument is out of range.

    Reference:
        - [Dunefsky et al., Transcoders find interpretable LLM feature circuits,
          2024](https://arxiv.org/abs/2406.11944)
        - [Paulo et al., Transcoders beat sparse autoencoders for interpretability,
          2025](https://arxiv.org/abs/2501.18823)

    Example:

    >>> import numpy as np
    >>> from keras_sae import models
    >>> x = np.random.default_rng(0).normal(size=(64, 6)).astype("float32")
    >>> y = np.abs(x[:, :4])
    >>> model = models.transcoder((6,), (4,), units=16, sparsity="l1")
    >>> model.compile("adam")
    >>> history = model.fit(x, y, epochs=2, verbose=0)
    >>> model.predict(x, verbose=0).shape
    (64, 4)
    """
    shape = building_blocks.known_shape(input_shape)
    target = building_blocks.known_shape(output_shape, "output_shape")
    sparsity = get_sparsity(sparsity)
    options: dict[str, Any] = {}
    if sparsity is not None and sparsity.scale_dependent:
        is_hard = not isinstance(sparsity, ActivityPenalty)
        options = building_blocks.unit_norm_options(is_hard)
    selects = sparsity is not None and sparsity.selects and not sparsity.has_penalty
    kwargs.setdefault("transposed_kernel", selects)
    units = positive_integer("units", units)
    code = SparseDense(units, sparsity=sparsity, name="code", **kwargs)
    layers = [*building_blocks.preprocessing(None, centering, False), code]
    encoder = building_blocks.chain(shape, layers, "encoder")
    decoder, decoding = building_blocks.mirrored_decoder(
        target, units, [(math.prod(target), "linear")], **options
    )
    building_blocks.initialize_kernels([code], decoding, False)
    return Transcoder(encoder, decoder, skip, name=name)
