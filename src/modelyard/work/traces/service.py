"""Use cases of traces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ...core import ids
from ...core.actor import requires
from ...core.errors import Forbidden, Invalid, NotFound
from ...core.paging import Page, check_limit
from ...spec.states import TraceState
from ...storage import filters
from ...storage.unit import Unit
from ..tracking import service as tracking
from ..tracking.model import check_text
from . import store
from .model import MAX_PREVIEW, NAME_TAG, RUN_METADATA, SPANS_TAG, Span, Trace

MAX_TAG = 8000


def _trace(unit: Unit, id: str) -> Trace:
    trace = store.get_trace(unit, id)
    if trace is None:
        raise NotFound(f"Trace with ID '{id[:80]}' not found.")
    return trace


def _writable(unit: Unit, id: str) -> Trace:
    trace = _trace(unit, id)
    if unit.actor.bound_to is not None and trace.owner != unit.actor.id:
        raise Forbidden(f"job {unit.actor.run} may change traces that it made, not {id}")
    return trace


@requires("workspaces/experiments/runs/write")
def start_trace(unit: Unit, trace: Trace) -> Trace:
    """Add a trace, or the client's fields of one whose spans came first."""
    experiment = tracking.get_experiment(unit, trace.experiment_id)
    TraceState.of(trace.state)
    if not trace.id or len(trace.id) > 128 or any(char in trace.id for char in "/\x00"):
        raise Invalid(f"Invalid trace ID {trace.id[:80]!r}", code="invalid_trace_id")
    earlier = store.get_trace(unit, trace.id)
    if earlier is not None:
        _writable(unit, trace.id)
    tags = {**(earlier.tags if earlier else {}), **_checked(trace.tags), "mlflow.artifactLocation": _artifacts(experiment.id, trace.id)}
    metadata = {**(earlier.metadata if earlier else {}), **_checked(trace.metadata)}
    started = replace(
        trace, tags=tags, metadata=metadata, owner=earlier.owner if earlier else unit.actor.id,
        request_preview=trace.request_preview[:MAX_PREVIEW], response_preview=trace.response_preview[:MAX_PREVIEW],
    )  # fmt: skip
    store.put_trace(unit, started)
    for assessment in trace.assessments:
        create_assessment(unit, trace.id, assessment)
    return _trace(unit, trace.id)


def _artifacts(experiment_id: str, id: str) -> str:
    return f"mlflow-artifacts:/{experiment_id}/traces/{id}/artifacts"


def _checked(pairs: dict[str, str]) -> dict[str, str]:
    """Long values are cut as MLflow cuts them: inputs and outputs are sent as metadata."""
    if any(len(key) > 250 for key in pairs):
        raise Invalid("a key of a trace's tags and metadata has 250 characters at most", code="invalid_key")
    return {key: check_text("value", value[:MAX_TAG], MAX_TAG) for key, value in pairs.items()}


@requires("workspaces/experiments/runs/write")
def log_spans(unit: Unit, experiment_id: str, spans: Sequence[Span], run_id: str | None) -> None:
    """Keep spans from any OpenTelemetry exporter; a trace that is not there yet is made of them."""
    tracking.get_experiment(unit, experiment_id)
    by_trace: dict[str, list[Span]] = {}
    for span in spans:
        by_trace.setdefault(span.trace_id, []).append(span)
    for id, trace_spans in by_trace.items():
        earlier = store.get_trace(unit, id)
        if earlier is not None:
            _writable(unit, id)
        trace = earlier or Trace(id, experiment_id, unit.now, None, TraceState.IN_PROGRESS, "", "", "", {}, {}, unit.actor.id)
        if earlier is None:
            trace.time_ms = min(span.start_ns for span in trace_spans) // 1_000_000
            trace.tags["mlflow.artifactLocation"] = _artifacts(experiment_id, id)
        root = next((span for span in trace_spans if span.is_root), None)
        if root is not None and trace.duration_ms is None:
            trace.time_ms = root.start_ns // 1_000_000
            trace.duration_ms = max(0, root.end_ns - root.start_ns) // 1_000_000
            trace.state = TraceState.ERROR if root.status == "ERROR" else TraceState.OK
            trace.tags.setdefault(NAME_TAG, root.name)
            trace.request_preview, trace.response_preview = root.inputs[:MAX_PREVIEW], root.outputs[:MAX_PREVIEW]
        trace.tags[SPANS_TAG] = "TRACKING_STORE"
        if run_id:
            trace.metadata.setdefault(RUN_METADATA, run_id)
        store.put_trace(unit, trace)
    store.put_spans(unit, spans)


@requires("workspaces/experiments/runs/read")
def get_trace(unit: Unit, id: str) -> Trace:
    """With its spans."""
    trace = _trace(unit, id)
    store.fill_spans(unit, [trace])
    return trace


@requires("workspaces/experiments/runs/read")
def get_traces(unit: Unit, ids: Sequence[str], *, spans: bool = True) -> list[Trace]:
    """Those that exist."""
    if len(ids) > 1000:
        raise Invalid("1000 traces at most are answered at once", code="too_many")
    traces = store.get_traces(unit, ids)
    if spans:
        store.fill_spans(unit, traces)
    return traces


@requires("workspaces/experiments/runs/read")
def search_traces(
    unit: Unit, experiment_ids: Sequence[str], filter: str | None, order: list[str], limit: int, token: str | None
) -> Page[Trace]:
    conditions, orders = filters.parse_filter(filter), filters.parse_order(order)
    return store.search_traces(unit, tracking.experiment_numbers(experiment_ids), conditions, orders, check_limit(limit, 500), token)


@requires("workspaces/experiments/runs/write")
def end_trace(unit: Unit, id: str, time_ms: int, state: str, metadata: dict[str, str], tags: dict[str, str]) -> Trace:
    """How clients before MLflow 3 end a trace."""
    trace = _writable(unit, id)
    TraceState.of(state)
    trace.duration_ms, trace.state = max(0, time_ms - trace.time_ms), state
    trace.metadata.update(_checked(metadata))
    trace.tags.update(_checked(tags))
    store.put_trace(unit, trace)
    return trace


@requires("workspaces/experiments/runs/write")
def set_tag(unit: Unit, id: str, key: str, value: str) -> None:
    trace = _writable(unit, id)
    trace.tags.update(_checked({key: value}))
    store.put_trace(unit, trace)


@requires("workspaces/experiments/runs/write")
def delete_tag(unit: Unit, id: str, key: str) -> None:
    trace = _writable(unit, id)
    if key not in trace.tags:
        raise NotFound(f"No trace tag with key '{key[:80]}' for trace with ID '{id}'")
    del trace.tags[key]
    store.put_trace(unit, trace)


@requires("workspaces/experiments/delete")
def delete_traces(unit: Unit, experiment_id: str, ids: Sequence[str] | None, before_ms: int | None, max_traces: int | None) -> int:
    """By their ids, or all up to a time; at most `max_traces`, the oldest first."""
    if (ids is None) == (before_ms is None):
        raise Invalid("Either `max_timestamp_millis` or `trace_ids` must be specified, not both.", code="invalid_parameter")
    if max_traces is not None and (ids is not None or max_traces < 1):
        raise Invalid("`max_traces` is a positive number and goes with `max_timestamp_millis`.", code="invalid_parameter")
    gone = store.delete_traces(unit, tracking.experiment_numbers([experiment_id])[0], ids, before_ms, max_traces)
    if gone:
        unit.record("traces.deleted", experiment_id, count=gone)
    return gone


@requires("workspaces/experiments/runs/write")
def link_to_run(unit: Unit, trace_ids: Sequence[str], run_id: str) -> None:
    if len(trace_ids) > 100:
        raise Invalid("100 traces at most are linked at once", code="too_many")
    tracking.check_artifact_writable(unit, run_id)
    for id in trace_ids:
        _trace(unit, id)
        store.put_link(unit, id, "run", run_id)


@requires("workspaces/experiments/runs/write")
def link_prompts(unit: Unit, id: str, prompts: Sequence[str]) -> None:
    """`prompts` as `name/version`."""
    _writable(unit, id)
    for prompt in prompts:
        store.put_link(unit, id, "prompt", prompt)


@requires("workspaces/experiments/runs/write")
def create_assessment(unit: Unit, trace_id: str, assessment: dict[str, Any]) -> dict[str, Any]:
    """Feedback or an expectation of a trace, in MLflow's JSON. The one it overrides is no longer valid."""
    _trace(unit, trace_id)
    name = assessment.get("assessment_name")
    if not isinstance(name, str) or not name:
        raise Invalid("Missing value for required parameter 'assessment.assessment_name'.", code="invalid_assessment")
    id = f"a-{ids.hex32()}"
    overridden = assessment.get("overrides")
    if overridden:
        earlier = _assessment(unit, trace_id, str(overridden))
        store.set_assessment(unit, str(overridden), earlier["assessment_name"], {**earlier, "valid": False})
    created = {**assessment, "assessment_id": id, "trace_id": trace_id, "valid": True, **_searchable(assessment)}
    store.put_assessment(unit, id, trace_id, name, created)
    return created


def _searchable(assessment: dict[str, Any]) -> dict[str, str]:
    """The columns in which a filter searches the assessment's plain value."""
    columns = {}
    for kind in ("feedback", "expectation"):
        value = assessment.get(kind)
        if isinstance(value, dict) and "value" in value:
            plain = value["value"]
            columns[f"{kind}_value"] = str(plain).lower() if isinstance(plain, bool) else str(plain)
    return columns


def _assessment(unit: Unit, trace_id: str, id: str) -> dict[str, Any]:
    assessment = store.get_assessment(unit, trace_id, id)
    if assessment is None:
        raise NotFound(f"Assessment with ID '{id[:80]}' not found for trace '{trace_id[:80]}'")
    return assessment


@requires("workspaces/experiments/runs/read")
def get_assessment(unit: Unit, trace_id: str, id: str) -> dict[str, Any]:
    return _assessment(unit, trace_id, id)


@requires("workspaces/experiments/runs/write")
def update_assessment(unit: Unit, trace_id: str, id: str, changes: dict[str, Any]) -> dict[str, Any]:
    changed = {**_assessment(unit, trace_id, id), **changes, "assessment_id": id, "trace_id": trace_id}
    changed.update(_searchable(changed))
    store.set_assessment(unit, id, str(changed["assessment_name"]), changed)
    return changed


@requires("workspaces/experiments/runs/write")
def delete_assessment(unit: Unit, trace_id: str, id: str) -> None:
    """The one it overrode is valid again."""
    gone = _assessment(unit, trace_id, id)
    store.delete_assessment(unit, id)
    earlier = store.get_assessment(unit, trace_id, str(gone.get("overrides", "")))
    if earlier is not None:
        store.set_assessment(unit, earlier["assessment_id"], earlier["assessment_name"], {**earlier, "valid": True})


@requires("workspaces/experiments/runs/write")
def check_writable(unit: Unit, id: str) -> None:
    """Before a byte of its artifacts is taken."""
    _writable(unit, id)
