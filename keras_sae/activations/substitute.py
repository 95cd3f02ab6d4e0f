"""A model that takes the output of one of its layers as a second input."""

from typing import Any

import keras
from keras import ops

from keras_sae.activations.intercept import replacing
from keras_sae.activations.paths import Place
from keras_sae.activations.wrapping import Wrapper, compile_like
from keras_sae.types import Tensor


class SubstitutedModel(Wrapper):
    """Model with an extra input: an array that replaces the output of a layer.

    The model is compiled once for any number of replacements. A compiled step skips
    operations that are needed only for the replaced output. If the layer is called
    several times, only the output of the first call is replaced.

    Args:
        base: Any built Keras model.
        place: The layer.
        drop_masks: Whether to remove the Keras masks of the outputs. Otherwise, Keras
            would combine them with sample weights, and would divide the loss of each
            batch by a different number.
    """

    def __init__(
        self, base: keras.Model, place: Place, drop_masks: bool = False
    ) -> None:
        super().__init__(base, [place.index])
        self.drop_masks = drop_masks
        compile_like(self, base)

    def call(self, inputs: dict[str, Any], training: bool | None = None) -> Any:
        """Return the outputs for `{"inputs": ..., "activations": ...}`."""
        del training  # Keras passes it on to the base model
        waiting = [inputs["activations"]]

        def replace(x: Tensor) -> Tensor:
            return ops.cast(waiting.pop(), x.dtype) if waiting else x

        outputs = self.call_hooked(inputs["inputs"], [replacing(replace)])
        if not self.drop_masks:
            return outputs
        # The products are new tensors, which have no Keras mask.
        return keras.tree.map_structure(
            lambda x: ops.multiply(x, ops.ones((), dtype=x.dtype)), outputs
        )
