"""A model in which an autoencoder replaces a layer's output."""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import keras
from keras import ops

from keras_sae.activations.edits import Edit
from keras_sae.activations.intercept import first, replacing
from keras_sae.activations.paths import LayerKey, Place, find_layer
from keras_sae.activations.wrapping import Wrapper, compile_like
from keras_sae.export.saved_model import write_model
from keras_sae.layers import forward_pass
from keras_sae.layers.forward_pass import ForwardPass
from keras_sae.models import Autoencoder, Transcoder
from keras_sae.models.validation import check_adapted
from keras_sae.types import Config, PathLike, Shape, Tensor
from keras_sae.utils.serialization import config_errors, register

EditLike: TypeAlias = Edit | Callable[[Tensor], Tensor] | None


@register
class SplicedModel(Wrapper):
    """A model in which an autoencoder replaces a layer's output.

    Use `keras_sae.activations.splice` to create a spliced model.

    Args:
        base: Any built Keras model.
        autoencoder: A `keras_sae.models.Autoencoder` for rows of the layer's width.
        indices: Indices in `keras_sae.activations.layer_paths`, of one layer for an
            autoencoder and of two layers for a transcoder.
        edit: None, or a function of the code.
        error: Whether to keep the reconstruction error in the output of the layer.
        **kwargs: Arguments of `keras.Model`.

    Example:

    >>> import keras
    >>> import numpy as np
    >>> from keras_sae import activations, models
    >>> model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(8)])
    >>> autoencoder = models.shallow((8,), 16, "l1")
    >>> activations.SplicedModel(model, autoencoder, [0])(np.ones((2, 5))).shape[1]
    8
    """

    def __init__(
        self,
        base: keras.Model,
        autoencoder: Autoencoder,
        indices: Sequence[int],
        edit: EditLike = None,
        error: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(base, indices, **kwargs)
        self.autoencoder = autoencoder
        self.edit = edit
        self.error = error
        compile_like(self, base)

    def call(self, inputs: Tensor, training: bool | None = None) -> Any:
        """Return the outputs of the model after the replacement."""
        del training  # Keras passes it on to the base model
        path = self.targets.of(self.base)[-1][0]
        sources: list[Tensor] = []

        def keep(x: Tensor) -> Tensor:
            sources.append(x)
            return x

        def replace(x: Tensor) -> Tensor:
            if len(self.targets.indices) > 1 and not sources:
                raise ValueError(
                    f"The second layer of a pair, {path!r}, must be called after the "
                    "first layer. Received: a model that calls the second layer first."
                )
            return self.substitute(sources[-1] if sources else x, x, path)

        hooks = [replacing(keep), replacing(replace)][-len(self.targets.indices) :]
        return self.call_hooked(inputs, hooks)

    def substitute(self, source: Tensor, x: Tensor, path: str = "") -> Tensor:
        """Return the replacement for the layer's output `x`.

        Args:
            source: Activations that the autoencoder encodes.
            x: Output of the layer.
            path: Path of the layer, for error messages.
        """
        check_width(self.autoencoder, tuple(source.shape), tuple(x.shape), path)
        rows = ops.reshape(source, (-1, source.shape[-1]))
        flat = ops.reshape(x, (-1, x.shape[-1]))
        with forward_pass.activate(ForwardPass(self.autoencoder, adds_losses=False)):
            code = self.autoencoder.encoder(rows, training=False)
            edited = code if self.edit is None else self.edit(code)
            result = self.autoencoder.decoder(edited, training=False)
            if self.error:
                change = result - self.autoencoder.decoder(code, training=False)
                changed = ops.any(ops.not_equal(edited, code), axis=-1, keepdims=True)
                change = ops.cast(change, flat.dtype)
                result = ops.where(changed, flat + change, flat)
            elif isinstance(self.autoencoder, Transcoder):
                result = result + self.autoencoder.skipped(rows)
        return ops.reshape(ops.cast(result, x.dtype), ops.shape(x))

    def export(
        self,
        filepath: PathLike,
        format: str = "tf_saved_model",
        verbose: bool | None = None,
        **kwargs: Any,
    ) -> None:
        """Export the model as an artifact for inference, as Keras does.

        `keras_sae.export` writes models with a single float32 input, because it can
        export them as a SavedModel on every backend.
        """
        inputs = self.inputs
        if inputs is None:
            super().export(filepath, format, verbose, **kwargs)
        elif [x.dtype for x in inputs] == ["float32"]:
            shape = tuple(inputs[0].shape[1:])
            write_model(self, shape, filepath, format, verbose, **kwargs)
        else:
            symbolic = keras.tree.map_structure(
                lambda x: keras.Input(batch_shape=x.shape, dtype=x.dtype, name=x.name),
                self.base.input,
            )
            model = keras.Model(symbolic, self(symbolic), name=self.name)
            model.export(filepath, format, verbose, **kwargs)

    def get_config(self) -> Config:
        """Return the configs of both models and of the edit."""
        serialize = keras.saving.serialize_keras_object
        if getattr(self.edit, "__name__", "") == "<lambda>":
            raise ValueError(
                "A model with a lambda as `edit` cannot be saved, because Keras does "
                "not load lambdas. Use `keras_sae.activations.ablate`, `clamp` or "
                "`scale`, or a function with the decorator "
                "`keras.saving.register_keras_serializable()`."
            )
        base = serialize(self.base)
        # Keras cannot load the compile config of a KerasHub model, and does not need
        # it, because the spliced model saves its own.
        base.pop("compile_config", None)
        return {
            **super().get_config(),
            "base": base,
            "autoencoder": serialize(self.autoencoder),
            "indices": list(self.targets.indices),
            "edit": serialize(self.edit),
            "error": self.error,
        }

    @classmethod
    def from_config(
        cls, config: Config, custom_objects: dict[str, Any] | None = None
    ) -> "SplicedModel":
        """Create a model from its config."""
        names = ("base", "autoencoder", "edit")
        deserialize = keras.saving.deserialize_keras_object
        with config_errors(cls.__name__):
            parts = {name: deserialize(config[name], custom_objects) for name in names}
            return cls(**{**config, **parts})


def splice(
    model: keras.Model,
    layer: LayerKey | tuple[LayerKey, LayerKey],
    autoencoder: Autoencoder,
    edit: EditLike = None,
    error: bool = False,
    *,
    name: str = "spliced",
) -> SplicedModel:
    """Create a model in which an autoencoder replaces the output of a layer.

    `x -> decode(edit(encode(x)))`, or with `error=True`
    `x -> x + (decode(edit(encode(x))) - decode(encode(x)))`

    The autoencoder is applied to the last axis of the output `x`, for each sample,
    position or token. If the layer is called several times, the output of each call is
    replaced. If the layer returns several tensors, only the first one is replaced.

    The new model shares the weights of `model` and `autoencoder` and does not change
    them. `predict`, `evaluate`, `save` and `export` work as in any Keras model, but
    `fit` raises an error. If `model` is compiled, the new model has the same loss and
    metrics.

    Args:
        model: Any built Keras model.
        layer: A layer, its path such as `"blocks/3/attention"`, the end of its path, or
            its name. A `keras_sae.models.Transcoder` needs a pair `(a, b)`, because it
            computes the output of `b` from the output of `a`.
        autoencoder: A trained `keras_sae.models.Autoencoder` for rows of the layer's
            width, such as `shallow((width,), ...)`.
        edit: None, `ablate(units)`, `clamp({unit: value})`, `scale({unit: factor})`, or
            a function that takes and returns a code of shape `(rows, units)`.
        error: Whether to keep the reconstruction error, so that only the edit changes
            the output.
        name: Name of the model.

    Returns:
        A `keras.Model` with the inputs and outputs of `model`.

    Raises:
        ValueError: The layer is not in the model, the autoencoder has the wrong width
            or was not adapted, or the edit changes a unit that the code does not have.

    Example:

    >>> import keras
    >>> import numpy as np
    >>> from keras_sae import activations, models
    >>> layers = [keras.layers.Dense(8, "relu", name="hidden"), keras.layers.Dense(3)]
    >>> model = keras.Sequential([keras.Input((5,)), *layers])
    >>> autoencoder = models.shallow((8,), 16, "l1")
    >>> edit = activations.ablate([3])
    >>> spliced = activations.splice(model, "hidden", autoencoder, edit, error=True)
    >>> spliced.predict(np.ones((2, 5)), verbose=0).shape
    (2, 3)
    """
    keys = layer if isinstance(layer, (tuple, list)) else (layer,)
    places = [find_layer(model, key) for key in keys]
    check_autoencoder(autoencoder, places)
    shapes = [output_shape(place.layer) for place in places]
    check_width(autoencoder, shapes[0], shapes[-1], places[-1].path)
    if isinstance(edit, Edit):
        edit.check(autoencoder.decoder.input_shape[-1])
    return SplicedModel(
        model, autoencoder, [place.index for place in places], edit, error, name=name
    )


def check_autoencoder(autoencoder: Autoencoder, places: Sequence[Place]) -> None:
    """Check that a model is an adapted autoencoder for this number of layers."""
    if not isinstance(autoencoder, Autoencoder):
        raise ValueError(
            "`autoencoder` must be a `keras_sae.models.Autoencoder`. Received: "
            f"autoencoder={autoencoder!r}."
        )
    check_adapted(autoencoder)
    if len(places) != 1 + isinstance(autoencoder, Transcoder):
        raise ValueError(
            "`layer` must be one layer for an autoencoder, and a pair of layers for a "
            f"transcoder. Received: {len(places)} layers, and a "
            f"{type(autoencoder).__name__}."
        )


def check_width(
    autoencoder: Autoencoder, source: Shape, shape: Shape, path: str
) -> None:
    """Check that an autoencoder fits the shapes of the layers, if they are known.

    Args:
        autoencoder: An autoencoder or a transcoder.
        source: Shape of the activations that it encodes.
        shape: Shape of the output that it replaces.
        path: Path of the layer.
    """
    expected = autoencoder.sample_shape, tuple(autoencoder.decoder.output_shape[1:])
    for sizes, given in zip(expected, (source, shape), strict=True):
        if len(sizes) != 1 or (given and given[-1] not in (None, *sizes)):
            raise ValueError(
                "`autoencoder` must take and return rows of the layer's width. "
                f"Received: an autoencoder from {expected[0]} to {expected[1]}, and "
                f"the layer {path!r} with outputs of shape {given}. Create one with "
                "`keras_sae.models.shallow((width,), ...)`."
            )
    if source and shape and (len(source) != len(shape) or source[:-1] != shape[:-1]):
        raise ValueError(
            "A transcoder needs two layers whose outputs differ only in width. "
            f"Received: outputs of shapes {source} and {shape}."
        )


def output_shape(layer: keras.layers.Layer) -> Shape:
    """Return the shape of a layer's first output, or `()` if it is not known."""
    try:
        return tuple(first(layer.output).shape)
    except (AttributeError, ValueError):  # never called, or called several times
        return ()
