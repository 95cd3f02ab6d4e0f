"""What tells a model or data from another, for folders that outlive a process."""

import json
import zlib
from typing import Any

import keras
import numpy as np

from keras_sae.models.levels import flatten

# Config entries that differ between two builds of the same model.
_NAMES = ("name", "tied_to")

_PART = 2**24  # bytes


def nameless(config: Any) -> Any:
    """Returns a config without the names that differ from one build to the next."""
    if isinstance(config, dict):
        return {k: nameless(v) for k, v in config.items() if k not in _NAMES}
    if isinstance(config, (list, tuple)):
        return [nameless(v) for v in config]
    return config


def fingerprint(value: Any) -> Any:
    """Returns what tells data or a config from another: short, the same each time."""
    if isinstance(value, np.ndarray) and value.dtype.kind not in "OSU":
        return [list(value.shape), _checksum(value)]
    value = value.tolist() if isinstance(value, np.ndarray) else value
    text = json.dumps(nameless(value), sort_keys=True, default=str)
    return zlib.crc32(text.encode())


def _checksum(array: np.ndarray) -> int:
    """The checksum of an array's bytes, by parts: it may be on disk, and large."""
    found, rows = 0, np.atleast_1d(array)
    many = max(1, _PART // max(1, rows[:1].nbytes))
    for start in range(0, len(rows), many):
        part = np.ascontiguousarray(rows[start : start + many])
        found = zlib.crc32(part.reshape(-1).view("uint8").data, found)
    return found


def of_model(model: Any) -> int:
    """Returns the fingerprint of an autoencoder: its layers, and how it is compiled.

    Args:
        model: A `keras_sae.models.Autoencoder`.
    """
    # Graphs hold the names of tensors, which differ from one build to the next.
    graphs = ("encoder", "decoder")
    own = {k: v for k, v in model.get_config().items() if k not in graphs}
    layers = [*flatten(model.encoder), *flatten(model.decoder)]
    described = [keras.saving.serialize_keras_object(layer) for layer in layers]
    compilation = model.get_compile_config() if model.compiled else None
    return fingerprint([type(model).__name__, own, described, compilation])
