"""Every example in a docstring of the package is executed."""

import doctest
import pkgutil
from importlib import import_module

import pytest
from helpers import tensorflow_only

import keras_sae

# Examples print tensors and shapes as TensorFlow does.
pytestmark = tensorflow_only

# Builders of TFDS are imported by TFDS's own rules, in tests/test_datasets.py.
_BUILDERS = "dataset_builder"


def examples() -> list[doctest.DocTest]:
    finder = doctest.DocTestFinder(exclude_empty=True)
    found = []
    modules = pkgutil.walk_packages(keras_sae.__path__, "keras_sae.")
    for name in ["keras_sae", *(module.name for module in modules)]:
        if not name.endswith((_BUILDERS, "__main__")):
            found += finder.find(import_module(name), name)
    return [test for test in found if test.examples]


@pytest.mark.parametrize("example", examples(), ids=lambda test: test.name)
def test_example(example, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # what an example writes is swept up
    report = []
    runner = doctest.DocTestRunner(
        verbose=False, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    )
    runner.run(example, out=report.append, clear_globs=False)
    assert not runner.failures, "".join(report)
