"""The small language inside strings: `${{ inputs.x }}` and the optional block `$[[ --flag ${{inputs.x}} ]]`.

Reference `azure-v2-fields`, section 3. One parser, one resolver; everything that has expressions uses them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass

from ..core.errors import Invalid
from ..core.names import nearest

_EXPRESSION = re.compile(r"\$\{\{\s*(?P<path>.*?)\s*\}\}", re.DOTALL)
_ANY = re.compile(rf"\$\[\[(?P<optional>.*?)\]\]|{_EXPRESSION.pattern}", re.DOTALL)
_PATH = re.compile(r"^[A-Za-z_][\w-]*(\.[\w-]+)*$")

Lookup = Callable[[tuple[str, ...]], str | None]
"""Given the parts of `a.b.c`, the text to put there, or None when an optional value is absent."""


def paths_in(text: str) -> Iterator[tuple[str, ...]]:
    """Every dotted path used in `text`, in order. Raises Invalid for one that cannot be read."""
    for match in _EXPRESSION.finditer(text):
        yield _parts(match[1], text)


@dataclass(frozen=True)
class Place:
    """Where an expression may stand, and what it may name there: dotted names, in which `*` is one part."""

    field: str
    names: tuple[str, ...]

    def check(self, text: str, ports: Mapping[str, Collection[str]] | None = None) -> None:
        """Raises Invalid for an expression that has no value here. `ports`: those that there are of `inputs` and `outputs`, where that is known."""
        for path in paths_in(text):
            shown = "${{" + ".".join(path) + "}}"
            if not any(_fits(path, name) for name in self.names):
                known = ", ".join("${{" + name.replace("*", "NAME") + "}}" for name in self.names) or "no expression"
                raise Invalid(f"{shown} has no value in {self.field}; what can stand there: {known}", code="invalid_expression")
            there = ports.get(path[0]) if ports is not None else None
            if there is not None and path[1] not in there:
                names = ", ".join(there) or "none"
                raise Invalid(
                    f"{shown} in {self.field} names no {path[0].rstrip('s')}; there are: {names}{nearest(path[1], there)}",
                    code="invalid_expression",
                )


def _fits(path: tuple[str, ...], name: str) -> bool:
    parts = name.split(".")
    return len(parts) == len(path) and all(own in ("*", part) for own, part in zip(parts, path, strict=True))


COMMAND = Place("a command", ("inputs.*", "outputs.*"))
VARIABLES = Place("environment_variables", ("inputs.*", "outputs.*"))
COMPONENT_COMMAND = Place("the command of a component", ("inputs.*", "outputs.*", "search_space.*"))
OUTPUT_PATH = Place("the path of an output", ("name", "output_name", "default_datastore"))
JOB_INPUT = Place("the inputs of a job", ())
SCHEDULED_INPUT = Place("the inputs of a schedule's job", ("name", "creation_context.trigger_time"))
STEP_INPUT = Place("the inputs of a step", ("parent.inputs.*", "parent.jobs.*.outputs.*"))
STEP_OUTPUT = Place("the outputs of a step", ("parent.outputs.*",))
STEP_SETTING = Place("compute and environment_variables of a step", ("parent.inputs.*",))
STEP_NAME = Place("body, true_block, false_block and mapping of control flow", ("parent.jobs.*", "parent.jobs.*.inputs.*"))
STEP_VALUE = Place("condition and items of control flow", ("parent.inputs.*", "parent.jobs.*.outputs.*"))
PLACES = (
    COMMAND, VARIABLES, COMPONENT_COMMAND, OUTPUT_PATH, JOB_INPUT, SCHEDULED_INPUT, STEP_INPUT, STEP_OUTPUT, STEP_SETTING, STEP_NAME,
    STEP_VALUE,
)  # fmt: skip
"""All of them; elsewhere `${{` is text like any other."""


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
