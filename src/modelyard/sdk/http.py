"""HTTP/1.1 on the standard library's client, so that a command starts in the time of Python: kept connections, streams, TLS, deadlines.

A `Client` may be used by several threads; each request has a connection of its own while it lasts. Answers are not followed elsewhere,
and proxies of the environment are not used: a yard's token goes to the yard alone.
"""

from __future__ import annotations

import http.client
import json
import re
import select
import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

CONNECT_S = 10.0
ANSWER_S = 60.0
"""Seconds without a byte after which a request is given up, where nothing else is said."""
MOST_IDLE = 10
"""Connections that are kept for the next requests."""
_CHUNK = 1 << 16


class Disconnected(Exception):
    """No answer, or not all of it. `refused`: nobody listens there, so that the request cannot have arrived."""

    def __init__(self, message: str, *, refused: bool = False) -> None:
        super().__init__(message)
        self.refused = refused


class Response:
    """An answer whose body is still to be read. Raises Disconnected when it breaks off."""

    def __init__(self, answer: http.client.HTTPResponse) -> None:
        self._answer = answer
        self.status = answer.status
        self.headers: Mapping[str, str] = answer.headers  # type: ignore[assignment]
        self._body: bytes | None = None

    def read(self) -> bytes:
        if self._body is None:
            self._body = b"".join(self.chunks())
            if self.headers.get("Content-Encoding") == "gzip":
                import gzip

                self._body = gzip.decompress(self._body)
        return self._body

    def chunks(self, most: int = _CHUNK) -> Iterator[bytes]:
        """The body as it comes, in chunks of at most `most` bytes."""
        with _disconnecting():
            while chunk := self._answer.read1(most):
                yield chunk
            if self._answer.length:  # what `read1` does not notice
                raise Disconnected(f"the answer ended {self._answer.length:,} bytes early")
            self._answer.read()  # nothing; it lets go of the connection

    def lines(self) -> Iterator[str]:
        """The body as lines of text, as they come."""
        held = b""
        for chunk in self.chunks():
            *whole, held = (held + chunk).split(b"\n")
            for line in whole:
                yield line.decode("utf-8", "replace").removesuffix("\r")
        if held:
            yield held.decode("utf-8", "replace")

    @property
    def text(self) -> str:
        return self.read().decode("utf-8", "replace")

    def json(self) -> Any:
        return json.loads(self.read())


class Client:
    """Requests to the paths below an address. Raises ValueError for one that is no http address."""

    def __init__(self, url: str, headers: Mapping[str, str] | None = None) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("an address begins with http:// or https:// and names a host")
        self._tls, self._host, self._port = parts.scheme == "https", parts.hostname, parts.port
        self._prefix = parts.path.rstrip("/")
        self._headers = {"Accept": "*/*", **(headers or {})}
        if not all(value.isascii() and value.isprintable() for value in self._headers.values()):
            raise ValueError("the token holds characters that HTTP does not allow in a header")
        self._idle: list[http.client.HTTPConnection] = []

    def close(self) -> None:
        while self._idle:
            self._idle.pop().close()

    @contextmanager
    def open(
        self, method: str, path: str = "", *, params: Mapping[str, Any] | None = None, json_body: Any = None,
        body: bytes | Iterable[bytes] | None = None, headers: Mapping[str, str] | None = None, timeout: float | None = ANSWER_S,
    ) -> Iterator[Response]:  # fmt: skip
        """The answer, its body unread. `timeout` in seconds between bytes, None for a stream that may rest. Raises Disconnected."""
        sent = {**self._headers, **(headers or {})}
        if json_body is not None:
            body = json.dumps(json_body, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
            sent["Content-Type"] = "application/json"
        connection = self._connected()
        reusable = False
        try:
            with _disconnecting():
                assert connection.sock is not None
                connection.sock.settimeout(timeout)
                try:
                    connection.request(method, self._target(path, params), body if isinstance(body, bytes) else _read(body), sent)
                    whole = True
                except (BrokenPipeError, ConnectionResetError):
                    whole = False  # a server may answer, and hang up, before it has read everything; what it answered says why
                answer = connection.getresponse()
            yield Response(answer)
            reusable = whole and answer.isclosed() and not answer.will_close
        except _Unreadable as error:
            raise error.fault from None
        finally:
            if reusable and len(self._idle) < MOST_IDLE:
                self._idle.append(connection)
            else:
                connection.close()

    def request(self, method: str, path: str = "", **options: Any) -> Response:
        """As `open`, with the whole body read."""
        with self.open(method, path, **options) as response:
            response.read()
            return response

    def _target(self, path: str, params: Mapping[str, Any] | None) -> str:
        """Path and query as they are sent. What is escaped already stays so."""
        whole = re.sub("%(?![0-9A-Fa-f]{2})", "%25", quote(self._prefix + path or "/", safe="/%:@!$&'()*+,;=~"))
        query = {key: _words(value) for key, value in (params or {}).items() if value is not None}
        return f"{whole}?{urlencode(query, doseq=True)}" if query else whole

    def _connected(self) -> http.client.HTTPConnection:
        """A kept connection that is still open, or a new one."""
        while self._idle:
            try:
                connection = self._idle.pop()
            except IndexError:  # another thread took it
                break
            if connection.sock is not None and not _readable(connection.sock):
                return connection
            connection.close()  # closed by the server, or with something that nobody asked for
        connection = self._new()
        try:
            connection.connect()
        except TimeoutError:
            connection.close()
            raise Disconnected(f"no connection within {CONNECT_S:.0f} s") from None
        except OSError as error:
            connection.close()
            raise Disconnected(str(error), refused=True) from None
        return connection

    def _new(self) -> http.client.HTTPConnection:
        if not self._tls:
            return http.client.HTTPConnection(self._host, self._port, timeout=CONNECT_S)
        return http.client.HTTPSConnection(self._host, self._port, timeout=CONNECT_S, context=_trust())


def post(url: str, body: bytes, headers: Mapping[str, str], *, timeout: float = ANSWER_S) -> Response:
    """One request to one address. Raises Disconnected."""
    client = Client(url, headers)
    try:
        return client.request("POST", body=body, timeout=timeout)
    finally:
        client.close()


class _Unreadable(Exception):
    """What is to be sent cannot be read: no fault of the connection."""

    def __init__(self, fault: OSError) -> None:
        super().__init__(str(fault))
        self.fault = fault


def _read(body: Iterable[bytes] | None) -> Iterator[bytes] | None:
    def chunks(body: Iterable[bytes]) -> Iterator[bytes]:
        try:
            yield from body
        except OSError as error:
            raise _Unreadable(error) from None

    return None if body is None else chunks(body)


def _trust() -> Any:
    """Whom a TLS server may have its certificate from: the files that SSL_CERT_FILE and SSL_CERT_DIR name, else the system's and Mozilla's."""
    import os
    import ssl

    context = ssl.create_default_context()  # reads these variables itself
    if not (os.environ.get("SSL_CERT_FILE") or os.environ.get("SSL_CERT_DIR")):
        import certifi

        context.load_verify_locations(certifi.where())
    return context


def _words(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    return [_words(part) for part in value] if isinstance(value, (list, tuple)) else value


def _readable(sock: socket.socket) -> bool:
    """Whether something waits on an idle connection: its end, as a rule."""
    if hasattr(select, "poll"):  # takes any number of descriptor, which `select` does not
        poll = select.poll()
        poll.register(sock, select.POLLIN)
        return bool(poll.poll(0))
    return bool(select.select([sock], [], [], 0)[0])


@contextmanager
def _disconnecting() -> Iterator[None]:
    try:
        yield
    except http.client.HTTPException as error:
        raise Disconnected(_broken_off(error)) from None
    except TimeoutError:
        raise Disconnected("no answer in time") from None
    except OSError as error:
        raise Disconnected(str(error)) from None


def _broken_off(error: http.client.HTTPException) -> str:
    if isinstance(error, (http.client.RemoteDisconnected, http.client.IncompleteRead)):
        return "the connection was closed before the whole answer was there"
    return f"the answer is not HTTP: {str(error)[:200]}"
