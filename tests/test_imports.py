"""Tests of the direction of imports, and of what an import does."""

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import keras
import pytest

import keras_sae

ROOT = Path(keras_sae.__file__).parent
FILES = {
    ".".join(["keras_sae", *path.relative_to(ROOT).with_suffix("").parts]).removesuffix(
        ".__init__"
    ): path
    for path in sorted(ROOT.rglob("*.py"))
}

# For each package, the packages that it may import. A new package needs a line here.
BASE = {"types", "utils"}
CORE = BASE | {"regularizers", "ops", "layers"}
ALLOWED = {
    "types": set(),
    "utils": {"types"},
    "regularizers": BASE,
    "ops": BASE,
    "metrics": BASE | {"ops"},
    "datasets": BASE,
    "distribution": set(),
    "export": BASE,
    "layers": CORE,
    "callbacks": CORE | {"metrics", "models"},
    "models": CORE | {"metrics", "export"},
    "pretraining": CORE | {"models"},
    "wrappers": CORE | {"metrics", "models"},
    "beam": BASE | {"models"},
    "activations": CORE | {"export", "models"},
    "evaluation": CORE | {"metrics", "models", "callbacks", "activations"},
    "plots": BASE | {"models", "metrics", "evaluation"},
    "report": BASE | {"models", "metrics", "evaluation", "plots"},
    "tuning": CORE | {"metrics", "models", "pretraining", "evaluation"},
}
# Modules outside of `datasets` and `export` with code for one backend, and what a test
# compares it with.
KERNELS = {
    "keras_sae.activations.rows": "the rows as arrays, in `test_activations_store`",
    "keras_sae.activations.store": "the rows as arrays, in `test_activations_store`",
    "keras_sae.activations.stream": "the rows as arrays, in `test_activations_store`",
    "keras_sae.ops.statistics": "one device, in `test_replicas`",
    "keras_sae.models.data_adapter": "Keras's array adapter, in `test_data_adapter`",
    "keras_sae.ops.fused_adam": "`keras.optimizers.Adam`, in `test_fused_adam`",
    "keras_sae.ops.sparse_code": "dense products, in `test_sparse_code`",
    "keras_sae.ops.top_k": "one device, in `test_distribution`",
    "keras_sae.ops.tensorflow_kernels": "dense products, in `test_sparse_code`",
}
TOP = {"cli", "__main__"}  # may import everything, and nothing imports them
# Packages that `keras_sae` imports on first use, and the heavy ones they may import.
ON_FIRST_USE = {
    "tuning": {"keras_tuner", "pandas"},
    "wrappers": {"sklearn"},
    "beam": {"apache_beam"},
    "plots": {"matplotlib", "pandas", "bokeh", "PIL"},
    "report": {"matplotlib", "pandas", "bokeh", "jinja2", "PIL"},
}

HEAVY = (
    "tensorflow_datasets",
    "keras_tuner",
    "matplotlib",
    "pandas",
    "sklearn",
    "typer",
    "bokeh",
    "jinja2",
    "PIL",
    "rich",
    "apache_beam",
)

TREES = {
    module: ast.parse(path.read_text(encoding="utf-8"))
    for module, path in FILES.items()
}


def imported(tree: ast.AST) -> set[str]:
    """Return the dotted names that a tree imports, `from a import b` as `a.b`."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def top_packages(names: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in names}


def our_imports(module: str) -> set[str]:
    """Return the modules of the package that a module imports, late ones included."""
    found = set()
    for name in imported(TREES[module]):
        while name.startswith("keras_sae") and name not in FILES:
            name = name.rpartition(".")[0]
        if name.startswith("keras_sae"):
            found.add(name)
    return found - {module}


def package(module: str) -> str:
    return module.split(".")[1] if "." in module else "__init__"


def at_import(module: str) -> set[str]:
    """Return what a module imports when it is imported itself."""

    class Prune(ast.NodeTransformer):
        def visit_FunctionDef(self, node):
            return None

        def visit_If(self, node):
            return None if "TYPE_CHECKING" in ast.unparse(node.test) else node

    return imported(Prune().visit(ast.parse(ast.unparse(TREES[module]))))


def test_all_modules_are_found():
    assert {"keras_sae", "keras_sae.layers.sparse_dense"} <= FILES.keys()


def test_packages_import_only_what_the_table_allows():
    wrong = []
    for module in FILES:
        here = package(module)
        if here in {"__init__", *TOP}:
            continue
        assert here in ALLOWED, f"{here!r} needs a line in tests/test_imports.py"
        others = {package(other) for other in our_imports(module)} - {here}
        wrong += [f"{module} imports {other}" for other in others - ALLOWED[here]]
    assert not wrong


def test_the_table_has_no_circle():
    done: set[str] = set()
    while done != ALLOWED.keys():
        ready = {
            name for name in ALLOWED.keys() - done if ALLOWED[name] <= done | {name}
        }
        assert ready, f"a circle in {ALLOWED.keys() - done}"
        done |= ready


def test_nothing_imports_the_command_line_or_the_whole_package():
    for module in FILES:
        others = {package(other) for other in our_imports(module)}
        if package(module) == "__init__":
            assert not others & TOP
        elif package(module) not in TOP:
            assert not others & {"__init__", *TOP}, module


def test_no_package_imports_a_private_name_of_another():
    wrong = []
    for module in FILES:
        for name in imported(TREES[module]):
            if not name.startswith("keras_sae."):
                continue
            private = [x for x in name.split(".") if re.match("_[^_]", x)]
            if private and name.split(".")[1] != package(module):
                wrong.append(f"{module} imports {name}")
    assert not wrong


def test_modules_have_no_import_circle():
    graph = {
        module: our_imports(module) - {"keras_sae", module.rpartition(".")[0]}
        for module in FILES
    }
    state: dict[str, str] = {}

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert state.get(module) != "open", " -> ".join([*path, module])
        if module not in state:
            state[module] = "open"
            for other in sorted(graph[module]):
                visit(other, (*path, module))
            state[module] = "closed"

    for module in graph:
        visit(module, ())


def test_heavy_packages_are_imported_on_first_use():
    for module in FILES:
        if module.endswith("_dataset_builder") or package(module) in TOP:
            continue
        heavy = top_packages(at_import(module)) & set(HEAVY)
        # The digits and the photographs come from scikit-learn.
        if package(module) == "datasets" and module.count(".") > 2:
            heavy -= {"sklearn"}
        assert heavy <= ON_FIRST_USE.get(package(module), set()), module


def test_only_datasets_export_and_kernels_import_a_backend():
    for module in FILES:
        packages = top_packages(imported(TREES[module]))
        if package(module) not in {"datasets", "export"}:
            backends = packages & {"tensorflow", "jax", "torch"}
            assert not backends or module in KERNELS, module
        # The kernels import it only where it is Keras's backend.
        if not module.endswith(("_dataset_builder", "tensorflow_kernels")):
            assert "tensorflow" not in top_packages(at_import(module)), module


def test_no_lambda_layer_and_no_pickle():
    for module, tree in TREES.items():
        names = {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute)}
        names |= {name.rpartition(".")[2] for name in imported(tree)}
        assert "Lambda" not in names, module
        forbidden = {"pickle", "cloudpickle", "dill", "marshal", "shelve"}
        assert not top_packages(imported(tree)) & forbidden, module


def test_only_public_names_of_keras_are_imported():
    for module, tree in TREES.items():
        private = {x for x in imported(tree) if x.startswith("keras.src")}
        assert not private, module


# What an import does, observed in a process of its own.

_SPY = """
import collections.abc, json, logging, os, sys
import keras, numpy
loaded, environment = set(sys.modules), dict(os.environ)
loggers = set(logging.root.manager.loggerDict)
handlers = list(logging.root.handlers)
read = []
_OWN = (os.__file__, collections.abc.__file__, __file__)


def spy(method):
    def spied(self, key, *rest):
        frame = sys._getframe(1)
        while frame and frame.f_code.co_filename in _OWN + ("<frozen os>",
                "<frozen _collections_abc>"):
            frame = frame.f_back
        if frame and "keras_sae" in frame.f_code.co_filename:
            read.append(str(key))
        return method(self, key, *rest)
    return spied


kind = type(os.environ)
kind.__getitem__ = spy(kind.__getitem__)
kind.__contains__ = spy(collections.abc.Mapping.__contains__)
kind.get = spy(collections.abc.Mapping.get)
import keras_sae
new = set(sys.modules) - loaded
print("SEEN" + json.dumps({
    "version": keras_sae.__version__,
    "modules": sorted({name.partition(".")[0] for name in new}),
    "environment": read + sorted(set(environment.items()) ^ set(os.environ.items())),
    "loggers": sorted(
        name for name in set(logging.root.manager.loggerDict) - loggers
        if name.startswith("keras_sae")
    ),
    "handlers": len(logging.root.handlers) - len(handlers),
}))
"""


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    script = tmp_path_factory.mktemp("spy") / "spy.py"
    script.write_text(_SPY)
    environment = {**os.environ, "KERAS_BACKEND": keras.backend.backend()}
    environment["PYTHONPATH"] = str(ROOT.parent)
    result = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, env=environment
    )
    assert result.returncode == 0, result.stderr
    (line,) = [x for x in result.stdout.splitlines() if x.startswith("SEEN")]
    assert result.stdout.strip() == line, "the import printed something"
    return json.loads(line.removeprefix("SEEN"))


def test_import_loads_nothing_heavy(seen):
    """Nothing beyond what `import keras` has loaded."""
    assert not set(HEAVY) & set(seen["modules"])


def test_import_loads_no_other_backend(seen):
    assert not {"tensorflow", "jax", "torch"} & set(seen["modules"])


def test_import_reads_and_writes_no_environment_variable(seen):
    assert seen["environment"] == []


def test_import_sets_no_logger(seen):
    assert seen["loggers"] == []
    assert seen["handlers"] == 0


def test_version(seen):
    assert seen["version"] == keras_sae.__version__
