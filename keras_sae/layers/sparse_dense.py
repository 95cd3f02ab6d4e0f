"""A dense layer whose output is a sparse code."""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from keras_sae.layers import _forward
from keras_sae.layers import serialization as sparsities
from keras_sae.layers._state import state
from keras_sae.ops.sparse_code import SparseCode, encoded
from keras_sae.utils import validation as checks
from keras_sae.utils.serialization import register


@register
class SparseDense(keras.layers.Layer):
    """Dense layer whose output is a sparse code.

    `h = sparsity(activation(x W + b))`

    A regularizer as `sparsity` leaves `h` as it is and adds its penalty to the
    loss; a layer as `sparsity` decides which units stay on.

    Args:
        units: Width `m` of the code.
        activation: As in `keras.layers.Dense`, or `"auto"`: what the sparsity
            needs (sigmoid for a KL divergence, else ReLU).
        sparsity: A regularizer (`keras_sae.regularizers`, or any of Keras), a
            sparsity layer, a registered name (`"l1"`, `"kl"`), a config, or
            None.
        use_bias: Whether to add `b`.
        kernel_initializer: Initializer of `W`.
        bias_initializer: Initializer of `b`, or `"auto"`: zeros, and
            `logit(target)` for a KL divergence behind a sigmoid, so that units
            start near their target.
        kernel_regularizer: Regularizer of `W` (weight decay).
        kernel_constraint: Constraint of `W`, as it is stored.
        transposed_kernel: Whether `kernel` is stored as the transpose of `W`, a row a unit.
            The gradient of a `TopK` or `BatchTopK` then lands where it is needed, in
            rows that lie side by side in memory. It changes nothing else.
        **kwargs: Those of `keras.layers.Layer`.

    Input shape:
        `(batch, ..., input_dim)`.

    Output shape:
        `(batch, ..., units)`.

    Attributes:
        kernel: Variable of shape `(input_dim, units)`, or `(units, input_dim)` by
            `transposed_kernel`.
        silent: float32 variable of shape `(units,)`: training steps since the
            unit was last non-zero.
        sparse: The layer that makes the code sparse, or None.

    Raises:
        ValueError: `units` is not a positive integer, the sparsity is unknown,
            or the activation cannot go with it.

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
        activation: Any = "auto",
        sparsity: Any = None,
        *,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "auto",
        kernel_regularizer: Any = None,
        kernel_constraint: Any = None,
        transposed_kernel: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.units = checks.positive_integer("units", units)
        sparsity = sparsities.get(sparsity)
        self.activation = sparsities.activation(activation, sparsity)
        self.sparsity = sparsities.attach(sparsity, self.activation, self.dtype_policy)
        if self.sparsity is not None and not self.trainable:
            self.sparsity.trainable = False  # as it was, where a frozen layer is loaded
        self.use_bias = use_bias
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.bias_initializer = sparsities.bias_initializer(
            bias_initializer, sparsity, self.activation
        )
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.kernel_constraint = keras.constraints.get(kernel_constraint)
        self.transposed_kernel = transposed_kernel
        self.supports_masking = True

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Makes the kernel, the bias, and the count of silent samples."""
        input_dim = input_shape[-1]
        if input_dim is None:
            raise ValueError(
                "The last dimension of the inputs of `SparseDense` must be known. "
                f"Received: input_shape={tuple(input_shape)}."
            )
        shape = (input_dim, self.units)
        self.kernel = self.add_weight(
            shape=shape[::-1] if self.transposed_kernel else shape,
            initializer=self._initial,
            regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint,
            name="kernel",
        )
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(
                shape=(self.units,), initializer=self.bias_initializer, name="bias"
            )
        self.steps_since_active = state("steps_since_active", (self.units,))
        if self.sparsity is not None and not self.sparsity.built:
            self.sparsity.build((*input_shape[:-1], self.units))

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Returns the code of `inputs`."""
        found = self._entries(inputs, training)
        if found is not None:
            entries, largest = found
            code = entries.dense(self.units)
            fired = entries.fired(self.units)
            _forward.made(
                self, code, lambda: self.pre_activations(inputs), entries, largest
            )
        else:
            pre = self.pre_activations(inputs)
            code = self.activation(pre)
            if self.sparsity is not None:
                code = self.sparsity(code, training=training)
            fired = ops.any(
                ops.not_equal(code, 0), axis=tuple(range(len(code.shape) - 1))
            )
            _forward.made(self, code, lambda: pre)
        if training:
            self.steps_since_active.assign(
                ops.where(fired, 0.0, ops.add(self.steps_since_active, 1.0))
            )
        return code

    def _initial(self, shape: tuple[int, ...], dtype: Any = None) -> Any:
        # An initializer tells by the order of the axes which of them comes in.
        if not self.transposed_kernel:
            return self.kernel_initializer(shape, dtype=dtype)
        return ops.transpose(self.kernel_initializer(shape[::-1], dtype=dtype))

    def pre_activations(self, inputs: Any) -> Any:
        """Returns the pre-activations of `inputs`, `(batch, ..., units)`."""
        kernel = ops.transpose(self.kernel) if self.transposed_kernel else self.kernel
        x = ops.matmul(inputs, kernel)
        return x if self.bias is None else ops.add(x, self.bias)

    def _entries(
        self, inputs: Any, training: bool | None
    ) -> tuple[SparseCode, Callable[[Any, int], SparseCode]] | None:
        """The code as its entries, where a sparsity chooses a fixed number of them.

        With them comes a function that finds other entries in the same product: the
        `k` largest pre-activations of each sample among some units.

        The choice has no gradient, and the chosen have a cheaper one than by way of
        all pre-activations.
        """
        choose = getattr(self.sparsity, "choose", None)
        monotone = self.activation in (keras.activations.relu, keras.activations.linear)
        if not (choose and monotone and self.use_bias and len(inputs.shape) == 2):
            return None
        # One read for the choice and the gradient. Of two, TensorFlow's optimizer of
        # graphs may put the gradient's after the update of the weights.
        kernel, bias = (
            ops.cast(v, self.compute_dtype) for v in (self.kernel, self.bias)
        )
        rows = kernel if self.transposed_kernel else ops.transpose(kernel)
        pre = ops.add(ops.matmul(inputs, ops.transpose(rows)), bias)
        pre = ops.stop_gradient(pre)
        chosen = choose(pre, training)
        if chosen is None:
            return None

        def largest(among: Any, k: int) -> SparseCode:
            others = ops.where(among, ops.cast(pre, "float32"), -1e30)
            columns = ops.cast(ops.top_k(others, k)[1], "int32")
            places = SparseCode(ops.take_along_axis(pre, columns, axis=1), columns)
            linear, on = keras.activations.linear, ops.take(among, columns)
            return encoded(inputs, rows, bias, places, linear, on).where(among)

        return encoded(inputs, rows, bias, chosen, self.activation), largest

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """Returns `input_shape` with `units` as its last entry."""
        return (*input_shape[:-1], self.units)

    @property
    def bounds(self) -> tuple[float, float]:
        """Least and greatest value of the activation, infinite without a bound."""
        return sparsities.bounds(self.activation)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        sparsity = getattr(self.sparsity, "regularizer", self.sparsity)
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
