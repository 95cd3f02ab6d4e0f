"""Write an artifact's metadata and warm-up requests."""

import warnings
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from keras_sae.export.signatures import Signature
from keras_sae.utils.io import write_json

_NO_MESSAGES = "tensorflow-serving-api is not installed"


def write_assets(
    folder: Path,
    metadata: Mapping[str, Any],
    signatures: Mapping[str, Signature],
    inputs: Mapping[str, np.ndarray] | None,
) -> None:
    """Write `assets.extra`: the metadata and, with `inputs`, warm-up requests.

    The server runs these requests, one per signature, when it loads the model.
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
    """Return whether to write warm-up requests.

    With `warmup=None`, they are written if `tensorflow-serving-api` is installed.
    """
    if warmup is False or find_spec("tensorflow_serving") is not None:
        return warmup is not False
    if warmup:
        raise ValueError(
            "`warmup=True` needs TensorFlow Serving's protobuf messages, but "
            f"{_NO_MESSAGES}. Install 'keras-sae[serving]'."
        )
    warnings.warn(
        f"The artifact has no warm-up requests, because {_NO_MESSAGES}. The "
        "server's first responses will be slow. Install 'keras-sae[serving]', or pass "
        "warmup=False.",
        stacklevel=4,
    )
    return False
