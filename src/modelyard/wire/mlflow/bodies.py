"""What MLflow clients send: request bodies and query parameters, and MLflow's messages for invalid ones."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
import orjson
from starlette.requests import Request

from ...core.errors import Invalid
from ...engine.http import Call, aside, limited_body

MAX_BODY = 32 * 2**20
SMALL = 2**20
"""Bytes that are decoded on the event loop: what MLflow's clients send at most takes msgspec a few milliseconds, and a thread costs more."""
_SEE = "See the API docs for more information about request parameters."
T = TypeVar("T", bound=msgspec.Struct)


class Pair(msgspec.Struct):
    key: str | None = None
    value: str | None = None


class MetricBody(msgspec.Struct):
    key: str | None = None
    value: float | str | None = None
    timestamp: int | None = None
    step: int | None = None
    model_id: str | None = None
    dataset_name: str | None = None
    dataset_digest: str | None = None


class LogMetric(MetricBody):
    run_id: str | None = None
    run_uuid: str | None = None


class LogPair(Pair):
    run_id: str | None = None
    run_uuid: str | None = None


class LogBatch(msgspec.Struct):
    run_id: str | None = None
    metrics: list[MetricBody] | None = None
    params: list[Pair] | None = None
    tags: list[Pair] | None = None


class CreateRun(msgspec.Struct):
    experiment_id: str | None = None
    user_id: str | None = None
    run_name: str | None = None
    start_time: int | None = None
    tags: list[Pair] | None = None


class RunBody(msgspec.Struct):
    """Body of calls on a run: update, delete, restore, log-model."""

    run_id: str | None = None
    run_uuid: str | None = None
    status: str | int | None = None
    end_time: int | None = None
    run_name: str | None = None
    model_json: str | None = None


class SearchRuns(msgspec.Struct):
    experiment_ids: list[str | int] | None = None
    filter: str | None = None
    run_view_type: str | int | None = None
    max_results: int | None = None
    order_by: list[str] | None = None
    page_token: str | None = None


class DatasetInput(msgspec.Struct):
    dataset: dict[str, str] | None = None
    tags: list[Pair] | None = None


class ModelLink(msgspec.Struct):
    model_id: str | None = None
    step: int | None = None


class LogInputs(msgspec.Struct):
    run_id: str | None = None
    datasets: list[DatasetInput] | None = None
    models: list[ModelLink] | None = None


class ExperimentBody(msgspec.Struct):
    """Body of every call on experiments but search."""

    experiment_id: str | None = None
    name: str | None = None
    new_name: str | None = None
    artifact_location: str | None = None
    tags: list[Pair] | None = None
    key: str | None = None
    value: str | None = None


class SearchExperiments(msgspec.Struct):
    filter: str | None = None
    view_type: str | int | None = None
    max_results: int | None = None
    order_by: list[str] | None = None
    page_token: str | None = None


class RegistryBody(msgspec.Struct):
    """Body of every call on registered models and model versions."""

    name: str | None = None
    new_name: str | None = None
    description: str | None = None
    tags: list[Pair] | None = None
    key: str | None = None
    value: str | None = None
    alias: str | None = None
    version: str | int | None = None
    source: str | None = None
    run_id: str | None = None
    run_link: str | None = None
    model_id: str | None = None
    stage: str | None = None
    stages: list[str] | None = None
    archive_existing_versions: bool | None = None


class LoggedModelBody(msgspec.Struct):
    experiment_id: str | None = None
    name: str | None = None
    model_type: str | None = None
    source_run_id: str | None = None
    params: list[Pair] | None = None
    tags: list[Pair] | None = None
    status: str | int | None = None


class OrderBody(msgspec.Struct):
    field_name: str | None = None
    ascending: bool | None = None
    dataset_name: str | None = None
    dataset_digest: str | None = None


class SearchLoggedModels(msgspec.Struct):
    experiment_ids: list[str | int] | None = None
    filter: str | None = None
    datasets: list[dict[str, str]] | None = None
    max_results: int | None = None
    order_by: list[OrderBody] | None = None
    page_token: str | None = None


class ExperimentList(msgspec.Struct):
    experiment_ids: list[str | int] | None = None


class PartBody(msgspec.Struct):
    part_number: int | None = None
    etag: str | None = None


class MultipartBody(msgspec.Struct):
    path: str | None = None
    num_parts: int | None = None
    upload_id: str | None = None
    parts: list[PartBody] | None = None


async def body(call: Call, kind: type[T], case: Callable[..., Any]) -> T:
    """The JSON body as a Struct, for a caller who may do what `case` does with it. Numbers may come as text, as protobuf's JSON allows.

    Raises Forbidden before the body is read, Invalid.
    """
    call.permit(case)
    data = await limited_body(call.request, MAX_BODY)
    return _read(data, kind) if len(data) <= SMALL else await aside(len(data), _read, data, kind)


def _read(data: bytes, kind: type[T]) -> T:
    try:
        if data[:1] == b'"':  # old clients encode twice
            data = msgspec.json.decode(data, type=str).encode()
        return msgspec.json.decode(data or b"{}", type=kind, strict=False)
    except msgspec.ValidationError as error:
        raise _wrong_type(data, str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        if b"NaN" in data or b"Infinity" in data:
            return _python_json(data, kind)
        raise Invalid(f"Invalid request body: {error}", code="invalid_json") from None


def _python_json(data: bytes, kind: type[T]) -> T:
    """Python's json module writes NaN and Infinity bare, which JSON does not allow; MLflow's server accepts them."""
    try:
        document = json.loads(data, parse_constant=str)
        return msgspec.convert(document, kind, strict=False)
    except msgspec.ValidationError as error:
        raise _wrong_type(b"", str(error)) from None
    except (ValueError, RecursionError) as error:
        raise Invalid(f"Invalid request body: {error}", code="invalid_json") from None


def _wrong_type(data: bytes, text: str) -> Invalid:
    """`Expected `str`, got `int` - at `$.name`` in MLflow's words, with the value that was sent."""
    expected, _, field = text.partition(" - at `$")
    field = field.rstrip("`").lstrip(".")
    try:
        value = orjson.loads(data)
        for part in re.findall(r"[^.\[\]]+", field):
            value = value[int(part)] if isinstance(value, list) else value[part]
        shown = orjson.dumps(value).decode()[:200]
    except (ValueError, KeyError, IndexError, TypeError, RecursionError):
        shown = ""
    if not field:
        return Invalid(f"Invalid request body: {expected}", code="invalid_json")
    return Invalid(f"Invalid value {shown} for parameter '{field}' supplied: {expected}. {_SEE}", code="invalid_parameter")


def query(request: Request, name: str, default: str = "") -> str:
    return request.query_params.get(name, default)


def number(request: Request, name: str, default: int) -> int:
    text = request.query_params.get(name)
    if text is None:
        return default
    if not text.lstrip("-").isdigit() or len(text) > 18:
        raise Invalid(f"Invalid value {text[:40]!r} for parameter '{name}' supplied: an integer is needed. {_SEE}")
    return int(text)


def needed(value: Any, name: str) -> Any:
    if value is None or value == "":
        raise Invalid(f"Missing value for required parameter '{name}'. {_SEE}")
    return value


def pairs(items: list[Pair] | None) -> dict[str, str]:
    return {needed(item.key, "key"): item.value or "" for item in items or []}
