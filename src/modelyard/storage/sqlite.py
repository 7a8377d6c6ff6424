"""SQLite: one writer thread with group commit, readers on their own connections.

The writer takes everything queued, runs each function in its own savepoint, commits once (WAL, synchronous=FULL: one
fdatasync) and then answers all of them. Python's own transaction handling is off; BEGIN is sent here.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import sqlalchemy as sa
from sqlalchemy import event, exc, pool

from ..core.actor import SYSTEM, Actor
from ..core.clock import Clock
from .database import Database, is_full, translate, unknown_outcome
from .unit import Unit
from .work import Work, Workers

T = TypeVar("T")
MAX_GROUP = 256


class SqliteDatabase(Database):
    def __init__(self, path: Path, clock: Clock, readers: int, elapsed: Clock) -> None:
        self.path = path
        super().__init__(_engine(path, "BEGIN", query_only=True), readers, clock, elapsed)
        self._write_engine = _engine(path, "BEGIN IMMEDIATE", query_only=False)
        self._connection: sa.Connection | None = None
        self._lookups: sa.Connection | None = None
        self._writer = Workers("db-write", 1, MAX_GROUP, self._handle_writes)

    @property
    def write_engine(self) -> sa.Engine:
        return self._write_engine

    async def lookup(self, fn: Callable[[Unit], T], actor: Actor = SYSTEM, workspace: str = "") -> T:
        if self._lookups is None:
            self._lookups = self.engine.connect()
        try:
            with self._lookups.begin():
                return fn(self._unit(self._lookups, actor, workspace))
        except exc.DBAPIError as error:
            raise translate(error) from error

    def _queue_write(self, work: Work) -> None:
        self._writer.put(work)

    def _reading(self) -> sa.Connection:
        return self.engine.connect()

    def close(self) -> None:
        self._writer.close()
        if self._connection is not None:
            self._connection.close()
        if self._lookups is not None:
            self._lookups.close()
        self._write_engine.dispose()
        super().close()

    def _handle_writes(self, group: list[Work]) -> None:
        self._inside.unit = True
        try:
            if self._connection is None:
                self._connection = self._write_engine.connect()
            topics = self._commit(self._connection, group)
        except BaseException as error:
            # The outcome of a failed COMMIT (disk full, I/O error) is settled by SQLite's journal when the
            # connection is opened anew. No caller gets an answer that it worked.
            if self._connection is not None:
                self._connection.invalidate()
                self._connection.close()
                self._connection = None
            raise (translate(error) if isinstance(error, exc.DBAPIError) else error) from error
        self.announce(topics)

    def _commit(self, connection: sa.Connection, group: list[Work]) -> list[str]:
        topics: list[str] = []
        now = self.clock()
        expiry_now = self.expiry.at(now)
        with _committed(connection.begin()):
            cursor = connection.connection.cursor()
            for work in group:
                unit = Unit(connection, work.actor, work.workspace, now, cursor, expiry_now)
                cursor.execute("SAVEPOINT unit")
                try:
                    work.result = work.fn(unit)
                except Exception as error:
                    cursor.execute("ROLLBACK TO unit")
                    cursor.execute("RELEASE unit")
                    work.error = translate(error) if isinstance(error, exc.DBAPIError) else error
                else:
                    cursor.execute("RELEASE unit")
                    topics += unit.topics
        return topics


@contextmanager
def _committed(transaction: sa.RootTransaction) -> Iterator[None]:
    """Commit at the end. Raises Unavailable with `unknown_outcome` when the device fails at it: the log may hold the change or not, which
    shows when it is read again. A disk that is full, though, has taken none of it."""
    with transaction:
        yield
        try:
            transaction.commit()
        except exc.OperationalError as error:
            raise (translate(error) if is_full(error) else unknown_outcome()) from error


def _engine(path: Path, begin: str, *, query_only: bool) -> sa.Engine:
    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=20)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute("PRAGMA temp_store=MEMORY")
        # Hot pages are written back once per 16 MB of log, not once per 4.
        connection.execute("PRAGMA wal_autocheckpoint=4000")
        connection.execute("PRAGMA cache_size=-8000")
        connection.execute("PRAGMA case_sensitive_like=ON")
        if query_only:
            connection.execute("PRAGMA query_only=ON")
        return connection

    engine = sa.create_engine("sqlite://", creator=connect, poolclass=pool.QueuePool, pool_size=8, max_overflow=8)

    @event.listens_for(engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql(begin)

    return engine
