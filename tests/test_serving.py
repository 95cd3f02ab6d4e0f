"""Artifacts in the C++ loader that TensorFlow Serving uses, and in Serving itself."""

import subprocess

import numpy as np
import pytest
from helpers import tensorflow_only
from serving import artifacts, messages
from serving.build import build_loader, compiler

from keras_sae import export

# Another backend exports the same files, by way of this one.
pytestmark = tensorflow_only

FAMILIES = list(artifacts.FAMILIES)
BATCHES = (1, 64, 0)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """Every family: the model, and the folder of its artifact."""
    folder = tmp_path_factory.mktemp("serving")
    found = {}
    for family in FAMILIES:
        model = artifacts.make(family)
        path = export.export_saved_model(
            model,
            folder / family,
            top_k=artifacts.TOP,
            images=family in artifacts.WITH_IMAGES,
        )
        found[family] = (model, path)
    return found


def names_of(path) -> list[str]:
    import tensorflow as tf

    return sorted(tf.saved_model.load(str(path)).signatures)


def questions(model, path) -> list:
    return [
        (name, artifacts.question(name, model, samples, seed))
        for seed, samples in enumerate(BATCHES)
        for name in names_of(path)
    ]


REFUSED = [
    ("encode", {"x": np.zeros((2, 8, 4, 1), "float32")}),  # would be one sample
    ("encode", {"x": np.zeros((2, 64), "float32")}),
    ("encode", {"x": np.zeros((2, 8, 8, 1), "float64")}),
]
NO_IMAGES = [
    ("encode_uint8", {"image": np.zeros((2, 8, 8, 3), "uint8")}),
    ("encode_png", {"image_bytes": np.array([b"no image"], object)}),
]


def refused(family: str) -> list:
    return REFUSED + (NO_IMAGES if family in artifacts.WITH_IMAGES else [])


@pytest.fixture(scope="module")
def answered(served, tmp_path_factory):
    """What the C++ program answers, family by family, to all requests in one run."""
    if compiler() is None:
        pytest.skip("There is no g++ on this machine to build the C++ loader with.")
    folder = tmp_path_factory.mktemp("loader")
    program, arguments, files = build_loader(folder), ["1"], {}
    for family, (model, path) in served.items():
        asked = [*questions(model, path), *refused(family)]
        requests = messages.write_requests(folder / f"{family}.requests", asked)
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
def test_the_loader_runs_the_warmup_requests(family, served, answered):
    model, path = served[family]
    requests, answers = answered[family][0]
    assert {"serving_default", *(name for name, _ in requests)} == set(names_of(path))
    for (name, inputs), got in zip(requests, answers, strict=True):
        artifacts.assert_equal(got, artifacts.answer(name, model, inputs))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_loader_answers_as_keras_does(family, served, answered):
    """Every signature, with one sample, with 64, and with none."""
    model, path = served[family]
    requests, answers = answered[family][1]
    asked = len(names_of(path)) * len(BATCHES)
    pairs = list(zip(requests, answers, strict=True))[:asked]
    for (name, inputs), got in pairs:
        [samples] = {len(value) for value in inputs.values()}
        if samples:
            expected = artifacts.answer(name, model, inputs)
            artifacts.assert_equal(got, expected)
        else:
            assert got
            assert all(len(value) == 0 for value in got.values()), name


@pytest.mark.parametrize("family", FAMILIES)
def test_the_loader_refuses_what_is_no_sample(family, answered):
    _, answers = answered[family][1]
    wrong = len(refused(family))
    assert answers[-wrong:] == [{}] * wrong
