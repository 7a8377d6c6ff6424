"""The small language inside strings: `${{ inputs.x }}` and the optional block `$[[ --flag ${{inputs.x}} ]]`.

Reference `azure-v2-fields`, section 3. One parser, one resolver; everything that has expressions uses them. It reads a text once from
left to right: a regular expression would search for each `${{` anew where its end is, which takes a time that grows with the square
of the text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass

from ..core.errors import Invalid
from ..core.names import nearest

MAX_RESOLVED = 1_000_000
"""Characters of a text whose expressions were replaced: a long value that is named often would fill the memory."""
_PATH = re.compile(r"[A-Za-z_][\w-]*(?:\.[\w-]+)*")
_OPENS, _OPENS_BLOCK = "${{", "$[["
_CLOSES = {_OPENS: "}}", _OPENS_BLOCK: "]]"}
_OPENING = re.compile(r"\$\{\{|\$\[\[")

Lookup = Callable[[tuple[str, ...]], str | None]
"""Given the parts of `a.b.c`, the text to put there, or None when an optional value is absent."""


@dataclass(frozen=True)
class _Expression:
    path: str


@dataclass(frozen=True)
class _Block:
    parts: tuple[str | _Expression, ...]


def _pieces(text: str, blocks: bool = True) -> Iterator[str | _Expression | _Block]:
    """The text cut into plain pieces, expressions and, unless they are plain text too, blocks. What never closes is plain text."""
    plain = position = 0
    last = {_OPENS: text.rfind(_CLOSES[_OPENS]), _OPENS_BLOCK: text.rfind(_CLOSES[_OPENS_BLOCK]) if blocks else -1}
    while match := _OPENING.search(text, position):
        opening, position = match[0], match.end()
        if last[opening] < position:
            continue
        end = text.index(_CLOSES[opening], position)
        yield text[plain : match.start()]
        inner = text[position:end]
        yield _Expression(inner.strip()) if opening == _OPENS else _Block(tuple(_expressions(inner)))
        plain = position = end + len(_CLOSES[opening])
    yield text[plain:]


def _expressions(text: str) -> Iterator[str | _Expression]:
    """As `_pieces`, without blocks."""
    for piece in _pieces(text, blocks=False):
        assert not isinstance(piece, _Block)
        yield piece


def paths_in(text: str) -> Iterator[tuple[str, ...]]:
    """Every dotted path used in `text`, in order. Raises Invalid for one that cannot be read."""
    for piece in _expressions(text):
        if isinstance(piece, _Expression):
            yield _parts(piece.path, text)


def paths_needed(text: str) -> Iterator[tuple[str, ...]]:
    """Those of `paths_in` without which the text cannot be resolved: what stands in a `$[[…]]` block may be absent."""
    for piece in _pieces(text):
        if isinstance(piece, _Expression):
            yield _parts(piece.path, text)


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
    """Whether a text is one expression and nothing else."""
    if not isinstance(text, str):
        return False
    stripped = text.strip()
    return stripped.startswith(_OPENS) and stripped.endswith(_CLOSES[_OPENS]) and len(stripped) >= 5


def resolve(text: str, lookup: Lookup) -> str:
    """Replace every expression. A `$[[…]]` block vanishes when a value inside it is absent; elsewhere that is an error."""

    def value(piece: str | _Expression) -> str:
        if isinstance(piece, str):
            return piece
        replacement = lookup(_parts(piece.path, text))
        if replacement is None:
            raise _Absent(piece.path)
        return replacement

    def resolved(piece: str | _Expression | _Block) -> str:
        if not isinstance(piece, _Block):
            return value(piece)
        try:
            return "".join(map(value, piece.parts))
        except _Absent:
            return ""

    parts, length = [], 0
    try:
        for piece in _pieces(text):  # one pass: what was put in is text, and not read again
            parts.append(resolved(piece))
            length += len(parts[-1])
            if length > MAX_RESOLVED:
                raise Invalid(
                    f"{_short(text)!r} has more than {MAX_RESOLVED:,} characters once its values are put in", code="command_too_long",
                    hint="Put long values into a file, and pass that as an input.",
                )  # fmt: skip
        return "".join(parts)
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
        raise Invalid(f"${{{{{_short(path)}}}}} in {_short(text)!r} is not an expression that can be read", code="invalid_expression")
    return tuple(path.split("."))


def _short(text: str) -> str:
    return text if len(text) <= 80 else text[:77] + "..."
