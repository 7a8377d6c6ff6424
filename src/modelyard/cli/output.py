"""What commands print: data on stdout in the asked form, everything else on stderr."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from ..core.terminal import LogText, escaped_json, harmless

if TYPE_CHECKING:
    from . import table

Drawing = Callable[[Any], Iterable[str]]
"""What becomes lines for a person of a document that no table fits."""
Summary = Callable[[dict[str, Any]], dict[str, Any]]
"""What a person is shown of a resource, in its order."""
FORMS = ("json", "jsonc", "yaml", "yamlc", "table", "tsv", "none")


def say_notes(stored: Any) -> None:
    """Print the notes in the properties of a resource that was just written."""
    from ..spec.properties import NOTES

    for name in ("notes", NOTES):
        notes = (stored.properties or {}).get(name)
        for note in notes if isinstance(notes, list) else ():
            say(f"note: {note}")


def say(text: str) -> None:
    """A line for a person, on stderr."""
    click.echo(harmless(text), err=True)


def say_log(chunk: str, log: LogText | None = None) -> None:
    """A part of a log on stdout: as it is for a file or another program, on a terminal without what acts on it. Without `log` it is whole."""
    if sys.stdout.isatty():
        whole = LogText() if log is None else log
        chunk = whole.add(chunk) + (whole.end() if log is None else "")
    click.echo(chunk, nl=False)


def show(
    value: Any, form: str | None, query: str | None, columns: tuple[str, ...] = (), draw: Drawing | None = None, summary: Summary | None = None
) -> None:  # fmt: skip
    """Print a document or a list of them. Without `form`: a table on a terminal, JSON elsewhere.

    In the form of a table `draw` is shown instead of one, and of a document what `summary` makes of it.
    """
    plain = [_document(item) for item in value] if isinstance(value, (list, Iterator)) else _document(value)
    if query:
        import jmespath

        from ..core.errors import Invalid

        try:
            plain = jmespath.search(query, plain)
        except jmespath.exceptions.JMESPathError as error:
            raise Invalid(f"--query: {error}", code="invalid_query") from None
        columns, draw, summary = (), None, dict
    form = form or ("table" if sys.stdout.isatty() else "json")
    if form == "none":
        return
    if form in ("json", "jsonc"):
        text = escaped_json(json.dumps(plain, indent=2, ensure_ascii=False))
        _write(_coloured(text, "json") if form == "jsonc" else text)
    elif form in ("yaml", "yamlc"):
        import yaml

        text = yaml.safe_dump(plain, sort_keys=False, allow_unicode=True).rstrip()
        text = text if not sys.stdout.isatty() else harmless(text)
        _write(_coloured(text, "yaml") if form == "yamlc" else text)
    elif form == "tsv":
        for line in _tsv(plain):
            _write(harmless(line) if sys.stdout.isatty() else line)
    elif draw is not None:
        for line in draw(plain):
            _write(harmless(line) if sys.stdout.isatty() else line)
    elif isinstance(plain, dict):
        from .summary import of_any

        _facts((summary or of_any)(plain))
    else:
        _table(plain, columns)


def _document(value: Any) -> Any:
    return value.document() if hasattr(value, "document") else value


def _write(text: str) -> None:
    click.echo(text)


def _colors() -> bool:
    """Whether what is printed may have colors: on a terminal that has some, unless NO_COLOR (no-color.org) is set."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _painted(text: str) -> str:
    """A state in its color."""
    from .values import color_of

    color = color_of(text)
    return click.style(text, fg=color) if color else text


def _coloured(text: str, language: str) -> str:
    if not _colors():
        return text
    from rich.console import Console
    from rich.syntax import Syntax

    console = Console()
    with console.capture() as captured:
        console.print(Syntax(text, language, background_color="default"))
    return captured.get().rstrip()


def _tsv(value: Any) -> Iterable[str]:
    if value is None:
        return
    rows = value if isinstance(value, list) else [value]
    for row in rows:
        if isinstance(row, dict):
            yield _tab_separated(row.values())
        elif isinstance(row, list):
            yield _tab_separated(row)
        else:
            yield _cell(row)


def _tab_separated(values: Iterable[Any]) -> str:
    """One line; a tab or line break inside a value would look like another column or row. A value by itself stays as it is."""
    cells = [_cell(value) for value in values]
    return cells[0] if len(cells) == 1 else "\t".join(re.sub(r"[\t\r\n]", " ", cell) for cell in cells)


def _cell(value: Any) -> str:
    if value is None:
        return "None"
    if isinstance(value, (dict, list)):
        return json.dumps(value) if value else ""
    return str(value)


def _table(value: Any, columns: tuple[str, ...]) -> None:
    from . import table
    from .values import text_of

    if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        names = columns or tuple(key for key in value[0] if not isinstance(value[0][key], (dict, list)))[:8]
        _listed(table.columns_of(value, names, datetime.now(UTC) if sys.stdout.isatty() else None))
    elif isinstance(value, list):
        if not value:
            say("(none)")
        for item in value:
            _write(text_of(item))
    elif value is not None:
        _write(text_of(value))


def _facts(document: dict[str, Any]) -> None:
    """A line for each field that has a value, and more where one is long."""
    from . import table
    from .values import STATES, text_of

    shown = {harmless(key): text_of(item, key) for key, item in document.items() if item not in ({}, [], None, "")}
    keys = table.Column("", list(shown)).widest
    for key, cell in shown.items():
        column = table.Column("", [cell], state=key in STATES)
        room = max(column.least, min(column.widest, table.terminal_width() - keys - table.GAP))
        for line in table.rows([(table.Column("", [key]), keys), (column, room)], _painted if _colors() else None):
            _write(line)


def _listed(columns: list[table.Column]) -> None:
    from . import table

    fitted = table.fitting(columns, table.terminal_width())
    _write(click.style(table.titles(fitted), bold=True) if _colors() else table.titles(fitted))
    for line in table.rows(fitted, _painted if _colors() else None):
        _write(line)
    if left := [column.title for column in columns[len(fitted) :]]:
        say(f"(no room for {', '.join(left)}; -o json shows all)")
