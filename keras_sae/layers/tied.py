"""A dense layer that uses the transpose of another layer's kernel."""

import threading
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import keras
from keras import ops

from keras_sae.utils.serialization import register

_local = threading.local()


@register
class TiedDense(keras.layers.Layer):
    """Dense layer whose kernel is the transpose of another layer's kernel.

    `r = activation(h W^T + c)`

    where `W` is the one variable of `tied_to` and `c` a bias of its own.

    A `keras_sae.models.Autoencoder` ties again what it loads, clones or
    unpickles. Any other model that holds this layer gets, on loading, a kernel
    with the same values that is its own from then on, and a warning that says so.

    Args:
        tied_to: The built layer whose `kernel`, of shape `(output_dim,
            input_dim)`, is shared; or its name, where `tying` says which layer
            that is.
        activation: As in `keras.layers.Dense`.
        use_bias: Whether to add `c`.
        bias_initializer: Initializer of `c`.
        output_dim: First axis of the shared kernel. Needed where `tied_to` is a
            name; taken from the layer otherwise.
        **kwargs: Those of `keras.layers.Layer`.

    Input shape:
        `(batch, ..., input_dim)`.

    Output shape:
        `(batch, ..., output_dim)`.

    Raises:
        ValueError: `tied_to` is not built, or has no kernel of two axes.

    Example:

    >>> import numpy as np
    >>> from keras_sae import layers
    >>> encode = layers.SparseDense(16)
    >>> code = encode(np.ones((2, 8), "float32"))
    >>> decode = layers.TiedDense(encode)
    >>> tuple(decode(code).shape), decode.kernel is encode.kernel
    ((2, 8), True)
    """

    def __init__(
        self,
        tied_to: Any,
        activation: Any = None,
        use_bias: bool = True,
        bias_initializer: Any = "zeros",
        output_dim: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.activation = keras.activations.get(activation)
        self.use_bias = use_bias
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.supports_masking = True
        self.kernel: Any = None
        if isinstance(tied_to, str):
            self.tied_to, self.output_dim = tied_to, output_dim
        else:
            self.tied_to = tied_to.name
            self.kernel = kernel_of(tied_to, 2)
            self.output_dim = self.kernel.shape[0]

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Finds the shared kernel, if only its layer's name is known, and checks it."""
        if self.kernel is None:
            self.kernel = found(self.tied_to, 2)
        if self.kernel is None:
            self._make_own_kernel(input_shape[-1])
        if self.kernel.shape != (self.output_dim, input_shape[-1]):
            raise ValueError(
                f"`TiedDense` takes the transposed kernel of {self.tied_to!r}, of "
                f"shape {tuple(self.kernel.shape)}, so its inputs must end in "
                f"{self.kernel.shape[1]}. Received: input_shape={tuple(input_shape)}."
            )
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(
                shape=(self.output_dim,), initializer=self.bias_initializer, name="bias"
            )

    def _make_own_kernel(self, input_dim: int | None) -> None:
        if self.output_dim is None:
            raise ValueError(
                "`TiedDense` knows its source by name alone. Received: "
                f"tied_to={self.tied_to!r}. Pass the layer itself, or build inside "
                "`keras_sae.layers.tying(layers)`."
            )
        warn_untied(self)
        self.kernel = self.add_weight(shape=(self.output_dim, input_dim), name="kernel")

    def call(self, inputs: Any) -> Any:
        """Returns the outputs, in the width of the other layer's input."""
        x = ops.matmul(inputs, ops.transpose(self.kernel))
        if self.bias is not None:
            x = ops.add(x, self.bias)
        return self.activation(x)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """Returns `input_shape` with the other layer's input width at its end."""
        return (*input_shape[:-1], self.output_dim)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments, the other layer by its name."""
        return {
            **super().get_config(),
            "tied_to": self.tied_to,
            "activation": keras.activations.serialize(self.activation),
            "use_bias": self.use_bias,
            "bias_initializer": keras.initializers.serialize(self.bias_initializer),
            "output_dim": self.output_dim,
        }


@contextmanager
def tying(layers: Iterable[keras.layers.Layer]) -> Iterator[None]:
    """Inside the `with` block, tied layers find these layers by their names.

    Args:
        layers: The built layers to tie to.

    Example:

    >>> from keras_sae import layers
    >>> encode = layers.SparseDense(16)
    >>> encode.build((None, 8))
    >>> config = layers.TiedDense(encode).get_config()
    >>> with layers.tying([encode]):
    ...     decode = layers.TiedDense.from_config(config)
    ...     decode.build((None, 16))
    >>> decode.kernel is encode.kernel
    True
    """
    outer = getattr(_local, "sources", {})
    _local.sources = {**outer, **{layer.name: layer for layer in layers}}
    try:
        yield
    finally:
        _local.sources = outer


def found(name: str, axes: int) -> Any:
    """Returns the kernel of the layer that `tying` knows by a name, or None.

    Args:
        name: The layer's.
        axes: How many the kernel is to have.
    """
    source = getattr(_local, "sources", {}).get(name)
    return None if source is None else kernel_of(source, axes)


def warn_untied(layer: Any) -> None:
    """Says that a layer was loaded without the one it was tied to."""
    warnings.warn(
        f"`{type(layer).__name__}` was loaded without the layer {layer.tied_to!r}, so "
        "its kernel is its own from now on. Its values are kept. Load the whole "
        "`keras_sae.models.Autoencoder` to keep the two tied.",
        stacklevel=3,
    )


def kernel_of(layer: Any, axes: int) -> Any:
    """Returns the kernel of a built layer, if it can be shared.

    Args:
        layer: What the user gave.
        axes: How many the kernel is to have.

    Raises:
        ValueError: The layer is not built, or has no such kernel.
    """
    kernel = getattr(layer, "kernel", None)
    if kernel is None or len(kernel.shape) != axes:
        number = {2: "two", 4: "four"}[axes]
        raise ValueError(
            f"`tied_to` must be a built layer with a kernel of {number} axes. "
            f"Received: tied_to={layer!r}. Call the layer, or its `build`, first."
        )
    if getattr(layer, "transposed_kernel", False):
        raise ValueError(
            "`tied_to` must store its kernel as `(input_dim, units)`. Received: "
            f"tied_to={layer!r} with transposed_kernel=True. Build it with transposed_kernel=False."
        )
    return kernel
