"""Base class for sparsities, and the step from which they compute auxiliary losses."""

from collections.abc import Callable, Sequence
from typing import Protocol

import keras
from keras import ops

from keras_sae.layers import forward_pass
from keras_sae.layers.base import ShapePreservingLayer, layer_state
from keras_sae.ops.sparse_code import SparseCode
from keras_sae.types import Shape, Tensor
from keras_sae.utils.serialization import register


class Step(Protocol):
    """Interface of the training or test step passed to `Sparsity.auxiliary_losses`.

    Attributes:
        target: Target of the reconstruction, of shape `(batch, *output_shape)`.
        sample_weight: Weights that broadcast against `target`, or None.
        reconstruction: Reconstruction from the whole code, with the shape of `target`.
        code: The code, of shape `(batch, ..., units)`.
        steps_since_active: Number of training steps since each unit was last non-zero,
            of shape `(units,)`.
        pre_activations: Function that returns the pre-activations of the code. For a
            sparsity with a penalty and a `select` method, the result may be a
            `SparseCode` of the selected units.
        top_pre_activations: None, or a function that takes a boolean mask of shape
            `(units,)` and `k`, and returns the `k` largest pre-activations per sample
            among the units in the mask.
        decode: Function that returns the reconstruction of a code.
        prefix_reconstructions: Function that returns one reconstruction per width in
            the sparsity's `prefixes`.
        decode_with_frozen_decoder: Like `decode`, but without gradients for the
            decoder.
        data_loss: Function that returns the compiled loss of a reconstruction, weighted
            by `sample_weight`.
    """

    target: Tensor
    sample_weight: Tensor | None
    reconstruction: Tensor
    code: Tensor
    steps_since_active: Tensor
    pre_activations: Callable[[], Tensor | SparseCode]
    top_pre_activations: Callable[[Tensor, int], SparseCode] | None
    decode: Callable[[Tensor | SparseCode], Tensor]
    prefix_reconstructions: Callable[[], Sequence[Tensor]]
    decode_with_frozen_decoder: Callable[[Tensor | SparseCode], Tensor]
    data_loss: Callable[[Tensor], Tensor]


@register
class Sparsity(ShapePreservingLayer):
    """Base class for sparsities: layers that turn activations into a sparse code.

    Override `call`, and pass an instance as `sparsity=` to a model factory or to
    `keras_sae.layers.SparseDense`. Overriding other methods and attributes is optional.
    A class decorated with `keras.saving.register_keras_serializable()` can be saved and
    loaded.

    Attributes:
        activation: Activation that a layer with `activation="auto"` applies before the
            sparsity.
        min_batch_size: Smallest batch size that the sparsity supports in training.
        requires_decoder: Whether training the sparsity requires a decoder. If True,
            only the innermost layer can use the sparsity.
        auxiliary_loss_names: Names of the losses that `auxiliary_losses` returns. Their
            metrics are created before the first step.
        scale_dependent: Whether the sparsity depends on the scale of the activations.
            If True, `models.shallow` and `models.transcoder` use decoder rows of unit
            norm by default.
        has_penalty: Whether `call` adds a penalty with `add_penalty`.
        coefficient: float32 variable that multiplies the penalty, or None if
            `has_penalty` is False. It is initially 1, and callbacks can change it.
        persistent: Whether the code stays sparse when the coefficient is set to 0, so
            that only a negative coefficient can undo the sparsity.
        selects: Whether `select` is implemented.
        anneals: Whether `set_progress` changes anything besides the coefficient.
        prefixes: Widths of the prefixes of the code that `auxiliary_losses` decodes, in
            increasing order.

    Input and output shape:
        `(batch, ..., units)`.

    Example:

    >>> import keras
    >>> import numpy as np
    >>> from keras_sae import layers, models
    >>> @keras.saving.register_keras_serializable("example")
    ... class SoftThreshold(layers.Sparsity):
    ...     def call(self, inputs, training=None):
    ...         return keras.ops.relu(inputs - 0.5)
    >>> model = models.shallow((4,), units=8, sparsity=SoftThreshold())
    >>> model.compile("adam")
    >>> model.encode(np.zeros((2, 4), "float32")).shape
    (2, 8)
    """

    activation: str = "relu"
    min_batch_size: int = 1
    requires_decoder: bool = False
    auxiliary_loss_names: tuple[str, ...] = ()
    scale_dependent: bool = True
    has_penalty: bool = False
    coefficient: keras.Variable = None
    persistent: bool = False
    selects: bool = False
    anneals: bool = False
    prefixes: tuple[int, ...] = ()

    def build(self, input_shape: Shape) -> None:
        """Create the coefficient of the penalty."""
        del input_shape
        if self.has_penalty:
            self.coefficient = layer_state("coefficient", initial=1.0)

    def add_penalty(self, value: Tensor, inputs: Tensor) -> None:
        """Add `coefficient * mean(value)` to the loss, logged as `sparsity_loss`.

        Args:
            value: float32 penalties of shape `(batch, ...)`, which are multiplied by
                the sample weights, or the penalty of the whole batch as a scalar.
            inputs: The inputs of `call`.
        """
        value = ops.convert_to_tensor(value)  # `value` may be a Python number.
        if len(value.shape) > 0:
            value = forward_pass.mean_loss(value)
        forward_pass.add_loss(
            self, "sparsity_loss", self.coefficient * value, ops.shape(inputs)[0]
        )

    def select(
        self, pre_activations: Tensor, training: bool | None
    ) -> SparseCode | None:
        """Return the active entries of the code, for faster computation.

        Args:
            pre_activations: Tensor of shape `(batch, units)`, without a gradient.
            training: As in `call`.

        Returns:
            The selected pre-activations, or None to compute the code with `call`. If
            `has_penalty` is True, `call` receives the selected pre-activations.
        """
        del pre_activations, training
        return None

    def auxiliary_losses(self, step: Step) -> dict[str, Tensor]:
        """Return losses that need the decoder, as a dict of scalars.

        Args:
            step: The training or test step.
        """
        del step
        return {}

    def set_progress(self, fraction: float) -> None:
        """Set the strength of the sparsity during a warm-up.

        Args:
            fraction: Fraction of the full strength; 1 at the end of the warm-up.
        """
        if self.coefficient is not None:
            self.coefficient.assign(fraction)

    def per_unit_state(self) -> list[tuple[keras.Variable, float]]:
        """Return the variables with one entry per unit, and their initial values.

        `keras_sae.callbacks.DeadUnits` resets the entries of the units that it
        resamples.
        """
        return []
