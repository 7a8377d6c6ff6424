"""The unit of work: one transaction, who acts in it, and what it changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from ..core.actor import Actor
from . import tables

_EVENT_ORDER_LOCK = 0x79617264
"""PostgreSQL advisory lock: units that record an event commit one after the other, so `seq` is the order of commit."""


class Unit:
    """Passed to every service function. SQL only: no network, byte work or user code while it is open.

    `now` is the time in milliseconds, the same for the whole unit.
    """

    def __init__(self, connection: sa.Connection, actor: Actor, workspace: str, now: int) -> None:
        self.connection = connection
        self.actor = actor
        self.workspace = workspace
        self.now = now
        self.topics: list[str] = []

    def execute(self, statement: sa.Executable, parameters: Any = None) -> sa.CursorResult[Any]:
        return self.connection.execute(statement, parameters)

    def one(self, statement: sa.Executable) -> sa.Row[Any] | None:
        return self.connection.execute(statement).first()

    def all(self, statement: sa.Executable) -> Sequence[sa.Row[Any]]:
        return self.connection.execute(statement).all()

    def scalar(self, statement: sa.Executable) -> Any:
        return self.connection.execute(statement).scalar()

    def insert_new(self, table: sa.Table, row: Mapping[str, Any]) -> bool:
        """Insert a row unless its primary key is there already; whether it was new."""
        return self.connection.execute(self._insert(table).on_conflict_do_nothing(), [dict(row)]).rowcount > 0

    def insert_ignore(self, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> None:
        """Insert many rows, leaving out those whose primary key is there already."""
        if rows:
            self.connection.execute(self._insert(table).on_conflict_do_nothing(), rows)

    def upsert(self, table: sa.Table, rows: Sequence[Mapping[str, Any]], guard: Any = None) -> None:
        """Insert rows, or overwrite the non-key columns of those that exist by primary key.

        `guard`, given the insert's `excluded` columns, returns the condition under which an existing row is replaced.
        """
        if not rows:
            return
        keys = [column.name for column in table.primary_key.columns]
        statement = self._insert(table)
        changed = {name: statement.excluded[name] for name in rows[0] if name not in keys}
        if changed:
            where = guard(statement.excluded) if guard is not None else None
            statement = statement.on_conflict_do_update(index_elements=keys, set_=changed, where=where)
        else:
            statement = statement.on_conflict_do_nothing()
        self.connection.execute(statement, [dict(row) for row in rows])

    def _insert(self, table: sa.Table) -> Any:
        return postgresql.insert(table) if self.connection.dialect.name == "postgresql" else sqlite.insert(table)

    def record(self, topic: str, subject: str, **detail: Any) -> None:
        """Write what happened: one row that is both audit and event. Telemetry does not come here."""
        if self.connection.dialect.name == "postgresql" and not self.topics:
            self.connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_EVENT_ORDER_LOCK)))
        self.connection.execute(
            sa.insert(tables.events),
            {
                "time_ms": self.now,
                "workspace": self.workspace,
                "actor": self.actor.name,
                "topic": topic,
                "subject": subject,
                "detail": detail,
            },
        )
        self.topics.append(topic)
