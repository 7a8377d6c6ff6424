"""Statements for hot paths: written in Core, compiled once for each database, run on the driver's own cursor."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import Any

import orjson
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.compiler import compiles

from .tables import Json

INSERTS: dict[str, Any] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}
MANY = 50
"""Rows of one insert: 50 rows of ten columns stay far below every limit on places."""
# Positional places suit both drivers: `?` for sqlite3, `%s` for psycopg.
_DIALECTS: dict[str, Any] = {
    "sqlite": sqlite.dialect(paramstyle="qmark"),
    "postgresql": postgresql.psycopg.dialect(paramstyle="format"),  # type: ignore[no-untyped-call]
}


def place(name: str, type: Any = None) -> sa.BindParameter[Any]:
    """Where the value `name` of `Unit.run` goes."""
    return sa.bindparam(name, type_=type, required=False)


class Prepared:
    """The names of its `place`s are the keywords of `Unit.run`. Columns come as the driver gives them: a Json column is text.

    Made from a statement, or from a function that is given the database's `insert`.
    """

    def __init__(self, statement: Any) -> None:
        self.statement = statement
        self._compiled: dict[str, tuple[str, tuple[str, ...], dict[str, Any]]] = {}
        self._many: dict[tuple[str, int], str] = {}

    def compiled(self, dialect: str) -> tuple[str, tuple[str, ...], dict[str, Any]]:
        """(SQL, names of its places in order, values that are fixed)"""
        found = self._compiled.get(dialect)
        if found is None:
            statement = self.statement if isinstance(self.statement, sa.ClauseElement) else self.statement(INSERTS[dialect])
            made: Any = statement.compile(dialect=_DIALECTS[dialect], compile_kwargs={"render_postcompile": True})
            names = tuple(made.positiontup or ())
            fixed = {name: value for name, value in made.params.items() if value is not None}
            found = self._compiled[dialect] = (str(made), names, fixed)
        return found

    def many(self, dialect: str, rows: int) -> str:
        """SQL of an insert of several rows in one step: for SQLite of so many rows, for PostgreSQL from one JSON document."""
        found = self._many.get((dialect, rows))
        if found is None:
            text, names, _ = self.compiled(dialect)
            head, values, rest = re.split(r"VALUES (\(.*?\))(?= ON CONFLICT|$)", text, maxsplit=1)
            if dialect == "postgresql":
                table = self.statement(INSERTS[dialect]).table
                columns = ", ".join(f'"{name}" {table.c[name].type.compile(dialect=_DIALECTS[dialect])}' for name in names)
                found = f"{head} SELECT * FROM json_to_recordset(%s::json) AS sent({columns}){rest}"
            else:
                found = f"{head}VALUES {', '.join([values] * rows)}{rest}"
            self._many[dialect, rows] = found
        return found


class Typed(Prepared):
    """As Prepared, but a Json column is a document and a Boolean is one, both ways: what `Unit.found` and `Unit.changed` run."""

    def __init__(self, statement: Any) -> None:
        super().__init__(statement)
        self._json: dict[str, frozenset[str]] = {}
        columns = statement.exported_columns if isinstance(statement, sa.Select) else ()
        self._decoders = [(index, _DECODERS[type(column.type)]) for index, column in enumerate(columns) if type(column.type) in _DECODERS]

    def compiled(self, dialect: str) -> tuple[str, tuple[str, ...], dict[str, Any]]:
        found = super().compiled(dialect)
        if dialect not in self._json:
            statement = self.statement if isinstance(self.statement, sa.ClauseElement) else self.statement(INSERTS[dialect])
            binds = statement.compile(dialect=_DIALECTS[dialect]).binds  # type: ignore[union-attr]
            self._json[dialect] = frozenset(name for name, bind in binds.items() if isinstance(bind.type, Json))
        return found

    def encoded(self, dialect: str, values: Mapping[str, Any]) -> list[Any]:
        """The values in the order of the places."""
        _, names, fixed = self.compiled(dialect)
        documents = self._json[dialect]
        given = {**fixed, **values} if fixed else values
        return [_document(given[name]) if name in documents else given[name] for name in names]

    def decoded(self, row: tuple[Any, ...]) -> tuple[Any, ...]:
        if not self._decoders:
            return row
        values = list(row)
        for index, decode in self._decoders:
            if values[index] is not None:
                values[index] = decode(values[index])
        return tuple(values)


def _document(value: Any) -> str | None:
    return None if value is None else orjson.dumps(value).decode()


_DECODERS: dict[type, Any] = {Json: orjson.loads, sa.Boolean: bool}


@functools.lru_cache(maxsize=1024)
def writing(table: sa.Table, columns: tuple[str, ...], kind: str) -> Typed:
    """The insert of these columns. `kind`: `insert`; `new`, which leaves rows that are there; `upsert`, which overwrites them."""
    keys = [column.name for column in table.primary_key.columns]
    changed = [name for name in columns if name not in keys]

    def made(insert: Any) -> Any:
        statement = insert(table).values({name: place(name, table.c[name].type) for name in columns})
        if kind == "insert":
            return statement
        if kind == "new" or not changed:
            return statement.on_conflict_do_nothing()
        return statement.on_conflict_do_update(index_elements=keys, set_={name: statement.excluded[name] for name in changed})

    return Typed(made)


class _Among(sa.ColumnElement[bool]):
    inherit_cache = False
    type = sa.Boolean()

    def __init__(self, column: sa.ColumnElement[Any], values: sa.BindParameter[Any]) -> None:
        self.column, self.values = column, values

    def self_group(self, against: Any = None) -> _Among:
        return self  # SQLite would be asked `(…) = 1`, which no index answers


@compiles(_Among, "sqlite")
def _among_sqlite(element: _Among, compiler: Any, **kwargs: Any) -> str:
    return f"{compiler.process(element.column, **kwargs)} IN (SELECT value FROM json_each({compiler.process(element.values, **kwargs)}))"


@compiles(_Among, "postgresql")
def _among_postgresql(element: _Among, compiler: Any, **kwargs: Any) -> str:
    return f"{compiler.process(element.column, **kwargs)} = ANY({compiler.process(element.values, **kwargs)})"


def among(column: sa.ColumnElement[Any], name: str, type: Any = sa.BigInteger) -> sa.ColumnElement[bool]:
    """`column` is one of the values of the parameter `name`, given as `unit.listed(values)`: one statement for any number."""
    return _Among(column, place(name, sa.Text().with_variant(postgresql.ARRAY(type), "postgresql")))
