"""SQL as the unit of work runs it: written in SQLAlchemy Core, compiled once for each database, run on the driver's own cursor.

A store names its statements at module level, with a `param` for each value:

    _BY_NAME = Statement(sa.select(jobs).where(jobs.c.name == param("name")))
    unit.row(_BY_NAME, name=name)

Compiling a select takes a millisecond and running it a few microseconds, so a `Statement` is never built per call.
"""

from __future__ import annotations

import functools
from collections import namedtuple
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import orjson
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Dialect
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeDecorator, TypeEngine

# Positional parameters suit both drivers: `?` for sqlite3, `%s` for psycopg.
_DIALECTS: dict[str, Dialect] = {
    "sqlite": sqlite.dialect(paramstyle="qmark"),
    "postgresql": postgresql.psycopg.dialect(paramstyle="format"),  # type: ignore[no-untyped-call]
}
_INSERTS: dict[str, Any] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}

Overwrite = Callable[[Any, Any], sa.ColumnElement[bool]]
"""(columns of the row that is there, columns of the new one) → whether the new one overwrites it."""
Existing = Literal["refuse", "keep", "overwrite"] | Overwrite
"""What an insert does where a row with the same primary key is there already."""


class Param(sa.BindParameter[Any]):
    """Told from a constant of the statement by its class: a constant may be None."""

    inherit_cache = True


def param(name: str, type: Any = None) -> Param:
    """The value that is passed as the keyword `name`. Its type is that of the column it is compared with, or `type`."""
    return Param(name, type_=type, required=False)


class Statement:
    """A select, insert, update or delete whose values are `param`s, run by `Unit.rows`, `row`, `value` and `run`.

    Rows have the names of their columns; with `plain` they are bare tuples, for queries of which thousands are read.
    """

    def __init__(self, core: sa.SelectBase | sa.UpdateBase, *, plain: bool = False) -> None:
        self.core = core
        self._plain = plain
        self._compiled: dict[str, Compiled] = {}

    def compiled(self, dialect: str) -> Compiled:
        compiled = self._compiled.get(dialect)
        if compiled is None:
            compiled = self._compiled[dialect] = _compile(self.core, dialect, self._plain)
        return compiled


Encoder = tuple[int, Callable[[Any], Any]]
"""(position among the parameters or columns, how its values are encoded for the driver or decoded from it)"""


@dataclass(frozen=True, slots=True)
class Compiled:
    """SQL of one database. `constants` are values that the statement holds itself."""

    text: str
    parameters: tuple[str, ...]
    constants: Mapping[str, Any]
    encoders: tuple[Encoder, ...]
    decode: Callable[[Sequence[tuple[Any, ...]]], list[Any]]

    def arguments(self, values: Mapping[str, Any] | tuple[Any, ...]) -> Sequence[Any]:
        """As the driver takes them, in the order of the parameters; a tuple of values is in this order already."""
        if isinstance(values, tuple):
            arguments = list(values)
        else:
            named = {**self.constants, **values} if self.constants else values
            arguments = [named[name] for name in self.parameters]
        for index, encode in self.encoders:
            arguments[index] = encode(arguments[index])
        return arguments


def _compile(core: sa.SelectBase | sa.UpdateBase, name: str, plain: bool) -> Compiled:
    dialect = _DIALECTS[name]
    sql: Any = core.compile(dialect=dialect, compile_kwargs={"render_postcompile": True})
    parameters = tuple(sql.positiontup or ())
    constants = {name: value for name, value in sql.params.items() if not isinstance(sql.binds.get(name), Param)}
    encoders = ((index, _encoder(sql.binds[name].type, dialect)) for index, name in enumerate(parameters) if name in sql.binds)
    decode = _row_decoder(core.exported_columns, dialect, plain)
    return Compiled(str(sql), parameters, constants, tuple((index, encode) for index, encode in encoders if encode), decode)


def _encoder(type: TypeEngine[Any], dialect: Dialect) -> Any:
    """Of documents and lists; both drivers take everything else as it is."""
    return type.dialect_impl(dialect).bind_processor(dialect) if isinstance(type, TypeDecorator) else None


def _row_decoder(columns: Any, dialect: Dialect, plain: bool) -> Callable[[Sequence[tuple[Any, ...]]], list[Any]]:
    # Like the `_make` of a namedtuple, which takes three times as long.
    make: Any = tuple if plain else functools.partial(tuple.__new__, namedtuple("Row", list(columns.keys()), rename=True))
    types = [column.type for column in columns]
    decoders = [
        (index, decode)
        for index, type in enumerate(types)
        if isinstance(type, (TypeDecorator, sa.Boolean)) and (decode := type.dialect_impl(dialect).result_processor(dialect, None))
    ]

    def decoded(row: tuple[Any, ...]) -> Any:
        values = list(row)
        for index, decode in decoders:
            values[index] = decode(values[index])
        return make(values)

    if decoders:
        return lambda rows: [decoded(row) for row in rows]
    return list if plain else lambda rows: [make(row) for row in rows]


# Inserts


MAX_ROWS = 64
"""Rows of one insert on SQLite: 64 rows of ten columns stay far below its limit on parameters."""


def row_counts(rows: int) -> Iterator[int]:
    """Of the inserts that write so many rows: powers of two, so that seven statements of a table serve every number."""
    while rows:
        count = min(MAX_ROWS, 1 << rows.bit_length() - 1)
        yield count
        rows -= count


@functools.lru_cache(maxsize=1024)
def insert_of(table: sa.Table, columns: tuple[str, ...] | None, existing: Existing, dialect: str, rows: int = 1) -> Compiled:
    """The insert of so many rows; its parameters are those of the first row, then of the second, in the order of the table's columns.

    `columns` None means all.
    """
    columns = columns or tuple(table.c.keys())
    types = {name: table.c[name].type for name in columns}
    values = [{name: param(name if rows == 1 else f"{name}_{index}", type) for name, type in types.items()} for index in range(rows)]
    statement = _INSERTS[dialect](table).values(values if rows > 1 else values[0])
    return _compile(_on_conflict(statement, table, columns, existing), dialect, plain=True)


@functools.lru_cache(maxsize=1024)
def insert_of_documents(table: sa.Table, columns: tuple[str, ...], existing: Existing) -> Compiled:
    """PostgreSQL's insert of any number of rows: its one parameter is a JSON list of them, each an object by column."""
    documents = sa.cast(param("rows", sa.Text), postgresql.JSON)
    typed = (sa.column(name, table.c[name].type) for name in columns)
    sent = sa.func.json_to_recordset(documents).table_valued(*typed).render_derived(name="sent", with_types=True)
    statement = postgresql.insert(table).from_select(columns, sa.select(sent))
    return _compile(_on_conflict(statement, table, columns, existing), "postgresql", plain=True)


def _on_conflict(statement: Any, table: sa.Table, columns: tuple[str, ...], existing: Existing) -> Any:
    keys = [column.name for column in table.primary_key.columns]
    changed = {name: statement.excluded[name] for name in columns if name not in keys}
    if existing == "refuse":
        return statement
    if existing == "keep" or not changed:
        return statement.on_conflict_do_nothing()
    where = existing(table.c, statement.excluded) if callable(existing) else None
    return statement.on_conflict_do_update(index_elements=keys, set_=changed, where=where)


# Lists of values


class _List(TypeDecorator[Any]):
    """Values of one type as one parameter: an array on PostgreSQL, a JSON text on SQLite."""

    impl = sa.Text
    cache_ok = True

    def __init__(self, item: Any) -> None:
        super().__init__()
        self.item = item

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return dialect.type_descriptor(postgresql.ARRAY(self.item) if dialect.name == "postgresql" else sa.Text())

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        return list(value) if dialect.name == "postgresql" else orjson.dumps(list(value)).decode()


class _Among(FunctionElement[bool]):
    inherit_cache = True
    type = sa.Boolean()

    def self_group(self, against: Any = None) -> Any:
        return self  # SQLite would be asked `(…) = 1`, which no index answers


@compiles(_Among, "sqlite")
def _among_sqlite(element: _Among, compiler: Any, **kwargs: Any) -> str:
    column, values = (compiler.process(clause, **kwargs) for clause in element.clauses)
    return f"{column} IN (SELECT value FROM json_each({values}))"


@compiles(_Among, "postgresql")
def _among_postgresql(element: _Among, compiler: Any, **kwargs: Any) -> str:
    column, values = (compiler.process(clause, **kwargs) for clause in element.clauses)
    return f"{column} = ANY({values})"


def among(column: sa.ColumnElement[Any], name: str) -> sa.ColumnElement[bool]:
    """`column` is one of the values that are passed as the keyword `name`: one statement for any number of them."""
    return _Among(column, param(name, _List(column.type)))
