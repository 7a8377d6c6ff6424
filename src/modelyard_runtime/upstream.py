"""The router's side of the way to the model servers: kept connections, answers with a deadline, large ones passed on as they come.

A model server that predicts several requests in one call says so by a file beside its socket. While it works on a request, those
that come in one turn of the event loop are written to it together, on one connection, and their answers come together as well.
"""

import asyncio
import collections
import os
import sys

import httptools

POOL = 256
RELAYED = 16
LARGE_ANSWER = 256 * 1024
TOGETHER = "together"
"""The file beside the socket of a model server that takes several requests at a time."""
MANY, SHARE = 16, 4
"""Requests travel together when so many are under way, this part of them at a time: the model server works on it while more are read."""
SMALL = 4096
"""Requests of more bytes travel alone, so that no other waits behind a large answer."""


class NotConnected(Exception):
    """Nothing listened at the socket; the request has not been sent."""


class TooLate(Exception):
    """The model server did not answer in time."""


class Stale(ConnectionResetError):
    """A kept connection was closed before it brought a byte of the answer: another one tells."""


class Replica:
    """A model server at a unix socket, of a generation of its deployment. `busy` is counted by who gives it requests."""

    def __init__(self, socket, generation=0):
        self.socket, self.generation = socket, generation
        self.loop = asyncio.get_running_loop()
        self.busy = 0
        self.down = 0.0  # until when nobody is sent there, because nothing listened
        self.gone = False
        self.together = False
        self.pace = 1.0  # seconds from one answer to the next, of late
        self.idle = []
        self.turn = []

    async def ask(self, data, deadline):
        """(status, headers, body) of the answer to a request, as bytes; the body is bytes, or a Relay. Raises NotConnected, TooLate, OSError."""
        answer = self.loop.create_future()
        call = (data, answer, deadline)
        if self.together and self.busy >= MANY and len(data) <= SMALL:
            if not self.turn:
                self.loop.call_soon(self._send_turn)
            self.turn.append(call)
            if len(self.turn) >= self.busy // SHARE:
                self._send_turn()
        elif not self._send([call]):
            return await self._ask_anew(data, deadline)
        try:
            return await answer
        except Stale:
            return await self._ask_anew(data, deadline)

    async def _ask_anew(self, data, deadline):
        """On a connection of its own."""
        try:
            connection = await self._connect()
        except OSError:
            raise NotConnected() from None
        answer = self.loop.create_future()
        connection.send([(data, answer, deadline)])
        return await answer

    def _send_turn(self):
        calls, self.turn = self.turn, []
        if calls and not self._send(calls):
            for _, answer, _ in calls:
                answer.set_exception(Stale())

    def _send(self, calls):
        """Send on a kept connection; whether there was one."""
        while self.idle:
            connection = self.idle.pop()
            if not connection.closed:
                connection.send(calls)
                return True
        return False

    async def _connect(self):
        folder = os.path.dirname(self.socket)
        self.together = os.path.exists(os.path.join(folder, TOGETHER))
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            # Through the descriptor: the path of a unix socket has 107 bytes at most.
            name = os.path.basename(self.socket)
            short = "/proc/self/fd/%d/%s" % (descriptor, name) if sys.platform.startswith("linux") else self.socket
            _, connection = await self.loop.create_unix_connection(lambda: Connection(self), short)
        finally:
            os.close(descriptor)
        return connection

    def keep(self, connection):
        if self.gone or len(self.idle) >= POOL:
            connection.transport.close()
        else:
            self.idle.append(connection)

    def leave(self):
        """It gets no more requests; what is under way comes to its end."""
        self.gone = True
        for connection in self.idle:
            connection.transport.close()
        self.idle.clear()


class Connection(asyncio.Protocol):
    """A connection to a model server, given back to its replica once everything that was asked has been answered."""

    def __init__(self, replica):
        self.replica = replica
        self.parser = httptools.HttpResponseParser(self)
        self.transport = None
        self.timer = None
        self.answers = collections.deque()  # futures, in the order in which they were asked for
        self.headers, self.body = [], []
        self.relay = None  # of the answer that arrives
        self.relays = 0  # answers that somebody still reads
        self.closed = self.reused = False

    def send(self, calls):
        self.answers.extend(answer for _, answer, _ in calls)
        self.timer = self.replica.loop.call_at(calls[0][2], self._late)
        self.transport.write(calls[0][0] if len(calls) == 1 else b"".join([data for data, _, _ in calls]))

    def _late(self):
        self._fail(TooLate, TooLate)
        self.transport.abort()

    def _fail(self, first, others):
        """What was asked gets no answer any more."""
        self.closed = True
        for kind, answer in zip((first, *(others,) * len(self.answers)), self.answers):
            if not answer.done():
                answer.set_exception(kind())
        self.answers.clear()
        if self.timer is not None:
            self.timer.cancel()

    def abort(self):
        self.closed = True
        self.transport.abort()

    # asyncio.Protocol

    def connection_made(self, transport):
        self.transport = transport

    def connection_lost(self, exc):
        others = Stale if self.reused else ConnectionResetError
        self._fail(ConnectionResetError if self.headers and self.relay is None else others, others)
        if self.relay is not None:
            self.relay.end(broken=True)

    def data_received(self, data):
        try:
            self.parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._fail(ConnectionResetError, Stale)
            self.transport.abort()

    # httptools

    def on_header(self, name, value):
        self.headers.append((name.decode("latin-1").lower(), value.decode("latin-1")))

    def on_headers_complete(self):
        length, chunked = None, False
        for name, value in self.headers:
            if name == "content-length" and value.isdigit():
                length = int(value)
            elif name == "transfer-encoding":
                chunked = True
        if chunked or length is not None and length > LARGE_ANSWER:
            self.relay = Relay(self, length)
            self._answered(self.relay)

    def on_body(self, data):
        if self.relay is not None:
            self.relay.feed(data)
        else:
            self.body.append(data)

    def on_message_complete(self):
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

    def _answered(self, body):
        if not self.answers:
            self.abort()  # nobody asked
            return
        answer = self.answers.popleft()
        if not answer.done():
            answer.set_result((self.parser.get_status_code(), self.headers, body))
        if not self.answers:
            self.timer.cancel()

    def give_back(self):
        if not self.answers and not self.relays and self.relay is None and not self.closed:
            self.reused = True
            self.replica.keep(self)


class Relay:
    """The body of an answer that is large, or whose length (bytes) is not known yet, passed on as it comes.

    `close()` once it was read, or nobody reads it any more; `done()` is called then.
    """

    def __init__(self, connection, length):
        self.connection = connection
        self.length = length
        self.chunks = collections.deque()
        self.more = asyncio.Event()
        self.ended = self.broken = self.closed = False
        self.size = 0
        self.done = None
        connection.relays += 1

    def __len__(self):
        """Bytes that have come."""
        return self.size

    def feed(self, data):
        self.chunks.append(data)
        self.size += len(data)
        self.more.set()
        if len(self.chunks) >= RELAYED:
            self.connection.transport.pause_reading()

    def end(self, broken):
        self.ended, self.broken = True, broken
        self.more.set()

    def __aiter__(self):
        return self

    async def __anext__(self):
        while not self.chunks:
            if self.ended:
                raise StopAsyncIteration
            self.more.clear()
            await self.more.wait()
        if len(self.chunks) == RELAYED and not self.connection.closed:
            self.connection.transport.resume_reading()
        return self.chunks.popleft()

    def close(self):
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
