"""A transposed convolution that uses the kernel of the convolution it mirrors."""

from typing import Any

import keras

from keras_sae.layers.tied import found, kernel_of, warn_untied
from keras_sae.utils.serialization import register


@register
class TiedConv2DTranspose(keras.layers.Conv2DTranspose):
    """`keras.layers.Conv2DTranspose` whose kernel is that of a `keras.layers.Conv2D`.

    `r = activation(W^T h + c)`

    where `W` is the linear map of a convolution with the kernel of `tied_to`, one
    variable for both, and the strides and the padding of this layer; `c` is a bias of
    its own. A kernel of shape `(height, width, channels, filters)` serves both as it
    is: what a convolution takes in, its transpose gives out.

    As with `keras_sae.layers.TiedDense`, a `keras_sae.models.Autoencoder` ties again
    what it loads, clones or unpickles; any other model gets a kernel with the same
    values that is its own, and a warning.

    Args:
        tied_to: The built convolution whose `kernel` is shared; or its name, where
            `keras_sae.layers.tying` says which layer that is.
        filters: Channels of the output. Needed where `tied_to` is a name; taken from
            the layer otherwise.
        kernel_size: The same, of the kernel.
        **kwargs: Those of `keras.layers.Conv2DTranspose`.

    Input shape:
        `(batch, height, width, filters of the convolution)`.

    Output shape:
        `(batch, new_height, new_width, channels that the convolution takes in)`.

    Raises:
        ValueError: `tied_to` is not built, or no plain convolution; or it is a name
            without `filters` and `kernel_size`; or inputs have other channels.

    Reference:
        Masci et al., "Stacked convolutional auto-encoders for hierarchical feature
        extraction", ICANN 2011.

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
        tied_to: Any,
        filters: int | None = None,
        kernel_size: Any = None,
        **kwargs: Any,
    ) -> None:
        kernel: Any = None
        if not isinstance(tied_to, str):
            kernel = kernel_of(tied_to, 4)
            if not isinstance(tied_to, keras.layers.Conv2D) or tied_to.groups != 1:
                raise ValueError(
                    "`tied_to` must be a `keras.layers.Conv2D` without groups. "
                    f"Received: tied_to={tied_to!r}."
                )
            kernel_size, filters = tuple(kernel.shape[:2]), kernel.shape[2]
            tied_to = tied_to.name
        elif filters is None or kernel_size is None:
            raise ValueError(
                "`TiedConv2DTranspose` knows its source by name alone. Received: "
                f"tied_to={tied_to!r}. Pass the layer itself, or `filters` and "
                "`kernel_size`, and build inside `keras_sae.layers.tying(layers)`."
            )
        super().__init__(filters, kernel_size, **kwargs)
        self.tied_to = tied_to
        self.kernel = kernel

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Finds the shared kernel, if only its layer's name is known, and checks it."""
        if self.kernel is None:
            self.kernel = found(self.tied_to, 4)
        if self.kernel is None:
            warn_untied(self)
            super().build(input_shape)
            return
        channels = input_shape[-1 if self.data_format == "channels_last" else 1]
        if tuple(self.kernel.shape) != (*self.kernel_size, self.filters, channels):
            raise ValueError(
                f"`TiedConv2DTranspose` takes the kernel of {self.tied_to!r}, of shape "
                f"{tuple(self.kernel.shape)}, so its inputs must have "
                f"{self.kernel.shape[-1]} channels. Received: "
                f"input_shape={tuple(input_shape)}."
            )
        self.bias: Any = None
        if self.use_bias:
            self.bias = self.add_weight(
                shape=(self.filters,),
                initializer=self.bias_initializer,
                regularizer=self.bias_regularizer,
                constraint=self.bias_constraint,
                name="bias",
            )

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments, the other layer by its name."""
        return {**super().get_config(), "tied_to": self.tied_to}
