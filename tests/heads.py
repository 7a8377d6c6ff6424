"""Heads that no door of a yard lets in: the lines after the request line, and the status of the answer."""

from __future__ import annotations

GET = b"GET /a?b HTTP/1.1\r\n"
REFUSED = {
    "two Hosts": (b"Host: a\r\nhost: b\r\n", 400),
    "no Host": (b"Accept: x\r\n", 400),
    "two Authorizations": (b"Host: a\r\nAuthorization: Bearer x\r\nAUTHORIZATION: Bearer x\r\n", 400),
    "a length and chunks": (b"Host: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n", 400),
    "two lengths": (b"Host: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n", 400),
    "one length twice": (b"Host: a\r\nContent-Length: 3\r\nContent-Length: 3\r\n", 400),
    "lengths in one line": (b"Host: a\r\nContent-Length: 3, 3\r\n", 400),
    "a length with a sign": (b"Host: a\r\nContent-Length: +3\r\n", 400),
    "an endless length": (b"Host: a\r\nContent-Length: " + b"9" * 30 + b"\r\n", 400),
    "another coding": (b"Host: a\r\nTransfer-Encoding: gzip, chunked\r\n", 501),
    "two codings": (b"Host: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", 400),
    "a folded line": (b"Host: a\r\nX: a\r\n b\r\n", 400),
    "a blank before the colon": (b"Host : a\r\n", 400),
    "a bare line feed": (b"Host: a\nX: b\r\n", 400),
    "a bare carriage return": (b"Host: a\rX: b\r\n", 400),
    "a NUL": (b"Host: a\r\nX: \0\r\n", 400),
    "no name": (b"Host: a\r\n: x\r\n", 400),
    "too many lines": (b"Host: a\r\n" + b"X: a\r\n" * 100, 431),
}
