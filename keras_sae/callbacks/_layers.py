"""Finding what a callback watches or steers, in any Keras model."""

from typing import Any

import keras


def of_kind(model: keras.Model, kind: type) -> list[Any]:
    """The sublayers of `model` of one kind, in no particular order."""
    return [x for x in model._flatten_layers() if isinstance(x, kind)]


def steerable(model: keras.Model) -> list[Any]:
    """The sublayers of `model` that a warm-up can steer."""
    able = [x for x in model._flatten_layers() if hasattr(x, "set_progress")]
    return [x for x in able if getattr(x, "steerable", True)]
