"""Records of traces, in MLflow's third version of them (reference `mlflow-protocol`, section 1)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

NAME_TAG = "mlflow.traceName"
RUN_METADATA = "mlflow.sourceRun"
SPANS_TAG = "mlflow.trace.spansLocation"
MAX_PREVIEW = 10_000


@dataclass(slots=True)
class Trace:
    id: str
    experiment_id: str
    time_ms: int
    """When it began, since 1970."""
    duration_ms: int | None
    state: str
    """A `TraceState`."""
    request_preview: str
    response_preview: str
    client_request_id: str
    metadata: dict[str, str]
    tags: dict[str, str]
    owner: str = ""
    """The principal that made it."""
    assessments: list[dict[str, Any]] = field(default_factory=list)
    spans: list[dict[str, Any]] = field(default_factory=list)
    """As OpenTelemetry spells them in JSON."""


@dataclass(frozen=True)
class Span:
    """`document` is the span in OpenTelemetry's JSON; the rest is what searches and summaries look at."""

    trace_id: str
    id: str
    parent_id: str
    name: str
    type: str
    status: str
    start_ns: int
    end_ns: int
    document: dict[str, Any]
    inputs: str = ""
    outputs: str = ""

    @property
    def is_root(self) -> bool:
        return not self.parent_id
