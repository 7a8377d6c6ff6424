"""Heads of HTTP/1.1 requests, judged whole before a parser sees them. Server and router listen through this.

A parser hands out a head piece by piece and keeps what is not complete, so an endless line costs it more with every packet, and it lets
pass what two programs in a row may read differently (*request smuggling*): a folded line, two lengths, a second Host. Here a head is
collected up to a limit, compared once with the grammar of RFC 9112, and only then parsed.
"""

from __future__ import annotations

import re
from typing import Callable, Tuple

MAX_HEAD = 64 * 1024
"""Bytes of a head."""
MAX_FIELDS = 100
"""Header lines."""
MAX_UNPRODUCTIVE = 16 * 1024
"""Bytes that may come without a byte of body among them: extensions of chunks, and what follows the last one (the *trailer*)."""
MAX_KEPT = 2048
"""Bytes of a head that a connection remembers."""
ONCE = (b"host", b"authorization", b"content-length", b"transfer-encoding")
"""Fields that a request has once, in its head."""
_FIELDS = tuple(b"\n%b:" % name for name in ONCE)
END = b"\r\n\r\n"
_HEAD = re.compile(
    rb"[A-Z-]{1,32} [!-~]{1,8192} HTTP/1\.(?P<minor>[01])\r\n(?:[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t -~\x80-\xff]*\r\n)*\r\n"
).fullmatch
_LENGTH = re.compile(rb"\ncontent-length:[ \t]*([0-9]{1,18})[ \t]*\r").search
_CHUNKED = re.compile(rb"\ntransfer-encoding:[ \t]*chunked[ \t]*\r").search
_UPGRADE = re.compile(rb"(?<=\n)(?:upgrade|http2-settings):[^\n]*\n", re.IGNORECASE)
_LONG_TARGET = re.compile(rb"[A-Z-]{1,32} [!-~]{8193}").match


class Refused(Exception):
    """A request that is not read on: the status and the text of its answer."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message


def judged(head: bytes) -> Tuple[bytes, int, bool]:
    """(the head as it may be parsed, bytes of its body, whether the body is chunked instead). Raises Refused.

    An offer to speak another protocol, as Java's client makes with every request, may be declined by not taking it (RFC 9110, 7.8): it is
    cut out, since a parser would take what follows for that protocol.
    """
    match = _HEAD(head)
    if match is None:
        if _LONG_TARGET(head):
            raise Refused(414, "the address is too long; 8,192 bytes are allowed")
        raise Refused(400, "this is not the head of an HTTP/1.1 request")
    lower = head.lower()
    if lower.count(b"\n") - 2 > MAX_FIELDS:
        raise Refused(431, "the request has more than %d header lines" % MAX_FIELDS)
    hosts, keys, lengths, codings = map(lower.count, _FIELDS)
    if hosts != 1 and (hosts or match["minor"] == b"1"):
        raise Refused(400, "a request names its Host once")
    if keys > 1:
        raise Refused(400, "a request has one Authorization header")
    if lengths + codings > 1:
        raise Refused(400, "a request has one Content-Length, or Transfer-Encoding instead")
    if b"\nupgrade:" in lower:
        head = _UPGRADE.sub(b"", head)
    if codings:
        if match["minor"] == b"0" or not _CHUNKED(lower):
            raise Refused(501, "the only Transfer-Encoding is chunked, in HTTP/1.1")
        return head, 0, True
    if lengths:
        length = _LENGTH(lower)
        if length is None:
            raise Refused(400, "Content-Length is a number of bytes")
        return head, int(length[1]), False
    return head, 0, False


class Framing:
    """Cuts what arrives on a connection into heads, which are judged, and bodies. `feed` takes both, and never a part of a head."""

    def __init__(self, feed: Callable[[bytes], object]) -> None:
        self._feed = feed
        self._head = bytearray()
        self._left = 0  # of a body of known length
        self._chunked = False
        self._tail = b""  # the last bytes of a chunked body, which may be the beginning of its end
        self._unproductive = 0
        self._last = b""  # the head before, and what was judged of it: most clients send the same one again
        self._verdict = (b"", 0, False)

    @property
    def inside_head(self) -> bool:
        return len(self._head) > 0

    def close(self) -> None:
        """The connection is gone: let go of the parser, which holds it, so that neither waits for the garbage collector."""
        self._feed = bytes

    def progressed(self) -> None:
        """From the parser: bytes of a body have come."""
        self._unproductive = 0

    def completed(self) -> None:
        """From the parser: the request is there whole."""
        self._chunked = False
        self._tail = b""

    def data(self, data: bytes) -> None:
        """Raises Refused, and what `feed` raises."""
        start = 0
        while start < len(data):
            if self._left:
                start = self._counted(data, start)
            elif self._chunked:
                start = self._until_empty_line(data, start)
            else:
                start = self._whole_head(data, start)

    def _whole_head(self, data: bytes, start: int) -> int:
        if not self._head:
            while start < len(data) and data[start] in b"\r\n":  # RFC 9112, 2.2: some clients end a body with a line break of their own
                start += 1
        searched = max(0, len(self._head) - len(END) + 1)
        known = len(self._head)
        end = data.find(END, start) if not known else -1
        if not known and 0 <= end - start <= MAX_HEAD:
            head = data[start : end + len(END)]
        else:
            self._head += data[start : start + MAX_HEAD + len(END)]
            end = self._head.find(END, searched)
            if not 0 <= end <= MAX_HEAD:
                if len(self._head) > MAX_HEAD:
                    raise Refused(431, "the head of the request has more than %d bytes" % MAX_HEAD)
                return len(data)
            head = bytes(self._head[: end + len(END)])
            self._head.clear()
        begin, start = start, start + len(head) - known
        verdict = self._verdict if head == self._last else judged(head)
        if len(head) <= MAX_KEPT:
            self._last, self._verdict = head, verdict
        parsed, self._left, self._chunked = verdict
        self._unproductive = 0
        if len(parsed) == len(head) and not known and start + self._left == len(data) and not begin:  # one whole request, as most are
            self._left = 0
            self._feed(data)
            return len(data)
        self._feed(parsed)
        return start

    def _counted(self, data: bytes, start: int) -> int:
        end = min(len(data), start + self._left)
        self._left -= end - start
        self._feed(data[start:end])
        return end

    def _until_empty_line(self, data: bytes, start: int) -> int:
        """A chunked body ends with an empty line. It is fed up to each one, and the parser says which of them was the end."""
        joined = self._tail + data[start : start + len(END)]
        crossing = joined.find(END) if self._tail else -1
        if crossing >= 0:
            end = start + crossing + len(END) - len(self._tail)
        else:
            found = data.find(END, start)
            end = found + len(END) if found >= 0 else len(data)
        self._tail = (self._tail + data[start:end])[-3:] if end == len(data) else b""
        self._unproductive += end - start
        if self._unproductive > MAX_UNPRODUCTIVE and end - start < self._unproductive:
            raise Refused(431, "the request's chunks have too much around them")
        self._feed(data[start:end])
        return end
