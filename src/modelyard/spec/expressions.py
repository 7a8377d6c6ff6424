"""The small language inside strings: `${{ inputs.x }}` and the optional block `$[[ --flag ${{inputs.x}} ]]`.

Reference `azure-v2-fields`, section 3. One parser, one resolver; everything that has expressions uses them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from ..core.errors import Invalid

_EXPRESSION = re.compile(r"\$\{\{\s*(?P<path>.*?)\s*\}\}", re.DOTALL)
_ANY = re.compile(rf"\$\[\[(?P<optional>.*?)\]\]|{_EXPRESSION.pattern}", re.DOTALL)
_PATH = re.compile(r"^[A-Za-z_][\w-]*(\.[\w-]+)*$")

Lookup = Callable[[tuple[str, ...]], str | None]
"""Given the parts of `a.b.c`, the text to put there, or None when an optional value is absent."""


def paths_in(text: str) -> Iterator[tuple[str, ...]]:
    """Every dotted path used in `text`, in order. Raises Invalid for one that cannot be read."""
    for match in _EXPRESSION.finditer(text):
        yield _parts(match[1], text)


def is_expression(text: object) -> bool:
    return isinstance(text, str) and _EXPRESSION.fullmatch(text.strip()) is not None


def resolve(text: str, lookup: Lookup) -> str:
    """Replace every expression. A `$[[…]]` block vanishes when a value inside it is absent; elsewhere that is an error."""

    def value(match: re.Match[str]) -> str:
        path = match["path"]
        replacement = lookup(_parts(path, text))
        if replacement is None:
            raise _Absent(path)
        return replacement

    def piece(match: re.Match[str]) -> str:
        if match["optional"] is None:
            return value(match)
        try:
            return _EXPRESSION.sub(value, match["optional"])
        except _Absent:
            return ""

    try:
        return _ANY.sub(piece, text)  # one pass: what was put in is text, and not read again
    except _Absent as absent:
        raise Invalid(
            f"${{{{{absent.args[0]}}}}} has no value in {_short(text)!r}",
            code="unresolved_expression",
            hint="Give the input a value, or put the part of the command that needs it in $[[ … ]].",
        ) from None


class _Absent(Exception):
    pass


def _parts(path: str, text: str) -> tuple[str, ...]:
    if not _PATH.fullmatch(path):
        raise Invalid(f"${{{{{path}}}}} in {_short(text)!r} is not an expression that can be read", code="invalid_expression")
    return tuple(path.split("."))


def _short(text: str) -> str:
    return text if len(text) <= 80 else text[:77] + "..."
