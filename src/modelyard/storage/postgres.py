"""PostgreSQL 15+: each write is a transaction of its own on a pooled connection; the server groups commits itself."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import sqlalchemy as sa
from sqlalchemy import exc

from ..core.actor import Actor
from ..core.clock import Clock
from ..core.errors import Unavailable
from .database import Database, translate
from .unit import Unit

T = TypeVar("T")
WRITERS = 8
_RETRYABLE = ("40001", "40P01")
"""serialization_failure and deadlock_detected: the transaction did nothing and may simply run again."""


class PostgresDatabase(Database):
    def __init__(self, url: str, clock: Clock, readers: int) -> None:
        if importlib.util.find_spec("psycopg") is None:
            raise Unavailable("PostgreSQL needs the psycopg driver", code="missing_extra", hint="Run: pip install 'modelyard[postgres]'")
        rest = url.split("://", 1)[1]
        engine = sa.create_engine(
            f"postgresql+psycopg://{rest}",
            pool_size=WRITERS + readers,
            max_overflow=0,
            pool_pre_ping=True,
            connect_args={"options": "-c synchronous_commit=on", "connect_timeout": 10},
        )
        super().__init__(engine, readers, clock)
        self._writers = ThreadPoolExecutor(WRITERS, thread_name_prefix="db-write")

    @property
    def write_engine(self) -> sa.Engine:
        return self.engine

    def submit(self, fn: Callable[[Unit], T], actor: Actor, workspace: str) -> Future[T]:
        self._refuse_nesting()
        return self._writers.submit(self._transaction, fn, actor, workspace)

    def _transaction(self, fn: Callable[[Unit], T], actor: Actor, workspace: str) -> T:
        self._inside.unit = True
        try:
            for _ in range(4):
                try:
                    with self.engine.begin() as connection:
                        unit = Unit(connection, actor, workspace, self.clock())
                        result = fn(unit)
                    self.announce(unit.topics)
                    return result
                except exc.DBAPIError as error:
                    if getattr(error.orig, "sqlstate", None) not in _RETRYABLE:
                        raise translate(error) from error
            raise Unavailable("too many changes at the same time; nothing was changed", code="contention", hint="Try again.")
        finally:
            self._inside.unit = False

    def _reading(self) -> sa.Connection:
        return self.engine.connect().execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)

    def close(self) -> None:
        self._writers.shutdown(wait=True)
        super().close()
