"""Files beside the graph: metadata, warm-up requests, and a server's configuration."""

import importlib.metadata
import json
import warnings
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_sae.export.signatures import Signature
from keras_sae.utils.io import atomic_write, write_json

# TensorFlow Serving reads the warm-up requests under this name.
_FOLDER, _WARMUP = "assets.extra", "tf_serving_warmup_requests"
_NO_MESSAGES = "tensorflow-serving-api is not installed"


def write_metadata(folder: Path, facts: Mapping[str, Any]) -> None:
    """Write `assets.extra/metadata.json`: `facts` and the versions of the packages."""
    import tensorflow as tf

    packages = {"keras": keras, "numpy": np, "tensorflow": tf}
    versions = {name: package.__version__ for name, package in packages.items()}
    versions["keras_sae"] = importlib.metadata.version("keras_sae")
    (folder / _FOLDER).mkdir(exist_ok=True)
    write_json(folder / _FOLDER / "metadata.json", {**facts, "versions": versions})


def write_warmup_requests(
    folder: Path,
    signatures: Mapping[str, Signature],
    inputs: Mapping[str, np.ndarray],
    model_name: str,
) -> None:
    """Write one request per signature, which a server runs before it takes others."""
    import tensorflow as tf
    from tensorflow_serving.apis import prediction_log_pb2

    (folder / _FOLDER).mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(folder / _FOLDER / _WARMUP)) as writer:
        for name, signature in signatures.items():
            log = prediction_log_pb2.PredictionLog()
            request = log.predict_log.request
            request.model_spec.name = model_name
            request.model_spec.signature_name = name
            value = tf.make_tensor_proto(inputs[signature.input][:1])
            request.inputs[signature.input].CopyFrom(value)
            writer.write(log.SerializeToString())


def check_warmup(warmup: bool | None) -> bool:
    """Return whether to write warm-up requests; None writes them if possible.

    Raises:
        ValueError: `warmup=True`, and `tensorflow-serving-api` is not installed.
    """
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
    path = path.resolve()  # a server takes absolute paths only
    config = path / "models.config"
    if config.exists():
        return  # a user may have edited it
    # A string of a protobuf text file has the quotes and escapes of JSON.
    text = f"""\
model_config_list {{
  config {{
    name: {json.dumps(model_name)}
    base_path: {json.dumps(str(path))}
    model_platform: "tensorflow"
  }}
}}
"""
    with atomic_write(config) as temporary:
        temporary.write_text(text)
