"""The client's HTTP: what a library did for it before. Each server here is a socket that answers as it is told."""

from __future__ import annotations

import gzip
import re
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from modelyard.core.errors import Invalid, Unavailable
from modelyard.sdk.connection import Connection
from modelyard.sdk.http import Client, Disconnected, post
from modelyard.sdk.transport import Transport

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


class Server:
    """Takes connections one after the other. Each of `answers` is for one request: bytes, or a function of (connection, request)."""

    def __init__(
        self, *answers: bytes | Callable[[socket.socket, bytes], None], context: ssl.SSLContext | None = None, keep: bool = True
    ) -> None:
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.requests: list[bytes] = []
        self.connections = 0
        self._answers, self._context, self._keep = list(answers), context, keep
        threading.Thread(target=self._serve, daemon=True).start()

    @property
    def url(self) -> str:
        return f"{'https' if self._context else 'http'}://127.0.0.1:{self.listening.getsockname()[1]}"

    def close(self) -> None:
        self.listening.close()

    def _serve(self) -> None:
        while self._answers:
            try:
                connection, _ = self.listening.accept()
                self.connections += 1
                with self._context.wrap_socket(connection, server_side=True) if self._context else connection as talking:
                    self._talk(talking)
            except OSError:
                if self.listening.fileno() == -1:
                    return

    def _talk(self, connection: socket.socket) -> None:
        while self._answers and (head := _head(connection)):
            self.requests.append(head)
            answer = self._answers.pop(0)
            if callable(answer):
                answer(connection, head)
            else:
                connection.sendall(answer)
            if not self._keep:
                return


def _head(connection: socket.socket) -> bytes:
    """A request with its body, where its length is stated: closing before all of it was read would reset the connection."""
    data = b""
    while (end := data.find(b"\r\n\r\n")) < 0 or len(data) < end + 4 + _length(data[:end]):
        chunk = connection.recv(65536)
        if not chunk:
            return data
        data += chunk
    return data


def _length(head: bytes) -> int:
    stated = re.search(rb"(?i)content-length: (\d+)", head)
    return int(stated[1]) if stated else 0


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def start(*answers: Any, **options: Any) -> Server:
        servers.append(Server(*answers, **options))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def transport(server: Server) -> Transport:
    return Transport(Connection(server.url, "yard_token", "default"))


def test_requests_share_a_connection_and_a_stream_has_one_of_its_own(serve: Callable[..., Server]) -> None:
    server = serve(OK, OK, OK)
    with closing(Client(server.url)) as client:
        assert [client.request("GET", "/a").json() for _ in range(3)] == [{}] * 3
    assert server.connections == 1


def test_a_connection_that_the_server_closed_meanwhile_is_not_used(serve: Callable[..., Server]) -> None:
    server = serve(OK, OK, keep=False)  # says keep-alive, and closes
    with closing(Client(server.url)) as client:
        client.request("POST", "/a", json_body={})
        while not _ended(client):
            time.sleep(0.005)
        assert client.request("POST", "/b", json_body={}).status == 200
    assert server.connections == 2 and len(server.requests) == 2, "nothing was sent into the closed one"


def _ended(client: Client) -> bool:
    sock = client._idle[0].sock
    assert sock is not None
    try:
        return sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n",
        b"nonsense\r\n\r\n",
    ],
)
def test_an_answer_that_breaks_off_is_never_taken_for_a_whole_one(serve: Callable[..., Server], answer: bytes) -> None:
    with closing(Client(serve(answer, keep=False).url)) as client, pytest.raises(Disconnected):
        client.request("GET", "/a")


def test_an_unknown_outcome_is_asked_for_again_under_the_same_key(serve: Callable[..., Server]) -> None:
    server = serve(b"", OK, keep=False)
    assert transport(server).call("POST", "/api/v1/x", body={"a": 1}) == {}
    keys = [line for request in server.requests for line in request.split(b"\r\n") if line.startswith(b"Idempotency-Key")]
    assert len(keys) == 2 and keys[0] == keys[1]


def test_nobody_listening_is_said_at_once() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(Unavailable, match="Connection refused") as refused:
        Transport(Connection(f"http://127.0.0.1:{port}", "t", "default")).call("GET", "/api/v1/x")
    assert refused.value.code == "unreachable" and "yard up" in refused.value.hint


@pytest.mark.parametrize(
    ("url", "token", "words"), [("127.0.0.1:7780", "t", "http://"), ("ftp://host", "t", "http://"), ("http://host", "a\nb", "token")]
)
def test_an_address_or_token_that_cannot_be_used_is_refused_without_showing_it(url: str, token: str, words: str) -> None:
    with pytest.raises(Unavailable, match=words) as refused:
        Transport(Connection(url, token, "default"))
    assert "a\nb" not in str(refused.value)


def test_a_refusal_before_the_whole_body_was_read_is_heard(serve: Callable[..., Server]) -> None:
    body = b'{"error": {"kind": "invalid", "code": "quota", "message": "too much", "request_id": "r"}}'
    refusal = b"HTTP/1.1 400 Bad Request\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(body) + body

    def refuse(connection: socket.socket, head: bytes) -> None:
        connection.sendall(refusal)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(1 << 20):  # what was on its way; a reset would take the answer with it
            pass

    with pytest.raises(Invalid, match="too much"):
        transport(serve(refuse, keep=False)).send("POST", "/api/v1/x", (b"x" * 65536 for _ in range(200)), {})


def test_a_file_that_vanishes_while_it_is_sent_is_not_taken_for_a_broken_connection(serve: Callable[..., Server]) -> None:
    def body() -> Iterator[bytes]:
        yield b"x"
        raise FileNotFoundError("gone.bin")

    with pytest.raises(FileNotFoundError, match=r"gone\.bin"):
        transport(serve(OK)).send("PUT", "/api/v1/x", body(), {})


def test_a_stream_comes_as_it_is_written_and_in_lines(serve: Callable[..., Server]) -> None:
    going_on = threading.Event()

    def write(connection: socket.socket, head: bytes) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab\n\r\n")
        assert going_on.wait(30)
        connection.sendall("5\r\ncé\nd\r\n0\r\n\r\n".encode())

    with transport(serve(write)).stream("/api/v1/x") as response:
        lines = response.lines()
        assert next(lines) == "ab"
        going_on.set()
        assert list(lines) == ["cé", "d"]


def test_names_and_parameters_are_escaped_once(serve: Callable[..., Server]) -> None:
    server = serve(OK)
    transport(server).call("GET", "/api/v1/a b/é/50%/x%20y", params={"f": "a=b & c", "many": ["1", "2"], "on": True, "left": None})
    assert server.requests[0].split(b" ")[1] == b"/api/v1/a%20b/%C3%A9/50%25/x%20y?f=a%3Db+%26+c&many=1&many=2&on=true"


def test_an_address_may_have_a_path_and_be_of_version_6(serve: Callable[..., Server]) -> None:
    server = serve(OK)
    assert post(server.url + "/below/score", b"{}", {"Content-Type": "application/json"}).status == 200
    assert server.requests[0].startswith(b"POST /below/score HTTP/1.1\r\n")
    client = Client("http://[::1]:80/yard/")
    assert (client._host, client._target("/api", None)) == ("::1", "/yard/api")


def test_compressed_answers_are_read_and_proxies_are_not_asked(serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("all_proxy", "http://127.0.0.1:9")
    body = gzip.compress(b'{"a": 1}')
    server = serve(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    assert transport(server).call("GET", "/api/v1/x") == {"a": 1}
    assert b"Authorization: Bearer yard_token" in server.requests[0] and b"Accept-Encoding: gzip" in server.requests[0]


def test_a_tls_server_is_trusted_by_its_authority_alone(
    serve: Callable[..., Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=yard", "-addext", "subjectAltName=IP:127.0.0.1",
         "-keyout", key, "-out", certificate], check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = serve(OK, context=context)
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    with pytest.raises(Unavailable, match="CERTIFICATE_VERIFY_FAILED"):
        transport(server).call("GET", "/api/v1/x")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    assert transport(server).call("GET", "/api/v1/x") == {}
