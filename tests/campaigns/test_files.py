"""Damaged and hostile files, which must not run code or silently give another model.

A file either gives the original model or results, or raises an error that names the
file.
"""

import base64
import json
import marshal
import pickle
import random
import shutil
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from helpers import BACKEND, tensorflow_only, uniform_data, weights_of

from keras_sae import evaluation, layers, models, pretraining, tuning
from keras_sae.regularizers import KLDivergence
from keras_sae.utils import io

pytestmark = pytest.mark.slow

MODELS: dict[str, Callable[[], keras.Model]] = {
    "top_k": lambda: models.shallow(
        (12,), 8, layers.TopK(2, auxiliary=layers.AuxK(dead_after=3)), scaling=True
    ),
    "kl": lambda: models.shallow((12,), 8, KLDivergence(0.1), tied=True),
    "matryoshka": lambda: models.shallow(
        (12,), 8, layers.Matryoshka(layers.Gated(), (2, 8))
    ),
    "stacked": lambda: models.stacked((12,), (8, 4), ["l1", layers.JumpReLU()]),
    "variational": lambda: models.variational(
        (12,), (8,), 3, corruption=layers.MaskingNoise(0.1)
    ),
    "convolutional": lambda: models.convolutional(
        (8, 8, 1), (2, 3), layers.BatchTopK(2)
    ),
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Return the path, weights and reconstructions of each model by name."""
    folder, found = tmp_path_factory.mktemp("saved"), {}
    for name, make in MODELS.items():
        model = make()
        model.compile("adam")
        model.save(folder / f"{name}.keras")
        found[name] = (folder / f"{name}.keras", weights_of(model), _outputs(model))
    return found


def _outputs(model: keras.Model) -> np.ndarray:
    return keras.ops.convert_to_numpy(model(uniform_data(model)))


# Damage to whole files.


def _cut(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(len(content))]


def _flip(content: bytes, rng: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.choice([1, 8])):
        changed[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _zeros(content: bytes, rng: random.Random) -> bytes:
    """Replace a block by zeros, as if it never reached the disk."""
    start = rng.randrange(len(content))
    length = min(rng.choice([16, 512, 4096]), len(content) - start)
    return content[:start] + bytes(length) + content[start + length :]


def _garbage(content: bytes, rng: random.Random) -> bytes:
    return rng.choice([b"", b"[]", b"{}", b"null", b"\xff\xfe\x00!", b"[" * 100_000])


DAMAGES = [_cut, _flip, _zeros, _garbage]


# Changes to the configuration inside an intact `.keras` file.


def _nodes(value: Any, path: tuple = ()) -> Iterator[tuple]:
    """Yield the path of every value in a JSON document."""
    items: Any = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    for key, entry in items:
        yield (*path, key)
        yield from _nodes(entry, (*path, key))


def _replaced(config: Any, path: tuple, value: Any, remove: bool = False) -> str:
    """Return a JSON document with another value at `path`, or without it."""
    config = parent = json.loads(json.dumps(config))
    for key in path[:-1]:
        parent = parent[key]
    if remove:
        del parent[path[-1]]
    else:
        parent[path[-1]] = value
    return json.dumps(config)


def _repack(source: Path, target: Path, config: str) -> None:
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            new.writestr(name, config if name == "config.json" else old.read(name))


def _payloads(marker: Path) -> list[Any]:
    """Return configs that create the file `marker` if they are executed."""
    command = f"open({str(marker)!r}, 'w').close()"
    code = base64.b64encode(marshal.dumps(compile(command, "x", "exec"))).decode()
    lambda_config = {
        "class_name": "__lambda__",
        "config": {"code": code, "defaults": None, "closure": None},
    }

    def of(module: str, name: str, config: Any) -> dict[str, Any]:
        return {"module": module, "class_name": name, "config": config}

    touch = {"args": ["touch", str(marker)]}
    return [
        lambda_config,
        of("keras.layers", "Lambda", {"name": "x", "function": lambda_config}),
        of("builtins", "function", "exec") | {"registered_name": "function"},
        of("subprocess", "Popen", touch) | {"registered_name": None},
        of("os", "system", {"command": f"touch {marker}"}) | {"registered_name": None},
        of("keras_sae.utils.io", "write_json", {"path": str(marker), "value": 1}),
        of("pathlib", "Path", {"self": str(marker)}),
        {"class_name": "TFOpLambda", "config": {"function": "io.write_file"}},
        f"__import__('pathlib').Path({str(marker)!r}).touch()",
    ]


def _load(path: Path) -> keras.Model | None:
    """Return the model in a file, or None if an error that names the file is raised."""
    try:
        return io.load_model(path)
    except ValueError as error:
        if str(path) not in str(error):
            raise
        return None


@pytest.fixture
def report(record_property):
    def report(title: str, counts: Counter) -> None:
        record_property("counts", f"{title} on {BACKEND}: {dict(counts)}")

    return report


@pytest.fixture
def cases(pytestconfig):
    first = pytestconfig.getoption("--campaign-first")
    return range(first, first + pytestconfig.getoption("--campaign-cases"))


def test_damaged_models_are_refused_or_equal(saved, cases, tmp_path, report):
    counts: Counter[str] = Counter()
    path = tmp_path / "model.keras"
    for case in cases:
        rng = random.Random(case)
        source, weights, outputs = saved[rng.choice(list(saved))]
        damage = rng.choice(DAMAGES)
        path.write_bytes(damage(source.read_bytes(), rng))
        model = _load(path)
        if model is not None:  # the damaged bytes are never read
            for one, other in zip(weights_of(model), weights, strict=True):
                np.testing.assert_array_equal(one, other, err_msg=f"case {case}")
            np.testing.assert_allclose(_outputs(model), outputs, atol=1e-6)
        counts["refused" if model is None else "equal"] += 1
    report("damaged .keras files", counts)


def test_edited_configs_are_refused_or_build_a_model(saved, cases, tmp_path, report):
    counts: Counter[str] = Counter()
    path = tmp_path / "model.keras"
    values = [None, True, -1, 0, 2.5, 1e30, "", "relu", [], [[]], {}, {"class_name": 3}]
    for case in cases:
        rng = random.Random(case)
        source, _, _ = saved[rng.choice(list(saved))]
        with zipfile.ZipFile(source) as archive:
            config = json.loads(archive.read("config.json"))
        place = rng.choice(list(_nodes(config)))
        value, remove = rng.choice(values), rng.random() < 0.3
        _repack(source, path, _replaced(config, place, value, remove))
        with warnings.catch_warnings(action="ignore"):  # from Keras, about names
            model = _load(path)
        assert model is None or isinstance(model, keras.Model), case
        counts["refused" if model is None else "built"] += 1
    report("edited configurations", counts)


def test_hostile_configs_run_no_code(saved, cases, tmp_path, report):
    counts: Counter[str] = Counter()
    path, marker = tmp_path / "model.keras", tmp_path / "ran"
    for case in cases:
        rng = random.Random(case)
        source, _, _ = saved[rng.choice(list(saved))]
        with zipfile.ZipFile(source) as archive:
            config = json.loads(archive.read("config.json"))
        place = rng.choice(list(_nodes(config)))
        _repack(source, path, _replaced(config, place, rng.choice(_payloads(marker))))
        with warnings.catch_warnings(action="ignore"):
            model = _load(path)
        if model is not None:
            with warnings.catch_warnings(action="ignore"):
                model(uniform_data(model))
        assert not marker.exists(), f"case {case} ran code at {place}"
        counts["refused" if model is None else "built"] += 1
    report("hostile configurations", counts)


# Folders of runs.


def _greedy(folder: Path) -> Any:
    keras.utils.set_random_seed(0)
    x = np.random.default_rng(0).random((32, 6), dtype="float32")
    model = models.stacked((6,), (5, 4), "l1")
    pretraining.greedy(model, x, 1, 32, directory=folder, verbose=0)
    return [weight.tolist() for weight in weights_of(model)]


def _compare(folder: Path) -> Any:
    x = np.random.default_rng(0).random((32, 6), dtype="float32")
    builders = {"L1": lambda: models.shallow((6,), 4, "l1")}
    options = {"baselines": False, "directory": folder}
    table = evaluation.compare(builders, (x, None), (x, None), 1, **options)
    return table.drop(columns="seconds").to_numpy().tolist()


def _search(folder: Path) -> Any:
    x = np.random.default_rng(0).random((32, 6), dtype="float32")
    space = tuning.SparsityHyperModel("shallow", (6,), sparsity="l1", units=4)
    options = {"max_l0": 6, "directory": folder, "progress": False}
    table = tuning.trials(tuning.search(space, x, x, 2, 1, **options))
    return table.to_numpy().tolist()


class _Hostile:
    """An object whose pickle creates a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple:
        return Path.touch, (self.marker,)


@tensorflow_only
@pytest.mark.parametrize("call", [_greedy, _compare, _search])
def test_damaged_runs_are_repaired_or_named(call, cases, tmp_path, report):
    counts: Counter[str] = Counter()
    finished, run, marker = (tmp_path / name for name in ("finished", "run", "ran"))
    expected = call(finished)
    pickled = pickle.dumps(_Hostile(marker))
    for case in cases[: len(cases) // 4]:
        rng = random.Random(case)
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(finished, run)
        file = rng.choice(sorted(path for path in run.rglob("*") if path.is_file()))
        kind = rng.choice([*DAMAGES, "folder", "missing", "pickle", "other"])
        content = file.read_bytes()
        file.unlink()
        if callable(kind):
            file.write_bytes(kind(content, rng))
        elif kind == "folder":
            file.mkdir()
        elif kind == "pickle":
            file.write_bytes(pickled)
            if file.suffix == ".npz":
                array = np.array([_Hostile(marker)], object)
                np.savez(file, arr_0=array, record="{}")
        elif kind == "other":
            others = sorted(path for path in run.rglob("*") if path.is_file())
            file.write_bytes(rng.choice(others).read_bytes())
        with warnings.catch_warnings(record=True, action="always") as caught:
            try:
                outcome, found = "equal", call(run)
            except ValueError as error:
                if str(run) not in str(error):
                    raise
                outcome, found = "named", expected
        if any("renamed to" in str(w.message) for w in caught):
            outcome = "repaired"
        # A flipped digit in a JSON file is not detected.
        if not (kind is _flip and file.suffix == ".json"):
            assert repr(found) == repr(expected), (case, file, kind)
        assert not marker.exists(), (case, file, kind)
        counts[outcome] += 1
    report(f"damaged files of {call.__name__[1:]}", counts)
