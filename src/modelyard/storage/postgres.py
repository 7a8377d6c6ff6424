"""PostgreSQL 15+: each write is a transaction of its own on a writer's connection; the server groups commits itself.

A server that went away is connected to again: by one thread at a time, less often the longer it is gone. Meanwhile callers are refused
at once (`Unavailable`), and nothing is queued up for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy import exc, pool

from ..core.actor import SYSTEM, Actor
from ..core.clock import Clock
from ..core.errors import Unavailable
from .database import Database, sqlstate_of, translate, unknown_outcome
from .unit import Unit
from .work import Work, Workers

T = TypeVar("T")
WRITERS = 8
_RETRYABLE = ("40001", "40P01")
"""serialization_failure and deadlock_detected: the transaction did nothing and may simply run again."""
_READ_ONLY = "25006"
"""read_only_sql_transaction: the server was made a standby. The next connection asks again which of the hosts takes writes."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 2.0


class Reconnection:
    """Who may connect when. While connecting works, everybody; after a failure one thread at a time, after a pause that doubles."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._trying = threading.Lock()
        self._pause_s = 0.0
        self._next = 0.0

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Around an attempt to connect. Raises Unavailable when it is not this thread's turn, and for the failure of the attempt."""
        alone = self._pause_s > 0
        if alone and (self._clock() < self._next or not self._trying.acquire(blocking=False)):
            raise _unreachable("it is tried again shortly")
        try:
            yield
        except exc.DBAPIError as error:
            self._pause_s = min(max(FIRST_PAUSE_S, 2 * self._pause_s), LONGEST_PAUSE_S)
            self._next = self._clock() + self._pause_s
            raise _unreachable(str(error.orig).strip().splitlines()[0][:300]) from error
        else:
            self._pause_s = 0.0
        finally:
            if alone:
                self._trying.release()


def _unreachable(reason: str) -> Unavailable:
    return Unavailable(f"the database cannot be reached: {reason}; nothing was changed", code="database_unavailable", transient=True)


class PostgresDatabase(Database):
    def __init__(self, address: str, clock: Clock, readers: int, elapsed: Clock) -> None:
        """`address`: as libpq reads it; of several hosts (`postgresql://one:5432,two:5432/yard`) the one that takes writes is chosen."""
        if importlib.util.find_spec("psycopg") is None:
            raise Unavailable("PostgreSQL needs the psycopg driver", code="missing_extra", hint="Run: pip install 'modelyard[postgres]'")
        self.address = "postgresql://" + address.split("://", 1)[1]
        # Each thread keeps a connection of its own; a pool would hand out those that a restart has ended.
        engine = sa.create_engine("postgresql+psycopg://", poolclass=pool.NullPool, connect_args=_connect_args(self.address))
        super().__init__(engine, readers, clock, elapsed)
        self._local = threading.local()
        self._open: set[sa.Connection] = set()
        self._reconnection = Reconnection()
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
            unit = self._committed(work)
            if unit is not None:
                self.announce(unit.topics)
                return
        raise Unavailable("too many changes at the same time; nothing was changed", code="contention", hint="Try again.", transient=True)

    def _committed(self, work: Work) -> Unit | None:
        """Run the unit of work and commit it. None when nothing was committed and it may run again: the connection was lost while it ran,
        or it lost a race. Once COMMIT was sent it is never run again here, as nobody can tell whether it was carried out."""
        connection = self._own_connection()
        unit = self._unit(connection, work.actor, work.workspace)
        transaction = connection.begin()
        try:
            work.result = work.fn(unit)
        except exc.DBAPIError as error:
            self._undo(transaction)
            if self._is_lost(error) or sqlstate_of(error) in _RETRYABLE:
                return None
            raise translate(error) from error
        except BaseException:
            self._undo(transaction)
            raise
        try:
            transaction.commit()
        except exc.DBAPIError as error:
            if self._is_lost(error):
                raise unknown_outcome() from error
            self._undo(transaction)
            if sqlstate_of(error) in _RETRYABLE:
                return None
            raise translate(error) from error
        return unit

    def _is_lost(self, error: exc.DBAPIError) -> bool:
        """Whether the connection is gone. One to a server that takes no writes any more is dropped, too."""
        if error.connection_invalidated or sqlstate_of(error) == _READ_ONLY:
            self._drop_connection()
        return error.connection_invalidated

    def _undo(self, transaction: sa.RootTransaction) -> None:
        try:
            transaction.rollback()
        except exc.DBAPIError:
            self._drop_connection()  # what was not committed ends with its connection

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
                work.result = work.fn(self._unit(connection, work.actor, work.workspace))
                return
            except exc.DBAPIError as error:
                if last or not error.connection_invalidated:
                    raise translate(error) from error

    def _own_connection(self, **options: Any) -> sa.Connection:
        """Each thread keeps its connection: checking one out and testing it costs more than a small statement.

        Raises Unavailable while the server cannot be reached.
        """
        connection: sa.Connection | None = getattr(self._local, "connection", None)
        if connection is not None and not connection.closed and not connection.invalidated:
            return connection
        self._drop_connection()
        with self._reconnection.attempt():
            connection = self.engine.connect().execution_options(**options)
        self._local.connection = connection
        self._open.add(connection)
        return connection

    def _drop_connection(self) -> None:
        connection: sa.Connection | None = getattr(self._local, "connection", None)
        self._local.connection = None
        if connection is not None:
            self._open.discard(connection)
            with contextlib.suppress(exc.DBAPIError, exc.InvalidRequestError):
                connection.invalidate()
            with contextlib.suppress(exc.DBAPIError):
                connection.close()

    def close(self) -> None:
        self._writers.close()
        self._readers.close()
        self._lookups.close()
        for connection in self._open:
            with contextlib.suppress(exc.DBAPIError):
                connection.close()
        super().close()


def _connect_args(address: str) -> dict[str, Any]:
    """What libpq is told, beside the address. A peer that vanished without a word is noticed within about half a minute."""
    from psycopg import ProgrammingError
    from psycopg.conninfo import conninfo_to_dict

    from ..core.errors import Invalid

    try:
        given = conninfo_to_dict(address)
    except ProgrammingError as error:
        raise Invalid(f"the address of the database cannot be read: {error}", code="invalid_database_url") from None
    several = "," in str(given.get("host") or "")
    return {
        "connect_timeout": 10, "keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 4, "tcp_user_timeout": 30_000,
        **({"target_session_attrs": "read-write"} if several else {}),
        **given,
        "options": f"{given.get('options') or ''} -c synchronous_commit=on".strip(),
    }  # fmt: skip
