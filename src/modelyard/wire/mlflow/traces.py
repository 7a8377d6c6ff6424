"""Traces, in the third version of MLflow's calls and, for clients before 3, in the second; OpenTelemetry's export."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
from starlette.responses import Response

from ...core import ids
from ...core.clock import now_ms
from ...core.errors import Invalid
from ...engine.http import Call, aside, limited_body
from ...work.traces import service
from ...work.traces.model import Trace
from .app import route
from .bodies import MAX_BODY, Pair, body, needed, number, pairs, query
from .otlp import spans_of
from .shapes import filled
from .shapes import pairs as shown_pairs


class StartBody(msgspec.Struct):
    """Third version: `trace`; second: the rest."""

    trace: dict[str, Any] | None = None
    experiment_id: str | None = None
    timestamp_ms: int | None = None
    request_metadata: list[Pair] | None = None
    tags: list[Pair] | None = None
    status: str | int | None = None


class SearchBody(msgspec.Struct):
    locations: list[dict[str, Any]] | None = None
    experiment_ids: list[str] | None = None
    filter: str | None = None
    max_results: int | None = None
    order_by: list[str] | None = None
    page_token: str | None = None


class DeleteBody(msgspec.Struct):
    experiment_id: str | None = None
    max_timestamp_millis: int | None = None
    max_traces: int | None = None
    request_ids: list[str] | None = None
    trace_ids: list[str] | None = None


class LinkBody(msgspec.Struct):
    trace_ids: list[str] | None = None
    trace_id: str | None = None
    run_id: str | None = None
    prompt_versions: list[dict[str, str]] | None = None


class IdsBody(msgspec.Struct):
    trace_ids: list[str] | None = None


class TagBody(msgspec.Struct):
    key: str | None = None
    value: str | None = None


class AssessmentBody(msgspec.Struct):
    assessment: dict[str, Any] | None = None
    update_mask: str | None = None


# Shapes


def _time(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _millis(text: object, name: str) -> int:
    try:
        return round(datetime.fromisoformat(str(text)).timestamp() * 1000)
    except (ValueError, OverflowError):
        raise Invalid(f"Invalid value {str(text)[:40]!r} for parameter '{name}' supplied: a time in RFC 3339 is needed") from None


def _duration_ms(text: object) -> int | None:
    if text in (None, ""):
        return None
    try:
        return round(float(str(text).removesuffix("s")) * 1000)
    except (ValueError, OverflowError):
        raise Invalid(
            f"Invalid value {str(text)[:40]!r} for parameter 'execution_duration' supplied: seconds such as 1.5s are needed"
        ) from None


def _info(trace: Trace) -> dict[str, Any]:
    return filled(
        {
            "trace_id": trace.id,
            "client_request_id": trace.client_request_id or None,
            "trace_location": {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": trace.experiment_id}},
            "request_preview": trace.request_preview or None,
            "response_preview": trace.response_preview or None,
            "request_time": _time(trace.time_ms),
            "execution_duration": None if trace.duration_ms is None else f"{trace.duration_ms / 1000:.3f}s",
            "state": trace.state,
            "trace_metadata": trace.metadata,
            "tags": trace.tags,
            "assessments": [_assessment(item) for item in trace.assessments],
        }
    )


def _assessment(document: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in document.items() if not key.endswith("_value")}


def _old_info(trace: Trace) -> dict[str, Any]:
    return filled(
        {
            "request_id": trace.id,
            "experiment_id": trace.experiment_id,
            "timestamp_ms": trace.time_ms,
            "execution_time_ms": trace.duration_ms,
            "status": trace.state,
            "request_metadata": shown_pairs(trace.metadata),
            "tags": shown_pairs(trace.tags),
        }
    )


def _read_info(info: object) -> Trace:
    if not isinstance(info, dict):
        raise Invalid("Missing value for required parameter 'trace.trace_info'.")
    location = info.get("trace_location") or {}
    experiment = (location.get("mlflow_experiment") or {}).get("experiment_id") if isinstance(location, dict) else None
    metadata: dict[str, str] = info.get("trace_metadata") or {}
    tags: dict[str, str] = info.get("tags") or {}
    assessments: list[dict[str, Any]] = info.get("assessments") or []
    for mapping in (metadata, tags):
        if not isinstance(mapping, dict) or not all(isinstance(value, str) for value in mapping.values()):
            raise Invalid("tags and trace_metadata are maps of texts")
    if not isinstance(assessments, list) or not all(isinstance(item, dict) for item in assessments):
        raise Invalid("assessments is a list of assessments")
    return Trace(
        id=str(needed(info.get("trace_id"), "trace_info.trace_id")), experiment_id=str(needed(experiment, "trace_location")),
        time_ms=_millis(needed(info.get("request_time"), "trace_info.request_time"), "request_time"),
        duration_ms=_duration_ms(info.get("execution_duration")), state=str(info.get("state") or "STATE_UNSPECIFIED"),
        request_preview=str(info.get("request_preview") or ""), response_preview=str(info.get("response_preview") or ""),
        client_request_id=str(info.get("client_request_id") or ""), metadata=metadata, tags=tags, assessments=assessments,
    )  # fmt: skip


# Calls


@route("POST", "mlflow/traces")
async def start(call: Call, _: dict[str, str]) -> Any:
    sent = await body(call, StartBody, service.start_trace)
    if sent.trace is not None:
        started = await call.write(service.start_trace, _read_info(sent.trace.get("trace_info")))
        return {"trace": {"trace_info": _info(started)}}
    trace = Trace(
        f"tr-{ids.hex32()}", needed(sent.experiment_id, "experiment_id"), needed(sent.timestamp_ms, "timestamp_ms"), None, "IN_PROGRESS",
        "", "", "", pairs(sent.request_metadata), pairs(sent.tags),
    )  # fmt: skip
    return {"trace_info": _old_info(await call.write(service.start_trace, trace))}


@route("PATCH", "mlflow/traces/{trace_id}")
async def end(call: Call, path: dict[str, str]) -> Any:
    sent = await body(call, StartBody, service.end_trace)
    state = {"TRACE_STATUS_UNSPECIFIED": "STATE_UNSPECIFIED"}.get(str(sent.status), str(sent.status))
    time = now_ms() if sent.timestamp_ms is None else sent.timestamp_ms
    ended = await call.write(service.end_trace, path["trace_id"], time, state, pairs(sent.request_metadata), pairs(sent.tags))
    return {"trace_info": _old_info(ended)}


@route("GET", "mlflow/traces/{trace_id}")
async def get_info(call: Call, path: dict[str, str]) -> Any:
    return {"trace": {"trace_info": _info(await call.lookup(service.get_trace, path["trace_id"]))}}


@route("GET", "mlflow/traces/{trace_id}/info")
async def get_old_info(call: Call, path: dict[str, str]) -> Any:
    return {"trace_info": _old_info(await call.lookup(service.get_trace, path["trace_id"]))}


@route("GET", "mlflow/traces/get")
async def get(call: Call, _: dict[str, str]) -> Any:
    trace = await call.lookup(service.get_trace, needed(query(call.request, "trace_id"), "trace_id"))
    return {"trace": {"trace_info": _info(trace), "spans": trace.spans}}


@route("GET", "mlflow/traces/batchGet")
async def get_many(call: Call, _: dict[str, str]) -> Any:
    traces = await call.read(service.get_traces, call.request.query_params.getlist("trace_ids"))
    return filled({"traces": [{"trace_info": _info(trace), "spans": trace.spans} for trace in traces]})


@route("POST", "mlflow/traces/batchGetInfos")
async def get_infos(call: Call, _: dict[str, str]) -> Any:
    traces = await call.read(service.get_traces, (await body(call, IdsBody, service.get_traces)).trace_ids or [], spans=False)
    return filled({"trace_infos": [_info(trace) for trace in traces]})


@route("POST", "mlflow/traces/search")
async def search(call: Call, _: dict[str, str]) -> Any:
    sent = await body(call, SearchBody, service.search_traces)
    experiments = [str((item.get("mlflow_experiment") or {}).get("experiment_id")) for item in sent.locations or ()]
    limit = 100 if sent.max_results is None else sent.max_results
    page = await call.read(service.search_traces, experiments, sent.filter, sent.order_by or [], limit, sent.page_token)
    return filled({"traces": [_info(trace) for trace in page.items], "next_page_token": page.next_token})


@route("GET", "mlflow/traces")
async def search_old(call: Call, _: dict[str, str]) -> Any:
    request = call.request
    experiments, order = request.query_params.getlist("experiment_ids"), request.query_params.getlist("order_by")
    limit, token = number(request, "max_results", 100), query(request, "page_token") or None
    page = await call.read(service.search_traces, experiments, query(request, "filter"), order, limit, token)
    return filled({"traces": [_old_info(trace) for trace in page.items], "next_page_token": page.next_token})


@route("POST", "mlflow/traces/delete-traces")
async def delete(call: Call, _: dict[str, str]) -> Any:
    sent = await body(call, DeleteBody, service.delete_traces)
    ids = sent.trace_ids or sent.request_ids
    experiment = needed(sent.experiment_id, "experiment_id")
    return {"traces_deleted": await call.write(service.delete_traces, experiment, ids, sent.max_timestamp_millis, sent.max_traces)}


@route("PATCH", "mlflow/traces/{trace_id}/tags")
async def set_tag(call: Call, path: dict[str, str]) -> Any:
    sent = await body(call, TagBody, service.set_tag)
    await call.write(service.set_tag, path["trace_id"], needed(sent.key, "key"), sent.value or "")
    return {}


@route("DELETE", "mlflow/traces/{trace_id}/tags")
async def delete_tag(call: Call, path: dict[str, str]) -> Any:
    key = (await body(call, TagBody, service.delete_tag)).key or query(call.request, "key")
    await call.write(service.delete_tag, path["trace_id"], needed(key, "key"))
    return {}


@route("POST", "mlflow/traces/link-to-run")
async def link_to_run(call: Call, _: dict[str, str]) -> Any:
    sent = await body(call, LinkBody, service.link_to_run)
    await call.write(service.link_to_run, sent.trace_ids or [], needed(sent.run_id, "run_id"))
    return {}


@route("POST", "mlflow/traces/link-prompts")
async def link_prompts(call: Call, _: dict[str, str]) -> Any:
    sent = await body(call, LinkBody, service.link_prompts)
    prompts = [f"{item.get('name')}/{item.get('version')}" for item in sent.prompt_versions or ()]
    await call.write(service.link_prompts, needed(sent.trace_id, "trace_id"), prompts)
    return {}


@route("POST", "mlflow/traces/{trace_id}/assessments")
async def create_assessment(call: Call, path: dict[str, str]) -> Any:
    sent = needed((await body(call, AssessmentBody, service.create_assessment)).assessment, "assessment")
    return {"assessment": _assessment(await call.write(service.create_assessment, path["trace_id"], sent))}


@route("GET", "mlflow/traces/{trace_id}/assessments/{id}")
async def get_assessment(call: Call, path: dict[str, str]) -> Any:
    return {"assessment": _assessment(await call.lookup(service.get_assessment, path["trace_id"], path["id"]))}


@route("PATCH", "mlflow/traces/{trace_id}/assessments/{id}")
async def update_assessment(call: Call, path: dict[str, str]) -> Any:
    sent = needed((await body(call, AssessmentBody, service.update_assessment)).assessment, "assessment")
    changes = {key: value for key, value in sent.items() if key not in ("assessment_id", "trace_id", "create_time")}
    return {"assessment": _assessment(await call.write(service.update_assessment, path["trace_id"], path["id"], changes))}


@route("DELETE", "mlflow/traces/{trace_id}/assessments/{id}")
async def delete_assessment(call: Call, path: dict[str, str]) -> Any:
    await call.write(service.delete_assessment, path["trace_id"], path["id"])
    return {}


@route("POST", "v1/traces")
async def export(call: Call, _: dict[str, str]) -> Any:
    headers = call.request.headers
    experiment = needed(headers.get("x-mlflow-experiment-id"), "x-mlflow-experiment-id")
    call.permit(service.log_spans)
    data = await limited_body(call.request, MAX_BODY)
    kind, encoding = headers.get("content-type", ""), headers.get("content-encoding", "").lower()
    spans = await aside(len(data) if encoding in ("", "identity") else MAX_BODY, spans_of, data, kind, encoding)
    await call.write(service.log_spans, experiment, spans, headers.get("x-mlflow-run-id"))
    # An empty ExportTraceServiceResponse: every span was accepted.
    return {} if kind.startswith("application/json") else Response(b"", media_type="application/x-protobuf")
