"""Extension of griffe, the parser that mkdocstrings uses for the API pages."""

import re
from typing import Any

import griffe

_EXAMPLE = re.compile(r"^Example:\n\n(?=>>> )", re.MULTILINE)
# Methods for authors of a sparsity. They are shown for the base class only.
_FOR_AUTHORS = {
    "select",
    "auxiliary_losses",
    "supports_warmup",
    "set_progress",
    "per_unit_state",
}


class Reading(griffe.Extension):
    """Adapt the docstrings of the package to Google's style, as griffe parses it."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Indent the section `Example:` up to the end of the docstring.

        Doctest and keras.io take examples without indentation. In Google's style a
        section is indented.
        """
        del kwargs
        if obj.docstring is None:
            return
        parts = _EXAMPLE.split(obj.docstring.value, maxsplit=1)
        if len(parts) == 2:
            text, example = parts
            lines = [f"    {line}".rstrip() for line in example.splitlines()]
            obj.docstring.value = "\n".join([text + "Examples:", *lines])

    def on_function(self, *, func: griffe.Function, **kwargs: Any) -> None:
        """Leave out the type `Any`, and the default `{}` of `**kwargs`."""
        del kwargs
        for parameter in func.parameters:
            if str(parameter.annotation) == "Any":
                parameter.annotation = None
            if parameter.kind is griffe.ParameterKind.var_keyword:
                parameter.default = None

    def on_class(self, *, cls: griffe.Class, **kwargs: Any) -> None:
        """Hide the methods for authors in the sparsities that the package has."""
        del kwargs
        if {str(base) for base in cls.bases} & {"Sparsity", "KSparsity"}:
            cls.bases = []  # shows no inherited members
            for name in _FOR_AUTHORS & cls.members.keys():
                cls.del_member(name)

    def on_package(self, *, pkg: griffe.Module, **kwargs: Any) -> None:
        """Let a function hide the module of its name, as an import does.

        In Python, `keras_sae.models.deep` is the function. In the folder it is the
        file `models/deep.py`.
        """
        del kwargs
        for package in list(pkg.modules.values()):
            for name, module in list(package.modules.items()):
                if name in (package.exports or ()) and name in module.members:
                    self._visit(module)
                    package.members[name] = griffe.Alias(
                        name, module[name], parent=package
                    )

    def _visit(self, module: griffe.Module) -> None:
        """Do what griffe would do later, but not for a module that it cannot find."""
        for member in module.members.values():
            if not member.is_alias:
                self.on_object(obj=member)
            if not member.is_alias and member.is_function:
                self.on_function(func=member)
