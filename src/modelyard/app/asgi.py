"""What answers requests: four small ASGI parts around the native API, each of use without a yard.

RequestId(Errors(HostCheck(Dialects([…], native))))
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from prometheus_client import Metric, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .. import __version__
from ..core.actor import Actor
from ..core.errors import Invalid, Unauthenticated, YardError
from ..core.ids import uuid7
from ..engine.api_page import HEADERS
from ..engine.dialect import Dialect
from ..engine.feature import Composition
from ..engine.http import Call, Replayed, address_of, answer, bearer, error_answer, failure_answer, routing_error
from ..engine.openapi import describe, methods_at
from ..engine.yard import Yard
from ..settings import LOOPBACK
from ..tenancy.access import service as access
from ..tenancy.access.refusals import Refusal, Refusals
from ..tenancy.access.service import Authenticator, split_token
from .front import page as front_page

log = logging.getLogger(__name__)
MAX_TOKEN_ID = 24
REFUSING = (401, 403, 429)
"""Statuses that leave a row in the audit log, one for many."""


class RequestId:
    """Gives each request an id, which stands in its scope and its answer, counts answers by status, and reports those that refuse."""

    def __init__(self, inner: ASGIApp, refused: Callable[[Scope, int], None] = lambda scope, status: None) -> None:
        self.inner = inner
        self.refused = refused
        self.answered: Counter[int] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        scope["request_id"] = uuid7()

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), (b"x-request-id", scope["request_id"].encode())]
                status = message["status"]
                self.answered[status] += 1
                if status in REFUSING:
                    self.refused(scope, status)
            await send(message)

        await self.inner(scope, receive, send_with_id)


class Errors:
    """Answers 500 for unexpected exceptions without their text, which the log has under the request's id."""

    def __init__(self, inner: ASGIApp) -> None:
        self.inner = inner

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False

        async def watched(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self.inner(scope, receive, watched)
        except Exception:
            log.exception("request %s %s %s failed", scope["request_id"], scope["method"], scope["path"])
            if not begun:
                await failure_answer(scope["request_id"])(scope, receive, send)


class HostCheck:
    """Refuses requests whose Host header is not one of the yard's: a foreign web page must not reach it under a name of its own (DNS rebinding).
    And those whose address holds a NUL character, which no path and no PostgreSQL takes."""

    def __init__(self, inner: ASGIApp, allowed: Collection[str]) -> None:
        self.inner = inner
        self.allowed = frozenset(allowed)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        name = _host(scope)
        if name is not None and name not in self.allowed:
            refusal = Invalid("this Host header is not one of this yard's", code="unknown_host", hint="Set allowed_hosts in server.toml.")
            await error_answer(refusal, scope["request_id"])(scope, receive, send)
        elif "\0" in scope["path"] or b"%00" in scope.get("query_string", b""):
            refusal = Invalid("the address holds a NUL character, and no resource has one in its name", code="invalid_address")
            await error_answer(refusal, scope["request_id"])(scope, receive, send)
        else:
            await self.inner(scope, receive, send)


def _host(scope: Scope) -> str | None:
    """The name in the Host header; None when there is none."""
    host: str | None = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"host"), None)
    if host is None:
        return None
    return host.split("]")[0].lstrip("[") if host.startswith("[") else host.rsplit(":", 1)[0]


class Dialects:
    """Hands a request to the dialect that claims its path, else to the native API."""

    def __init__(self, dialects: Sequence[Dialect], native: ASGIApp) -> None:
        self.dialects = tuple(dialects)
        self.native = native

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        chosen = next((dialect.app for dialect in self.dialects if dialect.claims(scope["path"])), None)
        if chosen is None:
            await self.native(scope, receive, send)
        else:
            scope["app"] = self.native
            await chosen(scope, receive, send)


def make_asgi(composition: Composition, yard: Yard, dialects: Sequence[Dialect]) -> ASGIApp:
    """All of it, for one yard."""
    native = native_api(composition, yard)
    allowed = {*LOOPBACK, yard.settings.host, *(name.strip() for name in yard.settings.allowed_hosts.split(",") if name.strip())}
    refusals = yard.one(Refusals)

    def refused(scope: Scope, status: int) -> None:
        refusals.note(_refusal(scope, status), f"{scope['method']} {scope['path']}")

    outer = RequestId(Errors(HostCheck(Dialects(dialects, native), allowed)), refused)
    native.add_route("/metrics", _metrics(composition, yard, outer.answered), include_in_schema=False)
    return outer


def _refusal(scope: Scope, status: int) -> Refusal:
    """Who was refused: the actor, or where there is none what was sent of a token that is no secret."""
    actor: Actor | None = scope.get("actor")
    if actor is not None:
        return Refusal(scope.get("workspace", ""), actor.name, "", address_of(scope), status)
    sent = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"authorization"), None)
    try:
        id, _ = split_token(bearer(sent))
    except Unauthenticated:
        id = ""
    return Refusal("", "", f"yard_{id[:MAX_TOKEN_ID]}" if id.isalnum() else "", address_of(scope), status)


def native_api(composition: Composition, yard: Yard) -> FastAPI:
    """The features' routes below `/api/v1`, the probes, and errors as the native dialect words them."""
    application = FastAPI(title="modelyard", version=__version__, docs_url=None, redoc_url=None)
    application.state.yard = yard
    application.state.authenticate = Authenticator(yard)
    for feature in composition.features:
        if feature.routes is not None:
            application.include_router(feature.routes, prefix="/api/v1")
    describe(application)

    @application.get("/", include_in_schema=False)
    async def front() -> Response:
        return Response(front_page(yard.url), media_type="text/html", headers=HEADERS)

    @application.get("/healthz", include_in_schema=False)
    async def healthz() -> Response:
        return JSONResponse({"status": "ok"})

    @application.get("/readyz", include_in_schema=False)
    async def readyz() -> Response:
        await yard.db.read(lambda unit: unit.ping())
        alarms = yard.alarms.counts()  # no more than their codes: who asks has no token
        return JSONResponse({"status": "ready", "version": __version__, **({"alarms": alarms} if alarms else {})})

    @application.exception_handler(YardError)
    async def refused(request: Request, error: YardError) -> Response:
        return error_answer(error, request.scope["request_id"])

    @application.exception_handler(Replayed)
    async def replayed(request: Request, earlier: Replayed) -> Response:
        return answer(earlier.answer, 200)

    @application.exception_handler(RequestValidationError)
    async def malformed(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:])
        return error_answer(Invalid(f"{where}: {first['msg']}", code="invalid_parameter"), request.scope["request_id"])

    @application.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> Response:
        # Starlette would answer plain text. It raises the error again, and `Errors` logs it.
        return failure_answer(request.scope["request_id"])

    @application.exception_handler(HTTPException)
    async def not_routed(request: Request, error: HTTPException) -> Response:
        allow = methods_at(application, request.url.path) if error.status_code == 405 else ()
        return routing_error(error.status_code, str(error.detail), request.scope["request_id"], allow)

    return application


@dataclass
class _Families:
    """The registry behind one answer of `/metrics`, already filled."""

    families: list[Metric]

    def collect(self) -> Iterable[Metric]:
        return self.families


def _metrics(composition: Composition, yard: Yard, answered: Counter[int]) -> Callable[[Request], Awaitable[Response]]:
    async def metrics(request: Request) -> Response:
        token = bearer(request.headers.get("authorization"))
        actor: Actor = await request.app.state.authenticate(token, "", address_of(request.scope))
        request.scope["actor"] = actor
        Call(request, yard, actor, "").permit(access.scrape)
        requests = CounterMetricFamily("modelyard_requests", "Requests answered, by status.", labels=["status"])
        for status, count in sorted(answered.items()):
            requests.add_metric([str(status)], count)
        alarms = GaugeMetricFamily("modelyard_alarms", "What an operator must look at, by code.", labels=["code"])
        for code, count in sorted(yard.alarms.counts().items()):
            alarms.add_metric([code], count)
        families: list[Metric] = [requests, alarms]
        for feature in composition.features:
            families += await feature.metrics(yard) if feature.metrics is not None else ()
        return Response(generate_latest(_Families(families)), media_type="text/plain; version=0.0.4")

    return metrics
