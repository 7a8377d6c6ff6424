"""The way in of the server: uvicorn's protocol, with the limits that it leaves to a proxy in front.

Heads are judged before they are parsed and the oldest idle connections make room for new ones, as at the router's door
(`modelyard_runtime/serving/heads.py`, `callers.py`). Heads and bodies have to arrive, and answers to be taken, in time. The body of a
request that was answered without it is read and dropped up to a limit, and not for ever.
"""

from __future__ import annotations

import asyncio
from typing import Any

import httptools
import orjson
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from modelyard_runtime.serving.callers import Admission, Deadline
from modelyard_runtime.serving.heads import ONCE, Framing, Refused
from modelyard_runtime.serving.http1 import LINGER_S, READ_S, REASONS, SLOWEST

from ..core.ids import uuid7

MAX_DROPPED = 8 * 2**20
"""Bytes of a body that nobody reads, for which the connection is kept."""


class Door(HttpToolsProtocol):
    """One connection of a caller."""

    def __init__(
        self, admission: Admission, config: Config, server_state: ServerState, app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:  # fmt: skip
        super().__init__(config, server_state, app_state, _loop)
        self.admission = admission
        self.framing = Framing(self.parser.feed_data)
        self.arrival = Deadline(self.loop, self._too_slow)
        self.reading = Deadline(self.loop, self.drop)
        self.in_body = False
        self.closing = False
        self.dropped = 0

    @property
    def idle(self) -> bool:
        """Without a request that is being answered."""
        return self.cycle is None or self.cycle.response_complete

    def drop(self) -> None:
        """End it at once; what is not written yet is lost."""
        self.closing = True
        self.transport.abort()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.arrival.set(READ_S)
        self.admission.enter(self, self.client[0] if self.client else "")

    def connection_lost(self, exc: Exception | None) -> None:
        self.closing = True
        self.admission.leave(self)
        self.arrival.cancel()
        self.reading.cancel()
        self.framing.close()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self.reading.set(READ_S)

    def resume_writing(self) -> None:
        super().resume_writing()
        self.reading.clear()

    def data_received(self, data: bytes) -> None:
        if self.closing:
            return
        self._unset_keepalive_if_required()
        try:
            self.framing.data(data)
        except Refused as refused:
            self._refuse(refused)
        except httptools.HttpParserUpgrade:
            self._refuse(Refused(405, "this server is no proxy, and CONNECT is not answered"))
        except httptools.HttpParserError as problem:
            cause = problem.__context__
            self._refuse(cause if isinstance(cause, Refused) else Refused(400, "this is not an HTTP/1.1 request that can be read"))
        else:
            if self.framing.inside_head and not self.arrival.is_set:
                self.arrival.set(READ_S)

    def _too_slow(self) -> None:
        if self.flow.read_paused:  # the yard is behind, not the caller
            self.arrival.set(READ_S)
        elif self.framing.inside_head or self.in_body:
            self._refuse(Refused(408, "the request did not arrive in time"))
        else:
            self.transport.close()

    def _refuse(self, refused: Refused) -> None:
        """Answer a request that cannot be read on; one before it, which is being answered, gets its answer instead."""
        self.closing = True
        if self.cycle is None or self.cycle.response_complete or (self.in_body and not self.cycle.response_started):
            if self.in_body:
                self.cycle.disconnected = True
                self.cycle.message_event.set()
            self.transport.write(_refusal(refused))
            self._close_slowly()
        elif self.in_body:
            self.drop()
        else:
            self.cycle.keep_alive = False
            self.pipeline.clear()

    def _close_slowly(self) -> None:
        """Let what is on its way come, unread: a connection that is closed at once loses its answer (TCP reset)."""
        self.closing = True
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.loop.call_later(LINGER_S, self.transport.close)

    # httptools

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.in_body:  # behind a chunked body, where uvicorn would take it for one of the head
            if name.lower() in ONCE:
                raise Refused(400, f"{name.lower().decode('latin-1')} cannot come after the body")
            return
        name = name.lower()  # as uvicorn's own, which would cost another call for each line
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        self.in_body = True
        self.arrival.set(READ_S)

    def on_body(self, body: bytes) -> None:
        self.framing.progressed()
        self.arrival.extend(len(body) / SLOWEST)
        if self.cycle.response_complete:
            self.dropped += len(body)
            if self.dropped > MAX_DROPPED and not self.closing:
                self._close_slowly()
            return
        super().on_body(body)

    def on_message_complete(self) -> None:
        self.framing.completed()
        self.in_body = False
        self.dropped = 0
        self.arrival.clear()
        super().on_message_complete()


def _refusal(refused: Refused) -> bytes:
    """The answer, with the body that every error has."""
    request_id = uuid7()
    error = {"code": "unreadable_request", "kind": "invalid", "message": refused.message, "request_id": request_id}
    body = orjson.dumps({"error": error})
    head = (
        f"HTTP/1.1 {refused.status} {REASONS.get(refused.status, 'Error')}\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\nx-request-id: {request_id}\r\nconnection: close\r\n\r\n"
    )
    return head.encode() + body
