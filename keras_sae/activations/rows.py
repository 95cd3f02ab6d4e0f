"""Rows of activations: the vectors along the last axis of a layer's output."""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import keras
import numpy as np

from keras_sae.activations.capture import CapturingModel
from keras_sae.activations.paths import LayerKey, find_layer
from keras_sae.types import ArrayLike

if TYPE_CHECKING:
    import tensorflow as tf

# Rows to keep. None keeps all rows, "mask" applies the Keras mask of the layer's
# output, integers are the ids of tokens to drop, and a function of the inputs returns
# booleans.
Keep: TypeAlias = Literal["mask"] | Sequence[int] | Callable[[Any], ArrayLike] | None


class RowReader:
    """Read the rows of one or two layers of a model, batch by batch.

    Args:
        model: Any built Keras model.
        layer: A layer, as in `keras_sae.activations.capture`, or a pair of layers.
        keep: As in `keras_sae.activations.record`.
    """

    def __init__(
        self,
        model: keras.Model,
        layer: LayerKey | tuple[LayerKey, LayerKey],
        keep: Keep = None,
    ) -> None:
        keys = layer if isinstance(layer, (tuple, list)) else (layer,)
        if len(keys) not in (1, 2):
            raise ValueError(
                "`layer` must be one layer, or a pair of layers (x, y). Received: "
                f"{len(keys)} layers."
            )
        if isinstance(keep, str) and keep != "mask":
            raise ValueError(
                "`keep` must be None, 'mask', the ids of tokens to drop, or a "
                f"function of the inputs. Received: keep={keep!r}."
            )
        self.places = [find_layer(model, key) for key in keys]
        self.keep = keep
        self.capturing = CapturingModel(model, self.places, masks=isinstance(keep, str))

    def read(
        self, inputs: Any, first_sample: int = 0
    ) -> tuple[list[np.ndarray], np.ndarray]:
        """Return the kept rows of one batch.

        Args:
            inputs: Inputs of the model.
            first_sample: Number of samples before this batch.

        Returns:
            A float32 array of shape `(rows, width)` per layer, and the origins of the
            rows. Origins are integers of shape `(rows, columns)`. The first column is
            the index of the sample. The others are the position in the sample, with one
            column per axis.
        """
        outputs = self.capturing.arrays(inputs)
        layers = outputs[: len(self.places)]
        shapes = {output.shape[:-1] for output in layers}
        if len(shapes) > 1 or min(output.ndim for output in layers) < 2:
            raise ValueError(
                "The layers must have outputs of shape (samples, ..., width) that "
                "differ only in width. Received: outputs of shapes "
                f"{[output.shape for output in layers]}."
            )
        kept = self._kept(inputs, shapes.pop(), outputs[-1])
        origins = np.argwhere(kept)
        origins[:, 0] += first_sample
        rows = [output.reshape(-1, output.shape[-1]) for output in layers]
        if len(origins) < kept.size:
            rows = [array[kept.reshape(-1)] for array in rows]
        return [array.astype("float32") for array in rows], origins

    def _kept(
        self, inputs: Any, shape: tuple[int, ...], last_output: np.ndarray
    ) -> np.ndarray:
        """Return booleans of the given shape that are True for the rows to keep."""
        if self.keep is None:
            return np.ones(shape, bool)
        if isinstance(self.keep, str):
            kept = last_output
        elif callable(self.keep):
            kept = np.asarray(self.keep(inputs))
        else:
            kept = np.isin(_tokens(inputs), list(self.keep), invert=True)
        if kept.shape not in (shape, shape[:1]):
            raise ValueError(
                "`keep` must result in one boolean per row or per sample. Received: an "
                f"array of shape {kept.shape}. Expected the shape {shape} or "
                f"{shape[:1]}."
            )
        whole = kept.reshape(*kept.shape, *(1,) * (len(shape) - kept.ndim))
        return np.broadcast_to(whole, shape).astype(bool)


def _tokens(inputs: Any) -> np.ndarray:
    """Return the token ids of a batch: the input `token_ids`, or the only array."""
    if isinstance(inputs, dict) and "token_ids" in inputs:
        return inputs["token_ids"]
    leaves = keras.tree.flatten(inputs)
    if len(leaves) != 1 or leaves[0].dtype.kind not in "iu":
        raise ValueError(
            "To drop tokens by id, use a model with a single integer input or an input "
            "named 'token_ids', or pass a function as `keep`. Received: inputs of "
            f"dtypes {[str(leaf.dtype) for leaf in leaves]}."
        )
    return leaves[0]


def dataset_of(
    generate: Callable[[], Iterator[tuple[np.ndarray, ...]]], widths: Sequence[int]
) -> "tf.data.Dataset":
    """Return a dataset of batches of float32 rows, or of pairs of such batches.

    Args:
        generate: Function that yields the batches of one epoch.
        widths: Width of each array of a batch.
    """
    import tensorflow as tf

    spec = tuple(tf.TensorSpec((None, width), "float32") for width in widths)
    data = tf.data.Dataset.from_generator(generate, output_signature=spec)
    return data if len(widths) > 1 else data.map(lambda rows: rows)
