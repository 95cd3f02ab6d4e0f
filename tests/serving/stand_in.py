"""A replacement for TensorFlow Serving, with the same REST and gRPC protocols.

It answers `POST /v1/models/NAME:predict` in the row and the column format, and the
`Predict` call of gRPC. TensorFlow runs the artifact in Python. A test against it shows
that the requests of a client are well formed; it says nothing about speed.
"""

import base64
import json
import threading
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
from serving.messages import outputs_of


class Artifact:
    """A SavedModel whose signatures are called by name."""

    def __init__(self, path: Path) -> None:
        import tensorflow as tf

        self._loaded = tf.saved_model.load(str(path))

    def specs(self, signature: str) -> dict[str, Any]:
        return self._loaded.signatures[signature].structured_input_signature[1]

    def ask(self, signature: str, inputs: dict[str, Any]) -> dict[str, np.ndarray]:
        import tensorflow as tf

        tensors = {
            name: tf.constant(inputs[name], spec.dtype)
            for name, spec in self.specs(signature).items()
        }
        outputs = self._loaded.signatures[signature](**tensors)
        return {name: tensor.numpy() for name, tensor in outputs.items()}


def _bytes(value: Any) -> Any:
    """Replace `{"b64": ...}` by bytes, at any depth."""
    if isinstance(value, dict):
        return base64.b64decode(value["b64"])
    return [_bytes(one) for one in value] if isinstance(value, list) else value


def _single(outputs: dict[str, Any]) -> Any:
    """Leave out the name of a single output."""
    return next(iter(outputs.values())) if len(outputs) == 1 else outputs


def answer(artifact: Artifact, body: dict[str, Any]) -> dict[str, Any]:
    """Return the JSON answer to a JSON request, in the format of the request."""
    signature = body.get("signature_name", "serving_default")
    names = list(artifact.specs(signature))
    if "inputs" in body:
        given = body["inputs"]
        named = given if isinstance(given, dict) and set(given) == set(names) else None
        columns = {names[0]: given} if named is None else named
        outputs = artifact.ask(signature, {k: _bytes(v) for k, v in columns.items()})
        return {"outputs": _single({k: v.tolist() for k, v in outputs.items()})}
    rows = body["instances"]
    named_rows = all(isinstance(row, dict) and set(row) == set(names) for row in rows)
    columns = {n: [row[n] if named_rows else row for row in rows] for n in names}
    outputs = artifact.ask(signature, {k: _bytes(v) for k, v in columns.items()})
    each = range(len(next(iter(outputs.values()))))
    predictions = [
        _single({k: v[i].tolist() for k, v in outputs.items()}) for i in each
    ]
    return {"predictions": predictions}


def _rest(artifact: Artifact, name: str) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            try:
                assert self.path == f"/v1/models/{name}:predict", self.path
                status, reply = 200, answer(artifact, json.loads(body))
            except Exception as error:
                status, reply = 400, {"error": str(error)}
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(reply).encode())

        def log_message(self, *args: Any) -> None:
            """Suppress the log."""

    return ThreadingHTTPServer(("127.0.0.1", 0), Handler)


def _grpc(artifact: Artifact) -> tuple[Any, int]:
    import grpc
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

    class Service(prediction_service_pb2_grpc.PredictionServiceServicer):
        def Predict(self, request: Any, context: Any) -> Any:  # noqa: N802
            inputs = {k: tf.make_ndarray(v) for k, v in request.inputs.items()}
            response = predict_pb2.PredictResponse()
            name = request.model_spec.signature_name or "serving_default"
            for key, value in artifact.ask(name, inputs).items():
                response.outputs[key].CopyFrom(tf.make_tensor_proto(value))
            assert set(outputs_of(response))
            return response

    server = grpc.server(futures.ThreadPoolExecutor(1))
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
        Service(), server
    )
    return server, server.add_insecure_port("127.0.0.1:0")


@contextmanager
def stand_in(path: Path, name: str) -> Iterator[tuple[str, str]]:
    """Serve the version at `path`; yield the REST and the gRPC address."""
    artifact = Artifact(path)
    web, (service, port) = _rest(artifact, name), _grpc(artifact)
    thread = threading.Thread(target=web.serve_forever)
    thread.start()
    service.start()
    try:
        yield f"127.0.0.1:{web.server_port}", f"127.0.0.1:{port}"
    finally:
        web.shutdown()
        web.server_close()
        thread.join()
        service.stop(None).wait()
