"""The unit of work: one transaction, who acts in it, and what it changed."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import orjson
import sqlalchemy as sa
from sqlalchemy import exc

from ..core.actor import SYSTEM, Actor
from . import tables
from .statements import Compiled, Existing, Overwrite, Statement, insert_of, insert_of_documents, param, row_counts

_LOCK_EVENTS = Statement(sa.select(sa.func.pg_advisory_xact_lock(param("key", sa.BigInteger))))
_EVENT_ORDER = 0x79617264
"""PostgreSQL advisory lock: units that record an event commit one after the other, so `seq` is the order of commit."""

_FETCHING = threading.Lock()

Query = Statement | sa.Executable
"""A `Statement`, or for queries that are put together per call a plain Core object, whose structure SQLAlchemy compiles once and
keeps among the 500 used last, whatever the values in it."""
Row = Mapping[str, Any] | tuple[Any, ...]
"""To be written: values by column, every row with the same ones, or a tuple of all of the table's columns in their order."""


class Unit:
    """Passed to every service function. SQL only: no network, byte work or user code while it is open.

    `now` is the time in milliseconds, the same for the whole unit; `expiry_now` the one by which tokens and the like expire, which never
    goes back; `dialect` is `sqlite` or `postgresql`.
    """

    def __init__(self, connection: sa.Connection, actor: Actor, workspace: str, now: int, cursor: Any = None, expiry_now: int = 0) -> None:
        self.connection = connection
        self.dialect = connection.dialect.name
        self._cursor = cursor
        self.actor = actor
        self.workspace = workspace
        self.now = now
        self.expiry_now = max(now, expiry_now)
        self.topics: list[str] = []
        self._recorded = False

    def at(self, workspace: str) -> Unit:
        """The same unit of work in another workspace: permissions are checked there."""
        unit = Unit(self.connection, self.actor, workspace, self.now, self._cursor, self.expiry_now)
        unit.topics = self.topics
        return unit

    def trusted(self, name: str | None = None) -> Unit:
        """The same unit of work with the yard's own rights, under the caller's name or another: for a step of a use case that was
        permitted as a whole, or that a principal ordered beforehand."""
        unit = Unit(self.connection, replace(SYSTEM, name=name or self.actor.name), self.workspace, self.now, self._cursor, self.expiry_now)
        unit.topics = self.topics
        return unit

    def ping(self) -> None:
        """Raises what the database raises when it does not answer."""
        self.connection.execute(sa.text("SELECT 1"))

    def rows(self, query: Query, **values: Any) -> list[Any]:
        """All rows, their values by the names of the columns, documents and booleans decoded."""
        if not isinstance(query, Statement):
            return list(self.connection.execute(query, values or None).all())
        compiled = query.compiled(self.dialect)
        return compiled.decode(_fetch_all(self._drive(compiled, compiled.arguments(values))))

    def row(self, query: Query, **values: Any) -> Any:
        """The first row; None when there is none."""
        if not isinstance(query, Statement):
            return self.connection.execute(query, values or None).first()
        compiled = query.compiled(self.dialect)
        row = self._drive(compiled, compiled.arguments(values)).fetchone()
        return None if row is None else compiled.decode((row,))[0]

    def value(self, query: Query, **values: Any) -> Any:
        """The first column of the first row; None when there is none."""
        row = self.row(query, **values)
        return None if row is None else row[0]

    def run(self, query: Query, **values: Any) -> int:
        """Run an update or delete; how many rows it changed."""
        if not isinstance(query, Statement):
            return self.connection.execute(query, values or None).rowcount
        compiled = query.compiled(self.dialect)
        return int(self._drive(compiled, compiled.arguments(values)).rowcount)

    def insert(self, table: sa.Table, *rows: Row, keep_existing: bool = False) -> int:
        """Insert rows; how many. With `keep_existing` one whose key, or another value that is unique, is there already changes nothing."""
        return self._write(table, rows, "keep" if keep_existing else "refuse")

    def upsert(self, table: sa.Table, *rows: Row, when: Overwrite | None = None) -> None:
        """Insert rows, or overwrite those with the same primary key, `when` that holds; of several with one key the last counts."""
        self._write(table, rows, when or "overwrite")

    def _write(self, table: sa.Table, rows: Sequence[Row], existing: Existing) -> int:
        if not rows:
            return 0
        columns = None if isinstance(rows[0], tuple) else tuple(rows[0])
        single = insert_of(table, columns, existing, self.dialect)
        if len(rows) == 1:
            return int(self._drive(single, single.arguments(rows[0])).rowcount)
        if columns and any(row.keys() != rows[0].keys() for row in rows):  # type: ignore[union-attr]
            raise ValueError(f"the rows for {table.name} do not all have the same columns")
        arguments = [single.arguments(row) for row in rows] if single.encoders or columns else rows
        if self.dialect == "postgresql":
            return self._write_documents(table, single.parameters, arguments, existing)
        written = start = 0
        for size in row_counts(len(arguments)):
            statement = insert_of(table, columns, existing, self.dialect, size)
            written += self._drive(statement, [value for row in arguments[start : start + size] for value in row]).rowcount
            start += size
        return written

    def _write_documents(self, table: sa.Table, columns: tuple[str, ...], rows: Sequence[Any], existing: Existing) -> int:
        if existing not in ("refuse", "keep"):
            # PostgreSQL refuses to overwrite a row twice in one statement.
            keys = [columns.index(column.name) for column in table.primary_key.columns]
            rows = list({tuple(row[key] for key in keys): row for row in rows}.values())
        if any(type(value) is float and not math.isfinite(value) for row in rows for value in row):
            raise ValueError(f"rows for {table.name} hold a number that JSON has no word for; the caller says what it means")
        documents = orjson.dumps([dict(zip(columns, row, strict=True)) for row in rows]).decode()
        return int(self._drive(insert_of_documents(table, columns, existing), [documents]).rowcount)

    def _drive(self, compiled: Compiled, arguments: Sequence[Any]) -> Any:
        """The driver's cursor after the statement; it is read before the next one runs."""
        try:
            if self._cursor is None:
                if not self.connection.in_transaction():
                    self.connection.begin()
                self._cursor = self.connection.connection.cursor()
            self._cursor.execute(compiled.text, arguments)
        except Exception as error:
            raise self._translated(error, compiled.text) from error
        return self._cursor

    def _translated(self, error: Exception, text: str) -> Exception:
        """What SQLAlchemy raises for an error of the driver."""
        dialect = self.connection.dialect
        error_class = dialect.loaded_dbapi.Error
        if not isinstance(error, error_class):
            return error
        lost = dialect.is_disconnect(error, self.connection.connection, self._cursor)
        if lost:
            self.connection.invalidate(error)
        return exc.DBAPIError.instance(text, None, error, error_class, connection_invalidated=lost, dialect=dialect)

    def wake(self, topic: str) -> None:
        """Wake the loops that listen to `topic` once this is committed, without an event: for changes that other rows show already."""
        self.topics.append(topic)

    def record(self, topic: str, subject: str, **detail: Any) -> None:
        """Write what happened: one row that is both audit and event. Telemetry does not come here."""
        if self.dialect == "postgresql" and not self._recorded:
            self.run(_LOCK_EVENTS, key=_EVENT_ORDER)
        row = {
            "time_ms": self.now,
            "workspace": self.workspace,
            "actor": self.actor.name,
            "topic": topic,
            "subject": subject,
            "detail": detail,
        }
        self.insert(tables.events, row)
        self._recorded = True
        self.topics.append(topic)


def _fetch_all(cursor: Any) -> list[Any]:
    # sqlite3 releases the GIL at every row: threads that fetch at the same time would pass it back and
    # forth at each, at three times the cost. So they fetch one after the other; the first row is located by now.
    rows: list[Any] = []
    while True:
        with _FETCHING:
            chunk = cursor.fetchmany(1000)
        rows += chunk
        if len(chunk) < 1000:
            return rows
