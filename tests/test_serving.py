"""Artifacts in the C++ loader that TensorFlow Serving uses."""

import subprocess

import numpy as np
import pytest
from helpers import tensorflow_only
from serving import artifacts, messages
from serving.build import build_loader, compiler

# Other backends export the same files through TensorFlow. Compiling the loader is slow,
# and `test_artifact_answers_as_keras` asks the same artifacts in Python.
pytestmark = [tensorflow_only, pytest.mark.slow]

FAMILIES = list(artifacts.FAMILIES)
BATCHES = (1, 64, 0)
WRONG_SAMPLES = [
    ("encode", {"x": np.zeros((2, 8, 4, 1), "float32")}),  # as many values as one
    ("encode", {"x": np.zeros((2, 64), "float32")}),
    ("encode", {"x": np.zeros((2, 8, 8, 1), "float64")}),
]
WRONG_IMAGES = [
    ("encode_uint8", {"image": np.zeros((2, 8, 8, 3), "uint8")}),
    ("encode_png", {"image_bytes": np.array([b"no image"], object)}),
]


def wrong_requests(family: str) -> list:
    return WRONG_SAMPLES + (WRONG_IMAGES if family in artifacts.WITH_IMAGES else [])


@pytest.fixture(scope="module")
def answered(tmp_path_factory):
    """Requests and the answers of the C++ program, by family, from a single run."""
    if compiler() is None:
        pytest.skip("There is no g++ on this machine to build the C++ loader with.")
    folder = tmp_path_factory.mktemp("loader")
    program, arguments, files = build_loader(folder), ["1"], {}
    for family in FAMILIES:
        model, path = artifacts.exported(family)
        asked = [
            (name, artifacts.question(name, model, samples, seed))
            for seed, samples in enumerate(BATCHES)
            for name in sorted(artifacts.load(path).signatures)
        ]
        requests = messages.write_requests(
            folder / f"{family}.requests", [*asked, *wrong_requests(family)]
        )
        warmup = path / "assets.extra" / "tf_serving_warmup_requests"
        files[family] = []
        for kind, file in {"warmup": warmup, "asked": requests}.items():
            answers = folder / f"{family}.{kind}"
            files[family].append((file, answers))
            arguments += [str(path), str(file), str(answers)]
    done = subprocess.run([program, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return {
        family: [
            (messages.read_requests(asked), messages.read_answers(answers))
            for asked, answers in pairs
        ]
        for family, pairs in files.items()
    }


@pytest.mark.parametrize("family", FAMILIES)
def test_warmup_requests_cover_every_signature(family, answered):
    model, path = artifacts.exported(family)
    requests, answers = answered[family][0]
    names = {"serving_default", "serve", *(name for name, _ in requests)}
    assert names == set(artifacts.load(path).signatures)
    for (name, inputs), got in zip(requests, answers, strict=True):
        artifacts.assert_equal(got, artifacts.answer(name, model, inputs))


@pytest.mark.parametrize("family", FAMILIES)
def test_loader_answers_as_keras_to_one_to_many_and_to_no_samples(family, answered):
    model, path = artifacts.exported(family)
    requests, answers = answered[family][1]
    asked = len(artifacts.load(path).signatures) * len(BATCHES)
    for (name, inputs), got in list(zip(requests, answers, strict=True))[:asked]:
        [samples] = {len(value) for value in inputs.values()}
        if samples:
            artifacts.assert_equal(got, artifacts.answer(name, model, inputs))
        else:
            assert got
            assert all(len(value) == 0 for value in got.values()), name


@pytest.mark.parametrize("family", FAMILIES)
def test_loader_refuses_other_shapes_and_types(family, answered):
    _, answers = answered[family][1]
    wrong = len(wrong_requests(family))
    assert answers[-wrong:] == [{}] * wrong
