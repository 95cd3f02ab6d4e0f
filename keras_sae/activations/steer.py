"""Edit the code of a layer's output while a model generates text."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import keras

from keras_sae.activations.intercept import intercept
from keras_sae.activations.paths import LayerKey
from keras_sae.activations.splice import EditLike, splice
from keras_sae.models import Autoencoder
from keras_sae.types import Tensor


@contextmanager
def steer(
    causal_lm: keras.Model,
    layer: LayerKey,
    autoencoder: Autoencoder,
    edit: EditLike,
    error: bool = True,
) -> Iterator[None]:
    """Edit the code of a layer's output in a `with` block, also during `generate`.

    `x -> x + (decode(edit(encode(x))) - decode(encode(x)))`, for the output `x`

    Use `steer` to call the `generate` method of a `keras_hub.models.CausalLM`, because
    the model that `keras_sae.activations.splice` returns has no `generate` method. The
    codes of all tokens are edited, both in the prompt and in the generated text.
    `generate`, `predict` and `evaluate` are compiled again inside the block. After the
    block, the model is restored.

    Args:
        causal_lm: A `keras_hub.models.CausalLM`, or any other Keras model.
        layer: A layer, its path such as `"llama_backbone/transformer_layer_10"`, the
            end of its path, or its name. Choose a block of the backbone, because
            `generate` does not call the backbone itself.
        autoencoder: A trained `keras_sae.models.Autoencoder` for rows of the layer's
            width.
        edit: As in `keras_sae.activations.splice`.
        error: Whether to keep the reconstruction error in the output. If False, the
            layer's output is `decode(edit(encode(x)))`.

    Raises:
        ValueError: As in `keras_sae.activations.splice`.

    Example:

    >>> import keras
    >>> import numpy as np
    >>> from keras_sae import activations, models
    >>> layers = [keras.layers.Dense(8, "relu", name="hidden"), keras.layers.Dense(3)]
    >>> model = keras.Sequential([keras.Input((5,)), *layers])
    >>> autoencoder = models.shallow((8,), 16, "l1")
    >>> edit = activations.clamp({3: 5.0})
    >>> with activations.steer(model, "hidden", autoencoder, edit):
    ...     steered = model.predict(np.ones((2, 5)), verbose=0)
    >>> steered.shape
    (2, 3)
    """
    spliced = splice(causal_lm, layer, autoencoder, edit, error)
    calls = 0

    def replace(x: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return spliced.substitute(x, x)

    with intercept(layer, replace, causal_lm):
        yield
    if not calls:
        warnings.warn(
            "Nothing was steered, because the layer was not called inside the block. "
            "`generate` of a KerasHub model calls the blocks of the backbone, but not "
            f"the backbone itself. Received: layer={layer!r}.",
            stacklevel=3,
        )
