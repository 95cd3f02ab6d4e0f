"""Which way imports run: the syntax trees are walked and held against the table."""

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
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

# Room by room, the rooms it may import. A new room needs a line here.
GROUND = {"registration", "checks", "files", "atoms"}
CODE = GROUND | {"regularizers", "layers"}
FIGURES = GROUND | {"metrics"}
ALLOWED = {
    "registration": set(),
    "checks": set(),
    "files": set(),  # whole files and folders: the standard library alone
    "atoms": set(),  # what a unit adds: pictures, pages and callbacks draw it
    "regularizers": GROUND,
    "metrics": GROUND,
    "layers": GROUND | {"regularizers"},
    "models": CODE | FIGURES | {"datasets", "export"},
    "pretraining": CODE | FIGURES | {"datasets", "models"},
    "tuning": CODE | FIGURES | {"models", "pretraining", "evaluation"},
    "export": GROUND,
    "callbacks": CODE | FIGURES,
    "evaluation": CODE | FIGURES | {"models", "callbacks"},
    "wrappers": CODE | FIGURES | {"models"},
    "datasets": set(),
    "plots": {"evaluation", "metrics"},
    "report": GROUND | {"evaluation", "metrics"},
}
# Imported inside a function, against the table: the module, and why.
LATE: dict[tuple[str, str], str] = {}
# Kernels of TensorFlow outside its rooms, and the twin in `keras.ops` that a test holds
# them equal to.
KERNELS = {
    "keras_sae.models.data_adapter": "Keras's own array adapter, in `test_data_adapter`",
    "keras_sae.pretraining.fused_adam": "`keras.optimizers.Adam`, in `test_fused_adam`",
}
ONLY_THE_TOP = {"cli", "__main__"}  # may import everything, and nothing imports them

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
)

every_file = pytest.mark.parametrize("module", FILES)


def tree_of(module: str) -> ast.Module:
    return ast.parse(FILES[module].read_text(encoding="utf-8"))


def imported(tree: ast.AST, package: str) -> Iterator[str]:
    """Dotted names of what a tree imports, `from a import b` as `a.b`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:  # `from . import b`
                above = package.split(".")
                above = above[: len(above) - node.level + 1]
                base = ".".join([*above, *([base] if base else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def package_of(module: str) -> str:
    is_package = FILES[module].name == "__init__.py"
    return module if is_package else module.rpartition(".")[0]


def imports_of(module: str) -> set[str]:
    return set(imported(tree_of(module), package_of(module)))


def module_for(name: str) -> str | None:
    """The module of ours that an imported name is, or is in."""
    while name.startswith("keras_sae"):
        if name in FILES:
            return name
        name = name.rpartition(".")[0]
    return None


def our_imports(module: str) -> set[str]:
    """The modules of ours that a module imports, itself and `LATE` ones left out."""
    found = {found for name in imports_of(module) if (found := module_for(name))}
    return {x for x in found if x != module and (module, x) not in LATE}


def room(module: str) -> str:
    return module.split(".")[1] if "." in module else "__init__"


def top_level(tree: ast.Module) -> ast.Module:
    """The tree without functions and without `if TYPE_CHECKING:`."""

    class Prune(ast.NodeTransformer):
        def visit_FunctionDef(self, node):
            return None

        def visit_If(self, node):
            return None if "TYPE_CHECKING" in ast.unparse(node.test) else node

    return Prune().visit(tree)


def test_there_are_files_to_walk():
    assert {"keras_sae", "keras_sae.layers.sparse_dense"} <= FILES.keys()


@every_file
def test_imports_run_up(module):
    here = room(module)
    if here in {"__init__", *ONLY_THE_TOP}:
        return
    assert here in ALLOWED, (
        f"Give the new room {here!r} a line in tests/test_imports.py."
    )
    rooms = {room(found) for found in our_imports(module)} - {here}
    assert rooms <= ALLOWED[here], f"{module} imports {rooms - ALLOWED[here]}"


def test_late_imports_are_late():
    for module, other in LATE:
        assert other in {module_for(name) for name in imports_of(module)}
        found = imported(top_level(tree_of(module)), package_of(module))
        assert other not in {module_for(name) for name in found}


def test_the_table_itself_has_no_cycle():
    done: set[str] = set()
    while done != ALLOWED.keys():
        ready = {name for name in ALLOWED.keys() - done if ALLOWED[name] <= done}
        assert ready, f"a cycle among {ALLOWED.keys() - done}"
        done |= ready


@every_file
def test_nothing_imports_the_package_itself_or_its_top(module):
    if room(module) == "__init__":
        assert "cli" not in {room(found) for found in our_imports(module)}
    elif room(module) not in ONLY_THE_TOP:
        found = our_imports(module)
        assert not {x for x in found if room(x) in {"__init__", *ONLY_THE_TOP}}


def test_no_cycle_between_modules():
    graph = {
        module: our_imports(module) - {"keras_sae", package_of(module)}
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


@every_file
def test_heavy_packages_wait_until_they_are_used(module):
    """Builders are imported by their loader only, `cli` by its command only."""
    if module.endswith("_dataset_builder") or room(module) in ONLY_THE_TOP:
        return
    found = set(imported(top_level(tree_of(module)), package_of(module)))
    tops = {name.partition(".")[0] for name in found}
    heavy = tops & set(HEAVY)
    # scikit-learn's images are the builders' own source.
    if room(module) == "datasets" and module.count(".") > 2:
        heavy -= {"sklearn"}
    # A hypermodel is a keras-tuner class: the room itself waits until it is used.
    if room(module) == "tuning":
        heavy -= {"keras_tuner"}
    # Its classes derive from scikit-learn's: the package is imported on first use.
    if room(module) == "wrappers":
        heavy -= {"sklearn"}
    # These packages are imported on first use.
    if room(module) in ("plots", "report"):
        heavy -= {"matplotlib", "pandas", "bokeh", "jinja2", "PIL"}
    assert not heavy


@every_file
def test_tensorflow_in_datasets_export_and_kernels_only(module):
    tops = {name.partition(".")[0] for name in imports_of(module)}
    if room(module) not in {"datasets", "export"}:
        assert "tensorflow" not in tops or module in KERNELS
        assert not tops & {"jax", "torch"}
    # A backend that is not the user's is not loaded for an import of ours.
    found = set(imported(top_level(tree_of(module)), package_of(module)))
    if not module.endswith("_dataset_builder"):
        assert "tensorflow" not in {name.partition(".")[0] for name in found}


@every_file
def test_no_lambda_layer_and_no_pickle(module):
    tree = tree_of(module)
    attributes = {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute)}
    names = {name.partition(".")[0] for name in imports_of(module)}
    assert "Lambda" not in attributes | {
        x.rpartition(".")[2] for x in imports_of(module)
    }
    assert not names & {"pickle", "cloudpickle", "dill", "marshal", "shelve"}


@every_file
def test_keras_is_used_through_its_public_names(module):
    assert not {name for name in imports_of(module) if name.startswith("keras.src")}


# What an import does, seen from a process of its own.

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
    assert result.stdout.strip() == line, "an import prints nothing"
    return json.loads(line.removeprefix("SEEN"))


def test_import_loads_nothing_heavy(seen):
    """Beyond what `import keras` has loaded already."""
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
