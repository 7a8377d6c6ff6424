"""The unit of work: one transaction, who acts in it, and what it changed."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import orjson
import sqlalchemy as sa
from sqlalchemy import exc

from ..core.actor import SYSTEM, Actor
from . import tables
from .prepared import MANY, Prepared, Typed, writing

_EVENT_ORDER_LOCK = 0x79617264
"""PostgreSQL advisory lock: units that record an event commit one after the other, so `seq` is the order of commit."""

_FETCHING = threading.Lock()


class Unit:
    """Passed to every service function. SQL only: no network, byte work or user code while it is open.

    `now` is the time in milliseconds, the same for the whole unit.
    """

    def __init__(self, connection: sa.Connection, actor: Actor, workspace: str, now: int, cursor: Any = None) -> None:
        self.connection = connection
        self._cursor = cursor
        self.actor = actor
        self.workspace = workspace
        self.now = now
        self.topics: list[str] = []
        self._recorded = False

    def at(self, workspace: str) -> Unit:
        """The same unit of work, looking at another workspace: its permissions are asked there."""
        other = Unit(self.connection, self.actor, workspace, self.now, self._cursor)
        other.topics = self.topics
        return other

    def trusted(self, name: str | None = None) -> Unit:
        """The same unit of work with the yard's own rights, under the caller's name or another: for a step of a use case that was
        permitted as a whole, or that somebody ordered beforehand."""
        other = Unit(self.connection, replace(SYSTEM, name=name or self.actor.name), self.workspace, self.now, self._cursor)
        other.topics = self.topics
        return other

    def ping(self) -> None:
        """Raises what the database raises when it does not answer."""
        self.connection.execute(sa.text("SELECT 1"))

    def execute(self, statement: sa.Executable, parameters: Any = None) -> sa.CursorResult[Any]:
        return self.connection.execute(statement, parameters)

    def one(self, statement: sa.Executable) -> sa.Row[Any] | None:
        return self.connection.execute(statement).first()

    def all(self, statement: sa.Executable) -> Sequence[sa.Row[Any]]:
        return self.connection.execute(statement).all()

    def scalar(self, statement: sa.Executable) -> Any:
        return self.connection.execute(statement).scalar()

    def run(self, statement: Prepared, **values: Any) -> Any:
        """Run a prepared statement; the driver's cursor, to be read before the next one runs."""
        text, names, fixed = statement.compiled(self.connection.dialect.name)
        given = {**fixed, **values} if fixed else values
        return self._drive(text, [given[name] for name in names])

    def rows(self, statement: Prepared, **values: Any) -> list[Any]:
        """All rows as plain tuples."""
        cursor = self.run(statement, **values)
        # sqlite3 lets go of the interpreter at every row: threads that fetch at the same time would hand it to and
        # fro at each, at three times the cost. So they fetch in turns; the search for the first row is done by now.
        found: list[Any] = []
        while True:
            with _FETCHING:
                some = cursor.fetchmany(1000)
            found += some
            if len(some) < 1000:
                return found

    def row(self, statement: Prepared, **values: Any) -> Any:
        return self.run(statement, **values).fetchone()

    def run_many(self, statement: Prepared, rows: Sequence[tuple[Any, ...]]) -> None:
        """Insert rows; the values of each in the order in which the statement names them."""
        dialect = self.connection.dialect.name
        text, names, _ = statement.compiled(dialect)
        if len(rows) == 1:
            self._drive(text, rows[0])
        elif rows and dialect == "postgresql":
            self._drive(statement.many(dialect, 0), [orjson.dumps([dict(zip(names, row, strict=True)) for row in rows]).decode()])
        else:
            for start in range(0, len(rows), MANY):
                some = rows[start : start + MANY]
                self._drive(statement.many(dialect, len(some)), [value for row in some for value in row])

    def listed(self, values: list[Any]) -> Any:
        """The value of an `among` parameter."""
        return values if self.connection.dialect.name == "postgresql" else orjson.dumps(values).decode()

    def _drive(self, text: str, values: Sequence[Any], many: bool = False) -> Any:
        if self._cursor is None:
            if not self.connection.in_transaction():
                self.connection.begin()
            self._cursor = self.connection.connection.cursor()
        try:
            (self._cursor.executemany if many else self._cursor.execute)(text, values)
        except Exception as error:
            base = self.connection.dialect.loaded_dbapi.Error
            if not isinstance(error, base):
                raise
            dialect = self.connection.dialect
            lost = dialect.is_disconnect(error, self.connection.connection, self._cursor)
            if lost:
                self.connection.invalidate(error)
            raise exc.DBAPIError.instance(text, None, error, base, connection_invalidated=lost, dialect=dialect) from error
        return self._cursor

    def found(self, statement: Typed, **values: Any) -> list[Any]:
        """All rows as tuples, documents and booleans decoded."""
        self._drive(statement.compiled(self.connection.dialect.name)[0], statement.encoded(self.connection.dialect.name, values))
        return [statement.decoded(row) for row in self._cursor.fetchall()]

    def changed(self, statement: Typed, **values: Any) -> int:
        """Run an update or delete; how many rows it changed."""
        text = statement.compiled(self.connection.dialect.name)[0]
        return int(self._drive(text, statement.encoded(self.connection.dialect.name, values)).rowcount)

    def insert(self, table: sa.Table, row: Mapping[str, Any]) -> None:
        self.changed(writing(table, tuple(row), "insert"), **row)

    def insert_new(self, table: sa.Table, row: Mapping[str, Any]) -> bool:
        """Insert a row unless its primary key is there already; whether it was new."""
        return self.changed(writing(table, tuple(row), "new"), **row) > 0

    def upsert(self, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> None:
        """Insert rows, or overwrite the non-key columns of those that exist by primary key."""
        if not rows:
            return
        statement = writing(table, tuple(rows[0]), "upsert")
        dialect = self.connection.dialect.name
        text = statement.compiled(dialect)[0]
        if len(rows) == 1:
            self._drive(text, statement.encoded(dialect, rows[0]))
        else:
            self._drive(text, [statement.encoded(dialect, row) for row in rows], many=True)

    def wake(self, topic: str) -> None:
        """Wake the loops that listen to `topic` once this is committed, without a row: for what rows tell already."""
        self.topics.append(topic)

    def record(self, topic: str, subject: str, **detail: Any) -> None:
        """Write what happened: one row that is both audit and event. Telemetry does not come here."""
        if self.connection.dialect.name == "postgresql" and not self._recorded:
            self.connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_EVENT_ORDER_LOCK)))
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
