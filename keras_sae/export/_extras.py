"""Files beside the graph: warm-up requests, metadata, a server's configuration."""

import importlib.metadata
import json
import math
import sys
import warnings
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from keras_sae.export._signatures import Signature
from keras_sae.utils import io as files

FOLDER = "assets.extra"  # what TensorFlow Serving leaves to the writer of a model
WARMUP = "tf_serving_warmup_requests"
METADATA = "metadata.json"


def write_metadata(folder: Path, facts: Mapping[str, Any]) -> None:
    """Writes `assets.extra/metadata.json`: versions, and what a client has to know.

    Args:
        folder: Of the artifact.
        facts: JSON values to add; NaN becomes null.
    """
    packages = ("keras", "tensorflow", "numpy")
    versions = {name: importlib.metadata.version(name) for name in packages}
    versions["keras_sae"] = sys.modules[__name__.partition(".")[0]].__version__
    text = json.dumps(_json({**facts, "versions": versions}), indent=1)
    path = folder / FOLDER / METADATA
    path.parent.mkdir(exist_ok=True)
    path.write_text(text + "\n")


def _json(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _json(entry) for key, entry in value.items()}
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_warmup(
    folder: Path,
    served: Mapping[str, Signature],
    arrays: Mapping[str, np.ndarray],
    name: str,
) -> None:
    """Writes one request a signature, which a server runs before it takes others.

    Args:
        folder: Of the artifact.
        served: Its signatures.
        arrays: Inputs by name; the first sample is sent.
        name: Of the model on the server.
    """
    import tensorflow as tf

    path = folder / FOLDER / WARMUP
    path.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for key, signature in served.items():
            sample = arrays[signature.input][:1]
            log = request_log(name, key, {signature.input: sample})
            writer.write(log.SerializeToString())


def request_log(name: str, signature: str, inputs: Mapping[str, Any]) -> Any:
    """Returns a request as a `PredictionLog` message of TensorFlow Serving.

    Args:
        name: Of the model on the server.
        signature: Which of its signatures.
        inputs: Arrays by the names of the inputs.
    """
    import tensorflow as tf
    from tensorflow_serving.apis import prediction_log_pb2

    log = prediction_log_pb2.PredictionLog()
    request = log.predict_log.request
    request.model_spec.name = name
    request.model_spec.signature_name = signature
    for key, value in inputs.items():
        request.inputs[key].CopyFrom(tf.make_tensor_proto(value))
    return log


def can_warm_up(wanted: bool | None) -> bool:
    """Returns whether to write warm-up requests.

    Args:
        wanted: What the user said; None writes them where it is possible.

    Returns:
        A bool, after a warning where `tensorflow-serving-api` is missing.

    Raises:
        ValueError: They are wanted and it is missing.
    """
    if wanted is False or find_spec("tensorflow_serving") is not None:
        return wanted is not False
    if wanted:
        raise ValueError(
            "`warmup` needs the messages of TensorFlow Serving. Received: "
            "warmup=True without tensorflow-serving-api. Install 'keras-sae[serving]'."
        )
    warnings.warn(
        "The artifact has no warm-up requests, because tensorflow-serving-api is not "
        "installed: a server's first answers will be slow. Install "
        "'keras-sae[serving]', or pass warmup=False.",
        stacklevel=4,
    )
    return False


def write_server_config(path: Path, model: str) -> None:
    """Writes `models.config` for `tensorflow_model_server`, if there is none yet.

    Args:
        path: Folder of the versions.
        model: Name of the model on the server.
    """
    path = path.resolve()  # a server takes no relative one
    target = path / "models.config"
    if target.exists():
        return  # somebody may have changed it
    # JSON's quotes are those of a text-format message.
    name, base = json.dumps(model), json.dumps(str(path))
    with files.atomic_write(target) as unfinished:
        unfinished.write_text(
            "model_config_list {\n"
            "  config {\n"
            f"    name: {name}\n"
            f"    base_path: {base}\n"
            '    model_platform: "tensorflow"\n'
            "  }\n"
            "}\n"
        )
