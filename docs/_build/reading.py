"""How mkdocstrings reads the package: examples are sections, factories are functions."""

import re
from typing import Any

import griffe

_HEADING = re.compile(r"^Example:\n\n(?=>>> )", re.MULTILINE)


class Reading(griffe.Extension):
    """Fits the package's habits to what griffe, the reader of mkdocstrings, expects."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Indents what follows `Example:`, up to the end of the docstring.

        Doctest and Keras's own pages take examples without indentation; in Google's
        style a section is indented.
        """
        del kwargs
        if obj.docstring is None:
            return
        parts = _HEADING.split(obj.docstring.value, maxsplit=1)
        if len(parts) == 2:
            text, example = parts
            lines = [f"    {line}".rstrip() for line in example.splitlines()]
            obj.docstring.value = "\n".join([text + "Examples:", *lines])

    def on_function(self, *, func: griffe.Function, **kwargs: Any) -> None:
        """Leaves out types that say nothing: `Any`, and `{}` for no more arguments."""
        del kwargs
        for parameter in func.parameters:
            if str(parameter.annotation) == "Any":
                parameter.annotation = None
            if parameter.kind is griffe.ParameterKind.var_keyword:
                parameter.default = None

    def on_package(self, *, pkg: griffe.Module, **kwargs: Any) -> None:
        """Lets a function hide the file of its name, as an import does.

        `keras_sae.models.shallow` is the function for Python, but the file
        `models/shallow.py` for one who reads the folder.
        """
        del kwargs
        for room in list(pkg.modules.values()):
            for name, file in list(room.modules.items()):
                if name in (room.exports or ()) and name in file.members:
                    self._read(file)
                    room.members[name] = griffe.Alias(name, file[name], parent=room)

    def _read(self, module: griffe.Module) -> None:
        """What griffe does after this, but not for a file that it no longer finds."""
        for member in module.members.values():
            if not member.is_alias:
                self.on_object(obj=member)
            if not member.is_alias and member.is_function:
                self.on_function(func=member)
