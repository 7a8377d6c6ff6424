"""A small HTTP/1.1 server protocol on httptools: shared by the router and the model server.

It reads whole requests within limits, answers in order on each connection, and leaves everything else to `handle`. Requests that
arrive behind each other on one connection may be worked on at the same time (`together`); answers that are there together are written
together.
"""

import asyncio
import collections
import json
import math
import re
import resource

import httptools

REASONS = {
    200: "OK", 400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found", 405: "Method Not Allowed",
    408: "Request Timeout", 411: "Length Required", 413: "Payload Too Large", 415: "Unsupported Media Type", 417: "Expectation Failed",
    424: "Failed Dependency", 429: "Too Many Requests", 431: "Request Header Fields Too Large", 500: "Internal Server Error",
    502: "Bad Gateway", 503: "Service Unavailable", 504: "Gateway Timeout",
}  # fmt: skip
MAX_HEADERS = 64 * 1024
MAX_HEADER_COUNT = 100
ONCE = frozenset(("content-length", "transfer-encoding", "host", "authorization"))
EXCLUDES = {"content-length": "transfer-encoding", "transfer-encoding": "content-length"}
IDLE_S = 75
READ_S = 30
"""A request has this long to arrive, and a second more for each `SLOWEST` bytes; so long may a reader take nothing."""
SLOWEST = 64 * 1024
LARGE_BODY = 64 * 1024
BODIES_BYTES = 1 << 30
"""What the bodies of unanswered requests may hold together; more are answered 503."""
LINGER_S = 2
"""How long a caller whose request was refused in its midst may go on sending, so that the answer reaches it."""
SPARE_FILES = 512
PLAIN_PATH = re.compile(rb"/[\w./~%-]*", re.ASCII).fullmatch
MOST_OPEN = 16
"""So many requests of one connection wait, then no more are read; as many again when they may be worked on together."""


class Request:
    __slots__ = ("method", "path", "query", "headers", "body")

    def __init__(self, method, path, query, headers, body):
        self.method = method
        self.path = path
        self.query = query
        self.headers = headers  # lower-case names; of a repeated one the last
        self.body = body


class Exchange:
    """A request of a connection and, once it is there, its answer."""

    __slots__ = ("request", "keep", "response")

    def __init__(self, request, keep):
        self.request, self.keep = request, keep
        self.response = None

    def drop(self):
        """Nobody reads the answer."""
        if self.response is not None and not isinstance(self.response.body, bytes):
            self.response.body.close()


class Stream:
    """Chunks on their way from a thread to a connection, a few at a time."""

    length = None

    def __init__(self, loop):
        self.loop = loop
        self.chunks = asyncio.Queue(8)
        self.broken = False
        self.closed = False

    def put(self, chunk):
        """From the thread: wait for room. False when nobody reads any more."""
        if not self.closed and chunk:
            asyncio.run_coroutine_threadsafe(self.chunks.put(chunk), self.loop).result()
        return not self.closed

    def end(self, broken=False):
        self.broken = broken
        if not self.closed:
            asyncio.run_coroutine_threadsafe(self.chunks.put(None), self.loop).result()

    def close(self):
        """From the connection: it is gone. Whoever waits for room is let go."""
        self.closed = True
        while not self.chunks.empty():
            self.chunks.get_nowait()
        self.chunks.put_nowait(None)

    def __len__(self):
        return 0

    def __aiter__(self):
        return self

    async def __anext__(self):
        chunk = await self.chunks.get()
        if chunk is None:
            raise StopAsyncIteration
        return chunk


class Response:
    """`body` is bytes, or a stream: an asynchronous iterator of chunks with `length` (None: nobody knows), `broken` and `close()`."""

    __slots__ = ("status", "body", "headers")

    def __init__(self, status, body=b"", headers=(), content_type="application/json"):
        self.status = status
        self.body = body
        self.headers = [("content-type", content_type), *headers] if content_type else list(headers)


def error(status, message, headers=()):
    return Response(status, json.dumps({"message": message}).encode(), headers)


class Listener:
    """What the connections of one socket share.

    `handle(request)` is a coroutine function that answers a Response and never raises; `together` of one connection run at a time.
    `admit(path, headers)` is asked before the body of a large request is read, and answers a Response that refuses it, or None.
    """

    def __init__(self, handle, max_body, admit=None, together=1):
        self.handle = handle
        self.max_body = max_body
        self.admit = admit
        self.together = together
        self.connections = {}  # in the order in which they came
        self.most = max(64, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - SPARE_FILES)
        self.held = 0  # bytes of bodies that arrive or are worked on

    def make_room(self):
        """End the oldest connection without a request under way, so that others are served than those who only hold one."""
        for connection in self.connections:
            if not connection.exchanges:
                connection.drop()
                return

    def busy(self):
        return any(connection.exchanges for connection in self.connections)


class Connection(asyncio.Protocol):
    def __init__(self, listener):
        self.listener = listener
        self.handle = listener.handle
        self.loop = asyncio.get_running_loop()
        self.transport = None
        self.parser = None
        self.exchanges = collections.deque()  # in the order of arrival, until they are answered
        self.begun_on = 0  # so many of them, the first ones, are worked on
        self.writing = False
        self.out = []
        self.timer = None
        self.closing = False
        self.paused = None
        self.version = "1.1"
        self._reset()

    def _reset(self):
        self.parser = httptools.HttpRequestParser(self)
        self.url = b""
        self.headers = {}
        self.header_bytes = 0
        self.header_count = 0
        self.body = []
        self.size = 0
        self.begun = False

    # transport

    def connection_made(self, transport):
        self.transport = transport
        if len(self.listener.connections) >= self.listener.most:
            self.listener.make_room()
        self.listener.connections[self] = None
        self._arm(READ_S)

    def drop(self):
        """End it at once; what is not written yet is lost."""
        self.closing = True
        self.transport.abort()

    def connection_lost(self, exc):
        self.listener.connections.pop(self, None)
        self.listener.held -= self.size + sum(len(exchange.request.body) for exchange in list(self.exchanges)[self.begun_on :])
        self.size = 0
        for exchange in self.exchanges:
            exchange.drop()
        self.exchanges.clear()
        self.closing = True
        if self.timer:
            self.timer.cancel()
        if self.paused is not None and not self.paused.done():
            self.paused.set_result(None)

    def pause_writing(self):
        self.paused = self.loop.create_future()

    def resume_writing(self):
        if self.paused is not None and not self.paused.done():
            self.paused.set_result(None)
        self.paused = None

    async def _written(self):
        """Once the reader has taken enough of what was written; one that takes nothing for long is gone."""
        if self.paused is not None:
            late = self.loop.call_later(READ_S, self.drop)
            await self.paused
            late.cancel()

    def _arm(self, seconds):
        """The deadline moves with each request; the timer only looks at it now and then."""
        self.deadline = self.loop.time() + seconds
        if self.timer is None:
            self.timer = self.loop.call_later(min(seconds, READ_S), self._too_slow)

    def _too_slow(self):
        left = self.deadline - self.loop.time()
        self.timer = None
        if left > 0.01:
            self.timer = self.loop.call_later(min(left, READ_S), self._too_slow)
        elif not self.exchanges and not self.closing:
            if self.begun:
                self._write(error(408, "the request did not arrive in time"), False)
            self.transport.close()

    def data_received(self, data):
        if self.closing:
            return
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._refuse(error(400, "upgrades are not supported"))
        except _Refused as refused:
            self._refuse(refused.response)
        except httptools.HttpParserError as problem:
            cause = problem.__context__
            if isinstance(cause, _Refused):
                self._refuse(cause.response)
            else:
                self._refuse(error(400, "this is not an HTTP/1.1 request that can be read"))

    def _refuse(self, response):
        if not self.closing:
            self.closing = True
            if not self.exchanges:
                self._write(response, False)
                if self.transport.can_write_eof():
                    self.transport.write_eof()
                    self.loop.call_later(LINGER_S, self.transport.close)
                    return
            self.transport.close()

    # parser

    def on_message_begin(self):
        self.begun = True
        self._arm(READ_S)

    def on_url(self, url):
        self.url += url
        if len(self.url) > 8192:
            raise _Refused(error(400, "the address is too long"))

    def on_header(self, name, value):
        self.header_bytes += len(name) + len(value)
        self.header_count += 1
        if self.header_bytes > MAX_HEADERS or self.header_count > MAX_HEADER_COUNT:
            raise _Refused(error(431, "the headers are too large"))
        key = name.decode("latin-1").lower()
        if key in ONCE:
            if key in self.headers:
                raise _Refused(error(400, "the header %s appears twice" % key))
            if EXCLUDES.get(key) in self.headers:
                raise _Refused(error(400, "Content-Length and Transfer-Encoding exclude each other"))
        self.headers[key] = value.decode("latin-1")

    def on_headers_complete(self):
        length = self.headers.get("content-length", "0")
        size = int(length) if length.isdigit() else 0
        if size > self.listener.max_body:
            raise _Refused(error(413, "the body may have %d bytes at most" % self.listener.max_body))
        if self.listener.admit is not None and (size > LARGE_BODY or "transfer-encoding" in self.headers):
            refusal = self.listener.admit(self._parsed()[0], self.headers)
            if refusal is not None:
                raise _Refused(refusal)
        if self.headers.get("expect", "").lower() == "100-continue":
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, data):
        self.size += len(data)
        self.listener.held += len(data)
        if self.size > self.listener.max_body:
            raise _Refused(error(413, "the body may have %d bytes at most" % self.listener.max_body))
        if self.listener.held > BODIES_BYTES:
            raise _Refused(error(503, "too many large requests at the same time"))
        self.deadline += len(data) / SLOWEST
        self.body.append(data)

    def _parsed(self):
        if PLAIN_PATH(self.url):
            return self.url.decode("latin-1"), ""
        parsed = httptools.parse_url(self.url)
        return (parsed.path or b"/").decode("latin-1"), (parsed.query or b"").decode("latin-1")

    def on_message_complete(self):
        path, query = self._parsed()
        body = self.body[0] if len(self.body) == 1 else b"".join(self.body)
        request = Request(self.parser.get_method().decode("latin-1"), path, query, self.headers, body)
        keep = self.parser.should_keep_alive()
        self.version = self.parser.get_http_version()
        self.url, self.headers, self.header_bytes, self.header_count, self.body, self.size, self.begun = b"", {}, 0, 0, [], 0, False
        self.deadline = math.inf
        self.exchanges.append(Exchange(request, keep))
        self._begin()
        if len(self.exchanges) >= MOST_OPEN + self.listener.together:
            self.transport.pause_reading()

    def _begin(self):
        while self.begun_on < min(len(self.exchanges), self.listener.together):
            self.loop.create_task(self._serve(self.exchanges[self.begun_on]))
            self.begun_on += 1

    async def _serve(self, exchange):
        exchange.response = await self.handle(exchange.request)
        self.listener.held -= len(exchange.request.body)
        if self.transport.is_closing():
            exchange.drop()
        if self.writing:
            return
        self.writing = True
        while self.exchanges and self.exchanges[0].response is not None and not self.transport.is_closing():
            exchange = self.exchanges[0]
            if isinstance(exchange.response.body, bytes):
                keep = self._answer(exchange)
            else:
                self._flush()
                keep = await self._write_stream(exchange.response, exchange.keep) and exchange.keep
            if self.paused is not None:
                await self._written()
            self._answered(keep)
        self.writing = False

    def _answer(self, exchange):
        """Write the answer of the first exchange, or leave it to be written with those of the next ones. Whether the connection goes on."""
        self.out.append(_message(exchange.response, exchange.keep, exchange.request.method == "HEAD"))
        if len(self.exchanges) == 1 or not exchange.keep:
            self._flush()
        elif len(self.out) == 1:
            self.loop.call_soon(self._flush)
        return exchange.keep

    def _answered(self, keep):
        """The first exchange is over."""
        if self.transport.is_closing() or not self.exchanges:
            return
        if not keep:
            self.closing = True
            self.transport.close()
            return
        if len(self.exchanges) == MOST_OPEN + self.listener.together:
            self.transport.resume_reading()
        self.exchanges.popleft()
        self.begun_on -= 1
        if self.exchanges:
            self._begin()
        else:
            self._arm(IDLE_S)

    def _flush(self):
        out, self.out = self.out, []
        if out and not self.transport.is_closing():
            self.transport.write(out[0] if len(out) == 1 else b"".join(out))

    async def _write_stream(self, response, keep):
        """Chunk by chunk, as fast as the caller reads. False when the connection cannot go on."""
        lines = ["HTTP/1.1 %d %s" % (response.status, REASONS.get(response.status, "Status"))]
        lines += ["%s: %s" % header for header in response.headers]
        length = response.body.length
        chunked = length is None and self.version != "1.0"
        if length is not None:
            lines.append("content-length: %d" % length)
        elif chunked:
            lines.append("transfer-encoding: chunked")
        if not keep or length is None and not chunked:
            lines.append("connection: close")
        self.transport.write(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace"))
        try:
            async for chunk in response.body:
                if self.transport.is_closing():
                    return False
                self.transport.write(b"%x\r\n%b\r\n" % (len(chunk), chunk) if chunked else chunk)
                await self._written()
        finally:
            response.body.close()
        if response.body.broken or length is None and not chunked:
            return False  # an end that is not said is how a reader knows that something is missing
        if chunked:
            self.transport.write(b"0\r\n\r\n")
        return True

    def _write(self, response, keep):
        self.transport.write(_message(response, keep))


def _message(response, keep, head_only=False):
    lines = ["HTTP/1.1 %d %s" % (response.status, REASONS.get(response.status, "Status"))]
    lines += [f"{name}: {value}" for name, value in response.headers]
    lines.append(
        "content-length: %d\r\n\r\n" % len(response.body)
        if keep
        else "content-length: %d\r\nconnection: close\r\n\r\n" % len(response.body)
    )
    head = "\r\n".join(lines).encode("latin-1", "replace")
    return head if head_only else head + response.body


class _Refused(Exception):
    def __init__(self, response):
        self.response = response
        super().__init__(response.status)


async def serve(handle, max_body, path=None, host=None, port=None, admit=None, together=1):
    """Listen on a unix socket or an address. (server, its Listener)"""
    loop = asyncio.get_running_loop()
    listener = Listener(handle, max_body, admit, together)

    def make():
        return Connection(listener)

    if path is not None:
        return await loop.create_unix_server(make, path, backlog=1024), listener
    return await loop.create_server(make, host, port, backlog=2048, reuse_address=True), listener


def start(main):
    """Run a coroutine on uvloop where it is there, else on asyncio's own loop."""
    try:
        import uvloop
    except ImportError:
        asyncio.run(main)
    else:
        uvloop.run(main)
