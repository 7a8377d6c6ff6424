"""The native dialect: how a REST call becomes one service call, and how errors become answers.

A feature's `rest.py` reads the request, makes one call through `Call`, and answers. Authentication, the workspace, the
unit of work, idempotency and the error table are here.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any, ParamSpec, TypeVar

import msgspec
import orjson
from fastapi import Depends, Request
from fastapi.responses import Response
from pydantic import BaseModel
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from ..core.actor import Actor, check_may, permission_of
from ..core.errors import BY_KIND, Conflict, Invalid, Kind, NotFound, TooLarge, Unauthenticated, YardError
from ..core.names import nearest
from ..spec import jsontext
from ..spec.fields import Spec, parse
from ..spec.yamlfile import MAX_VALUES
from ..storage import idempotency
from ..storage.unit import Unit
from .yard import Yard

T = TypeVar("T")
R = TypeVar("R")
S = TypeVar("S", bound=Spec)
M = TypeVar("M", bound=msgspec.Struct)

P = ParamSpec("P")

MAX_BODY = 8 * 2**20
SMALL = 32 * 1024
"""Bytes of a body that are read, and of an answer that are written, on the event loop: a millisecond or two. More is for a thread."""
MAX_BULK_VALUES = 2_000_000
"""Values in the body of an import: 8 MiB hold no more of them."""
BYTES_PER_VALUE = 8
_LARGE = ThreadPoolExecutor(2, thread_name_prefix="large-body")
"""Two large bodies at a time, so that they leave the interpreter to the event loop."""
WITHHELD = {"withheld": True}
"""Stored instead of an answer that held a secret."""
NOTHING = {"nothing": True}
"""Stored for an answer without content."""
STATUS: dict[Kind, int] = {
    Kind.NOT_FOUND: 404,
    Kind.ALREADY_EXISTS: 409,
    Kind.INVALID: 400,
    Kind.CONFLICT: 409,
    Kind.FORBIDDEN: 403,
    Kind.UNAUTHENTICATED: 401,
    Kind.LIMIT: 429,
    Kind.TOO_LARGE: 413,
    Kind.UNAVAILABLE: 503,
}
assert set(STATUS) == set(BY_KIND)
OUT_OF_ROOM = ("insufficient_storage", "quota_exceeded")
"""Codes that every dialect answers with 507 (RFC 4918): the disk is full, or the share of it that a workspace has."""


class Replayed(Exception):
    """The idempotency key was answered before; carries that answer."""

    def __init__(self, answer: object) -> None:
        self.answer = answer


class Call:
    """One authenticated request. `read` and `write` run one guarded service function in one unit."""

    def __init__(self, request: Request, yard: Yard, actor: Actor, workspace: str, *, repeatable: bool = True) -> None:
        """`repeatable`: an Idempotency-Key is honored. False for a dialect whose protocol has no such header."""
        self.request = request
        self.repeatable = repeatable
        self.yard = yard
        self.actor = actor
        self.workspace = workspace

    async def read(self, fn: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        _check_guarded(fn)
        return await self.yard.db.read(lambda unit: fn(unit, *args, **kwargs), self.actor, self.workspace)

    async def shown(self, show: Callable[[T], R], fn: Callable[..., T], *args: Any, **kwargs: Any) -> R:
        """`show` of what `read` answers, made by the reader too: a page of large documents would hold up the event loop."""
        _check_guarded(fn)
        return await self.yard.db.read(lambda unit: show(fn(unit, *args, **kwargs)), self.actor, self.workspace)

    async def lookup(self, fn: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """As `read`, for a few index lookups."""
        _check_guarded(fn)
        return await self.yard.db.lookup(lambda unit: fn(unit, *args, **kwargs), self.actor, self.workspace)

    async def write(self, fn: Callable[..., T], *args: Any, show: Callable[[T], object] = lambda result: result, **kwargs: Any) -> T:
        """As `read`, durable when it returns. With an Idempotency-Key the answer is stored and repeated for a day.

        What is stored is `show` of the result: the document, where the service returns a record.
        """
        _check_guarded(fn)
        key = self._key()
        if not key:
            return await self.yard.db.write(lambda unit: fn(unit, *args, **kwargs), self.actor, self.workspace)
        query = self.request.url.query
        request = f"{self.request.method} {self.request.url.path}" + (f"?{query}" if query else "")
        body = await self.request.body()
        digest = (await aside(len(body), hashlib.sha256, request.encode() + body)).hexdigest()

        secret = getattr(fn, "answers_secret", False)

        def once(unit: Unit) -> T:
            earlier = idempotency.earlier_answer(unit, key, digest)
            if earlier == WITHHELD:
                raise Conflict(
                    "this request was carried out before; its answer held a secret, which is shown once",
                    code="answer_not_kept",
                    hint="Revoke what it made if the answer was lost, and send the request again with a new idempotency key.",
                )
            if earlier is not None:
                raise Replayed(None if earlier == NOTHING else earlier)
            result = fn(unit, *args, **kwargs)
            idempotency.remember(
                unit, key, digest, WITHHELD if secret else NOTHING if result is None else _repeatable(fn, plain(show(result)))
            )
            return result

        return await self.yard.db.write(once, self.actor, self.workspace)

    def _key(self) -> str | None:
        """The Idempotency-Key. None of a body that was read as a stream: it cannot be compared, and content goes by its digest."""
        key = self.request.headers.get("idempotency-key") if self.repeatable else None
        if key and len(key) > 255:
            raise Invalid("an idempotency key has 255 characters at most", code="invalid_idempotency_key")
        streamed = self.request._stream_consumed and not hasattr(self.request, "_body")
        return None if streamed else key

    def at(self, workspace: str) -> Call:
        """The same request in a workspace that its address does not name. Raises NotFound for one that the caller does not see."""
        if not self.actor.sees(workspace):
            raise NotFound(f"there is no workspace {workspace}")
        return Call(self.request, self.yard, self.actor, workspace, repeatable=self.repeatable)

    def permit(self, case: Callable[..., Any]) -> None:
        """Raise Forbidden when the caller may not do what `case` does. It asks again itself; here nothing was read of the body yet."""
        _check_guarded(case)
        check_may(self, permission_of(case) or "*")

    async def json(self, case: Callable[..., Any], *, most_values: int = MAX_VALUES) -> dict[str, Any]:
        """The body as a JSON object, for a caller who may do what `case` does with it.

        Raises Forbidden before the body is read, Invalid for anything but an acceptable object, TooLarge beyond 8 MiB.
        """
        self.permit(case)
        body = await limited_body(self.request, MAX_BODY)
        document = await aside(len(body), jsontext.loads, body, most_values) if body else {}
        if not isinstance(document, dict):
            raise Invalid("the body must be a JSON object", code="invalid_json")
        return document

    async def spec(self, case: Callable[..., Any], choose: Callable[[dict[str, Any]], type[S]], what: str = "", **fixed: Any) -> S:
        """The body as the spec that `choose` finds it to be; `fixed` fields come from the path and win. Raises what `json` raises."""
        document = {**await self.json(case), **fixed}

        return await self.aside(lambda: parse(choose(document), document, what=what))

    async def body(self, case: Callable[..., Any], model: type[S], **fixed: Any) -> S:
        return await self.spec(case, lambda document: model, **fixed)

    async def struct(self, case: Callable[..., Any], model: type[M], *, most_values: int = MAX_VALUES) -> M:
        """The body as a msgspec Struct. Raises Invalid with the position of the error, and for a field that the struct does not have,
        besides what `json` raises: a misspelt limit would give more than was asked for."""
        document = await self.json(case, most_values=most_values)
        known = [field.encode_name for field in msgspec.structs.fields(model)]
        for name in document:
            if name not in known:
                raise Invalid(
                    f"unknown field {name[:80]!r}{nearest(name, known)}", code="unknown_field", hint=f"The fields are {', '.join(known)}."
                )
        try:
            return await self.aside(msgspec.convert, document, model)
        except msgspec.ValidationError as error:
            raise Invalid(f"the body is wrong: {error}", code="invalid_body") from None

    async def aside(self, fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What `fn` makes of what was in the body; of a large one in a thread."""
        return await aside(len(getattr(self.request, "_body", b"")), fn, *args, **kwargs)


async def aside(size: int, fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What `fn` makes of `size` bytes: at once when they are few, else in a thread, of which there are two for all callers."""
    if size <= SMALL:
        return fn(*args, **kwargs)
    return await asyncio.get_running_loop().run_in_executor(_LARGE, functools.partial(fn, *args, **kwargs))


def _check_guarded(fn: Callable[..., Any]) -> None:
    if permission_of(fn) is None:
        raise RuntimeError(f"{fn.__module__}.{fn.__name__} states no permission and cannot be called over REST")


def _repeatable(fn: Callable[..., Any], answer: object) -> object:
    """An answer that can be repeated. Raises RuntimeError for a record, which is not what was answered."""
    try:
        orjson.dumps(answer, option=orjson.OPT_PASSTHROUGH_DATACLASS)
    except TypeError:
        raise RuntimeError(f"{fn.__module__}.{fn.__name__} returns a record; say how it is shown: write(…, show=…)") from None
    return answer


async def limited_body(request: Request, limit: int) -> bytes:
    if hasattr(request, "_body"):
        return await request.body()
    parts: list[bytes] = []
    size = 0
    unread = True
    while unread:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunk = message.get("body", b"")
        unread = message.get("more_body", False)
        size += len(chunk)
        if size > limit:
            raise TooLarge(f"the body has more than {limit:,} bytes, which are allowed", code="body_too_large")
        parts.append(chunk)
    # Stored on the request so that the idempotency digest can read it again.
    request._body = b"".join(parts)
    return request._body


async def _call(request: Request) -> Call:
    yard: Yard = request.app.state.yard
    workspace = request.path_params.get("workspace", "")
    creates = request.method == "PUT" and request.scope["route"].path.endswith("/workspaces/{workspace}")
    actor = await request.app.state.authenticate(
        bearer(request.headers.get("authorization")), workspace, address_of(request.scope), creates=creates
    )
    request.scope["actor"], request.scope["workspace"] = actor, workspace
    if request.query_params:
        _check_query(request)
    return Call(request, yard, actor, workspace)


CallDep = Annotated[Call, Depends(_call)]


def _check_query(request: Request) -> None:
    """Raise Invalid for a query parameter that the route does not declare: a misspelt filter would answer more than was asked for."""
    known = {parameter.alias for parameter in request.scope["route"].dependant.query_params}
    for name in request.query_params:
        if name not in known:
            message = f"this request takes no query parameter {name[:80]!r}{nearest(name, known)}"
            raise Invalid(message, code="unknown_parameter", hint=f"It takes {', '.join(sorted(known)) or 'none'}.")


def address_of(scope: Scope) -> str:
    """The caller's address; empty where a connection has none."""
    client = scope.get("client")
    return str(client[0]) if client else ""


def bearer(header: str | None) -> str:
    """The token of an Authorization header: `Bearer <token>`, or Basic with the token as password. Raises Unauthenticated."""
    scheme, _, value = (header or "").partition(" ")
    if scheme.lower() == "bearer" and value:
        return value.strip()
    if scheme.lower() == "basic" and value:
        import base64
        import binascii

        try:
            return base64.b64decode(value, validate=True).decode().partition(":")[2]
        except (binascii.Error, UnicodeDecodeError):
            pass
    raise Unauthenticated(
        "this call needs a token", code="missing_token", hint='Run `eval "$(yard env)"`, or send Authorization: Bearer TOKEN.'
    )


def plain(value: Any) -> Any:
    """Models and lists of them as plain JSON values."""
    if isinstance(value, Spec):
        return value.document()
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", exclude_none=True)
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return value


class Document(Response):
    """A JSON document, which is written when it is sent: a large one in a thread."""

    media_type = "application/json"

    def __init__(self, value: Any, status: int) -> None:
        super().__init__(status_code=status)
        self.value = value

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.body = await aside(_weight(self.value), _written, self.value)
        self.init_headers()
        await super().__call__(scope, receive, send)


def _written(value: Any) -> bytes:
    return orjson.dumps(value, default=_plain_model, option=orjson.OPT_PASSTHROUGH_DATACLASS)


def _plain_model(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return plain(value)
    raise TypeError(f"{type(value).__name__} is not a JSON value")


def _weight(value: Any) -> int:
    """About how many bytes a document has; more than SMALL is all that is said of a larger one."""
    weight, level = 0, [value]
    while level and weight <= SMALL:
        item = level.pop()
        if isinstance(item, str):
            weight += len(item)
            continue
        weight += BYTES_PER_VALUE
        if isinstance(item, BaseModel):
            item = item.__dict__
        if isinstance(item, dict):
            weight += BYTES_PER_VALUE * len(item)
            level += item.values()
        elif isinstance(item, (list, tuple)):
            weight += BYTES_PER_VALUE * len(item)
            level += item
    return weight


def answer(value: Any, status: int = 200) -> Response:
    """A document; None is answered without content."""
    return Response(status_code=204) if value is None else Document(value, status)


def listing(items: list[Any], next_token: str | None = None) -> Response:
    """A page: `{"value": […], "next": token}`; `next` is absent on the last one."""
    return answer({"value": items, **({"next": next_token} if next_token else {})})


def error_answer(error: YardError, request_id: str) -> Response:
    body: dict[str, Any] = {"code": error.code, "kind": error.kind.value, "message": error.message, "request_id": request_id}
    if error.hint:
        body["hint"] = error.hint
    if error.problems:
        body["problems"] = [
            {"message": p.message, "field": p.field, "file": p.file, "line": p.line, "column": p.column} for p in error.problems
        ]
    status = 507 if error.code in OUT_OF_ROOM else STATUS[error.kind]
    headers = {}
    if error.kind in (Kind.UNAVAILABLE, Kind.LIMIT) and error.code != "quota_exceeded":
        headers["Retry-After"] = str(error.retry_s)
    if error.kind is Kind.UNAUTHENTICATED:
        headers["WWW-Authenticate"] = 'Bearer realm="modelyard"'
    return Response(orjson.dumps({"error": body}), status_code=status, media_type="application/json", headers=headers)


def routing_error(status: int, detail: str, request_id: str, allow: Sequence[str] = ()) -> Response:
    """For a request that reached no route: the same body as every other refusal; `allow` are the methods that there are instead."""
    codes = {404: "no_such_route", 405: "method_not_allowed"}
    refusal = _plain_error(status, codes.get(status, "http_error"), detail, request_id)
    if allow:
        refusal.headers["Allow"] = ", ".join(allow)
    return refusal


def failure_answer(request_id: str) -> Response:
    """For what nobody expected; the log has it under the request id."""
    return _plain_error(500, "internal", "The yard failed at this; its log says more.", request_id)


def _plain_error(status: int, code: str, message: str, request_id: str) -> Response:
    body = {"error": {"code": code, "message": message, "request_id": request_id}}
    return Response(orjson.dumps(body), status_code=status, media_type="application/json")


async def stream_of(request: Request) -> AsyncIterator[bytes]:
    async for chunk in request.stream():
        if chunk:
            yield chunk
