"""Tests that run every example in a docstring of the package."""

import doctest
import pkgutil
from importlib import import_module
from importlib.util import find_spec

import pytest
from helpers import tensorflow_only

import keras_sae

# Examples print tensors and shapes as TensorFlow does.
pytestmark = tensorflow_only

# TFDS imports the builders by its own rules: see tests/test_datasets.py.
_BUILDERS = "dataset_builder"
# Each of these repeats the search of `tuning.search`, and looks at its result.
_REPEATED = {
    f"keras_sae.tuning.results.{name}" for name in ("best_model", "pareto_front")
}


def examples() -> list:
    """Return every docstring with an example, as parameters of a test."""
    finder = doctest.DocTestFinder(exclude_empty=True)
    found = []
    modules = pkgutil.walk_packages(keras_sae.__path__, "keras_sae.")
    for name in ["keras_sae", *(module.name for module in modules)]:
        if name == "keras_sae.beam" and not find_spec("apache_beam"):
            continue
        if not name.endswith((_BUILDERS, "__main__")):
            found += finder.find(import_module(name), name)
    return [
        pytest.param(
            test,
            id=test.name,
            marks=[pytest.mark.slow] if test.name.startswith(tuple(_REPEATED)) else [],
        )
        for test in found
        if test.examples
    ]


@pytest.mark.parametrize("example", examples())
def test_example_prints_what_it_shows(example, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # for the files that an example writes
    report = []
    runner = doctest.DocTestRunner(
        verbose=False, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    )
    runner.run(example, out=report.append, clear_globs=False)
    assert not runner.failures, "".join(report)
