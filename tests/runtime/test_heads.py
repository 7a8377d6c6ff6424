"""Heads of requests and the callers that send them: what both doors of a yard refuse, and whom they keep."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heads import GET, REFUSED
from modelyard_runtime import files
from modelyard_runtime.serving import http1
from modelyard_runtime.serving.callers import Admission, Failures, network_of
from modelyard_runtime.serving.heads import MAX_HEAD, Framing, Refused, judged
from modelyard_runtime.serving.http1 import Request, Response


@pytest.mark.parametrize("what", REFUSED)
def test_a_head_that_two_programs_may_read_differently_is_refused(what: str) -> None:
    lines, status = REFUSED[what]
    with pytest.raises(Refused) as refused:
        judged(GET + lines + b"\r\n")
    assert refused.value.status == status


@pytest.mark.parametrize("line", [b"GET  /a HTTP/1.1", b"get /a HTTP/1.1", b"GET /a HTTP/2.0", b"GET /a", b"GET /\x80 HTTP/1.1", b""])
def test_a_request_line_is_what_the_grammar_says(line: bytes) -> None:
    with pytest.raises(Refused):
        judged(line + b"\r\nHost: a\r\n\r\n")


def test_a_long_address_has_a_status_of_its_own() -> None:
    with pytest.raises(Refused) as refused:
        judged(b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: a\r\n\r\n")
    assert refused.value.status == 414


def test_what_is_good_stays_as_it_is_and_http_1_0_needs_no_host() -> None:
    for head, length, chunked in [
        (GET + b"Host: a\r\n\r\n", 0, False),
        (b"GET / HTTP/1.0\r\n\r\n", 0, False),
        (b"POST / HTTP/1.1\r\nhOsT:a\r\nContent-Length:  12 \r\nX-Host: b\r\n\r\n", 12, False),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\nX: \xc3\xa4\r\n\r\n", 0, True),
    ]:
        assert judged(head) == (head, length, chunked)


def test_an_offer_of_another_protocol_is_not_taken() -> None:
    head = b"POST / HTTP/1.1\r\nConnection: Upgrade, HTTP2-Settings\r\nHost: a\r\nContent-Length: 2\r\nHTTP2-Settings: x\r\nUpgrade: h2c\r\n\r\n"
    assert judged(head) == (b"POST / HTTP/1.1\r\nConnection: Upgrade, HTTP2-Settings\r\nHost: a\r\nContent-Length: 2\r\n\r\n", 2, False)


class Seen:
    """What a parser behind a Framing makes of a stream: (url, body) of each request."""

    def __init__(self) -> None:
        self.requests: list[tuple[bytes, bytes]] = []
        self.url = self.body = b""
        parser = httptools.HttpRequestParser(self)
        self.framing = Framing(parser.feed_data)

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_body(self, body: bytes) -> None:
        self.framing.progressed()
        self.body += body

    def on_message_complete(self) -> None:
        self.framing.completed()
        self.requests.append((self.url, self.body))
        self.url = self.body = b""


STREAM = b"".join(
    [
        b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 12\r\n\r\nab\r\n\r\ncd\r\n\r\n",
        b"POST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 12\r\n\r\nthe same len",
        b"\r\nPOST /3 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n8\r\nx\r\n\r\n\r\ny\r\n6;e=1\r\n\r\n\r\n\r\n\r\n0\r\nA: b\r\n\r\n",
        b"POST /4 HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\nConnection: Upgrade\r\nContent-Length: 1\r\n\r\nz",
        b"POST /4 HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\nConnection: Upgrade\r\nContent-Length: 1\r\n\r\ny",
        b"POST /5 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET /6 HTTP/1.1\r\nHost: a\r\n\r\n",
    ]
)
REQUESTS = [
    (b"/1", b""), (b"/2", b"ab\r\n\r\ncd\r\n\r\n"), (b"/2", b"the same len"), (b"/3", b"x\r\n\r\n\r\ny\r\n\r\n\r\n"), (b"/4", b"z"), (b"/4", b"y"), (b"/5", b""), (b"/6", b""),
]  # fmt: skip


@given(st.lists(st.integers(0, len(STREAM)), max_size=12))
def test_requests_are_the_same_however_they_are_cut_into_packets(cuts: list[int]) -> None:
    seen, points = Seen(), [0, *sorted(cuts), len(STREAM)]
    for begin, end in zip(points, points[1:], strict=False):
        seen.framing.data(STREAM[begin:end])
    assert seen.requests == REQUESTS


def test_requests_are_the_same_byte_by_byte() -> None:
    seen = Seen()
    for byte in STREAM:
        seen.framing.data(bytes([byte]))
    assert seen.requests == REQUESTS


@pytest.mark.parametrize("size", [1, 1000, 100_000])
def test_an_endless_head_is_refused_at_its_limit(size: int) -> None:
    seen, sent = Seen(), 0
    with pytest.raises(Refused) as refused:
        for part in (b"GET / HTTP/1.1\r\nHost: a\r\nX: ", *(b"x" * size,) * (2 * MAX_HEAD // size + 2)):
            sent += len(part)
            seen.framing.data(part)
    assert refused.value.status == 431 and sent <= MAX_HEAD + size + 100
    assert len(seen.framing._head) <= 2 * MAX_HEAD


@pytest.mark.parametrize("part", [b"A: " + b"b" * 500 + b"\r\n", b"1;" + b"e" * 500], ids=["a trailer", "an extension"])
def test_what_comes_without_a_body_in_chunks_is_bounded(part: bytes) -> None:
    seen = Seen()
    seen.framing.data(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
    if part.startswith(b"A"):
        seen.framing.data(b"0\r\n")
    with pytest.raises(Refused) as refused:
        for _ in range(100):
            seen.framing.data(part)
            part = part if part.startswith(b"A") else b"e" * 500
    assert refused.value.status == 431


# A listener of them


async def _echo(request: Request) -> Response:
    return Response(200, request.body, content_type=None)


def answer_to(tmp_path: Path, *packets: bytes) -> bytes:
    """What is answered on one connection until the server closes it."""

    async def ask() -> bytes:
        server, _ = await http1.serve(_echo, 1 << 20, files.bound_socket(str(tmp_path / "sock"), 0o600))
        reader, writer = await asyncio.open_unix_connection(str(tmp_path / "sock"))
        for packet in packets:
            writer.write(packet)
            await writer.drain()
        received = await reader.read()
        writer.close()
        server.close()
        return received

    return asyncio.run(ask())


def test_the_listener_answers_java_and_keeps_its_body(tmp_path: Path) -> None:
    head = b"POST / HTTP/1.1\r\nConnection: Upgrade, HTTP2-Settings\r\nContent-Length: 4\r\nHost: a\r\nHTTP2-Settings: AAE\r\nUpgrade: h2c\r\n\r\n"
    received = answer_to(tmp_path, head, b"body", head.replace(b"Upgrade, ", b"close, Upgrade, ") + b"next")
    assert received.count(b"HTTP/1.1 200 OK") == 2 and b"\r\n\r\nbody" in received and received.endswith(b"\r\n\r\nnext")


def test_the_listener_takes_no_authorization_behind_a_body(tmp_path: Path) -> None:
    chunked = b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n"
    assert b"authorization cannot come after the body" in answer_to(tmp_path, chunked + b"Authorization: Bearer x\r\n\r\n")
    assert answer_to(tmp_path, chunked + b"Digest: x\r\n\r\n").endswith(b"\r\n\r\nx")


@pytest.mark.parametrize("what", REFUSED)
def test_the_listener_answers_what_it_refuses(tmp_path: Path, what: str) -> None:
    lines, status = REFUSED[what]
    received = answer_to(tmp_path, GET + lines + b"\r\n")
    assert received.startswith(b"HTTP/1.1 %d " % status) and b"connection: close" in received


# Whom to keep


class Caller:
    def __init__(self, idle: bool = True) -> None:
        self.idle, self.dropped = idle, False

    def drop(self) -> None:
        self.dropped = True


def test_of_one_address_the_oldest_idle_connection_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    admission = Admission(most=128)
    other = Caller()
    admission.enter(other, "127.0.0.2")
    greedy = [Caller(idle=number > 0) for number in range(40)]
    for caller in greedy:
        admission.enter(caller, "127.0.0.1")
    assert [caller.dropped for caller in greedy].count(True) == 8 and not greedy[0].dropped and all(c.dropped for c in greedy[1:9])
    assert not other.dropped and len(admission.connections) == 33


def test_where_nobody_of_an_address_is_idle_its_next_connection_is_dropped() -> None:
    admission = Admission(most=128)
    callers = [Caller(idle=False) for _ in range(33)]
    for caller in callers:
        admission.enter(caller, "127.0.0.1")
    assert [caller.dropped for caller in callers] == [*[False] * 32, True]
    elsewhere = Caller(idle=False)
    admission.enter(elsewhere, "127.0.0.2")
    assert not elsewhere.dropped
    for caller in [*callers, elsewhere]:
        admission.leave(caller)
    assert not admission.connections and not admission._of


def test_a_caller_is_an_address_or_a_network_of_ipv6() -> None:
    assert network_of("10.0.0.1") == "10.0.0.1" == network_of("::ffff:10.0.0.1")
    assert network_of("2001:db8::1") == network_of("2001:db8::ffff:1") != network_of("2001:db8:0:1::1")
    assert network_of("fe80::1%eth0") == network_of("fe80::2") and network_of("") == ""


def test_who_fails_too_often_waits_and_is_forgiven() -> None:
    now = 0.0
    failures = Failures(most=3, forgiven_s=2.0, clock=lambda: now)
    assert [failures.add("a") for _ in range(5)] == [0, 0, 0, 2, 2]
    assert failures.add("b") == 0
    now = 2.0
    assert [failures.add("a") for _ in range(2)] == [0, 2]
    now = 100.0
    assert [failures.add("a") for _ in range(4)] == [0, 0, 0, 2]


def test_the_callers_that_are_remembered_are_bounded() -> None:
    failures: Any = Failures()
    for number in range(30_000):
        failures.add(str(number))
    assert len(failures._empty_at) <= 10_000
