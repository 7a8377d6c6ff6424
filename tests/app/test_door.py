"""The way in of the server, without a yard behind it: what it refuses, whom it keeps, and that a body is not lost."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from heads import GET, REFUSED
from modelyard.app import door
from modelyard.app.door import Door
from modelyard_runtime.serving.callers import Admission

T = TypeVar("T")
Port = int


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """The headers that an application sees, and the body; below /deaf an answer before the body."""
    body, unread = b"", scope["path"] != "/deaf"
    while unread:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body += message["body"]
        unread = message["more_body"]
    shown = json.dumps({"headers": [name.decode() for name, _ in scope["headers"]], "body": body.decode()}).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(shown))]})
    await send({"type": "http.response.body", "body": shown})


def behind(story: Callable[[Port], Awaitable[T]], admission: Admission | None = None) -> T:
    """Run a story against the door on a port of loopback."""

    async def whole() -> T:
        listener = socket.create_server(("127.0.0.1", 0))
        protocol = partial(Door, admission or Admission(most=128))
        server = uvicorn.Server(uvicorn.Config(echo, http=protocol, lifespan="off", log_level="error", timeout_graceful_shutdown=1))  # type: ignore[arg-type]
        server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign, assignment]
        serving = asyncio.create_task(server.serve([listener]))
        while not server.started:
            await asyncio.sleep(0)
        try:
            return await story(listener.getsockname()[1])
        finally:
            server.should_exit = True
            await serving

    return asyncio.run(whole())


async def ask(port: Port, *packets: bytes, source: str = "127.0.0.1") -> bytes:
    """All that is answered until the door closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(source, 0))
    try:
        for packet in packets:
            writer.write(packet)
            await writer.drain()
        return await reader.read()
    finally:
        writer.close()


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "LINGER_S", 0.05)


CLOSE = b"Connection: close\r\n"


def test_the_door_answers_what_it_refuses_with_the_documented_body() -> None:
    async def each(port: Port) -> list[bytes]:
        return [await ask(port, GET + lines + b"\r\n") for lines, _ in REFUSED.values()]

    for answer, (what, (_, status)) in zip(behind(each), REFUSED.items(), strict=True):
        head, _, body = answer.partition(b"\r\n\r\n")
        error = json.loads(body)["error"]
        assert head.startswith(b"HTTP/1.1 %d " % status) and b"connection: close" in head, what
        assert error["code"] == "unreadable_request" and f"x-request-id: {error['request_id']}".encode() in head


def test_the_body_of_javas_client_is_not_lost() -> None:
    head = b"POST / HTTP/1.1\r\nConnection: close, Upgrade, HTTP2-Settings\r\nContent-Length: 4\r\nHost: a\r\nHTTP2-Settings: x\r\nUpgrade: h2c\r\n\r\n"
    answer = behind(lambda port: ask(port, head, b"body"))
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["body"] == "body"


def test_what_follows_a_chunked_body_is_no_header_of_the_request() -> None:
    chunked = b"POST / HTTP/1.1\r\nHost: a\r\n" + CLOSE + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n"
    assert b"authorization cannot come after the body" in behind(lambda port: ask(port, chunked, b"Authorization: Bearer x\r\n\r\n"))
    seen = json.loads(behind(lambda port: ask(port, chunked, b"X-Late: x\r\n\r\n")).partition(b"\r\n\r\n")[2])
    assert seen == {"headers": ["host", "connection", "transfer-encoding"], "body": "x"}


def test_a_request_that_does_not_arrive_is_answered_408(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "READ_S", 0.05)
    for packets in [(b"GET / HTTP/1.1\r\nHo",), (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n", b"half")]:
        assert behind(lambda port, packets=packets: ask(port, *packets)).startswith(b"HTTP/1.1 408 ")  # type: ignore[misc]
    assert behind(ask) == b"", "and a connection on which nothing comes is closed"


def test_a_head_has_a_limit_before_it_is_there_whole() -> None:
    answer = behind(lambda port: ask(port, GET + b"Host: a\r\n", *(b"X: " + b"x" * 10_000 + b"\r\n",) * 8))
    assert answer.startswith(b"HTTP/1.1 431 ")


def test_a_large_body_that_nobody_reads_ends_the_connection_and_a_small_one_does_not() -> None:
    head = b"POST /deaf HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n"

    async def endless(port: Port) -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head % (1 << 30))
        with pytest.raises(ConnectionError):
            while True:
                writer.write(b"x" * (1 << 20))
                await writer.drain()

    behind(endless)
    after = GET + b"Host: a\r\n" + CLOSE + b"\r\n"
    assert behind(lambda port: ask(port, head % (1 << 20), b"x" * (1 << 20), after)).count(b"HTTP/1.1 200 ") == 2


def test_heads_that_never_end_keep_neither_others_nor_their_own_address_out() -> None:
    async def story(port: Port) -> list[bytes]:
        held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(200)]
        for _, writer in held:
            writer.write(b"GET / HTTP/1.1\r\nHost: ")
        answers = [await ask(port, GET + b"Host: a\r\n" + CLOSE + b"\r\n", source=source) for source in ("127.0.0.1", "127.0.0.2")]
        for _, writer in held:
            writer.close()
        return answers

    admission = Admission(most=128)
    assert [answer[:15] for answer in behind(story, admission)] == [b"HTTP/1.1 200 OK"] * 2
