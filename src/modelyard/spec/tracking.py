"""Experiments and runs as the native API shows them, and lineage. Times in ISO 8601 or, where a name ends with `_ms`, milliseconds since 1970."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, NotRequired

from typing_extensions import TypedDict


class Experiment(TypedDict):
    id: str
    name: str
    lifecycle: str
    created_ms: int
    updated_ms: int
    tags: dict[str, str]


class RunSummary(TypedDict):
    """`metrics` are the latest values; a NaN is null."""

    run_id: str
    name: str
    experiment_id: str
    status: str
    lifecycle: str
    user: str
    start_time: str | None
    end_time: str | None
    metrics: dict[str, float | None]
    params: dict[str, str]


class Run(RunSummary):
    """`metrics` are the latest values; a NaN is null."""

    tags: dict[str, str]


class Runs(TypedDict):
    """A page of runs. `count` is how many there are on all pages, when it was asked for."""

    value: list[Run]
    next: NotRequired[str]
    count: NotRequired[int]


class Summary(TypedDict):
    """`std` is the sample standard deviation; null of a single run."""

    mean: float
    std: float | None
    min: float
    max: float
    count: int


class RunGroup(TypedDict):
    """Runs that agree in `by`, how many and which, and their metrics together."""

    by: dict[str, str | None]
    runs: int
    metrics: dict[str, Summary]
    run_ids: list[str]


class MetricPoint(TypedDict):
    """`timestamp` in milliseconds since 1970; a NaN is null."""

    step: int
    timestamp: int
    value: float | None


LINEAGE_KINDS = ("job", "model", "data", "environment", "deployment", "batch_deployment", "component", "schedule")
"""Of resources whose lineage can be asked for. The code of jobs, the datasets that runs have named and paths are only reached from them."""


class Relation(StrEnum):
    """What a source is to its target: data is read by a job, a job made a model."""

    READ = "read by"
    WROTE = "wrote to"
    LIES = "path of"
    MADE = "made"
    RUN = "run by"
    ENVIRONMENT = "environment of"
    SERVED = "served by"
    SUBMITTED = "submitted"
    PART = "part of"
    RESULT = "result taken over by"


class LineageNode(TypedDict):
    """`name` carries the version of what has one: `iris:3`."""

    kind: str
    name: str


class LineageResource(LineageNode):
    """A resource with what is known of it; `title` is a name for people, or its type."""

    status: NotRequired[str]
    created_by: NotRequired[str | None]
    created_at: NotRequired[str | None]
    title: NotRequired[str]


class LineageStep(LineageResource):
    """What was reached, over which other, what it is to that, and how many steps from the start."""

    via: str
    relation: Relation
    distance: int


class LineageEdge(TypedDict):
    """`relation` reads from source to target: data `read by` a job, a job `made` a model."""

    source: LineageNode
    target: LineageNode
    relation: Relation


class Lineage(TypedDict):
    """What something was made of, and what was made of it, nearest first, with all edges between them. `truncated`: there is more."""

    thing: LineageResource
    upstream: list[LineageStep]
    downstream: list[LineageStep]
    edges: list[LineageEdge]
    truncated: bool


class OpenLineageRun(TypedDict):
    runId: str
    facets: NotRequired[dict[str, Any]]


class OpenLineageJob(TypedDict):
    namespace: str
    name: str
    facets: dict[str, Any]


class OpenLineageEvent(TypedDict):
    """A RunEvent of OpenLineage 2-0-2."""

    eventType: str
    eventTime: str | None
    run: OpenLineageRun
    job: OpenLineageJob
    inputs: list[OpenLineageJob]
    outputs: list[OpenLineageJob]
    producer: str
    schemaURL: str


class ImportedId(TypedDict):
    """Under which id an experiment is here."""

    id: str
