"""Use cases of lineage."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from ...assets.data import service as data
from ...assets.environments import service as environments
from ...assets.models import service as models
from ...assets.references import service as references
from ...core.actor import requires
from ...core.errors import Invalid, NotFound
from ...spec.references import asset_ref
from ...storage.unit import Unit
from ...work.jobs import service as jobs
from ...work.tracking import service as tracking
from .model import KINDS, JobFacts, Node, Step, run_event

MAX_NODES = 2000
_ASSETS = ("data", "model", "environment")


@requires("workspaces/experiments/runs/read")
def show(unit: Unit, kind: str, name: str, depth: int) -> dict[str, Any]:
    """The resources that this one depends on (upstream) and that depend on it (downstream), nearest first."""
    start = _find(unit, kind, name)
    return {
        "thing": {"kind": start.kind, "name": start.name},
        "upstream": [step.document() for step in _walk(unit, start, _sources, depth)],
        "downstream": [step.document() for step in _walk(unit, start, _derived, depth)],
    }


@requires("workspaces/experiments/runs/read")
def openlineage(unit: Unit, kind: str, name: str, depth: int) -> list[dict[str, Any]]:
    """An OpenLineage event for every job upstream and downstream."""
    start = _find(unit, kind, name)
    steps = [*_walk(unit, start, _sources, depth), *_walk(unit, start, _derived, depth)]
    nodes = dict.fromkeys(node for node in (start, *(step.node for step in steps)) if node.kind == "job")
    return [event for node in nodes if (event := _event(unit, node)) is not None]


def _event(unit: Unit, node: Node) -> dict[str, Any] | None:
    facts = _facts(unit, node.name)
    if facts is None:
        return None
    inputs = [step for step in _sources(unit, node) if step.kind in ("data", "model", "dataset")]
    outputs = [step for step in _derived(unit, node) if step.kind in ("data", "model")]
    return run_event(unit.workspace, facts, inputs, outputs)


def _facts(unit: Unit, name: str) -> JobFacts | None:
    try:
        record = jobs.get(unit, name)
    except NotFound:
        try:
            run = tracking.get_run(unit, name)
        except NotFound:
            return None
        return JobFacts(run.id, run.status, run.end_ms, run.start_ms, {})
    return JobFacts(record.name, record.state, record.ended_ms, record.created_ms, record.properties.git)


def _find(unit: Unit, kind: str, name: str) -> Node:
    """The node of a resource, its label resolved to a version. Raises NotFound."""
    if kind not in KINDS:
        raise Invalid(f"there is no lineage of {kind[:40]!r}; kinds are {', '.join(KINDS[:5])}", code="invalid_kind")
    if kind == "model":
        model = models.resolve(unit, asset_ref(name, "model"))
        return Node(kind, f"{model.name}:{model.version}")
    if kind in _ASSETS:
        document = (data if kind == "data" else environments).get(unit, asset_ref(name, kind))
        return Node(kind, f"{document['name']}:{document['version']}")
    if kind == "job" and _facts(unit, name) is None:
        raise NotFound(f"there is no job or run {name[:80]}")
    return Node(kind, name)


def _walk(unit: Unit, start: Node, next_of: Callable[[Unit, Node], Iterator[Node]], depth: int) -> Iterator[Step]:
    """Breadth first, each resource once."""
    seen, edge = {start}, [start]
    for distance in range(1, max(1, min(depth, 50)) + 1):
        following = []
        for node in edge:
            for neighbour in next_of(unit, node):
                if neighbour not in seen and len(seen) < MAX_NODES:
                    seen.add(neighbour)
                    following.append(neighbour)
                    yield Step(neighbour.kind, neighbour.name, f"{node.kind} {node.name}", distance)
        edge = following


def _sources(unit: Unit, node: Node) -> Iterator[Node]:
    for kind, name, version in references.held_by(unit, node.kind, node.name):
        yield Node(kind, f"{name}:{version}" if version else name)
    if node.kind == "job":
        yield from _reads_of(unit, node.name)


def _reads_of(unit: Unit, job: str) -> Iterator[Node]:
    """Datasets that a run logged as inputs through MLflow, and the code it ran."""
    try:
        run = tracking.get_run(unit, job)
    except NotFound:
        return
    for item in run.inputs:
        if item["kind"] == "dataset":
            yield Node("dataset", f"{item['dataset'].get('name')}@{item['dataset'].get('digest')}")
    try:
        record = jobs.get(unit, job)
    except NotFound:
        return
    if record.properties.code is not None:
        yield Node("code", record.properties.code)


def _derived(unit: Unit, node: Node) -> Iterator[Node]:
    name, colon, version = node.name.partition(":") if node.kind in _ASSETS else (node.name, "", "")
    for kind, holder in references.holders_of(unit, node.kind, name, version if colon else None):
        yield Node(kind, holder)
