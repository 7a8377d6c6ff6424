"""PostgreSQL 15+: each write is a transaction of its own on a writer's connection; the server groups commits itself."""

from __future__ import annotations

import asyncio
import importlib.util
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy import exc

from ..core.actor import SYSTEM, Actor
from ..core.clock import Clock
from ..core.errors import Unavailable
from .database import Database, translate
from .unit import Unit
from .work import Work, Workers

T = TypeVar("T")
WRITERS = 8
_RETRYABLE = ("40001", "40P01")
"""serialization_failure and deadlock_detected: the transaction did nothing and may simply run again."""


class PostgresDatabase(Database):
    def __init__(self, url: str, clock: Clock, readers: int) -> None:
        if importlib.util.find_spec("psycopg") is None:
            raise Unavailable("PostgreSQL needs the psycopg driver", code="missing_extra", hint="Run: pip install 'modelyard[postgres]'")
        address = url.split("://", 1)[1]
        engine = sa.create_engine(
            f"postgresql+psycopg://{address}",
            pool_size=WRITERS + readers + 2,
            max_overflow=8,
            connect_args={"options": "-c synchronous_commit=on", "connect_timeout": 10},
        )
        super().__init__(engine, readers, clock)
        self._local = threading.local()
        self._open: list[sa.Connection] = []
        self._writers = Workers("db-write", WRITERS, 1, self._handle_write)
        self._lookups = Workers("db-lookup", 2, 1, self._handle_lookup)

    @property
    def write_engine(self) -> sa.Engine:
        return self.engine

    def _queue_write(self, work: Work) -> None:
        self._writers.put(work)

    def _handle_write(self, group: list[Work]) -> None:
        (work,) = group
        self._inside.unit = True
        for _ in range(4):
            connection = self._own_connection()
            try:
                with connection.begin() as transaction:
                    unit = Unit(connection, work.actor, work.workspace, self.clock())
                    try:
                        work.result = work.fn(unit)
                    except exc.DBAPIError as error:
                        # Nothing was committed yet, so a lost connection or a lost race may simply run again.
                        if error.connection_invalidated or getattr(error.orig, "sqlstate", None) in _RETRYABLE:
                            transaction.rollback()
                            continue
                        raise
            except exc.DBAPIError as error:
                raise translate(error) from error
            self.announce(unit.topics)
            return
        raise Unavailable("too many changes at the same time; nothing was changed", code="contention", hint="Try again.", transient=True)

    @contextmanager
    def _reading(self) -> Iterator[sa.Connection]:
        connection = self._own_connection(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        with connection.begin():
            yield connection

    async def lookup(self, fn: Callable[[Unit], T], actor: Actor = SYSTEM, workspace: str = "") -> T:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._lookups.put(Work(fn, actor, workspace, future, loop))
        return await future

    def _handle_lookup(self, group: list[Work]) -> None:
        """Without a transaction around it: each statement sees what is committed, and two round trips are saved."""
        (work,) = group
        for last in (False, True):
            connection = self._own_connection(isolation_level="AUTOCOMMIT")
            try:
                work.result = work.fn(Unit(connection, work.actor, work.workspace, self.clock()))
                return
            except exc.DBAPIError as error:
                if last or not error.connection_invalidated:
                    raise translate(error) from error

    def _own_connection(self, **options: Any) -> sa.Connection:
        """Each thread keeps its connection: checking one out and testing it costs more than a small statement."""
        connection: sa.Connection | None = getattr(self._local, "connection", None)
        if connection is None or connection.closed or connection.invalidated:
            if connection is not None:
                connection.close()
                self._open.remove(connection)
            connection = self._local.connection = self.engine.connect().execution_options(**options)
            self._open.append(connection)
        return connection

    def close(self) -> None:
        self._writers.close()
        self._readers.close()
        self._lookups.close()
        for connection in self._open:
            connection.close()
        super().close()
