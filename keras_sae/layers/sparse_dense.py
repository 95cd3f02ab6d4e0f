"""A dense layer whose output is a sparse code."""

import math
from typing import Any

import keras
from keras import ops

from keras_sae.layers import forward_pass, serialization
from keras_sae.layers.activity_penalty import ActivityPenalty
from keras_sae.layers.base import layer_state
from keras_sae.ops import sparse_code, tensorflow_kernels, top_k
from keras_sae.ops.sparse_code import SparseCode
from keras_sae.ops.statistics import expand_weight
from keras_sae.regularizers import KLDivergence
from keras_sae.types import (
    ActivationLike,
    Config,
    ConstraintLike,
    InitializerLike,
    RegularizerLike,
    Shape,
    SparsityLike,
    Tensor,
)
from keras_sae.utils import validation
from keras_sae.utils.serialization import register


@register
class SparseDense(keras.layers.Layer):
    """Dense layer whose output is a sparse code.

    `h = sparsity(activation(x W + b))`

    This layer is the encoder of a sparse autoencoder, but works in any Keras model. If
    `sparsity` is a regularizer, its penalty is added to the loss, and `h` is
    `activation(x W + b)`. If `sparsity` is a layer, it decides which units are active.

    Args:
        units: Number of units.
        activation: As in `keras.layers.Dense`, or `"auto"`: the activation that the
            sparsity recommends (sigmoid for a KL divergence, linear for `JumpReLU` and
            `Gated`, otherwise ReLU).
        sparsity: A `keras_sae.layers.Sparsity`, a regularizer of `keras_sae` or Keras,
            a registered name such as `"l1"` or `"top_k"`, a config, or None. If it is
            an object, the layer uses a copy.
        use_bias: Whether to add `b`.
        kernel_initializer: Initializer of `W`.
        bias_initializer: Initializer of `b`, or `"auto"`: zeros, or `logit(target)` for
            a KL divergence after a sigmoid, so that units start near their target.
        kernel_regularizer: Regularizer of `W` (weight decay).
        kernel_constraint: Constraint of `W`, applied to `kernel` in its stored shape.
        transposed_kernel: Whether to store `kernel` with shape `(units, input_dim)`.
            The gradient of a k-sparse code then updates contiguous rows, which makes
            training faster. Results do not change.
        **kwargs: Arguments of `keras.layers.Layer`.

    Input shape:
        `(batch, ..., input_dim)`.

    Output shape:
        `(batch, ..., units)`.

    Attributes:
        kernel: Variable of shape `(input_dim, units)`, or `(units, input_dim)` with
            `transposed_kernel`.
        steps_since_active: float32 variable of shape `(units,)`: training steps since
            each unit was last non-zero.
        sparsity: The layer's own `keras_sae.layers.Sparsity`, or None.

    Raises:
        ValueError: `units` is not a positive integer, the sparsity is unknown, or the
            sparsity does not support the activation.

    Example:

    >>> import numpy as np
    >>> from keras_sae import layers, regularizers
    >>> layer = layers.SparseDense(16, sparsity=regularizers.L1(1e-3))
    >>> layer(np.ones((2, 8), "float32")).shape[1], layer.activation.__name__
    (16, 'relu')
    """

    def __init__(
        self,
        units: int,
        activation: ActivationLike = "auto",
        sparsity: SparsityLike = None,
        *,
        use_bias: bool = True,
        kernel_initializer: InitializerLike = "glorot_uniform",
        bias_initializer: InitializerLike = "auto",
        kernel_regularizer: RegularizerLike = None,
        kernel_constraint: ConstraintLike = None,
        transposed_kernel: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.units = validation.positive_integer("units", units)
        sparsity = serialization.get(sparsity)
        if isinstance(activation, str) and activation == "auto":
            activation = "relu" if sparsity is None else sparsity.activation
        self.activation = keras.activations.get(activation)
        self.sparsity = None
        if sparsity is not None:
            self.sparsity = serialization.copy_for(
                sparsity, self.activation, self.dtype_policy
            )
            self.sparsity.trainable = self.trainable and self.sparsity.trainable
        self.use_bias = use_bias
        if isinstance(bias_initializer, str) and bias_initializer == "auto":
            bias_initializer = keras.initializers.Zeros()
            if (
                isinstance(self.sparsity, ActivityPenalty)
                and isinstance(self.sparsity.regularizer, KLDivergence)
                and self.activation is keras.activations.sigmoid
            ):
                # With a zero bias, the mean activation would be 0.5, far from a target
                # of 0.05, and the divergence would dominate the first epochs.
                target = self.sparsity.regularizer.target
                logit = math.log(target / (1 - target))
                bias_initializer = keras.initializers.Constant(logit)
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.kernel_constraint = keras.constraints.get(kernel_constraint)
        self.transposed_kernel = transposed_kernel
        self.supports_masking = True

    def build(self, input_shape: Shape) -> None:
        """Create the kernel, the bias and the activity counter."""
        input_dim = input_shape[-1]
        if input_dim is None:
            raise ValueError(
                "The last dimension of `SparseDense` inputs must be known. "
                f"Received: input_shape={tuple(input_shape)}."
            )
        devices = top_k.unit_shards() if self.name == "code" else 1
        if self.units % devices:
            raise ValueError(
                "`units` must be divisible by the number of devices that share them. "
                f"Received: units={self.units} on {devices} devices."
            )
        shape = (input_dim, self.units)
        self.kernel = self.add_weight(
            shape=shape[::-1] if self.transposed_kernel else shape,
            initializer=self._initialize_kernel,
            regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint,
            name="transposed_kernel" if self.transposed_kernel else "kernel",
        )
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(
                shape=(self.units,), initializer=self.bias_initializer, name="bias"
            )
        self.steps_since_active = layer_state("steps_since_active", (self.units,))
        if self.sparsity is not None and not self.sparsity.built:
            self.sparsity.build((*input_shape[:-1], self.units))

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        """Return the code of `inputs`."""
        activations = self._sparse_activations(inputs, training)
        if activations is None:
            pre_activations = self.pre_activations(inputs)
            code = self.activation(pre_activations)
            if self.sparsity is not None:
                code = self.sparsity(code, training=training)
            activations = forward_pass.Activations(self, code, lambda: pre_activations)
        code = activations.code
        if training:
            weight = forward_pass.sample_weight()
            if activations.sparse_code is None or weight is not None:
                active = ops.not_equal(code, 0)
                if weight is not None:  # Samples of weight 0 do not count.
                    counts = expand_weight(weight > 0, code)
                    active = ops.logical_and(active, counts)
                active = ops.any(active, axis=tuple(range(len(code.shape) - 1)))
            else:  # In a graph, the dense `code` is computed only if it is used.
                active = activations.sparse_code.is_active(self.units)
            steps = ops.add(self.steps_since_active, 1.0)

            def assign(active: Tensor) -> None:
                active = ops.any(active > 0, axis=0)
                self.steps_since_active.assign(ops.where(active, 0.0, steps))

            forward_pass.update(assign, ops.cast(active, "float32"))
        step = forward_pass.current()
        if step is not None:
            step.activations.append(activations)
        return code

    def pre_activations(self, inputs: Tensor) -> Tensor:
        """Return `x W + b`, of shape `(batch, ..., units)`."""
        transpose = self.transposed_kernel
        kernel = ops.transpose(self.kernel) if transpose else self.kernel
        x = ops.matmul(inputs, kernel)
        return x if self.bias is None else ops.add(x, self.bias)

    def _initialize_kernel(self, shape: Shape, dtype: str | None = None) -> Tensor:
        # Initializers infer fan-in and fan-out from the axis order.
        if not self.transposed_kernel:
            return self.kernel_initializer(shape, dtype=dtype)
        return ops.transpose(self.kernel_initializer(shape[::-1], dtype=dtype))

    def _sparse_activations(
        self, inputs: Tensor, training: bool | None
    ) -> forward_pass.Activations | None:
        """Return the activations selected by the sparsity, or None to compute all."""
        monotone = self.activation in (keras.activations.relu, keras.activations.linear)
        if (
            self.sparsity is None
            or not (self.sparsity.selects and monotone and self.use_bias)
            or len(inputs.shape) != 2
        ):
            return None
        # A subclass that overrides `call` or `auxiliary_losses`, but not `select`,
        # expects dense activations.
        select, *others = (
            next(kind for kind in type(self.sparsity).__mro__ if name in vars(kind))
            for name in ("select", "call", "auxiliary_losses")
        )
        if not all(issubclass(select, other) for other in others):
            return None
        has_penalty = self.sparsity.has_penalty
        if has_penalty and not (
            training
            and tensorflow_kernels.are_usable()  # they accept any number of entries
            and forward_pass.sample_weight() is None
            and self.activation is keras.activations.linear
            and self.sparsity.activity_regularizer is None  # added by `__call__` only
            and self.compute_dtype != "float64"  # the kernels use float32
            and self.units >= 64  # dense products of narrow codes are fast enough
        ):
            return None
        # Read the weights only once, for selection and gradients. TensorFlow's graph
        # optimizer could move a second read to after the weight update.
        kernel = ops.cast(self.kernel, self.compute_dtype)
        bias = ops.cast(self.bias, self.compute_dtype)
        rows = kernel if self.transposed_kernel else ops.transpose(kernel)
        if training:
            tensorflow_kernels.recommend_onednn()
            pre_activations = sparse_code.pre_activations(inputs, rows, bias)
        else:
            pre_activations = ops.add(ops.matmul(inputs, ops.transpose(rows)), bias)
        fixed = ops.stop_gradient(pre_activations)
        selected = self.sparsity.select(fixed, training)
        if selected is None:
            code = self.sparsity(self.activation(pre_activations), training=training)
            return forward_pass.Activations(self, code, lambda: pre_activations)

        def top_pre_activations(units: Tensor, k: int) -> SparseCode:
            candidates = ops.cast(fixed, "float32")
            candidates = ops.where(units, candidates, -1e30)
            indices = top_k.top_k(candidates, k)[1]
            values = ops.take_along_axis(fixed, indices, axis=1)
            top, linear = SparseCode(values, indices), keras.activations.linear
            trainable = ops.take(units, indices)
            code = sparse_code.encode(inputs, rows, bias, top, linear, trainable)
            return code.mask(units)

        sparse = sparse_code.encode(inputs, rows, bias, selected, self.activation)
        if has_penalty:
            code = self.sparsity.call(sparse, training)
            dense = code.to_dense(self.units)
            return forward_pass.Activations(self, dense, lambda: sparse, code)
        return forward_pass.Activations(
            self,
            sparse.to_dense(self.units),
            lambda: self.pre_activations(inputs),
            sparse,
            top_pre_activations,
        )

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Return `input_shape` with `units` as its last entry."""
        return (*input_shape[:-1], self.units)

    def get_config(self) -> Config:
        """Return the constructor's arguments."""
        sparsity: Any = self.sparsity
        if type(sparsity) is ActivityPenalty:
            sparsity = sparsity.regularizer
        serialize = keras.saving.serialize_keras_object
        return {
            **super().get_config(),
            "units": self.units,
            "activation": keras.activations.serialize(self.activation),
            "sparsity": None if sparsity is None else serialize(sparsity),
            "use_bias": self.use_bias,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "bias_initializer": keras.initializers.serialize(self.bias_initializer),
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
            "kernel_constraint": keras.constraints.serialize(self.kernel_constraint),
            "transposed_kernel": self.transposed_kernel,
        }
