"""A Keras model whose `export` writes the signatures of this package."""

from pathlib import Path
from typing import Any

import keras

from keras_sae.export import write_artifact

_SAVED_MODEL = "tf_saved_model"  # Keras's name, and its default


class Exported(keras.Model):
    """`export` of the models of this package."""

    encoder: keras.Model

    def export(
        self,
        filepath: str | Path,
        format: str = _SAVED_MODEL,
        verbose: bool | None = None,
        input_signature: Any = None,
        **kwargs: Any,
    ) -> None:
        """Writes an artifact for inference to `filepath`.

        A SavedModel has the signatures of `keras_sae.export.export_saved_model`,
        which writes numbered versions of it for a server. Every other format is
        Keras's own and has the one function `model(x)`.

        Args:
            filepath: Where the artifact goes.
            format: `"tf_saved_model"`, or as in Keras: `"onnx"`, `"litert"`, ...
            verbose: Whether to say what was written. None is as in Keras for its own
                formats, and False for a SavedModel.
            input_signature: As in Keras; a SavedModel takes any number of samples of
                the model's own shape, and has no use for it.
            **kwargs: Those of `keras_sae.export.write_artifact`, or of Keras.
        """
        if format != _SAVED_MODEL:
            plain = self._functional_copy()
            plain.export(filepath, format, verbose, input_signature, **kwargs)
            return
        if input_signature is not None:
            raise ValueError(
                "A SavedModel of this package takes float32 of the model's own shape. "
                f"Received: input_signature={input_signature!r}. Leave it out."
            )
        path = write_artifact(self, filepath, **kwargs)
        if verbose:
            print(f"Saved artifact at {str(path)!r}.")

    def _functional_copy(self) -> keras.Model:
        """The function `x` to `model(x)`, with a name for its input.

        Keras traces what it exports. A copy keeps the traces to itself.
        """
        copy = type(self).from_config(self.get_config())
        copy.set_weights(self.get_weights())
        shape = tuple(self.encoder.input_shape[1:])
        x = keras.Input(shape, name="x")
        model = keras.Model(x, copy(x), name=self.name)
        model(keras.ops.zeros((1, *shape)))  # to ONNX goes what was called
        return model
