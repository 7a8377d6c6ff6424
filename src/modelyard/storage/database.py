"""One interface to both databases.

db = open_database("sqlite:///…/yard.db")
job = await db.write(lambda unit: jobs.submit(unit, spec), actor, workspace)
"""

from __future__ import annotations

import asyncio
import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AbstractContextManager
from typing import TypeVar

import sqlalchemy as sa
from sqlalchemy import exc

from ..core.actor import SYSTEM, Actor
from ..core.clock import Clock, ExpiryClock
from ..core.errors import Conflict, Invalid, Unavailable, YardError
from .unit import Unit
from .work import Work, Workers

log = logging.getLogger(__name__)
T = TypeVar("T")
Listener = Callable[[list[str]], None]
"""Called after a commit with the topics it recorded, on the thread that committed."""


class Database(ABC):
    """`write` returns only after the change survives a power cut. Opening a unit inside a unit raises RuntimeError."""

    def __init__(self, engine: sa.Engine, readers: int, clock: Clock, elapsed: Clock) -> None:
        self.engine = engine
        self.clock = clock
        self.expiry = ExpiryClock(elapsed)
        self.elapsed = elapsed
        self.listeners: list[Listener] = []
        self._inside = threading.local()
        self._readers = Workers("db-read", readers, 1, self._handle_read)

    def _unit(self, connection: sa.Connection, actor: Actor, workspace: str) -> Unit:
        now = self.clock()
        return Unit(connection, actor, workspace, now, None, self.expiry.at(now))

    @property
    def dialect(self) -> str:
        return self.engine.dialect.name

    @property
    @abstractmethod
    def write_engine(self) -> sa.Engine:
        """For migrations and maintenance only, which run while no request is served."""

    async def write(self, fn: Callable[[Unit], T], actor: Actor = SYSTEM, workspace: str = "") -> T:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._queue_write(Work(fn, actor, workspace, future, loop))
        return await future

    def submit(self, fn: Callable[[Unit], T], actor: Actor, workspace: str) -> Future[T]:
        """`write` for code that has no event loop: the future ends after it is durable, or with the error that undid it."""
        self._refuse_nesting()
        future: Future[T] = Future()
        self._queue_write(Work(fn, actor, workspace, future, None))
        return future

    def write_now(self, fn: Callable[[Unit], T], actor: Actor = SYSTEM, workspace: str = "") -> T:
        return self.submit(fn, actor, workspace).result()

    async def read(self, fn: Callable[[Unit], T], actor: Actor = SYSTEM, workspace: str = "") -> T:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._readers.put(Work(fn, actor, workspace, future, loop))
        return await future

    async def lookup(self, fn: Callable[[Unit], T], actor: Actor = SYSTEM, workspace: str = "") -> T:
        """A read of a few index lookups. SQLite does it here and now: cheaper than handing it to a thread."""
        return await self.read(fn, actor, workspace)

    def read_now(self, fn: Callable[[Unit], T], actor: Actor = SYSTEM, workspace: str = "") -> T:
        self._refuse_nesting()
        self._inside.unit = True
        try:
            try:
                with self._reading() as connection:
                    return fn(self._unit(connection, actor, workspace))
            except exc.DBAPIError as error:
                if not error.connection_invalidated:
                    raise
            with self._reading() as connection:  # the connection was lost, probably while it was idle
                return fn(self._unit(connection, actor, workspace))
        except exc.DBAPIError as error:
            raise translate(error) from error
        finally:
            self._inside.unit = False

    def _handle_read(self, group: list[Work]) -> None:
        (work,) = group
        work.result = self.read_now(work.fn, work.actor, work.workspace)

    @abstractmethod
    def _queue_write(self, work: Work) -> None: ...

    @abstractmethod
    def _reading(self) -> AbstractContextManager[sa.Connection]: ...

    def close(self) -> None:
        self._readers.close()
        self.engine.dispose()

    def announce(self, topics: list[str]) -> None:
        if topics:
            for listener in self.listeners:
                listener(topics)

    def _refuse_nesting(self) -> None:
        if getattr(self._inside, "unit", False):
            raise RuntimeError("a unit of work is open on this thread already; pass it instead of opening another")


def unknown_outcome() -> Unavailable:
    """For a commit that was sent and not answered."""
    return Unavailable(
        "the database did not say whether this change was made",
        code="unknown_outcome",
        hint="Send the same request again with the same Idempotency-Key: it is carried out once.",
        transient=True,
    )


def sqlstate_of(error: exc.DBAPIError) -> str | None:
    """PostgreSQL's code of an error (its manual, appendix A); None for other drivers, and when no server answered."""
    return getattr(error.orig, "sqlstate", None)


def is_full(error: exc.DBAPIError) -> bool:
    text = str(error.orig).lower()
    return "disk is full" in text or "no space" in text


def translate(error: exc.DBAPIError) -> YardError:
    """The core error for what a database driver raised."""
    text = str(error.orig).lower()
    if sqlstate_of(error) == "25006":
        return Unavailable(
            "the database takes no writes at present: it is a standby, or was made read-only; nothing was changed",
            code="database_read_only",
            hint="Reads go on. Writes follow when it takes them again, or another host of its address does.",
            transient=True,
        )
    if isinstance(error, exc.IntegrityError):
        return Conflict("this was changed at the same time by somebody else", code="concurrent_change", hint="Try again.", transient=True)
    if is_full(error):
        return Unavailable(
            "the yard's disk is full; nothing was changed",
            code="insufficient_storage",
            hint="Free some space, then try again.",
            transient=True,
        )
    if "malformed" in text or "not a database" in text:
        log.critical("the database is damaged: %s", error)
        return Unavailable(
            "the database is damaged; nothing was changed",
            code="database_damaged",
            hint="Stop the yard, and restore a backup: yard restore FILE",
        )
    if isinstance(error, exc.DataError) or "integer out of range" in text or "too large" in text or "surrogates" in text:
        return Invalid("a value does not fit what the database can hold", code="invalid_value")
    log.error("the database refused: %s", error)
    return Unavailable("the database could not do this at present; nothing was changed", code="database_unavailable", transient=True)
