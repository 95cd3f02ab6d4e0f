"""Capture the outputs of layers as NumPy arrays."""

import contextlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import keras
import numpy as np

from keras_sae.activations.data import batches, sample_count
from keras_sae.activations.intercept import first
from keras_sae.activations.paths import LayerKey, Place, find_layer
from keras_sae.activations.wrapping import Wrapper
from keras_sae.models.validation import as_numpy
from keras_sae.types import Data, Tensor

# Errors of JAX and TensorFlow for a tensor that is used outside the loop or the
# rematerialized function that computed it.
_OUT_OF_SCOPE = ("UnexpectedTracerError", "InaccessibleTensorError")


class _Finished(BaseException):
    """Raised to stop the model early. Keras would wrap an `Exception`."""


class _MaskOf(keras.layers.Layer):
    """Layer that returns the Keras mask of its input."""

    def __init__(self) -> None:
        super().__init__()
        self.supports_masking = True

    def call(self, inputs: Tensor, mask: Tensor | None = None) -> Tensor | None:
        del inputs
        return mask


class CapturingModel(Wrapper):
    """Model that returns the outputs of some layers of another model.

    The other model is stopped as soon as it has computed these outputs.

    Args:
        base: Any built Keras model.
        places: The layers.
        call_index: Index of the call to capture if a layer is called several times.
        masks: Whether to also return the Keras mask of each output.
    """

    def __init__(
        self,
        base: keras.Model,
        places: Sequence[Place],
        call_index: int = 0,
        masks: bool = False,
    ) -> None:
        if not base.built:
            raise ValueError(
                f"`model` must be built. Received: model={base.name!r}, which has not "
                "been called yet. Call it on a batch of data first."
            )
        super().__init__(base, [place.index for place in places])
        self.call_index = call_index
        self.mask_of = _MaskOf() if masks else None

    def call(self, inputs: Tensor, training: bool | None = None) -> list[Tensor]:
        """Return the outputs of the layers, followed by the masks if requested."""
        del training  # Keras passes it on to the base model
        targets = self.targets.of(self.base)
        # Per layer, the output and the mask of each call.
        calls: list[list[tuple[Tensor, Tensor]]] = [[] for _ in targets]

        def keep(n: int, run: Callable[[], Any], inputs: Any) -> Any:
            mask = None if self.mask_of is None else self.mask_of(inputs)
            outputs = run()
            if self.mask_of is not None:
                mask = targets[n][1].compute_mask(inputs, mask)
            calls[n].append((first(outputs), mask))
            if all(len(found) > self.call_index for found in calls):
                raise _Finished
            return outputs

        with contextlib.suppress(_Finished):
            self.call_hooked(inputs, [partial(keep, n) for n in range(len(targets))])
        for (path, _), found in zip(targets, calls, strict=True):
            if not 0 <= self.call_index < len(found):
                raise ValueError(
                    "`call` must be at least 0, and less than the number of calls of "
                    f"the layer. Received: call={self.call_index} for {path!r}, which "
                    f"is called {len(found)} times."
                )
            if self.mask_of is not None and found[self.call_index][1] is None:
                raise ValueError(
                    f"`keep='mask'` needs a Keras mask. Received: the layer {path!r}, "
                    "whose output has no Keras mask. Pass a function of the inputs as "
                    "`keep`."
                )
        chosen = [found[self.call_index] for found in calls]
        outputs = [output for output, _ in chosen]
        masks = [] if self.mask_of is None else [mask for _, mask in chosen]
        return [*outputs, *masks]

    def arrays(self, x: Any) -> list[np.ndarray]:
        """Return the outputs for one batch as NumPy arrays."""
        try:
            outputs = [as_numpy(output) for output in self.predict_on_batch(x)]
        except Exception as error:
            if type(error).__name__ not in _OUT_OF_SCOPE:
                raise
            raise ValueError(
                "On this backend, the output of a layer inside a loop (an RNN's cell) "
                "or inside a `keras.RematScope` cannot be captured. Capture the layer "
                "that contains it."
            ) from error
        samples = len(keras.tree.flatten(x)[0])
        paths = [path for path, _ in self.targets.of(self.base)]
        for path, output in zip(paths, outputs[: len(paths)], strict=True):
            if output.shape[:1] != (samples,):
                raise ValueError(
                    f"The output of {path!r} must have the samples on its first axis. "
                    f"Received: an output of shape {output.shape} for {samples} "
                    "samples. Choose a later layer."
                )
        return outputs


def capture(
    model: keras.Model,
    layer: LayerKey | Sequence[LayerKey],
    x: Data,
    *,
    batch_size: int = 32,
    call: int = 0,
) -> np.ndarray | dict[str, np.ndarray]:
    """Return the outputs of one or more layers of a model.

    The model runs on batches in inference mode, and stops after the layer. All
    outputs are kept in memory. To write them to disk, use
    `keras_sae.activations.record`.

    Args:
        model: Any built Keras model.
        layer: A layer, its path such as `"blocks/3/attention"`, the end of its path, or
            its name. A list of these captures several layers in one pass.
        x: Inputs of the model, as in `predict`: arrays, or batches of arrays.
        batch_size: Number of samples per batch.
        call: Index of the call to capture if the model calls a layer several times.

    Returns:
        Array of shape `(samples, *output_shape)`. If the layer has several outputs, the
        first one is returned. For a list of layers, a dict of these arrays. The key of
        a layer is the given string, or the path of a given layer object. A bfloat16
        output is returned as float32, because NumPy has no bfloat16.

    Raises:
        ValueError: A layer is not in the model or is not called, `x` is empty or
            ragged, or the outputs of two batches differ in shape.

    Example:

    >>> import keras
    >>> import numpy as np
    >>> from keras_sae import activations
    >>> layers = [keras.layers.Dense(8, "relu", name="hidden"), keras.layers.Dense(3)]
    >>> model = keras.Sequential([keras.Input((5,)), *layers])
    >>> activations.capture(model, "hidden", np.ones((10, 5))).shape
    (10, 8)
    """
    several = isinstance(layer, (list, tuple))
    keys: Sequence[LayerKey] = layer if several else [layer]
    places = [find_layer(model, key) for key in keys]
    capturing = CapturingModel(model, places, call)
    total, position = sample_count(x), 0
    found: list[list[np.ndarray]] = [[] for _ in places]
    for batch in batches(x, batch_size):
        outputs = capturing.arrays(batch)
        for parts, output in zip(found, outputs, strict=True):
            if output.dtype.name == "bfloat16":
                output = output.astype("float32")
            if parts and parts[0].shape[1:] != output.shape[1:]:
                raise ValueError(
                    "The outputs of all batches must have the same shape. Received: "
                    f"samples of shapes {parts[0].shape[1:]} and {output.shape[1:]}. "
                    "Pad the inputs, or use `keras_sae.activations.record`."
                )
            if total is None:
                parts.append(output)
                continue
            if not parts:
                parts.append(np.empty((total, *output.shape[1:]), output.dtype))
            parts[0][position : position + len(output)] = output
        position += len(outputs[0])
    arrays = [parts[0] if len(parts) == 1 else np.concatenate(parts) for parts in found]
    if not several:
        return arrays[0]
    names = [
        key if isinstance(key, str) else place.path
        for key, place in zip(keys, places, strict=True)
    ]
    return dict(zip(names, arrays, strict=True))
