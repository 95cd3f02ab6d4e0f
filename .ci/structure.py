"""Measure the structure of the package, and fail if a limit is exceeded.

    python .ci/structure.py

The script counts files and lines, functions and `hasattr`/`getattr` calls per 1,000
lines, and imports of another package's private module or name. It also prints the
fraction of parameters typed `Any`, and whether there is a circular import. Imports
inside functions are included.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1] / "keras_sae"
FUNCTIONS, PROBES, ANY_SHARE = 38, 2.5, 0.10  # the largest allowed values

Function = ast.FunctionDef | ast.AsyncFunctionDef


def module_name(path: Path) -> str:
    """Return the dotted name of a file of the package."""
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


def aliases_of_any(tree: ast.Module) -> set[str]:
    """Return the names for `Any` in a module, including aliases other than `Tensor`."""
    names = {"Any", "typing.Any"}
    for node in tree.body:
        if isinstance(node, ast.AnnAssign) and node.value is not None:
            if ast.unparse(node.value) == "Any":
                names.add(ast.unparse(node.target))
        elif isinstance(node, ast.Assign) and ast.unparse(node.value) == "Any":
            names |= {ast.unparse(target) for target in node.targets}
    return names - {"Tensor"}


def imports(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Yield `(module, name)` for each import from this package in a file."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("keras_sae."):
                    yield alias.name, ""
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith(
            "keras_sae"
        ):
            for alias in node.names:
                yield node.module or "", alias.name


def is_private(name: str) -> bool:
    """Return whether any part of a dotted name is private."""
    return any(
        part.startswith("_") and not part.startswith("__") for part in name.split(".")
    )


def find_circle(graph: dict[str, set[str]]) -> list[str]:
    """Return the modules of one circular import, or an empty list."""
    finished: set[str] = set()

    def visit(module: str, path: list[str]) -> list[str]:
        if module in path:
            return [*path[path.index(module) :], module]
        if module in finished:
            return []
        for other in sorted(graph[module]):
            circle = visit(other, [*path, module])
            if circle:
                return circle
        finished.add(module)
        return []

    for module in graph:
        circle = visit(module, [])
        if circle:
            return circle
    return []


def main() -> int:
    """Print the measurements, and return 1 if a limit is exceeded."""
    paths = sorted(ROOT.rglob("*.py"))
    trees = {module_name(path): ast.parse(path.read_text()) for path in paths}
    lines = sum(path.read_text().count("\n") for path in paths)
    loose = {"Any", *aliases_of_any(trees["keras_sae.types"])}
    functions = probes = parameters = untyped = 0
    private: list[str] = []
    graph: dict[str, set[str]] = {module: set() for module in trees}
    for module, tree in trees.items():
        package = module.split(".")[1] if "." in module else ""
        names = loose | aliases_of_any(tree)
        for node in ast.walk(tree):
            if isinstance(node, Function):
                functions += 1
                arguments = node.args
                for argument in [
                    *arguments.posonlyargs,
                    *arguments.args,
                    *arguments.kwonlyargs,
                ]:
                    if argument.arg in ("self", "cls"):
                        continue
                    parameters += 1
                    annotation = argument.annotation
                    untyped += annotation is None or ast.unparse(annotation) in names
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                probes += node.func.id in ("hasattr", "getattr")
        for source, name in imports(tree):
            full = f"{source}.{name}".rstrip(".")
            other = full.split(".")[1] if "." in full else ""
            if other != package and is_private(full):
                private.append(f"{module} imports {full}")
            target = full if full in trees else source
            # Ignore imports from the parent package, whose `__init__` imports `module`.
            if target in trees and target != module and target != "keras_sae":
                parent = module.rpartition(".")[0]
                if target != parent:
                    graph[module].add(target)
    circle = find_circle(graph)
    per_thousand = 1000 / lines
    share = untyped / parameters
    print(
        f"files {len(paths)}, lines {lines:,}, "
        f"functions per 1,000 lines {functions * per_thousand:.1f}, "
        f"hasattr/getattr per 1,000 lines {probes * per_thousand:.1f}, "
        f"parameters typed Any {share:.1%} of {parameters}, "
        f"private imports across packages {len(private)}, "
        f"circles {int(bool(circle))}"
    )
    problems = [
        *private,
        *([" -> ".join(circle)] if circle else []),
        *(
            [f"more than {FUNCTIONS} functions per 1,000 lines"]
            if functions * per_thousand > FUNCTIONS
            else []
        ),
        *(
            [f"more than {PROBES} hasattr/getattr per 1,000 lines"]
            if probes * per_thousand > PROBES
            else []
        ),
        *(
            [f"more than {ANY_SHARE:.0%} of the parameters typed Any"]
            if share > ANY_SHARE
            else []
        ),
    ]
    print(*problems, sep="\n", end="\n" if problems else "")
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main())
