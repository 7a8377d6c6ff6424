"""The dispatch: prefix and workspace off, route looked up, caller authenticated, errors spelled as MLflow spells them."""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ...core.errors import Kind, NotFound, YardError
from ...engine.dialect import foreign_call
from ...engine.http import OUT_OF_ROOM, Call

log = logging.getLogger(__name__)

Handler = Callable[[Call, dict[str, str]], Awaitable[Any]]
_ROUTES: dict[tuple[str, str], Handler] = {}
_PATTERNS: list[tuple[str, re.Pattern[str], Handler]] = []
_PREFIX = re.compile(
    r"^(?:/ws/(?P<workspace>[^/]+))?/(?:(?:ajax-)?api/(?:2\.0|3\.0)/(?P<mlflow>mlflow(?:-artifacts)?/.*)"
    r"|(?P<bare>v1/traces|(?:model-versions/)?get-artifact))$"
)
_PLAIN = {"/health": "OK", "/version": "3.17.2"}

ERRORS: dict[Kind, tuple[int, str]] = {
    Kind.NOT_FOUND: (404, "RESOURCE_DOES_NOT_EXIST"),
    Kind.ALREADY_EXISTS: (400, "RESOURCE_ALREADY_EXISTS"),
    Kind.INVALID: (400, "INVALID_PARAMETER_VALUE"),
    Kind.CONFLICT: (409, "RESOURCE_CONFLICT"),
    Kind.FORBIDDEN: (403, "PERMISSION_DENIED"),
    Kind.UNAUTHENTICATED: (401, "UNAUTHENTICATED"),
    Kind.LIMIT: (429, "REQUEST_LIMIT_EXCEEDED"),
    Kind.TOO_LARGE: (413, "INVALID_PARAMETER_VALUE"),
    Kind.UNAVAILABLE: (503, "TEMPORARILY_UNAVAILABLE"),
}


def route(methods: str, path: str) -> Callable[[Handler], Handler]:
    """Register a handler for `GET POST` at a path such as `mlflow/runs/get`; `{name}` and `{name:path}` match parts."""

    def register(handler: Handler) -> Handler:
        for method in methods.split():
            if "{" in path:
                pattern = re.sub(r"\{(\w+):path\}", r"(?P<\1>.*)", path)
                pattern = re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", pattern)
                _PATTERNS.append((method, re.compile(pattern), handler))
            else:
                _ROUTES[method, path] = handler
        return handler

    return register


def claims(path: str) -> bool:
    """Whether a request path belongs to this dialect."""
    return path in _PLAIN or _PREFIX.match(path) is not None


def registered() -> list[tuple[str, str]]:
    return [*_ROUTES, *((method, pattern.pattern) for method, pattern, _ in _PATTERNS)]


async def mlflow_app(scope: Scope, receive: Receive, send: Send) -> None:
    result = await _result(scope, receive)
    if isinstance(result, Response):
        await result(scope, receive, send)
    else:
        # Sent to the server directly: a response object costs more than a small write.
        start = {"type": "http.response.start", "status": 200, "headers": [*_HEADERS, (b"content-length", b"%d" % len(result))]}
        await send(start)
        await send({"type": "http.response.body", "body": result})


async def _result(scope: Scope, receive: Receive) -> Response | bytes:
    path = scope["path"]
    if path in _PLAIN:
        return Response(_PLAIN[path], media_type="text/plain")
    match = _PREFIX.match(path)
    try:
        if match is None:
            raise NotFound(f"no such endpoint: {path[:200]}")
        call = await foreign_call(scope, receive, match["workspace"] or "")
        handler, parameters = _find(scope["method"], match["mlflow"] or match["bare"])
        result = await handler(call, parameters)
        return result if isinstance(result, (Response, bytes)) else orjson.dumps(result)
    except YardError as error:
        return error_answer(error)


def _find(method: str, path: str) -> tuple[Handler, dict[str, str]]:
    handler = _ROUTES.get((method, path))
    if handler is not None:
        return handler, {}
    for verb, pattern, candidate in _PATTERNS:
        if verb == method and (match := pattern.fullmatch(path)):
            return candidate, match.groupdict()
    raise NotFound(f"no such endpoint: {method} {path[:200]}", code="ENDPOINT_NOT_FOUND")


_HEADERS = ((b"content-type", b"application/json"), (b"x-content-type-options", b"nosniff"))


def error_answer(error: YardError) -> Response:
    status, code = ERRORS[error.kind]
    if error.code.isupper():
        code = error.code
    message = error.message + (f" {error.hint}" if error.hint else "")
    response = Response(
        orjson.dumps({"error_code": code, "message": message}),
        status_code=507 if error.code in OUT_OF_ROOM else status,
        media_type="application/json",
        headers={"X-Content-Type-Options": "nosniff"},
    )
    if status in (429, 503) and error.code != "quota_exceeded":
        response.headers["Retry-After"] = str(error.retry_s)
    if status == 401:
        response.headers["WWW-Authenticate"] = 'Bearer realm="modelyard"'
    return response
