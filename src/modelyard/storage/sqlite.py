"""SQLite: one writer thread with group commit, readers on their own connections.

The writer takes everything queued, runs each function in its own savepoint, commits once (WAL, synchronous=FULL: one
fdatasync) and then answers all of them. Python's own transaction handling is off; BEGIN is said here.
"""

from __future__ import annotations

import queue
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy import event, exc, pool

from ..core.actor import Actor
from ..core.clock import Clock
from ..core.errors import Unavailable
from .database import Database, translate
from .unit import Unit

T = TypeVar("T")
MAX_BATCH = 256


@dataclass(frozen=True)
class _Work:
    fn: Callable[[Unit], Any]
    actor: Actor
    workspace: str
    future: Future[Any]


class SqliteDatabase(Database):
    def __init__(self, path: Path, clock: Clock, readers: int) -> None:
        self.path = path
        super().__init__(_engine(path, "BEGIN", query_only=True), readers, clock)
        self._write_engine = _engine(path, "BEGIN IMMEDIATE", query_only=False)
        self._queue: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        self._closed = False
        self._writer = threading.Thread(target=self._run, name="db-write", daemon=True)
        self._writer.start()

    @property
    def write_engine(self) -> sa.Engine:
        """For migrations only, which run before the yard serves anybody."""
        return self._write_engine

    def submit(self, fn: Callable[[Unit], T], actor: Actor, workspace: str) -> Future[T]:
        self._refuse_nesting()
        future: Future[T] = Future()
        if self._closed:
            future.set_exception(Unavailable("the yard is shutting down", code="shutting_down"))
        else:
            self._queue.put(_Work(fn, actor, workspace, future))
        return future

    def _reading(self) -> sa.Connection:
        return self.engine.connect()

    def close(self) -> None:
        self._closed = True
        self._queue.put(None)
        self._writer.join()
        self._write_engine.dispose()
        super().close()

    def _run(self) -> None:
        self._inside.unit = True
        connection: sa.Connection | None = None
        last = False
        while not last:
            batch, last = self._take()
            try:
                if connection is None:
                    connection = self._write_engine.connect()
                self._commit(connection, batch)
            except BaseException as error:
                # The outcome of a failed COMMIT (disk full, I/O error) is settled by SQLite's journal when the
                # connection is opened anew. Nobody is told that it worked.
                if connection is not None:
                    connection.invalidate()
                    connection.close()
                    connection = None
                failure = translate(error) if isinstance(error, exc.DBAPIError) else error
                for work in batch:
                    if not work.future.done():
                        work.future.set_exception(failure)
        if connection is not None:
            connection.close()

    def _take(self) -> tuple[list[_Work], bool]:
        """Wait for one piece of work, then take what else is queued; True when the queue was closed."""
        batch: list[_Work] = []
        item = self._queue.get()
        while True:
            if item is None:
                return batch, True
            if item.future.set_running_or_notify_cancel():
                batch.append(item)
            if len(batch) >= MAX_BATCH:
                return batch, False
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                return batch, False

    def _commit(self, connection: sa.Connection, batch: list[_Work]) -> None:
        if not batch:
            return
        done: list[tuple[_Work, Any]] = []
        topics: list[str] = []
        now = self.clock()
        with connection.begin():
            for work in batch:
                unit = Unit(connection, work.actor, work.workspace, now)
                connection.exec_driver_sql("SAVEPOINT unit")
                try:
                    result = work.fn(unit)
                except Exception as error:
                    connection.exec_driver_sql("ROLLBACK TO unit")
                    connection.exec_driver_sql("RELEASE unit")
                    failure = translate(error) if isinstance(error, exc.DBAPIError) else error
                    work.future.set_exception(failure)
                else:
                    connection.exec_driver_sql("RELEASE unit")
                    done.append((work, result))
                    topics += unit.topics
        for work, result in done:
            work.future.set_result(result)
        self.announce(topics)


def _engine(path: Path, begin: str, *, query_only: bool) -> sa.Engine:
    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=20)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute("PRAGMA temp_store=MEMORY")
        connection.execute("PRAGMA case_sensitive_like=ON")
        if query_only:
            connection.execute("PRAGMA query_only=ON")
        return connection

    engine = sa.create_engine("sqlite://", creator=connect, poolclass=pool.QueuePool, pool_size=8, max_overflow=8)

    @event.listens_for(engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql(begin)

    return engine
