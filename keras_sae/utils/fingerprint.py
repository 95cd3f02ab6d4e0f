"""Fingerprints that distinguish datasets, configurations and models."""

import hashlib
import json
from typing import Any

import keras
import numpy as np

# Entries of a config that differ between two builds of the same model.
_BUILD_NAMES = ("name", "tied_to")
_CHUNK_BYTES = 2**24


def without_names(config: Any) -> Any:
    """Return a config without the names that differ between builds of a model."""
    if isinstance(config, dict):
        return {k: without_names(v) for k, v in config.items() if k not in _BUILD_NAMES}
    if isinstance(config, (list, tuple)):
        return [without_names(entry) for entry in config]
    return config


def fingerprint(value: Any) -> str:
    """Return a short hash of an array, a JSON-like value, or a tuple of these.

    Equal values have equal fingerprints in every process. The hash of a numeric
    array covers its shape, dtype and bytes. The bytes are read in chunks, so a
    memory-mapped array need not fit into memory. Names in a config are ignored,
    because they differ between builds of a model.
    """
    digest = hashlib.sha256()
    if isinstance(value, (tuple, list)):
        digest.update(f"[{','.join(map(fingerprint, value))}]".encode())
    elif isinstance(value, np.ndarray) and value.dtype.kind not in "OSU":
        digest.update(f"{value.shape}{value.dtype}".encode())
        rows = np.atleast_1d(value)
        step = max(1, _CHUNK_BYTES // max(1, rows[:1].nbytes))
        for start in range(0, len(rows), step):
            chunk = np.ascontiguousarray(rows[start : start + step])
            digest.update(chunk.reshape(-1).view(np.uint8).data)
    else:
        value = value.tolist() if isinstance(value, np.ndarray) else value
        text = json.dumps(without_names(value), sort_keys=True, default=str)
        digest.update(text.encode())
    return digest.hexdigest()[:16]


def model_fingerprint(model: keras.Model) -> str:
    """Hash an autoencoder by its class, config, layers and compile settings."""
    # The encoder and decoder graphs contain names that differ between builds.
    graphs = ("encoder", "decoder")
    config = {k: v for k, v in model.get_config().items() if k not in graphs}
    layers = [
        keras.saving.serialize_keras_object(layer)
        for part in (model.encoder, model.decoder)
        for layer in part._flatten_layers(include_self=False)
        if not isinstance(layer, keras.Model)
    ]
    compile_config = model.get_compile_config() if model.compiled else None
    return fingerprint([type(model).__name__, config, layers, compile_config])
