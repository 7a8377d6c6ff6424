"""Use cases of lineage: the graph is read from what features hold, from the records of jobs and runs, and from outputs that were taken over."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from ...assets.data import service as data
from ...assets.environments import service as environments
from ...assets.files import service as files
from ...assets.models import service as models
from ...assets.references import service as references
from ...core.actor import internal, requires
from ...core.clock import iso
from ...core.errors import Invalid, NotFound, YardError
from ...core.events import Event
from ...spec.references import AssetRef, DatastorePath, JobOutput, Reference, WebAddress, asset_ref, parse_reference
from ...spec.tracking import LINEAGE_KINDS, Relation
from ...storage.unit import Unit
from ...tenancy.workspaces import service as workspaces
from ...work.jobs import service as jobs
from ...work.jobs.model import JobRecord
from ...work.tracking import service as tracking
from ...work.tracking.model import Run
from .model import VERSIONED, Edge, JobFacts, Node, Step, Walk, held, run_event

MAX_NODES = 2000
"""In each direction; an answer says when there are more."""
MAX_DEPTH = 50
_STORED = {"data": data.get, "model": models.get, "environment": environments.get}


@requires("workspaces/experiments/runs/read")
def show(unit: Unit, kind: str, name: str, depth: int) -> dict[str, Any]:
    """The resources that this one depends on (upstream) and that depend on it (downstream), nearest first, and the edges of the graph."""
    start = _find(unit, kind, name)
    up, down = _walk(unit, start, _sources, depth), _walk(unit, start, _derived, depth)
    return {
        "thing": {**start.document(), **_about(unit, start)},
        "upstream": [{**step.document(), **_about(unit, step.node)} for step in up.steps],
        "downstream": [{**step.document(), **_about(unit, step.node)} for step in down.steps],
        "edges": [
            {"source": edge.source.document(), "target": edge.target.document(), "relation": edge.relation}
            for edge in {**up.edges, **down.edges}
        ],
        "truncated": up.truncated or down.truncated,
    }


@requires("workspaces/experiments/runs/read")
def openlineage(unit: Unit, kind: str, name: str, depth: int) -> list[dict[str, Any]]:
    """An OpenLineage event for every job upstream and downstream. Raises Invalid when there are more than can be followed."""
    start = _find(unit, kind, name)
    up, down = _walk(unit, start, _sources, depth), _walk(unit, start, _derived, depth)
    if up.truncated or down.truncated:
        raise Invalid(
            f"the lineage of {start} has more than {MAX_NODES:,} resources", code="too_many", hint="Ask for fewer steps: --depth 3"
        )
    reached = dict.fromkeys(node for node in (start, *(step.node for step in (*up.steps, *down.steps))) if node.kind == "job")
    return [event for node in reached if (event := event_of(unit, node.name)) is not None]


@internal
def data_behind(unit: Unit, model: str) -> list[str]:
    """The data from which a model version came about: versions as `name:version`, datasets that runs have named, and paths that were read."""
    walk = _walk(unit, Node("model", model), _sources, MAX_DEPTH)
    return sorted({step.node.name for step in walk.steps if step.node.kind in ("data", "dataset", "path")})


@internal
def event_of(unit: Unit, job: str) -> dict[str, Any] | None:
    """The OpenLineage event of a job or run; None when it was deleted."""
    facts = _facts(unit, job)
    if facts is None:
        return None
    node = Node("job", job)
    inputs = [item.node for item in _sources(unit, node, False) if item.node.kind in ("data", "model", "dataset")]
    outputs = [item.node for item in _derived(unit, node, False) if item.node.kind in ("data", "model")]
    return run_event(unit.workspace, facts, inputs, outputs)


@internal
def happening(unit: Unit, event: Event) -> dict[str, Any] | None:
    """What is emitted when a job starts or ends; None for what says nothing new: a job that is only queued, or was deleted meanwhile."""
    record = jobs.record_of(unit, event.subject)
    if record is None or (event.topic == "job.submitted" and record.runs_process):
        return None
    document = event_of(unit, event.subject)
    if document is not None and event.topic != "job.ended":
        document["eventType"] = "START"
    return document and {**document, "eventTime": iso(event.time_ms)}


def _facts(unit: Unit, name: str) -> JobFacts | None:
    record = jobs.record_of(unit, name)
    if record is None:
        run = _run(unit, name)
        return None if run is None else JobFacts(run.id, run.status, run.end_ms, run.start_ms, parent=run.parent)
    return JobFacts(
        record.name, record.state, record.ended_ms, record.created_ms, record.properties.git, record.parent, tuple(_outputs_read(record)),
        tuple(f"{name}/{port}" for port in files.outputs_of(unit, name)),
    )  # fmt: skip


def _read(record: JobRecord) -> Iterator[Reference]:
    """What the paths of a job's inputs name."""
    for value in (record.stored.get("inputs") or {}).values():
        path = value.get("path") if isinstance(value, dict) else None
        if isinstance(path, str) and "${{" not in path:
            yield parse_reference(path)


def _outputs_read(record: JobRecord) -> Iterator[str]:
    return (f"{reference.job}/{reference.output}" for reference in _read(record) if isinstance(reference, JobOutput))


def _paths_read(unit: Unit, record: JobRecord) -> list[str]:
    """Paths and addresses that a job read and that neither an asset nor a job's output names; of a pipeline its steps read them."""
    if not record.runs_process:
        return []
    paths = (
        reference
        for reference in _read(record)
        if isinstance(reference, (DatastorePath, WebAddress)) and files.origin_of(unit, reference) is None
    )
    return list(dict.fromkeys(path.url if isinstance(path, WebAddress) else str(path) for path in paths))


def _run(unit: Unit, name: str) -> Run | None:
    try:
        return tracking.get_run(unit, name)
    except NotFound:
        return None


def _find(unit: Unit, kind: str, name: str) -> Node:
    """The node of a resource, its label resolved to a version. Raises NotFound."""
    if kind not in LINEAGE_KINDS:
        raise Invalid(f"there is no lineage of {kind[:40]!r}; kinds are {', '.join(LINEAGE_KINDS)}", code="invalid_kind")
    if kind in _STORED:
        document = _STORED[kind](unit, asset_ref(name, kind))
        return Node(kind, f"{document['name']}:{document['version']}")
    if kind == "job" and _facts(unit, name) is None:
        raise NotFound(f"there is no job or run {name[:80]}", code="job_not_found", hint="`yard job list` and `yard run list` show them.")
    node = Node(kind, name)
    if kind != "job" and not references.is_known(unit, kind, *_name_and_version(node)):
        raise NotFound(f"nothing was made of {kind} {name[:80]}, or it does not exist", code="not_found")
    return node


class _Neighbour(NamedTuple):
    """`ends`: it is shown for what it is, and not followed further."""

    node: Node
    edge: Edge
    ends: bool = False


def _walk(unit: Unit, start: Node, next_of: Callable[[Unit, Node, bool], Iterator[_Neighbour]], depth: int) -> Walk:
    """Breadth first, each resource once; one that ends a way is followed when another way leads on from it."""
    walk, edge = Walk(), [start]
    seen, followed = {start}, {start}
    for distance in range(1, max(1, min(depth, MAX_DEPTH)) + 1):
        following = []
        for node in edge:
            for neighbour in next_of(unit, node, node == start):
                if neighbour.node not in seen:
                    if len(seen) >= MAX_NODES:
                        walk.truncated = True
                        continue
                    seen.add(neighbour.node)
                    walk.steps.append(Step(neighbour.node, node, neighbour.edge.relation, distance))
                walk.edges[neighbour.edge] = None
                if not neighbour.ends and neighbour.node not in followed:
                    followed.add(neighbour.node)
                    following.append(neighbour.node)
        edge = following
    walk.truncated |= any(neighbour.node not in seen for node in edge for neighbour in next_of(unit, node, node == start))
    return walk


def _sources(unit: Unit, node: Node, is_start: bool) -> Iterator[_Neighbour]:
    """What a resource was made from."""
    if node.kind in ("model", "data"):
        runs, writers = references.makers_of(unit, node.kind, node.name)
        for job in (*writers, *runs):
            # A pipeline or sweep that has taken over a model has more in it than what led to the model.
            maker = Node("job", job)
            yield _Neighbour(maker, Edge(maker, node, Relation.MADE), ends=bool(writers) and job not in writers)
    for kind, name, version in references.held_by(unit, node.kind, node.name):
        if node.kind == "job" or kind not in ("job", references.WRITER):
            source = Node(kind, f"{name}:{version}" if version else name)
            yield _Neighbour(source, held(node, source))
    if node.kind == "job":
        yield from _sources_of_job(unit, node, is_start)
    if node.kind in ("data", "model"):
        yield from _path_of_asset(unit, node)
    if node.kind == "path" and isinstance(location := parse_reference(node.name), DatastorePath):
        for job in files.writers_of(unit, location):
            yield _Neighbour(Node("job", job), Edge(Node("job", job), node, Relation.WROTE))


def _path_of_asset(unit: Unit, node: Node) -> Iterator[_Neighbour]:
    """The path of an asset, where jobs have written and none of them is known as the one that made it."""
    path = (_document(unit, node) or {}).get("path")
    location = parse_reference(path) if isinstance(path, str) and path else None
    if (
        isinstance(location, DatastorePath)
        and not any(references.makers_of(unit, node.kind, node.name))
        and files.writers_of(unit, location)
    ):
        yield _Neighbour(Node("path", str(location)), Edge(Node("path", str(location)), node, Relation.LIES))


def _sources_of_job(unit: Unit, node: Node, is_start: bool) -> Iterator[_Neighbour]:
    run = _run(unit, node.name)
    for item in run.inputs if run is not None else ():
        if item["kind"] == "dataset":
            dataset = Node("dataset", f"{item['dataset'].get('name')}@{item['dataset'].get('digest')}")
            yield _Neighbour(dataset, Edge(dataset, node, Relation.READ))
    record = jobs.record_of(unit, node.name)
    if record is None:
        if run is not None and run.parent is not None:
            yield _Neighbour(Node("job", run.parent), Edge(node, Node("job", run.parent), Relation.PART))
        return
    if record.properties.code is not None:
        code = Node("code", record.properties.code)
        yield _Neighbour(code, Edge(code, node, Relation.RUN), ends=True)
    if record.parent is not None:
        parent = Node("job", record.parent)
        yield _Neighbour(parent, Edge(node, parent, Relation.PART), ends=True)
    for path in _paths_read(unit, record):
        yield _Neighbour(Node("path", path), Edge(Node("path", path), node, Relation.READ))
    writers = {output.source for output in files.outputs_of(unit, node.name).values() if output.source}
    for writer in sorted(writers):
        yield _Neighbour(Node("job", writer), Edge(Node("job", writer), node, Relation.RESULT))
    if not record.runs_process and (is_start or not writers):
        for child in tracking.children_of(unit, node.name):
            yield _Neighbour(Node("job", child), Edge(Node("job", child), node, Relation.PART))


def _derived(unit: Unit, node: Node, is_start: bool) -> Iterator[_Neighbour]:
    """What was made from a resource."""
    for kind, name in references.holders_of(unit, node.kind, *_name_and_version(node)):
        holder = Node(kind, name)
        yield _Neighbour(holder, held(holder, node))
    if node.kind != "job":
        return
    for kind, name in references.holders_of(unit, references.WRITER, node.name, None):
        yield _Neighbour(Node(kind, name), held(Node(kind, name), node))
    for taker in files.takers_of(unit, node.name):
        yield _Neighbour(Node("job", taker), Edge(node, Node("job", taker), Relation.RESULT))
    record = jobs.record_of(unit, node.name)
    if record is not None and record.parent is not None:
        yield _Neighbour(Node("job", record.parent), Edge(node, Node("job", record.parent), Relation.PART), ends=True)
    for child in tracking.children_of(unit, node.name):
        # What a pipeline's other steps made was not made from what led to the pipeline.
        if is_start or jobs.record_of(unit, child) is None:
            yield _Neighbour(Node("job", child), Edge(Node("job", child), node, Relation.PART))


def _name_and_version(node: Node) -> tuple[str, str | None]:
    name, colon, version = node.name.rpartition(":")
    return (name, version) if colon and node.kind in VERSIONED else (node.name, None)


def _about(unit: Unit, node: Node) -> dict[str, Any]:
    """Who made a resource and when, and what state it is in; nothing for one of which the yard keeps no record."""
    if node.kind == "job":
        return _about_job(unit, node.name)
    if node.kind not in _STORED:
        return {}
    document = _document(unit, node)
    if document is None:
        return {"status": "Deleted"}
    return {**(document.get("creation_context") or {}), **({"title": document["type"]} if document.get("type") else {})}


def _document(unit: Unit, node: Node) -> dict[str, Any] | None:
    """An asset as it is shown; None for one that is not there any more, empty where the caller may not read it or nobody made it here."""
    name, version = _name_and_version(node)
    registry, _, own = name.removeprefix("registries/").rpartition("/")  # the identity of an environment says that it is one
    if node.kind == "environment" and registry == "curated":  # nobody made it here, and it cannot be deleted
        return {}
    try:
        return _STORED[node.kind](workspaces.registry(unit, registry) if registry else unit, AssetRef(own, version))
    except YardError as error:
        return None if isinstance(error, NotFound) else {}


def _about_job(unit: Unit, name: str) -> dict[str, Any]:
    record = jobs.record_of(unit, name)
    if record is not None:
        title = record.stored.get("display_name") or ("" if record.type == "command" else record.type)
        about = {"created_by": record.created_by, "created_at": iso(record.created_ms), "status": record.status}
        return {**about, **({"title": title} if title and title != name else {})}
    run = _run(unit, name)
    if run is None:
        return {"status": "Deleted"}
    return {"created_by": run.user, "created_at": iso(run.start_ms), "status": run.status, "title": run.name}
