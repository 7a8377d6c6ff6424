"""The one way out of a build's network: a forward proxy that resolves, judges, and connects to the very address it judged.

It takes `CONNECT host:port` and plain `http://` requests (RFC 9110, sections 7.1 and 9.3.6), one upstream a connection; a redirect makes
the client connect anew, so it is judged as well. Behind a proxy of the operator's, that one resolves what this machine cannot.
"""

from __future__ import annotations

import base64
import select
import socket
import sys
import threading
from typing import Any, Callable, Tuple
from urllib.parse import SplitResult, unquote, urlsplit

from modelyard_runtime import addresses, protocol
from modelyard_runtime.addresses import Allowed

PURPOSE = "environments"
MOST_HEAD = 64 << 10
MOST_CONNECTIONS = 256
HEAD_S = 30.0
CONNECT_S = 30.0
IDLE_S = 300.0
_CHUNK = 1 << 18
Upstream = Tuple[socket.socket, bool]
"""A connection, and whether it leads to the operator's own proxy."""


class BadRequest(ValueError):
    """What came is no request to a proxy."""


class Proxy:
    def __init__(self, egress: protocol.Egress) -> None:
        self.allowed: list[Allowed] = [entry for text in egress.allowed for entry in addresses.parse_allowed(text)]
        self.private = egress.private
        self.outer = egress.proxies
        self._bypassed: Callable[[str], Any] = lambda host: True
        if self.outer:
            from urllib.request import proxy_bypass_environment  # type: ignore[attr-defined]  # slow to load, and not to be had once confined

            self._bypassed = lambda host: proxy_bypass_environment(host, {"no": self.outer.get("no_proxy", "")})
        self._free = threading.BoundedSemaphore(MOST_CONNECTIONS)

    def serve(self, listener: socket.socket) -> None:
        """Until the process ends."""
        while True:
            client, _ = listener.accept()
            if not self._free.acquire(blocking=False):
                client.close()
                continue
            threading.Thread(target=self._serve_one, args=(client,), daemon=True).start()

    def _serve_one(self, client: socket.socket) -> None:
        try:
            client.settimeout(HEAD_S)
            self._handle(client)
        except BadRequest as error:
            _refuse(client, 400, str(error))
        except addresses.Refused as error:
            print("[modelyard] refused: %s" % error, file=sys.stderr, flush=True)
            _refuse(client, 403, str(error))
        except (addresses.Unresolved, OSError) as error:
            _refuse(client, 502, str(error))
        finally:
            client.close()
            self._free.release()

    def _handle(self, client: socket.socket) -> None:
        head, rest = _head(client)
        line, _, fields = head.partition(b"\r\n")
        method, target, version = _request_line(line)
        tunnel = method == "CONNECT"
        url = urlsplit("https://" + target if tunnel else target)
        host, port = _endpoint(url, tunnel)
        upstream, outer = self._connect(url.scheme, host, port)
        with upstream:
            if tunnel:
                client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            else:
                shown = target if outer else (url.path or "/") + ("?" + url.query if url.query else "")
                kept = b"\r\n".join(field for field in fields.split(b"\r\n") if not _is_hop(field))
                own = self._authorization("http") if outer else b""
                # One request a connection: the next may be for another host.
                upstream.sendall(("%s %s %s\r\n" % (method, shown, version)).encode() + own + b"Connection: close\r\n" + kept + b"\r\n\r\n")
            if rest:
                upstream.sendall(rest)
            _relay(client, upstream)

    def _connect(self, scheme: str, host: str, port: int) -> Upstream:
        outer = self.outer.get(scheme + "_proxy") or self.outer.get("all_proxy")
        if outer and not self._bypassed(host):
            return self._connect_through(outer, scheme, host, port), True
        failure: OSError | None = None
        for address in addresses.judge(host, port, PURPOSE, self.allowed, private=self.private):
            try:
                return socket.create_connection((address, port), CONNECT_S), False
            except OSError as error:
                failure = error
        raise failure or OSError("%s cannot be reached" % host)

    def _connect_through(self, outer: str, scheme: str, host: str, port: int) -> socket.socket:
        """A connection to `host` through the operator's proxy, which this machine may need even to resolve names."""
        try:
            addresses.judge(host, port, PURPOSE, self.allowed, private=self.private)
        except addresses.Unresolved:
            pass
        parts = urlsplit(outer if "://" in outer else "http://" + outer)
        upstream = socket.create_connection((parts.hostname or "", parts.port or 80), CONNECT_S)
        if scheme == "http":
            return upstream
        shown = "[%s]:%d" % (host, port) if ":" in host else "%s:%d" % (host, port)
        upstream.sendall(("CONNECT %s HTTP/1.1\r\nHost: %s\r\n" % (shown, shown)).encode() + self._authorization(scheme) + b"\r\n")
        head, rest = _head(upstream)
        if head.split(b" ", 2)[1:2] != [b"200"] or rest:
            upstream.close()
            raise OSError("the proxy %s answered %s" % (parts.hostname, head.split(b"\r\n")[0].decode("ascii", "replace")))
        return upstream

    def _authorization(self, scheme: str) -> bytes:
        parts = urlsplit(self.outer.get(scheme + "_proxy") or self.outer.get("all_proxy") or "")
        if parts.username is None:
            return b""
        pair = "%s:%s" % (unquote(parts.username), unquote(parts.password or ""))
        return b"Proxy-Authorization: Basic " + base64.b64encode(pair.encode()) + b"\r\n"


def _head(connection: socket.socket) -> tuple[bytes, bytes]:
    """(the lines of a message's head, what came behind it)."""
    data = b""
    while b"\r\n\r\n" not in data:
        chunk = connection.recv(_CHUNK)
        if not chunk or len(data) > MOST_HEAD:
            raise BadRequest("the head of a request does not end")
        data += chunk
    head, _, rest = data.partition(b"\r\n\r\n")
    return head, rest


def _request_line(line: bytes) -> tuple[str, str, str]:
    words = line.decode("ascii", "replace").split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        raise BadRequest("no request line")
    return words[0], words[1], words[2]


def _endpoint(url: SplitResult, tunnel: bool) -> tuple[str, int]:
    try:
        host, port = url.hostname, url.port
    except ValueError:
        host, port = None, None
    if not host or (tunnel and port is None) or url.scheme not in ("http", "https") or (url.scheme == "https") != tunnel:
        raise BadRequest("a proxy takes CONNECT host:port or an http:// address")
    return host, 80 if port is None else port


def _is_hop(field: bytes) -> bool:
    return field.split(b":")[0].strip().lower() in (
        b"connection",
        b"proxy-connection",
        b"proxy-authorization",
        b"keep-alive",
        b"te",
        b"upgrade",
    )


def _refuse(client: socket.socket, status: int, reason: str) -> None:
    body = (reason + "\n").encode("utf-8", "replace")
    head = "HTTP/1.1 %d Refused\r\nContent-Type: text/plain\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % (status, len(body))
    try:
        client.sendall(head.encode() + body)
    except OSError:
        return


def _relay(one: socket.socket, other: socket.socket) -> None:
    """Pass on what comes from either until both have ended, one of them fails, or nothing comes for `IDLE_S`."""
    to = {one: other, other: one}
    for connection in to:
        connection.settimeout(IDLE_S)
    while to:
        ready = select.select(list(to), [], [], IDLE_S)[0]
        if not ready:
            return
        for source in ready:
            try:
                data = source.recv(_CHUNK)
                if data:
                    to[source].sendall(data)
                else:
                    to.pop(source).shutdown(socket.SHUT_WR)
            except OSError:
                return
