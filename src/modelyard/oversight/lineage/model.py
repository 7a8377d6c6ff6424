"""The graph of what was made of what, and its form as OpenLineage events (https://openlineage.io, specification 2-0-2)."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ...core.clock import iso
from ...spec.states import JobState, RunState
from ...spec.tracking import Relation

VERSIONED = ("model", "data", "environment", "component")
_SPECIFICATION = "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent"
_FACETS = "https://openlineage.io/spec/facets"
_PRODUCER = "urn:modelyard"


class Node(NamedTuple):
    """A resource; the name of an asset carries its version, and before it the registry that it lies in: `iris:3`, `shared/iris:3`."""

    kind: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"

    def document(self) -> dict[str, Any]:
        return {"kind": self.kind, "name": self.name}


class Edge(NamedTuple):
    source: Node
    target: Node
    relation: Relation


def held(holder: Node, node: Node) -> Edge:
    """The edge of a hold: what the holder uses of what it holds."""
    return Edge(node, holder, _RELATIONS.get((node.kind, holder.kind)) or _BY_HOLDER.get(holder.kind, Relation.READ))


_RELATIONS = {
    ("environment", "job"): Relation.ENVIRONMENT, ("environment", "component"): Relation.ENVIRONMENT, ("job", "model"): Relation.MADE,
    ("environment", "deployment"): Relation.ENVIRONMENT, ("job", "data"): Relation.MADE, ("component", "batch_deployment"): Relation.RUN,
    ("schedule", "job"): Relation.SUBMITTED, ("batch_deployment", "job"): Relation.SUBMITTED,
}  # fmt: skip
_BY_HOLDER = {"deployment": Relation.SERVED}


@dataclass(frozen=True)
class Step:
    """A resource that was reached, over which edge, and how many steps from the start."""

    node: Node
    via: Node
    relation: Relation
    distance: int

    def document(self) -> dict[str, Any]:
        return {**self.node.document(), "via": str(self.via), "relation": self.relation, "distance": self.distance}


@dataclass
class Walk:
    """One direction of a graph: its resources nearest first, and all edges between them."""

    steps: list[Step] = field(default_factory=list)
    edges: dict[Edge, None] = field(default_factory=dict)
    truncated: bool = False
    """Whether there is more than was followed."""


@dataclass(frozen=True)
class JobFacts:
    """What an event says of a job. `reads` and `wrote`: outputs of jobs, as JOB/NAME."""

    name: str
    status: str
    ended_ms: int | None
    created_ms: int
    git: dict[str, str] = field(default_factory=dict)
    parent: str | None = None
    reads: tuple[str, ...] = ()
    wrote: tuple[str, ...] = ()


def run_event(workspace: str, job: JobFacts, inputs: list[Node], outputs: list[Node]) -> dict[str, Any]:
    """One OpenLineage RunEvent of a job, with the datasets it read and wrote."""
    kinds: dict[str, str] = {
        JobState.COMPLETED: "COMPLETE", RunState.FINISHED: "COMPLETE", JobState.FAILED: "FAIL", RunState.FAILED: "FAIL",
        JobState.CANCELED: "ABORT", RunState.KILLED: "ABORT",
    }  # fmt: skip
    facets: dict[str, Any] = {}
    if job.git.get("azureml.git.repository_uri"):
        facets["sourceCodeLocation"] = {
            **_facet("1-0-1/SourceCodeLocationJobFacet.json"),
            "type": "git",
            "url": job.git["azureml.git.repository_uri"],
            "version": job.git.get("azureml.git.commit", ""),
            "branch": job.git.get("azureml.git.branch", ""),
        }
    run: dict[str, Any] = {"runId": _run_id(workspace, job.name)}
    if job.parent is not None:
        parent = {"run": {"runId": _run_id(workspace, job.parent)}, "job": {"namespace": f"modelyard.{workspace}", "name": job.parent}}
        run["facets"] = {"parent": {**_facet("1-0-1/ParentRunFacet.json"), **parent}}
    return {
        "eventType": kinds.get(job.status, "RUNNING"),
        "eventTime": iso(job.ended_ms or job.created_ms),
        "run": run,
        "job": {"namespace": f"modelyard.{workspace}", "name": job.name, "facets": facets},
        "inputs": [_dataset(workspace, node) for node in [*inputs, *(Node("output", name) for name in job.reads)]],
        "outputs": [_dataset(workspace, node) for node in [*outputs, *(Node("output", name) for name in job.wrote)]],
        "producer": _PRODUCER,
        "schemaURL": _SPECIFICATION,
    }


def _run_id(workspace: str, job: str) -> str:
    """The same one whenever the event is made."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"modelyard:{workspace}:{job}"))


def _facet(schema: str) -> dict[str, str]:
    return {"_producer": _PRODUCER, "_schemaURL": f"{_FACETS}/{schema}"}


def _dataset(workspace: str, node: Node) -> dict[str, Any]:
    name, _, version = node.name.partition(":") if node.kind in VERSIONED else (node.name, "", "")
    facets: dict[str, Any] = {}
    if version:
        facets["version"] = {**_facet("1-0-1/DatasetVersionDatasetFacet.json"), "datasetVersion": version}
    return {"namespace": f"modelyard.{workspace}.{node.kind}", "name": name, "facets": facets}
