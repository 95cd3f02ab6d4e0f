"""Write metadata, warm-up requests and the configuration of a server."""

import json
import warnings
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from keras_sae.export.signatures import Signature
from keras_sae.utils.io import atomic_write, write_json

_NO_MESSAGES = "tensorflow-serving-api is not installed"


def write_assets(
    folder: Path,
    metadata: Mapping[str, Any],
    signatures: Mapping[str, Signature],
    inputs: Mapping[str, np.ndarray] | None,
) -> None:
    """Write `assets.extra`: the metadata and, from `inputs`, one request per signature.

    A server runs these warm-up requests before it takes others.
    """
    assets = folder / "assets.extra"
    assets.mkdir()
    write_json(assets / "metadata.json", metadata)
    if inputs is None:
        return
    import tensorflow as tf
    from tensorflow_serving.apis import prediction_log_pb2

    with tf.io.TFRecordWriter(str(assets / "tf_serving_warmup_requests")) as writer:
        for name, signature in signatures.items():
            log = prediction_log_pb2.PredictionLog()
            request = log.predict_log.request
            request.model_spec.name = metadata["name"]
            request.model_spec.signature_name = name
            value = tf.make_tensor_proto(inputs[signature.input][:1])
            request.inputs[signature.input].CopyFrom(value)
            writer.write(log.SerializeToString())


def check_warmup(warmup: bool | None) -> bool:
    """Return whether to write warm-up requests; None means if they can be written."""
    if warmup is False or find_spec("tensorflow_serving") is not None:
        return warmup is not False
    if warmup:
        raise ValueError(
            "`warmup=True` needs the messages of TensorFlow Serving, but "
            f"{_NO_MESSAGES}. Install 'keras-sae[serving]'."
        )
    warnings.warn(
        f"The artifact has no warm-up requests, because {_NO_MESSAGES}. The first "
        "answers of a server will be slow. Install 'keras-sae[serving]', or pass "
        "warmup=False.",
        stacklevel=4,
    )
    return False


def write_server_config(path: Path, model_name: str) -> None:
    """Write `models.config` to the folder of the versions, unless it exists."""
    config = path / "models.config"
    if config.exists():
        return  # a user may have edited it
    # Strings have the same quotes and escapes in protobuf text files as in JSON. A
    # server takes absolute paths only, and its container mounts models at `/models`.
    name, base_path = json.dumps(model_name), json.dumps(f"/models/{path.name}")
    entry = f'name: {name}, base_path: {base_path}, model_platform: "tensorflow"'
    with atomic_write(config) as temporary:
        temporary.write_text(f"model_config_list {{ config {{ {entry} }} }}\n")
