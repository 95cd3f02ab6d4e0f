"""Decoder layers that share the kernel of an encoder layer."""

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import keras
from keras import ops

from keras_sae.types import ActivationLike, Config, InitializerLike, Shape, Tensor
from keras_sae.utils import validation
from keras_sae.utils.serialization import register

_sources: ContextVar[dict[str, keras.layers.Layer] | None] = ContextVar(
    "_sources", default=None
)


@register
class TiedDense(keras.layers.Layer):
    """Dense layer that applies the transpose of another layer's kernel.

    `r = activation(h W^T + c)`

    where `W` is the kernel of `tied_to` and `c` is this layer's bias. Tied weights
    nearly halve the number of parameters of an autoencoder.

    Loading, cloning or unpickling a `keras_sae.models.Autoencoder` ties the layers
    again. In other models, the restored layer has its own kernel and issues a warning.

    Args:
        tied_to: Built layer with a `kernel` of shape `(output_dim, input_dim)` to
            share, or the name of a layer passed to `keras_sae.layers.tying`.
        activation: Activation function.
        use_bias: Whether to add a bias.
        bias_initializer: Initializer of the bias.
        output_dim: First dimension of the kernel. Required if `tied_to` is a name.
        **kwargs: Arguments of `keras.layers.Layer`.

    Input shape:
        `(batch, ..., input_dim)`.

    Output shape:
        `(batch, ..., output_dim)`.

    Raises:
        ValueError: `tied_to` is not a built layer with a two-dimensional kernel, stores
            its kernel transposed, or is a name and `output_dim` is missing.

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
        tied_to: keras.layers.Layer | str,
        activation: ActivationLike = None,
        use_bias: bool = True,
        bias_initializer: InitializerLike = "zeros",
        output_dim: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.activation = keras.activations.get(activation)
        self.use_bias = use_bias
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.supports_masking = True
        self.kernel: Any = None
        if not isinstance(tied_to, str):
            self.kernel = _shared_kernel(tied_to, 2)
            output_dim, tied_to = self.kernel.shape[0], tied_to.name
        self.tied_to = tied_to
        self.output_dim = validation.positive_integer("output_dim", output_dim)

    def build(self, input_shape: Shape) -> None:
        """Find the shared kernel and create the bias."""
        if self.kernel is None:
            self.kernel = _shared_kernel(self.tied_to, 2)
        if self.kernel is None:
            self.kernel = self.add_weight(
                shape=(self.output_dim, input_shape[-1]), name="kernel"
            )
        if tuple(self.kernel.shape) != (self.output_dim, input_shape[-1]):
            raise ValueError(
                f"The inputs of `TiedDense` must have {self.kernel.shape[1]} features, "
                f"as many as the outputs of {self.tied_to!r}. Received: "
                f"input_shape={tuple(input_shape)}."
            )
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(
                shape=(self.output_dim,), initializer=self.bias_initializer, name="bias"
            )

    def call(self, inputs: Tensor) -> Tensor:
        """Return `activation(inputs W^T + c)`."""
        x = ops.matmul(inputs, ops.transpose(self.kernel))
        if self.bias is not None:
            x = ops.add(x, self.bias)
        return self.activation(x)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Return `(batch, ..., output_dim)`."""
        return (*input_shape[:-1], self.output_dim)

    def get_config(self) -> Config:
        """Return the constructor's arguments, with `tied_to` as a name."""
        return {
            **super().get_config(),
            "tied_to": self.tied_to,
            "activation": keras.activations.serialize(self.activation),
            "use_bias": self.use_bias,
            "bias_initializer": keras.initializers.serialize(self.bias_initializer),
            "output_dim": self.output_dim,
        }


@register
class TiedConv2DTranspose(keras.layers.Conv2DTranspose):
    """`keras.layers.Conv2DTranspose` that shares the kernel of a `keras.layers.Conv2D`.

    `r = activation(W^T h + c)`

    where `c` is this layer's bias, and `W` is the linear map of a convolution with the
    kernel of `tied_to` and this layer's strides and padding. The kernel has shape
    `(height, width, channels, filters)`. Loading works as in
    `keras_sae.layers.TiedDense`.

    Args:
        tied_to: Built convolution layer whose `kernel` is shared, or the name of a
            layer passed to `keras_sae.layers.tying`.
        filters: Number of channels of the output. Required if `tied_to` is a name.
        kernel_size: Height and width of the kernel. Required if `tied_to` is a name.
        **kwargs: Arguments of `keras.layers.Conv2DTranspose`.

    Input shape:
        `(batch, height, width, filters of the convolution)`.

    Output shape:
        `(batch, new_height, new_width, input channels of the convolution)`.

    Raises:
        ValueError: `tied_to` is not a built `keras.layers.Conv2D` with `groups=1`.

    References:
        [Masci et al., "Stacked convolutional auto-encoders for hierarchical feature
        extraction", 2011](https://doi.org/10.1007/978-3-642-21735-7_7).

    Example:

    >>> import numpy as np
    >>> import keras
    >>> from keras_sae import layers
    >>> encode = keras.layers.Conv2D(4, 3, padding="same")
    >>> code = encode(np.ones((2, 8, 8, 1), "float32"))
    >>> decode = layers.TiedConv2DTranspose(encode, padding="same")
    >>> tuple(decode(code).shape), decode.kernel is encode.kernel
    ((2, 8, 8, 1), True)
    """

    def __init__(
        self,
        tied_to: keras.layers.Layer | str,
        filters: int | None = None,
        kernel_size: int | tuple[int, int] | None = None,
        **kwargs: Any,
    ) -> None:
        kernel: Any = None
        if not isinstance(tied_to, str):
            kernel = _shared_kernel(tied_to, 4)
            if not isinstance(tied_to, keras.layers.Conv2D) or tied_to.groups != 1:
                raise ValueError(
                    "`tied_to` must be a `keras.layers.Conv2D` with groups=1. "
                    f"Received: tied_to={tied_to!r}."
                )
            kernel_size, filters = tuple(kernel.shape[:2]), kernel.shape[2]
            tied_to = tied_to.name
        super().__init__(filters, kernel_size, **kwargs)
        self.tied_to = tied_to
        self.kernel = kernel

    def build(self, input_shape: Shape) -> None:
        """Find the shared kernel and create the bias."""
        if self.kernel is None:
            self.kernel = _shared_kernel(self.tied_to, 4)
        if self.kernel is None:
            super().build(input_shape)
            return
        self.bias: Any = None
        if self.use_bias:
            self.bias = self.add_weight(
                shape=(self.filters,),
                initializer=self.bias_initializer,
                regularizer=self.bias_regularizer,
                constraint=self.bias_constraint,
                name="bias",
            )

    def get_config(self) -> Config:
        """Return the constructor's arguments, with `tied_to` as a name."""
        return {**super().get_config(), "tied_to": self.tied_to}


@contextmanager
def tying(layers: Iterable[keras.layers.Layer]) -> Iterator[None]:
    """Let tied layers that are built inside this context find other layers by name.

    The config of a tied layer contains only the name of the layer that it is tied to.

    Args:
        layers: Built layers that tied layers can find.

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
    outer = _sources.get() or {}
    token = _sources.set({**outer, **{layer.name: layer for layer in layers}})
    try:
        yield
    finally:
        _sources.reset(token)


def _shared_kernel(
    tied_to: keras.layers.Layer | str, dimensions: int
) -> keras.Variable | None:
    """Return the kernel of a layer, or warn and return None for an unknown name."""
    layer = tied_to
    if isinstance(tied_to, str):
        layer = (_sources.get() or {}).get(tied_to)
        if layer is None:
            warnings.warn(
                f"A tied layer was loaded without the layer {tied_to!r}, and now has "
                "its own kernel with the same values. Load the whole "
                "`keras_sae.models.Autoencoder` to keep the kernels tied.",
                stacklevel=3,
            )
            return None
    kernel = getattr(layer, "kernel", None)
    if kernel is None or len(kernel.shape) != dimensions:
        raise ValueError(
            f"`tied_to` must be a built layer with a kernel of {dimensions} dimensions."
            f" Received: tied_to={layer!r}. Call the layer or its `build` method first."
        )
    if getattr(layer, "transposed_kernel", False):
        raise ValueError(
            "`tied_to` must have a kernel of shape `(input_dim, units)`. Received: "
            f"tied_to={layer!r}. Create it with transposed_kernel=False."
        )
    return kernel
