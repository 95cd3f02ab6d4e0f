"""The guides to serving: their code runs, and their clients talk to a server."""

import re
from urllib.error import HTTPError

import numpy as np
import pytest
from helpers import tensorflow_only
from pages import DOCS, run
from serving import artifacts, model_server, stand_in

from keras_sae import export

pytestmark = tensorflow_only

PAGE = DOCS / "guides" / "serving.md"
CLIENTS = DOCS / "guides" / "clients.md"
GUIDE = PAGE.read_text()
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def guide(tmp_path_factory):
    """Run the Python blocks of both guides, and return their names."""
    folder = tmp_path_factory.mktemp("guide")
    return {**run(PAGE, folder), **run(CLIENTS, folder), "folder": folder}


@pytest.fixture(scope="module")
def version(guide, tmp_path_factory):
    """Path of an artifact of the guide's model, with signatures for images."""
    folder = tmp_path_factory.mktemp("served") / "sae"
    return export.export_saved_model(guide["model"], folder, images=True)


NOT_INSTALLED = pytest.mark.skipif(
    not model_server.installed(),
    reason="tensorflow_model_server is not on the PATH. The replacement in Python and "
    "the C++ loader of TensorFlow Serving are tested.",
)


@pytest.fixture(
    scope="module",
    params=[
        stand_in.stand_in,
        pytest.param(model_server.model_server, marks=NOT_INSTALLED),
    ],
    ids=["stand_in", "model_server"],
)
def served(request, guide, version):
    """Yield the REST and gRPC addresses of a server, and the names of the guide."""
    with request.param(version, "sae") as (rest, rpc):
        yield rest, rpc, guide


def _expected(guide, x):
    model = guide["model"]
    reconstruction = model.predict_on_batch(x)
    score = np.square(x - reconstruction).sum(axis=(1, 2, 3))
    return model.encode(x), reconstruction, score


@pytest.mark.parametrize("samples", [1, 5])
def test_rest_client_in_row_format(served, samples):
    rest, _, guide = served
    x = guide["x_test"][:samples]
    code, reconstruction, score = _expected(guide, x)
    for signature, expected in {
        "encode": code,
        "reconstruct": reconstruction,
        "serving_default": reconstruction,
        "anomaly_score": score,
    }.items():
        for rows in (x.tolist(), [{"x": one} for one in x.tolist()]):
            got = guide["ask"](signature, rows, rest)
            np.testing.assert_allclose(got, expected, rtol=TOLERANCE, atol=TOLERANCE)
    rows = guide["ask"]("top_features", x.tolist(), rest)
    for row, expected in zip(rows, code, strict=True):
        np.testing.assert_allclose(
            row["values"], np.sort(expected)[::-1][:10], rtol=TOLERANCE, atol=TOLERANCE
        )
        assert row["indices"] == np.argsort(-expected, kind="stable")[:10].tolist()


@pytest.mark.parametrize("samples", [1, 5])
def test_rest_client_in_column_format(served, samples):
    rest, _, guide = served
    x = guide["x_test"][:samples]
    code, reconstruction, _ = _expected(guide, x)
    got = guide["ask"]("decode", {"code": code.tolist()}, rest, form="inputs")
    np.testing.assert_allclose(got, reconstruction, rtol=TOLERANCE, atol=TOLERANCE)
    got = guide["ask"]("encode", x.tolist(), rest, form="inputs")
    np.testing.assert_allclose(got, code, rtol=TOLERANCE, atol=TOLERANCE)
    got = guide["ask"]("top_features", {"x": x.tolist()}, rest, form="inputs")
    assert set(got) == {"indices", "values"}


def test_rest_client_sends_png_files(served, tmp_path):
    rest, _, guide = served
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 1), "uint8")
    rows = []
    for n, file in enumerate(artifacts.png_files(images)):
        (tmp_path / f"{n}.png").write_bytes(file)
        rows.append(guide["png"](tmp_path / f"{n}.png"))
    got = guide["ask"]("encode_png", rows, rest)
    expected = guide["model"].encode(images.astype("float32") / 255)
    np.testing.assert_allclose(got, expected, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize("samples", [1, 64, 0])
def test_grpc_client(served, samples):
    _, rpc, guide = served
    x = guide["x_test"][:samples]
    got = guide["ask_grpc"]("anomaly_score", rpc, x=x)
    assert got["score"].shape == (samples,)
    if samples:
        score = _expected(guide, x)[2]
        np.testing.assert_allclose(got["score"], score, rtol=TOLERANCE, atol=TOLERANCE)


def test_a_request_of_another_shape_is_refused(served):
    rest, _, guide = served
    with pytest.raises(HTTPError, match="400"):
        guide["ask"]("encode", [[[0.0] * 4] * 8], rest)


def test_guide_lists_the_signatures_of_the_artifact(guide):
    import tensorflow as tf

    artifact = tf.saved_model.load(str(guide["folder"] / guide["version"]))
    table = GUIDE.split("## Signatures")[1].split("Some models")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    assert set(re.findall(r"`(\w+)`", "".join(rows))) == set(artifact.signatures)
    metadata = (guide["folder"] / guide["version"]) / "assets.extra" / "metadata.json"
    assert "explained_variance" in metadata.read_text()
