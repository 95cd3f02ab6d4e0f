"""Requests and answers of TensorFlow Serving, as files for the C++ program.

TensorFlow is imported on first use, because other backends skip these tests.
"""

from pathlib import Path
from typing import Any

import numpy as np

Request = tuple[str, dict[str, Any]]


def predict_request(signature: str, inputs: dict[str, Any], name: str = "sae"):
    """Return a gRPC request for a signature."""
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2

    request = predict_pb2.PredictRequest()
    request.model_spec.name = name
    request.model_spec.signature_name = signature
    for key, value in inputs.items():
        request.inputs[key].CopyFrom(tf.make_tensor_proto(value))
    return request


def write_requests(path: Path, requests: list[Request]) -> Path:
    import tensorflow as tf
    from tensorflow_serving.apis import prediction_log_pb2

    with tf.io.TFRecordWriter(str(path)) as writer:
        for signature, inputs in requests:
            log = prediction_log_pb2.PredictionLog()
            log.predict_log.request.CopyFrom(predict_request(signature, inputs))
            writer.write(log.SerializeToString())
    return path


def read_requests(path: Path) -> list[Request]:
    import tensorflow as tf
    from tensorflow_serving.apis import prediction_log_pb2

    requests = []
    for record in tf.data.TFRecordDataset(str(path)):
        log = prediction_log_pb2.PredictionLog.FromString(record.numpy())
        request = log.predict_log.request
        inputs = {k: tf.make_ndarray(v) for k, v in request.inputs.items()}
        requests.append((request.model_spec.signature_name, inputs))
    return requests


def outputs_of(response: Any) -> dict[str, np.ndarray]:
    """Return the arrays of a PredictResponse by name."""
    import tensorflow as tf

    return {key: tf.make_ndarray(value) for key, value in response.outputs.items()}


def read_answers(path: Path) -> list[dict[str, np.ndarray]]:
    """Return the outputs per request; a refused request has none."""
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2

    return [
        outputs_of(predict_pb2.PredictResponse.FromString(record.numpy()))
        for record in tf.data.TFRecordDataset(str(path))
    ]
