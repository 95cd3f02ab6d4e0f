"""Find layers of any Keras model by object, name or path."""

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import keras

LayerKey: TypeAlias = str | keras.layers.Layer

# Internal attributes in which Keras lists the sublayers a second time.
_REPEATED = {
    "_layers",
    "_functional",
    "_modules",
    "_operations",
    "_operations_by_depth",
}
# Prefix of internal attributes that do the same on the TensorFlow backend.
_TENSORFLOW = "_self_unconditional_"


@dataclass(frozen=True)
class Place:
    """A layer inside a model.

    Attributes:
        layer: The layer.
        path: Its path, such as `"blocks/3/attention"`.
        index: Its position in `layer_paths`. The order is the same in every process and
            on every backend.
    """

    layer: keras.layers.Layer
    path: str
    index: int


def layer_paths(model: keras.layers.Layer) -> dict[str, keras.layers.Layer]:
    """Return the layers inside a model by their paths, without input layers.

    A path such as `"blocks/3/attention"` contains one name per level. Inside functional
    and sequential models, this is the layer's `name`. Inside other models and
    layers, it is the name of the attribute without leading underscores, followed by `/`
    and the index or key if the attribute is a list or a dict. A layer that is used in
    several places is listed only under its first path.

    Args:
        model: A Keras model or layer.

    Returns:
        A dict that maps paths to layers. Each layer comes before the layers inside it.

    Example:

    >>> import keras
    >>> from keras_sae import activations
    >>> inner = keras.Sequential([keras.layers.Dense(3, name="hidden")], name="inner")
    >>> model = keras.Sequential([inner, keras.layers.Dense(1, name="head")])
    >>> list(activations.layer_paths(model))
    ['inner', 'head', 'inner/hidden']
    """
    found: dict[str, keras.layers.Layer] = {}
    seen = {id(model)}
    waiting: list[tuple[str, keras.layers.Layer]] = [("", model)]
    for prefix, parent in waiting:
        for name, layer in _children(parent):
            if id(layer) in seen or isinstance(layer, keras.layers.InputLayer):
                continue
            seen.add(id(layer))
            path = prefix + name
            while path in found:  # if a layer has attributes `dense` and `_dense`
                path += "_"
            found[path] = layer
            waiting.append((path + "/", layer))
    return found


def find_layer(model: keras.layers.Layer, layer: LayerKey) -> Place:
    """Find a layer in a model.

    Args:
        model: A Keras model or layer.
        layer: The layer, its path, the end of its path, or its name.

    Raises:
        ValueError: The layer is not in the model, or several layers match.
    """
    paths = layer_paths(model)
    if isinstance(layer, str):
        matches = [path for path in paths if path == layer]
        matches = matches or [path for path in paths if path.endswith(f"/{layer}")]
        matches = matches or [path for path in paths if paths[path].name == layer]
    else:
        matches = [path for path in paths if paths[path] is layer]
    if len(matches) == 1:
        return Place(paths[matches[0]], matches[0], list(paths).index(matches[0]))
    name = layer if isinstance(layer, str) else layer.name
    problem = "names several layers of" if matches else "is not a layer of"
    close = difflib.get_close_matches(name, paths, n=8, cutoff=0.3)
    nearest = matches[:8] or close or list(paths)[:8]
    raise ValueError(
        f"`layer` {problem} the model {model.name!r}. Received: layer={name!r}. "
        f"Use one of these paths: {', '.join(map(repr, nearest))}."
    )


def _children(parent: keras.layers.Layer) -> Iterator[tuple[str, keras.layers.Layer]]:
    """Yield the layers directly inside a layer, in a fixed order."""
    if isinstance(parent, (keras.Function, keras.Sequential)):
        for layer in parent.layers:
            yield layer.name, layer
    attributes = vars(parent)
    # PyTorch stores modules separately from other attributes.
    attributes = {**attributes, **attributes.get("_modules", {})}
    for name in sorted(attributes):
        if name not in _REPEATED and not name.startswith(_TENSORFLOW):
            yield from _layers_in(attributes[name], name.lstrip("_"))


def _layers_in(value: Any, name: str) -> Iterator[tuple[str, keras.layers.Layer]]:
    """Yield the layers in an attribute, which may be a list or a dict of layers."""
    if isinstance(value, keras.layers.Layer):
        yield name, value
    elif isinstance(value, Mapping):
        for key in value:
            yield from _layers_in(value[key], f"{name}/{key}")
    elif isinstance(value, (list, tuple)):
        for index, entry in enumerate(value):
            yield from _layers_in(entry, f"{name}/{index}")
