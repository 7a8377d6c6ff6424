"""What every scoring contract works with: the caller's fault, an answer, and JSON of whatever a model returns."""

from __future__ import annotations

import base64
import dataclasses
import datetime
import json
import types
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from typing import Any, Callable, Hashable, Iterable, Iterator, Mapping, Protocol, Sequence, Tuple
from uuid import UUID

Headers = Iterable[Tuple[str, str]]


class Request(Protocol):
    """What a contract sees of a request."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes


class BadInput(Exception):
    """The caller's fault: answered 400 with the message."""


class UnsupportedType(Exception):
    """The request's media type is not taken: answered 415 with the message."""


class NotSendable(Exception):
    """The script returned what cannot be sent."""


class Answer:
    """`body` is bytes, or an iterator of chunks that is sent as it goes."""

    def __init__(
        self,
        status: int,
        body: bytes | Iterator[bytes],
        headers: Headers = (),
        content_type: str | None = "application/json",
        failed: bool = False,
    ) -> None:
        self.status, self.body, self.headers, self.content_type = status, body, list(headers), content_type
        self.failed = failed


Handler = Callable[[Request], Answer]


class Part:
    """A request that has been decoded, to `count` rows. Those of equal `key` can be predicted in one call."""

    __slots__ = ("request", "rows", "count", "params", "key")

    def __init__(self, request: Request, rows: Any, count: int, params: dict[str, Any] | None, key: Hashable) -> None:
        self.request, self.rows, self.count, self.params, self.key = request, rows, count, params, key


class Batch(Protocol):
    """A model whose requests are decoded without its handlers, and that predicts several of them in one call, where that is proven."""

    most: int
    """Rows of several requests in one call at most; 1: one request a call."""
    seconds: float
    """That one row takes alone; 0 when that is not known."""
    proven: Callable[[], Any]
    """Called, in any thread, when it turns out later that several requests can be predicted in one call."""

    @property
    def quick(self) -> bool:
        """Whether predictions may run on the event loop."""
        ...

    def decode(self, request: Request) -> Part | None:
        """None for a request that its handler has to answer."""
        ...

    def predict(self, parts: Sequence[Part]) -> list[Answer]:
        """An answer to each. Raises what the model raises."""
        ...

    def failed(self, part: Part, problem: BaseException) -> Answer | BaseException:
        """The answer to a request that was predicted alone and raised this; an exception is answered as one of a handler is."""
        ...


class Model(Protocol):
    """A loaded model: what it answers at which path, and whether it predicts several requests in one call."""

    @property
    def batch(self) -> Batch | None: ...

    @property
    def twin(self) -> str:
        """Whether its ONNX twin is used, and why not; empty when none was asked for."""
        ...

    @property
    def batching(self) -> str:
        """Whether requests that meet are predicted in one call, and why not; empty for a script."""
        ...

    @property
    def methods(self) -> Mapping[str, tuple[str, ...]]: ...

    def routes(self) -> Mapping[str, Handler]: ...


def answer_of(result: Any) -> Answer:
    """What `run` returned as an answer: a response object as it is, a generator as a stream, anything else as JSON."""
    if hasattr(result, "get_data") and hasattr(result, "status_code") and hasattr(result, "headers"):
        if not 200 <= result.status_code <= 599:
            raise NotSendable("run() answered with the status %s; an answer has one from 200 to 599" % result.status_code)
        skipped = ("content-length", "content-type", "connection", "transfer-encoding")
        headers = [(name.lower(), value) for name, value in result.headers.items() if name.lower() not in skipped]
        body = result.iter_encoded() if getattr(result, "is_streamed", False) else result.get_data()
        kind = result.headers.get("Content-Type")
        return Answer(result.status_code, body, headers, kind, getattr(result, "run_function_failed", False))
    if isinstance(result, types.GeneratorType):
        return Answer(
            200, (_chunk(item) for item in result), content_type="text/event-stream" if _is_events(result) else "application/octet-stream"
        )
    try:
        return Answer(200, b"{}" if result is None else encode(result))
    except (TypeError, ValueError) as problem:
        raise NotSendable("run() returned a %s, which has no JSON form: %s" % (type(result).__name__, problem)) from problem


def _is_events(generator: types.GeneratorType[Any, Any, Any]) -> bool:
    """A generator function may say that it yields server-sent events by its name."""
    return "event" in generator.__name__


def _chunk(item: Any) -> bytes:
    if isinstance(item, (bytes, bytearray)):
        return bytes(item)
    return item.encode() if isinstance(item, str) else encode(item) + b"\n"


def json_or_text(value: str) -> Any:
    try:
        return json.loads(value)
    except ValueError:
        return value


def json_body(request: Request) -> dict[str, Any]:
    """The body as a JSON object. Raises BadInput."""
    kind = request.headers.get("content-type", "application/json").split(";")[0].strip().lower()
    if kind not in ("application/json", ""):
        raise BadInput("this model takes application/json, not %s" % kind)
    try:
        document = json.loads(request.body)
    except (ValueError, RecursionError) as problem:
        raise BadInput("the body is not valid JSON: %s" % problem) from None
    if not isinstance(document, dict):
        raise BadInput("the body must be a JSON object")
    return document


def plain(value: Any) -> Any:
    """A prediction in the form in which MLflow's own server sends it: a frame, or a series as a frame of one column, as records; an
    array as lists. What is nested in it `encode` writes."""
    if hasattr(value, "to_frame") and hasattr(value, "dtype"):
        value = value.to_frame()
    if hasattr(value, "to_dict") and hasattr(value, "columns"):
        return _records(value)
    return value.tolist() if hasattr(value, "tolist") else value


def _records(frame: Any) -> list[Any]:
    """As `to_dict(orient="records")` answers, which takes thirty times as long for a few rows."""
    names = list(frame.columns)
    if not names:
        return list(frame.to_dict(orient="records"))
    return [dict(zip(names, row)) for row in zip(*(column.tolist() for _, column in frame.items()))]


def encode(result: Any) -> bytes:
    """JSON of whatever a model or `run` returned, as MLflow's own server writes it: dates in ISO 8601, bytes in base64 with its line
    ends, NumPy's values as Python's, NaN as `NaN`. Decimals, sets, enumerations, dataclasses and nested frames are written too.

    Raises TypeError or ValueError for what has no JSON form.
    """
    result = plain(result)
    try:
        import orjson

        body: bytes = orjson.dumps(result, default=_jsonable, option=orjson.OPT_PASSTHROUGH_DATACLASS)
    except (ImportError, TypeError):
        return json.dumps(result, default=_jsonable).encode()
    # orjson writes null for what is not a number; Azure's and MLflow's servers write NaN.
    return json.dumps(result, default=_jsonable).encode() if b"null" in body else body


def _jsonable(value: Any) -> Any:
    """What JSON has no word for, a step nearer to what it has. Raises TypeError."""
    if hasattr(value, "to_dict") and hasattr(value, "columns"):
        return _records(value)
    if hasattr(value, "tolist"):  # arrays and scalars of NumPy, series, tensors
        values = value.tolist()
        return float(values) if type(values) is type(value) else values
    if isinstance(value, (bytes, bytearray)):
        return base64.encodebytes(value).decode("ascii")
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, (tuple, set, frozenset)):
        return list(value)
    if isinstance(value, (UUID, PurePath)):
        return str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if hasattr(value, "model_dump"):
        return value.model_dump()
    if type(value).__name__ == "NAType":  # pandas.NA
        return None
    raise TypeError("a %s has no JSON form" % type(value).__name__)
