"""Griffe's part of the documentation site: the fields of a `NamedTuple` with their comments are a table of its page.

They are explained beside them in the code, where who reads it sees axes and units.
"""

from __future__ import annotations

import ast
import io
import tokenize
from typing import Any

import griffe


def comments(source: str) -> dict[int, str]:
    """The comments of a module, without their mark, by line."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {token.start[0]: token.string.lstrip("# ") for token in tokens if token.type == tokenize.COMMENT}


class CommentsAsDocstrings(griffe.Extension):
    """Adds the fields to the docstring of a `NamedTuple`, as Google's section `Attributes`."""

    def on_class_members(self, *, node: Any, cls: griffe.Class, agent: Any, **kwargs: Any) -> None:
        """Called by griffe when it has read a class."""
        if not isinstance(node, ast.ClassDef) or cls.docstring is None or "NamedTuple" not in map(str, cls.bases):
            return
        said = comments("\n".join(cls.lines_collection[cls.filepath]))
        fields = [member for member in cls.members.values() if member.is_attribute and "property" not in member.labels]
        lines = [f"  {field.name}: {said.get(field.endlineno, 'described above.')}" for field in fields]
        cls.docstring.value += "\n\nAttributes:\n" + "\n".join(lines)
