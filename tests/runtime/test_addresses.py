"""Which addresses the yard connects to for others, and the proxy that is the only way out of a build."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from modelyard.core.addresses import AddressGuard
from modelyard.core.errors import Invalid, NotFound
from modelyard_runtime import addresses
from modelyard_runtime.addresses import Allowed, Refused, judge, parse_allowed
from modelyard_runtime.protocol import Egress
from modelyard_runtime.supervision.egress import Proxy

PRIVATE = (
    "127.0.0.1", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "0.0.0.0", "0", "localhost", "localhost.", "10.0.0.1", "172.16.5.4",
    "192.168.1.1", "169.254.169.254", "100.64.0.1", "224.0.0.1", "255.255.255.255", "240.0.0.1", "192.0.0.1", "198.18.0.1",
    "::1", "::", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::127.0.0.1", "fe80::1", "fe80::1%lo", "fc00::1", "fd12::1", "fec0::1", "ff02::1",
    "64:ff9b::7f00:1", "2002:7f00:1::1", "2001:0:7f00:1::1",
)  # fmt: skip


@pytest.mark.parametrize("host", PRIVATE)
def test_no_spelling_of_a_private_address_is_connected_to(host: str) -> None:
    with pytest.raises((Refused, addresses.Unresolved)):
        judge(host, 80, "data", ())


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_public_addresses_are_connected_to(address: str) -> None:
    assert judge(address, 443, "data", ()) == [address]


@pytest.mark.parametrize("address", ["127.0.0.1", "169.254.169.254", "::1", "::ffff:169.254.169.254", "0.0.0.0", "224.0.0.1"])
def test_a_step_of_the_operators_alone_reaches_other_networks_but_not_this_machine(address: str) -> None:
    assert judge("10.0.0.1", 80, "environments", (), private=True) == ["10.0.0.1"]
    with pytest.raises(Refused):
        judge(address, 80, "environments", (), private=True)


def test_a_host_one_of_whose_addresses_is_private_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [(2, 1, 6, "", ("8.8.8.8", 80)), (2, 1, 6, "", ("10.0.0.1", 80))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *arguments, **more: answers)
    with pytest.raises(Refused, match=r"rebinds\.example \(10\.0\.0\.1\) port 80"):
        judge("rebinds.example", 80, "data", ())


def test_the_operator_opens_a_host_a_port_and_a_purpose_and_no_more() -> None:
    opened = parse_allowed("127.0.0.1:8080=data, 10.0.0.0/8:443=environments [::1]:9=data,localhost:7")
    assert opened == [
        Allowed("127.0.0.1", 8080, "data"),
        Allowed("10.0.0.0/8", 443, "environments"),
        Allowed("::1", 9, "data"),
        Allowed("localhost", 7),
    ]
    assert parse_allowed(",".join(map(str, opened))) == opened
    judge("127.0.0.1", 8080, "data", opened)
    judge("127.1", 8080, "data", opened)
    judge("10.9.8.7", 443, "environments", opened)
    judge("::1", 9, "data", opened)
    judge("LOCALHOST", 7, "data", opened)
    for host, port, purpose in (("127.0.0.1", 8081, "data"), ("127.0.0.1", 8080, "environments"), ("10.9.8.7", 443, "data")):
        with pytest.raises(Refused):
            judge(host, port, purpose, opened)
    for wrong in ("127.0.0.1:0", "a:70000", "a=lunch", "http://a", "10.0.0.1/8:3"):
        with pytest.raises(Invalid, match="setting allow_addresses"):
            AddressGuard.of_setting(wrong)


def test_a_refusal_says_what_would_open_the_address() -> None:
    with pytest.raises(Invalid, match=r"127\.0\.0\.1 port 3141 is not a public address") as refused:
        AddressGuard().judge("http://127.0.0.1:3141/simple", "environments")
    assert refused.value.code == "private_address" and "allow_addresses, here `127.0.0.1:3141=environments`" in str(refused.value.hint)
    with pytest.raises(NotFound):
        AddressGuard().judge("http://no-such-host.invalid/", "data")
    for url in ("ftp://8.8.8.8/x", "http:///x", "http://8.8.8.8:x/", "file:///etc/passwd"):
        with pytest.raises(Invalid):
            AddressGuard().judge(url, "data")


@contextmanager
def listening(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """A server on the loopback; `serve` takes each connection."""
    listener = socket.create_server(("127.0.0.1", 0))

    def loop() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                serve(connection)

    threading.Thread(target=loop, daemon=True).start()
    yield listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


def asked(egress: Egress, request: bytes) -> bytes:
    """What the proxy answers to one request."""
    listener = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=Proxy(egress).serve, args=(listener,), daemon=True).start()
    with socket.create_connection(listener.getsockname(), 10) as connection:
        connection.sendall(request)
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
    return answer


def test_the_way_out_judges_each_connection_and_passes_on_what_it_may() -> None:
    heard: list[bytes] = []

    def serve(connection: socket.socket) -> None:
        heard.append(connection.recv(65536))
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")

    with listening(serve) as port:
        request = (
            f"GET http://127.0.0.1:{port}/a?b HTTP/1.1\r\nHost: x\r\nProxy-Authorization: secret\r\nConnection: keep-alive\r\n\r\n".encode()
        )
        tunnel = f"CONNECT 127.0.0.1:{port} HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.0\r\n\r\n".encode()
        for one in (request, tunnel, request.replace(b"127.0.0.1", b"127.1"), tunnel.replace(b"127.0.0.1", b"[::ffff:127.0.0.1]")):
            assert asked(Egress([]), one).startswith(b"HTTP/1.1 403 ")
            assert asked(Egress([], private=True), one).startswith(b"HTTP/1.1 403 ")
        assert heard == []
        opened = Egress([f"127.0.0.1:{port}=environments"])
        assert asked(opened, request).endswith(b"\r\n\r\nhi")
        assert heard.pop() == b"GET /a?b HTTP/1.1\r\nConnection: close\r\nHost: x\r\n\r\n"
        assert asked(opened, tunnel).startswith(b"HTTP/1.1 200 Connection established\r\n\r\nHTTP/1.1 200 OK")
        assert heard.pop() == b"GET / HTTP/1.0\r\n\r\n"


@pytest.mark.parametrize(
    "request_",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"CONNECT 8.8.8.8 HTTP/1.1\r\n\r\n",
        b"GET ftp://a/ HTTP/1.1\r\n\r\n",
        b"x\r\n\r\n",
        b"GET https://8.8.8.8/ HTTP/1.1\r\n\r\n",
    ],
)
def test_what_is_no_request_to_a_proxy_is_refused(request_: bytes) -> None:
    assert asked(Egress([]), request_).startswith(b"HTTP/1.1 400 ")


def test_behind_the_operators_proxy_everything_public_goes_through_it() -> None:
    heard: list[bytes] = []

    def outer(connection: socket.socket) -> None:
        heard.append(connection.recv(65536))
        if heard[-1].startswith(b"CONNECT"):
            connection.sendall(b"HTTP/1.1 200 fine\r\n\r\n")
            heard.append(connection.recv(65536))
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")

    with listening(outer) as port:
        proxies = {
            "http_proxy": f"http://me:pass@127.0.0.1:{port}",
            "https_proxy": f"http://127.0.0.1:{port}",
            "no_proxy": "10.0.0.0,.inside",
        }
        behind = Egress([], proxies=proxies)
        plain = asked(behind, b"GET http://only-the-proxy-knows.invalid/x HTTP/1.1\r\nHost: h\r\n\r\n")
        assert plain.endswith(b"hi")
        assert heard.pop().startswith(b"GET http://only-the-proxy-knows.invalid/x HTTP/1.1\r\nProxy-Authorization: Basic bWU6cGFzcw==\r\n")
        assert asked(behind, b"CONNECT 8.8.8.8:443 HTTP/1.1\r\n\r\nhello").endswith(b"hi")
        assert heard == [b"CONNECT 8.8.8.8:443 HTTP/1.1\r\nHost: 8.8.8.8:443\r\n\r\n", b"hello"]
        assert asked(behind, b"GET http://127.0.0.1:1/ HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 403 ")
        assert len(heard) == 2
