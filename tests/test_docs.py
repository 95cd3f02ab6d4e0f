"""Tests of the docstrings of all public names against their real signatures."""

import ast
import inspect
import re
import textwrap

import keras
import pytest
from contracts import public_classes, public_objects

OBJECTS = dict(public_objects())
FUNCTIONS = {name: x for name, x in OBJECTS.items() if inspect.isfunction(x)}
METHODS = {
    f"{name}.{attribute}": getattr(cls, attribute)
    for name, cls in public_classes().items()
    for attribute, value in vars(cls).items()
    if not attribute.startswith("_")
    and isinstance(value, (classmethod, staticmethod)) | inspect.isfunction(value)
}

every_object = pytest.mark.parametrize("thing", OBJECTS.values(), ids=OBJECTS)
every_function = pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)


def sections(thing) -> dict[str, str]:
    """Return the sections of a docstring by heading; the text before them is `""`."""
    parts, heading = {"": ""}, ""
    for line in inspect.cleandoc(own_docstring(thing)).splitlines():
        match = re.fullmatch(r"([A-Z][A-Za-z ]*):", line)
        if match:
            heading = match[1]
            parts[heading] = ""
        else:
            parts[heading] += line + "\n"
    return parts


def own_docstring(thing) -> str:
    """Return the docstring of an object itself, not one that it inherits."""
    doc = vars(thing).get("__doc__") if inspect.isclass(thing) else thing.__doc__
    return doc or ""


def documented_arguments(thing) -> list[str]:
    entries = textwrap.dedent(sections(thing).get("Args", ""))
    return re.findall(r"^\*{0,2}(\w+):", entries, flags=re.MULTILINE)


def real_arguments(thing) -> tuple[list[str], set[str]]:
    """Return the names in order, and those of `*args` and `**kwargs`."""
    function = thing.__init__ if inspect.isclass(thing) else thing
    parameters = inspect.signature(function).parameters.values()
    names = [p.name for p in parameters if p.name not in ("self", "cls")]
    any_number = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return names, {p.name for p in parameters if p.kind in any_number}


def own_constructor(cls: type) -> bool:
    """Return whether the constructor is ours, not that of Keras or of `object`."""
    owner = next(base for base in cls.__mro__ if "__init__" in vars(base))
    return owner.__module__.startswith("keras_sae")


def may_raise(function) -> bool:
    """Return whether the body has a `raise`, or calls `utils.validation`."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError):  # an `__init__` of `object`
        return False
    return any(
        isinstance(node, ast.Raise)
        or (isinstance(node, ast.Attribute) and ast.unparse(node.value) == "validation")
        for node in ast.walk(tree)
    )


def test_public_names_are_found():
    assert len(OBJECTS) > 15
    assert "keras_sae.layers.SparseDense" in OBJECTS
    assert "keras_sae.layers.get_sparsity" in OBJECTS
    assert "keras_sae.regularizers.KLDivergence.from_ufldl" in METHODS


@every_object
def test_first_line_is_a_sentence(thing):
    first = inspect.cleandoc(own_docstring(thing)).split("\n")[0]
    assert len(first) > 15, first
    assert first[0].isupper() or first[0] in "`0123456789"
    assert first.endswith((".", "`")), first


@every_object
def test_documented_arguments_are_those_of_the_signature(thing):
    if inspect.isclass(thing) and not own_constructor(thing):
        assert set(documented_arguments(thing)) <= {"kwargs"}
        return
    real, any_number = real_arguments(thing)
    optional = any_number - set(documented_arguments(thing))
    assert documented_arguments(thing) == [n for n in real if n not in optional]


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_documented_arguments_of_methods_are_those_of_the_signature(method):
    documented = documented_arguments(method)
    real, any_number = real_arguments(method)
    if documented:
        optional = any_number - set(documented)
        assert documented == [n for n in real if n not in optional]


@every_object
def test_has_an_example(thing):
    """`test_docstrings.py` runs it."""
    example = sections(thing).get("Example", "")
    assert ">>> " in example
    assert "+SKIP" not in example


@every_function
def test_return_value_is_documented(function):
    returns = inspect.signature(function).return_annotation
    if returns is None or "Iterator[None]" in str(returns):
        return
    assert sections(function).get("Returns", "").strip()


@every_object
def test_errors_are_documented(thing):
    body = vars(thing).get("__init__") if inspect.isclass(thing) else thing
    if may_raise(body):
        assert "Error:" in sections(thing).get("Raises", "")


@every_object
def test_shapes_of_layers_are_documented(thing):
    is_layer = inspect.isclass(thing) and issubclass(thing, keras.layers.Layer)
    if is_layer and not issubclass(thing, keras.Model):
        found = sections(thing).keys()
        one = "Input and output shape" in found
        assert one or {"Input shape", "Output shape"} <= found


@every_object
def test_every_argument_is_described(thing):
    """Find empty entries, and text that was to be written later."""
    text = own_docstring(thing)
    assert not re.search(r"TODO|FIXME|coming soon", text)
    entries = textwrap.dedent(sections(thing).get("Args", ""))
    for entry in re.split(r"\n(?=\S)", entries.strip()):
        assert not entry or re.match(r"\*{0,2}\w+: \S", entry), entry
