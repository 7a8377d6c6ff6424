"""A small HTTP/1.1 server on httptools: the router listens with it to callers, the model server to the router.

A connection is kept alive: after an answer the caller may send its next request on it, and it may do so before the answer has come. That
is *pipelining*: several requests stand on one connection, and HTTP/1.1 demands that their answers come back in the order of the requests,
whichever is ready first. So a connection here holds a queue of exchanges. A request is appended when it has been read whole, the first
`concurrency` of the queue are handled at the same time, and only the answer of the very first may be written; those that are ready behind
it are written with it, in one system call.

Nothing grows without a bound. When MOST_PIPELINED requests wait on a connection, no more is read from it: the kernel's buffers fill and
the sender is blocked (*backpressure*). In the other direction an answer of many chunks is written only as fast as its reader takes it.
"""

from __future__ import annotations

import asyncio
import collections
import json
import os
import re
import signal
import socket as sockets
from typing import Any, AsyncIterator, Awaitable, Callable, Coroutine, Dict, Iterable, List, Optional, Protocol, Sequence, Tuple

import httptools

from modelyard_runtime import files
from modelyard_runtime.serving.callers import Admission, Deadline
from modelyard_runtime.serving.heads import ONCE, Framing, Refused

REASONS = {
    200: "OK", 400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found", 405: "Method Not Allowed",
    408: "Request Timeout", 411: "Length Required", 413: "Payload Too Large", 414: "URI Too Long", 415: "Unsupported Media Type", 417: "Expectation Failed",
    424: "Failed Dependency", 429: "Too Many Requests", 431: "Request Header Fields Too Large", 500: "Internal Server Error",
    501: "Not Implemented", 502: "Bad Gateway", 503: "Service Unavailable", 504: "Gateway Timeout",
}  # fmt: skip
IN_HEAD_ONLY = frozenset(name.decode() for name in ONCE)
IDLE_S = 75
"""Keep-alive: how long a connection without a request in flight stays open."""
READ_S = 30
"""How long a request may take to arrive, plus a second for each `SLOWEST` bytes; how long a reader may leave its answer unread."""
SLOWEST = 64 * 1024
LARGE_BODY = 64 * 1024
"""Requests of more bytes are admitted, by `Listener.admit`, before their body is read."""
BODIES_BYTES = 1 << 30
"""What the bodies of unanswered requests may hold together, over all connections; more are answered 503."""
LINGER_S = 2
"""How long the body of a refused request is still read and dropped: a connection closed at once would lose the answer (TCP reset)."""
PLAIN_PATH = re.compile(rb"/[\w./~%-]*", re.ASCII).fullmatch
BREAK = re.compile("[\r\n\0]")
MOST_PIPELINED = 16
"""Requests of one connection that may wait behind those that are handled; at this limit no more are read."""
Headers = Iterable[Tuple[str, str]]


class Request:
    __slots__ = ("method", "path", "query", "headers", "body", "address")

    def __init__(self, method: str, path: str, query: str, headers: dict[str, str], body: bytes, address: str = "") -> None:
        self.method = method
        self.path = path
        self.query = query
        self.headers = headers  # lower-case names; of a repeated one the last
        self.body = body
        self.address = address
        """The caller's; empty on a unix socket."""


class BodyStream(Protocol):
    """A body that is sent chunk by chunk. `close` is called once, when it has been read or its reader has gone."""

    length: int | None
    """Bytes; None when unknown."""
    broken: bool
    """The body ended early: its last bytes are missing."""

    def __aiter__(self) -> AsyncIterator[bytes]: ...

    def __len__(self) -> int:
        """Bytes so far."""
        ...

    def close(self) -> None: ...


class Exchange:
    """A request of a connection and, once it is there, its answer."""

    __slots__ = ("request", "keep", "response", "task")

    def __init__(self, request: Request, keep: bool) -> None:
        self.request, self.keep = request, keep
        self.response: Response | None = None
        self.task: asyncio.Task[None] | None = None

    def drop(self) -> None:
        """The reader has gone: nobody waits for an answer any more, and the stream of one that is there is released."""
        if self.response is None:
            if self.task is not None:
                self.task.cancel()
        elif not isinstance(self.response.body, bytes):
            self.response.body.close()


class Stream:
    """A BodyStream whose chunks come from a thread, which waits while a few of them are unread."""

    length: int | None = None

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.chunks: asyncio.Queue[bytes | None] = asyncio.Queue(8)
        self.broken = False
        self.closed = False

    def put(self, chunk: bytes) -> bool:
        """From the thread: wait for room in the queue. False when the reader has gone."""
        if not self.closed and chunk:
            asyncio.run_coroutine_threadsafe(self.chunks.put(chunk), self.loop).result()
        return not self.closed

    def end(self, broken: bool = False) -> None:
        self.broken = broken
        if not self.closed:
            asyncio.run_coroutine_threadsafe(self.chunks.put(None), self.loop).result()

    def close(self) -> None:
        """From the connection: it is gone. A thread that waits for room is let go."""
        self.closed = True
        while not self.chunks.empty():
            self.chunks.get_nowait()
        self.chunks.put_nowait(None)

    def __len__(self) -> int:
        return 0

    def __aiter__(self) -> Stream:
        return self

    async def __anext__(self) -> bytes:
        chunk = await self.chunks.get()
        if chunk is None:
            raise StopAsyncIteration
        return chunk


class Response:
    __slots__ = ("status", "body", "headers")

    def __init__(
        self, status: int, body: bytes | BodyStream = b"", headers: Headers = (), content_type: str | None = "application/json"
    ) -> None:
        self.status = status
        self.body = body
        self.headers = [("content-type", content_type), *headers] if content_type else list(headers)


Handle = Callable[[Request], Awaitable[Response]]
"""Answers a request, and never raises. It is cancelled when the caller goes away."""
Admit = Callable[[str, Dict[str, str], str], Optional[Response]]
"""Asked with path, headers and the caller's address before the body of a large request is read: the answer that refuses it, or None."""


def error(status: int, message: str, headers: Headers = ()) -> Response:
    return Response(status, json.dumps({"message": message}).encode(), headers)


class Listener:
    """What the connections of one socket share. Of the requests that are pipelined on a connection `concurrency` are handled at a time."""

    def __init__(self, handle: Handle, max_body: int, admit: Admit | None = None, concurrency: int = 1) -> None:
        self.handle = handle
        self.max_body = max_body
        self.admit = admit
        self.concurrency = concurrency
        self.peers: Sequence[int] = ()
        self.admission = Admission()
        self.held = 0  # bytes of the bodies of unanswered requests

    def busy(self) -> bool:
        return not all(connection.idle for connection in self.admission.connections)

    def renew(self, concurrency: int) -> None:
        """Handle so many of a connection's requests at a time from now on; those that are open end with their last answer, so that callers notice."""
        self.concurrency = concurrency
        for connection in list(self.admission.connections):
            connection.end()


class Connection(asyncio.Protocol):
    """One connection of a caller: bytes become requests, requests exchanges, and their answers go out in the order of the requests."""

    transport: asyncio.Transport

    def __init__(self, listener: Listener) -> None:
        self.listener = listener
        self.handle = listener.handle
        self.loop = asyncio.get_running_loop()
        self.exchanges: collections.deque[Exchange] = collections.deque()  # in the order of arrival, until they are answered
        self.handled = 0  # the first so many of them have been passed to `handle`
        self.writing = False  # one task writes the answers of all exchanges, in their order
        self.out: list[bytes] = []  # answers that are written together at the end of this turn of the event loop
        self.deadline = Deadline(self.loop, self._too_slow)
        self.closing = False
        self.address = ""
        self.paused: asyncio.Future[None] | None = None  # while the reader is behind
        self.version = "1.1"
        # The request that arrives:
        self.parser = httptools.HttpRequestParser(self)
        self.framing = Framing(self.parser.feed_data)
        self.url = b""
        self.headers: dict[str, str] = {}
        self.body: list[bytes] = []
        self.size = 0
        self.begun = False
        self.in_body = False

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        if self.listener.peers and not self._comes_from(self.listener.peers):
            self.drop()
            return
        peer = transport.get_extra_info("peername")
        self.address = peer[0] if isinstance(peer, tuple) else ""
        self.deadline.set(READ_S)
        self.listener.admission.enter(self, self.address)

    @property
    def idle(self) -> bool:
        """Without a request that is there whole and not answered."""
        return not self.exchanges

    def _comes_from(self, users: Sequence[int]) -> bool:
        """Whether one of these users, or root, has connected to this unix socket."""
        # uvloop gives out no real socket, only its number.
        with sockets.socket(fileno=os.dup(self.transport.get_extra_info("socket").fileno())) as connected:
            return files.peer_uid(connected) in (None, 0, *users)

    def end(self) -> None:
        """Answer what was asked, and nothing after it."""
        if self.exchanges:
            self.exchanges[-1].keep = False
        elif not self.begun:
            self.transport.close()

    def drop(self) -> None:
        """End it at once; what is not written yet is lost."""
        self.closing = True
        self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self.listener.admission.leave(self)
        self.listener.held -= self.size + sum(len(exchange.request.body) for exchange in list(self.exchanges)[self.handled :])
        self.size = 0
        for exchange in self.exchanges:
            exchange.drop()
        self.exchanges.clear()
        self.closing = True
        self.deadline.cancel()
        self.framing.close()
        if self.paused is not None and not self.paused.done():
            self.paused.set_result(None)

    def pause_writing(self) -> None:
        self.paused = self.loop.create_future()

    def resume_writing(self) -> None:
        if self.paused is not None and not self.paused.done():
            self.paused.set_result(None)
        self.paused = None

    async def _written(self) -> None:
        """Backpressure: returns once the reader has taken enough of what was written. One that takes nothing for READ_S is dropped."""
        if self.paused is not None:
            late = self.loop.call_later(READ_S, self.drop)
            await self.paused
            late.cancel()

    def _too_slow(self) -> None:
        if not self.exchanges and not self.closing:
            if self.begun:
                self._write(error(408, "the request did not arrive in time"), False)
            self.transport.close()

    def data_received(self, data: bytes) -> None:
        if self.closing:
            return
        try:
            self.framing.data(data)
        except httptools.HttpParserUpgrade:
            self._refuse(error(405, "this server is no proxy, and CONNECT is not answered"))
        except Refused as refused:
            self._refuse(error(refused.status, refused.message))
        except httptools.HttpParserError as problem:
            cause = problem.__context__
            if isinstance(cause, Refused):
                self._refuse(error(cause.status, cause.message))
            elif isinstance(cause, _NotAdmitted):
                self._refuse(cause.response)
            else:
                self._refuse(error(400, "this is not an HTTP/1.1 request that can be read"))
        else:
            if self.framing.inside_head and not self.begun:
                self.begun = True
                self.deadline.set(READ_S)

    def _refuse(self, response: Response) -> None:
        if not self.closing:
            self.closing = True
            if not self.exchanges:
                self._write(response, False)
                if self.transport.can_write_eof():
                    self.transport.write_eof()
                    self.loop.call_later(LINGER_S, self.transport.close)
                    return
            self.transport.close()

    # httptools: calls these while `feed_data` runs

    def on_message_begin(self) -> None:
        self.begun = True
        self.deadline.set(READ_S)

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        key = name.decode("latin-1").lower()
        if not self.in_body:
            self.headers[key] = value.decode("latin-1")
        elif key in IN_HEAD_ONLY:  # the trailer of a chunked body; its other fields are dropped (RFC 9110, 6.5.1)
            raise Refused(400, "%s cannot come after the body" % key)

    def on_headers_complete(self) -> None:
        self.in_body = True
        length = self.headers.get("content-length", "0")
        size = int(length) if length.isdigit() else 0
        if size > self.listener.max_body:
            raise Refused(413, "the body may have %d bytes at most" % self.listener.max_body)
        if self.listener.admit is not None and (size > LARGE_BODY or "transfer-encoding" in self.headers):
            refusal = self.listener.admit(self._parsed()[0], self.headers, self.address)
            if refusal is not None:
                raise _NotAdmitted(refusal)
        if self.headers.get("expect", "").lower() == "100-continue":
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, data: bytes) -> None:
        self.size += len(data)
        self.listener.held += len(data)
        if self.size > self.listener.max_body:
            raise Refused(413, "the body may have %d bytes at most" % self.listener.max_body)
        if self.listener.held > BODIES_BYTES:
            raise Refused(503, "too many large requests at the same time")
        self.framing.progressed()
        self.deadline.extend(len(data) / SLOWEST)
        self.body.append(data)

    def _parsed(self) -> tuple[str, str]:
        """(path, query) of the request that arrives."""
        if PLAIN_PATH(self.url):
            return self.url.decode("latin-1"), ""
        parsed = httptools.parse_url(self.url)
        return (parsed.path or b"/").decode("latin-1"), (parsed.query or b"").decode("latin-1")

    def on_message_complete(self) -> None:
        self.framing.completed()
        path, query = self._parsed()
        body = self.body[0] if len(self.body) == 1 else b"".join(self.body)
        request = Request(self.parser.get_method().decode("latin-1"), path, query, self.headers, body, self.address)
        keep = self.parser.should_keep_alive()
        self.version = self.parser.get_http_version()
        self.url, self.headers, self.body, self.size, self.begun, self.in_body = b"", {}, [], 0, False, False
        self.deadline.clear()
        self.exchanges.append(Exchange(request, keep))
        self._begin()
        if len(self.exchanges) >= MOST_PIPELINED + self.listener.concurrency:
            self.transport.pause_reading()

    # Exchanges

    def _begin(self) -> None:
        """Handle as many of the waiting exchanges as may be handled at a time."""
        while self.handled < min(len(self.exchanges), self.listener.concurrency):
            exchange = self.exchanges[self.handled]
            exchange.task = self.loop.create_task(self._serve(exchange))
            self.handled += 1

    async def _serve(self, exchange: Exchange) -> None:
        """Have a request answered; then write its answer and those behind it, as far as they are there without a gap."""
        try:
            exchange.response = await self.handle(exchange.request)
        finally:
            self.listener.held -= len(exchange.request.body)
        if self.transport.is_closing():
            exchange.drop()
        if self.writing:
            return
        self.writing = True
        while self.exchanges and not self.transport.is_closing():
            exchange = self.exchanges[0]
            response = exchange.response
            if response is None:
                break  # the first is not answered yet; HTTP/1.1 demands the order of the requests
            if isinstance(response.body, bytes):
                keep = self._answer(exchange, response, response.body)
            else:
                self._flush()
                keep = await self._write_stream(response, response.body, exchange.keep) and exchange.keep
            if self.paused is not None:
                await self._written()
            self._answered(keep)
        self.writing = False

    def _answer(self, exchange: Exchange, response: Response, body: bytes) -> bool:
        """Write the answer of the first exchange, or leave it to be written with the next ones. Whether the connection stays open."""
        self.out.append(_message(response, body, exchange.keep, exchange.request.method == "HEAD"))
        if len(self.exchanges) == 1 or not exchange.keep:
            self._flush()
        elif len(self.out) == 1:
            self.loop.call_soon(self._flush)
        return exchange.keep

    def _answered(self, keep: bool) -> None:
        """The first exchange is over: go on with the next, or wait for one."""
        if self.transport.is_closing() or not self.exchanges:
            return
        if not keep:
            self.closing = True
            self.transport.close()
            return
        if len(self.exchanges) == MOST_PIPELINED + self.listener.concurrency:
            self.transport.resume_reading()
        self.exchanges.popleft()
        self.handled -= 1
        if self.exchanges:
            self._begin()
        else:
            self.deadline.set(IDLE_S)

    def _flush(self) -> None:
        out, self.out = self.out, []
        if out and not self.transport.is_closing():
            self.transport.write(out[0] if len(out) == 1 else b"".join(out))

    async def _write_stream(self, response: Response, body: BodyStream, keep: bool) -> bool:
        """Chunk by chunk, as fast as the caller reads. False when the connection cannot go on."""
        lines = ["HTTP/1.1 %d %s" % (response.status, REASONS.get(response.status, "Status"))]
        lines += _fields(response)
        length = body.length
        chunked = length is None and self.version != "1.0"
        if length is not None:
            lines.append("content-length: %d" % length)
        elif chunked:
            lines.append("transfer-encoding: chunked")
        if not keep or length is None and not chunked:
            lines.append("connection: close")
        self.transport.write(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace"))
        try:
            async for chunk in body:
                if self.transport.is_closing():
                    return False
                self.transport.write(b"%x\r\n%b\r\n" % (len(chunk), chunk) if chunked else chunk)
                await self._written()
        finally:
            body.close()
        if body.broken or length is None and not chunked:
            return False  # closed without the last chunk: so the reader knows that the body is incomplete (RFC 9112, 8)
        if chunked:
            self.transport.write(b"0\r\n\r\n")
        return True

    def _write(self, response: Response, keep: bool) -> None:
        assert isinstance(response.body, bytes)
        self.transport.write(_message(response, response.body, keep))


def _fields(response: Response) -> List[str]:
    """Header lines. What a script puts into a header may not end its line, and with it the answer."""
    lines = [f"{name}: {value}" for name, value in response.headers]
    whole = "".join(lines)
    if "\n" in whole or "\r" in whole or "\0" in whole:
        return [BREAK.sub(" ", line) for line in lines]
    return lines


def _message(response: Response, body: bytes, keep: bool, head_only: bool = False) -> bytes:
    """An answer whose body is there whole, as it is written."""
    lines = ["HTTP/1.1 %d %s" % (response.status, REASONS.get(response.status, "Status"))]
    lines += _fields(response)
    lines.append(("content-length: %d\r\n\r\n" if keep else "content-length: %d\r\nconnection: close\r\n\r\n") % len(body))
    head = "\r\n".join(lines).encode("latin-1", "replace")
    return head if head_only else head + body


class _NotAdmitted(Exception):
    """Leaves the parser with the answer to a request whose body is not read."""

    def __init__(self, response: Response) -> None:
        self.response = response
        super().__init__(response.status)


async def serve(
    handle: Handle,
    max_body: int,
    socket: sockets.socket | None = None,
    host: str = "",
    port: int = 0,
    admit: Admit | None = None,
    concurrency: int = 1,
    peers: Sequence[int] = (),
) -> tuple[asyncio.AbstractServer, Listener]:
    """Listen on a bound unix socket or an address. `peers`: the users who alone are answered on a unix socket, besides root; all when empty."""
    loop = asyncio.get_running_loop()
    listener = Listener(handle, max_body, admit, concurrency)
    listener.peers = peers

    def make() -> Connection:
        return Connection(listener)

    if socket is not None:
        return await loop.create_unix_server(make, sock=socket, backlog=1024), listener
    return await loop.create_server(make, host, port, backlog=2048, reuse_address=True), listener


async def asked_to_stop() -> None:
    """Until the process gets SIGTERM or SIGINT."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await stop.wait()


async def drain(listener: Listener, seconds: float) -> None:
    """Wait until no connection has a request in flight, for `seconds` at most."""
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    while listener.busy() and loop.time() < until:
        await asyncio.sleep(0.02)


def start(main: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine on uvloop where it is there, else on asyncio's own loop."""
    try:
        import uvloop
    except ImportError:
        asyncio.run(main)
    else:
        uvloop.run(main)
