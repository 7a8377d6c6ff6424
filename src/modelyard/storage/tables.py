"""The shared metadata, and the tables that belong to no feature: events, leases, idempotency keys."""

from __future__ import annotations

from typing import Any

import orjson
import sqlalchemy as sa
from sqlalchemy import Table as Table
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator

metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


class Json(TypeDecorator[Any]):
    """A plain document stored as text: the same bytes on both databases, encoded by orjson."""

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        return None if value is None else orjson.dumps(value).decode()

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        return None if value is None else orjson.loads(value)


Serial = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
"""An integer key that both databases number by themselves (SQLite only does so for INTEGER)."""

Bytewise = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
"""Text ordered by its bytes on both databases, so that a prefix is a range of the index."""

events = sa.Table(
    "events",
    metadata,
    sa.Column("seq", Serial, primary_key=True, autoincrement=True),
    sa.Column("time_ms", sa.BigInteger, nullable=False),
    sa.Column("workspace", sa.Text, nullable=False),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("topic", sa.Text, nullable=False),
    sa.Column("subject", sa.Text, nullable=False),
    sa.Column("detail", Json, nullable=False),
    sa.Column("hash", sa.Text),
    sa.Index("ix_events_workspace_subject", "workspace", "subject"),
    sqlite_autoincrement=True,
)

leases = sa.Table(
    "leases",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("owner", sa.Text, nullable=False),
    sa.Column("token", sa.BigInteger, nullable=False),
    sa.Column("expires_ms", sa.BigInteger, nullable=False),
)

identity = sa.Table("identity", metadata, sa.Column("id", sa.Text, primary_key=True))
"""One row, written when the database is created: by it a home recognizes the database it belongs to, at any address."""

high_water = sa.Table(
    "high_water", metadata, sa.Column("id", sa.Integer, primary_key=True), sa.Column("time_ms", sa.BigInteger, nullable=False)
)
"""One row, `id` 1: the latest time that things expired by."""

cursors = sa.Table("cursors", metadata, sa.Column("reader", sa.Text, primary_key=True), sa.Column("seq", sa.BigInteger, nullable=False))
"""How far each reader of the event log has come."""

idempotency = sa.Table(
    "idempotency",
    metadata,
    sa.Column("actor", sa.Text, primary_key=True),
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("request", sa.Text, nullable=False),
    sa.Column("answer", Json),
    sa.Column("time_ms", sa.BigInteger, nullable=False),
)
