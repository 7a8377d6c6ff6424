"""The parts around the API, each by itself: no yard, no socket."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from modelyard.app.asgi import Dialects, Errors, HostCheck, RequestId
from modelyard.engine.dialect import Dialect


async def answers(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-path", scope["path"].encode())]})
    await send({"type": "http.response.body", "body": b"inner"})


async def fails(scope: Scope, receive: Receive, send: Send) -> None:
    raise ZeroDivisionError("a secret")


async def fails_half_way(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    raise ZeroDivisionError


def ask(app: ASGIApp, path: str = "/", host: str | None = None, **scope: Any) -> list[Message]:
    """What `app` sends for one request."""
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    headers = [(b"host", host.encode())] if host is not None else []
    asyncio.run(app({"type": "http", "method": "GET", "path": path, "headers": headers, "request_id": "r", **scope}, receive, send))  # type: ignore[arg-type]
    return sent


def header(sent: list[Message], name: bytes) -> bytes | None:
    return dict(sent[0]["headers"]).get(name)


def test_every_answer_carries_an_id_of_its_own_and_is_counted() -> None:
    app = RequestId(answers)
    ids = {header(ask(app), b"x-request-id") for _ in range(3)}
    assert len(ids) == 3 and None not in ids
    assert app.answered == {200: 3}


def test_the_id_of_the_answer_is_the_one_in_its_error() -> None:
    sent = ask(RequestId(Errors(fails)))
    error = json.loads(sent[1]["body"])["error"]
    assert header(sent, b"x-request-id") == error["request_id"].encode()


def test_what_nobody_foresaw_is_a_500_that_says_nothing_of_it() -> None:
    sent = ask(Errors(fails))
    assert sent[0]["status"] == 500 and b"secret" not in sent[1]["body"]


def test_an_answer_that_was_begun_is_not_begun_again() -> None:
    assert [message["type"] for message in ask(Errors(fails_half_way))] == ["http.response.start"]


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:7780", 200),
        ("localhost", 200),
        ("[::1]:7780", 200),
        (None, 200),
        ("evil.example", 400),
        ("127.0.0.1.evil.example:80", 400),
    ],
)
def test_only_the_yards_own_names_are_answered(host: str | None, status: int) -> None:
    sent = ask(HostCheck(answers, {"127.0.0.1", "localhost", "::1"}), host=host)
    assert sent[0]["status"] == status


def test_a_dialect_gets_the_paths_that_it_claims() -> None:
    async def foreign(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 418, "headers": []})
        assert scope["app"] is answers

    app = Dialects([Dialect("foreign", lambda path: path.startswith("/foreign"), foreign)], answers)
    assert ask(app, "/foreign/x")[0]["status"] == 418
    assert header(ask(app, "/native"), b"x-path") == b"/native"


def test_other_protocols_are_not_answered() -> None:
    assert ask(RequestId(answers), type="websocket") == []
