"""The router as a client of the model servers: keep-alive connections, pipelined requests, deadlines, and large answers passed on.

Each replica has a pool of keep-alive connections: one is taken for a request and put back when its answer has come whole. Most requests
have a connection to themselves. A model server that predicts several requests in one call says so by a file beside its socket; while
many of its requests are in flight, those that arrive in one turn of the event loop are *pipelined* to it: written behind each other on one
connection, in one system call. HTTP/1.1 answers them in their order, so the connection keeps a queue of waiters, one for each answer.

An idle connection may have been closed by the other end. A request sent on it then gets no byte of an answer, and is sent once more on a
new connection (`Stale`). Had a byte arrived, the request may have been carried out: it is not repeated, and the caller gets an error.

A large answer is not held in memory: it is read as fast as the caller reads it, and no faster (*backpressure*).
"""

from __future__ import annotations

import asyncio
import collections
import os
from typing import Callable, Deque, List, Tuple, Union

import httptools

from modelyard_runtime import files, protocol

POOL = 256
RELAYED = 16
"""Chunks of a large answer that wait for the caller; then no more is read from the model server."""
LARGE_ANSWER = 256 * 1024
"""Answers of more bytes are passed on as they come."""
BUSY, SHARE = 16, 4
"""Requests are pipelined from BUSY in flight on, a SHARE-th of them at a time: the model server predicts one part while the next is read."""
SMALL = 4096
"""Requests of more bytes have a connection to themselves, so that no other waits behind a large answer."""


class NotConnected(Exception):
    """Nothing listened at the socket; the request has not been sent, and may go to another replica."""


class TooLate(Exception):
    """The model server did not answer in time."""


class Stale(ConnectionResetError):
    """A keep-alive connection was closed before a byte of the answer arrived: the request is sent once more, on a new one."""


Headers = List[Tuple[str, str]]
Answer = Tuple[int, Headers, Union[bytes, "Relay"]]
"""(status, headers, body)"""
Call = Tuple[bytes, "asyncio.Future[Answer]", float]
"""(the request as it is written, its answer, the loop's time by which it must have come)"""


class Replica:
    """A model server at a unix socket, of a generation of its deployment. `busy`, its requests in flight, is counted by the deployment."""

    def __init__(self, socket: str, generation: int = 0) -> None:
        self.socket, self.generation = socket, generation
        self.loop = asyncio.get_running_loop()
        self.busy = 0
        self.down = 0.0  # skipped until then (monotonic clock), because nothing listened at its socket
        self.gone = False
        self.batching = False  # it predicts several requests in one call
        self.pace = 1.0  # moving average of the seconds from one answer to the next
        self.idle: list[Connection] = []  # the pool
        self.turn: list[Call] = []  # to be pipelined at the end of this turn of the event loop

    async def ask(self, data: bytes, deadline: float) -> Answer:
        """The answer to a request. Raises NotConnected, TooLate, OSError. When it is cancelled the model server hears of it, unless others asked with it."""
        answer: asyncio.Future[Answer] = self.loop.create_future()
        call = (data, answer, deadline)
        connection: Connection | None = None
        if self.batching and self.busy >= BUSY and len(data) <= SMALL:
            if not self.turn:
                self.loop.call_soon(self._send_turn)
            self.turn.append(call)
            if len(self.turn) >= self.busy // SHARE:
                self._send_turn()
        else:
            connection = self._send([call])
            if connection is None:
                return await self._ask_anew(data, deadline)
        try:
            return await answer
        except Stale:
            return await self._ask_anew(data, deadline)
        except asyncio.CancelledError:
            if connection is not None:
                connection.abort()
            raise

    async def _ask_anew(self, data: bytes, deadline: float) -> Answer:
        """On a new connection, which has nothing else to answer."""
        try:
            connection = await self._connect()
        except OSError:
            raise NotConnected() from None
        answer: asyncio.Future[Answer] = self.loop.create_future()
        connection.send([(data, answer, deadline)])
        try:
            return await answer
        except asyncio.CancelledError:
            connection.abort()
            raise

    def _send_turn(self) -> None:
        calls, self.turn = self.turn, []
        if calls and self._send(calls) is None:
            for _, answer, _ in calls:
                answer.set_exception(Stale())

    def _send(self, calls: list[Call]) -> Connection | None:
        """Send on a connection of the pool; None when there was none."""
        while self.idle:
            connection = self.idle.pop()
            if not connection.closed:
                connection.send(calls)
                return connection
        return None

    async def _connect(self) -> Connection:
        self.batching = os.path.exists(os.path.join(os.path.dirname(self.socket), protocol.BATCHING_FILE))
        # A model server could replace its socket by a link to another's.
        with files.existing_socket(self.socket) as address:
            _, connection = await self.loop.create_unix_connection(lambda: Connection(self), address)
        return connection

    def keep(self, connection: Connection) -> None:
        """Put a connection back into the pool."""
        if self.gone or len(self.idle) >= POOL:
            connection.transport.close()
        else:
            self.idle.append(connection)

    def leave(self) -> None:
        """The replica gets no more requests; those in flight are answered."""
        self.gone = True
        for connection in self.idle:
            connection.transport.close()
        self.idle.clear()


class Connection(asyncio.Protocol):
    """A connection to a model server; back in its replica's pool once everything that was asked on it has been answered."""

    transport: asyncio.Transport

    def __init__(self, replica: Replica) -> None:
        self.replica = replica
        self.parser = httptools.HttpResponseParser(self)
        self.timer: asyncio.TimerHandle | None = None
        self.answers: Deque[asyncio.Future[Answer]] = collections.deque()  # in the order of the requests
        self.headers: Headers = []
        self.body: list[bytes] = []
        self.relay: Relay | None = None  # of the answer that arrives
        self.relays = 0  # answers that are still being relayed to callers
        self.closed = False
        self.reused = False

    def send(self, calls: list[Call]) -> None:
        """Write pipelined requests; they share the first one's deadline, since one process answers them in order."""
        self.answers.extend(answer for _, answer, _ in calls)
        self.timer = self.replica.loop.call_at(calls[0][2], self._late)
        self.transport.write(calls[0][0] if len(calls) == 1 else b"".join([data for data, _, _ in calls]))

    def _late(self) -> None:
        self._fail(TooLate, TooLate)
        self.transport.abort()

    def _fail(self, first: type[Exception], others: type[Exception]) -> None:
        """What was asked gets no answer any more: the first in the queue, whose answer may have begun, for one reason, the others for another."""
        self.closed = True
        for kind, answer in zip((first, *(others,) * len(self.answers)), self.answers):
            if not answer.done():
                answer.set_exception(kind())
        self.answers.clear()
        if self.timer is not None:
            self.timer.cancel()

    def abort(self) -> None:
        self.closed = True
        self.transport.abort()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def connection_lost(self, exc: Exception | None) -> None:
        others = Stale if self.reused else ConnectionResetError
        self._fail(ConnectionResetError if self.headers and self.relay is None else others, others)
        if self.relay is not None:
            self.relay.end(broken=True)

    def data_received(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._fail(ConnectionResetError, Stale)
            self.transport.abort()

    # httptools

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.decode("latin-1").lower(), value.decode("latin-1")))

    def on_headers_complete(self) -> None:
        length, chunked = None, False
        for name, value in self.headers:
            if name == "content-length" and value.isdigit():
                length = int(value)
            elif name == "transfer-encoding":
                chunked = True
        if chunked or length is not None and length > LARGE_ANSWER:
            self.relay = Relay(self, length)
            self._answered(self.relay)

    def on_body(self, data: bytes) -> None:
        if self.relay is not None:
            self.relay.feed(data)
        else:
            self.body.append(data)

    def on_message_complete(self) -> None:
        if self.relay is not None:
            relay, self.relay = self.relay, None
            relay.end(broken=False)
        else:
            self._answered(self.body[0] if len(self.body) == 1 else b"".join(self.body))
        self.headers, self.body = [], []
        if not self.parser.should_keep_alive():
            self.closed = True
            self.transport.close()
        self.give_back()

    def _answered(self, body: bytes | Relay) -> None:
        if not self.answers:
            self.abort()  # an answer without a request
            return
        answer = self.answers.popleft()
        if not answer.done():
            answer.set_result((self.parser.get_status_code(), self.headers, body))
        elif isinstance(body, Relay):
            body.close()  # its caller has gone
        if not self.answers and self.timer is not None:
            self.timer.cancel()

    def give_back(self) -> None:
        if not self.answers and not self.relays and self.relay is None and not self.closed:
            self.reused = True
            self.replica.keep(self)


class Relay:
    """The body of an answer that is large, or whose length (bytes) is not known yet, passed on as it arrives: an `http1.BodyStream`.

    It has one owner, who sets `done`: called once, when the body has been read or nobody reads it any more.
    """

    def __init__(self, connection: Connection, length: int | None) -> None:
        self.connection = connection
        self.length = length
        self.chunks: Deque[bytes] = collections.deque()
        self.more = asyncio.Event()
        self.ended = self.broken = self.closed = False
        self.size = 0
        self.done: Callable[[], None] | None = None
        connection.relays += 1

    def __len__(self) -> int:
        """Bytes that have come."""
        return self.size

    def feed(self, data: bytes) -> None:
        self.chunks.append(data)
        self.size += len(data)
        self.more.set()
        if len(self.chunks) >= RELAYED:
            self.connection.transport.pause_reading()

    def end(self, broken: bool) -> None:
        self.ended, self.broken = True, broken
        self.more.set()

    def __aiter__(self) -> Relay:
        return self

    async def __anext__(self) -> bytes:
        while not self.chunks:
            if self.ended:
                raise StopAsyncIteration
            self.more.clear()
            await self.more.wait()
        if len(self.chunks) == RELAYED and not self.connection.closed:
            self.connection.transport.resume_reading()
        return self.chunks.popleft()

    def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        whole = self.ended and not self.broken
        self.connection.relays -= 1
        if whole:
            self.connection.give_back()
        else:
            self.connection.abort()
        if self.done is not None:
            self.done()
