"""Nodes and paths of lineage, and their form as OpenLineage events (https://openlineage.io, specification 2-0-2)."""

from __future__ import annotations

import uuid
from dataclasses import asdict, dataclass
from typing import Any

from ...core.clock import iso
from ...spec.states import JobState, RunState

KINDS = ("job", "model", "data", "environment", "deployment", "code", "dataset")
_SPECIFICATION = "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent"
_PRODUCER = "urn:modelyard"


@dataclass(frozen=True)
class Node:
    """A resource; the name of an asset carries its version: `iris:3`."""

    kind: str
    name: str


@dataclass(frozen=True)
class Step:
    """A resource that was reached, via which one, and how many steps from the start."""

    kind: str
    name: str
    via: str
    distance: int

    @property
    def node(self) -> Node:
        return Node(self.kind, self.name)

    def document(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class JobFacts:
    """What an event says of a job."""

    name: str
    status: str
    ended_ms: int | None
    created_ms: int
    git: dict[str, str]


def run_event(workspace: str, job: JobFacts, inputs: list[Node], outputs: list[Node]) -> dict[str, Any]:
    """One OpenLineage RunEvent of a job, with the datasets it read and wrote."""
    kinds: dict[str, str] = {
        JobState.COMPLETED: "COMPLETE", RunState.FINISHED: "COMPLETE", JobState.FAILED: "FAIL", RunState.FAILED: "FAIL",
        JobState.CANCELED: "ABORT", RunState.KILLED: "ABORT",
    }  # fmt: skip
    facets: dict[str, Any] = {}
    if job.git.get("azureml.git.repository_uri"):
        facets["sourceCodeLocation"] = {
            "_producer": _PRODUCER,
            "_schemaURL": "https://openlineage.io/spec/facets/1-0-1/SourceCodeLocationJobFacet.json",
            "type": "git",
            "url": job.git["azureml.git.repository_uri"],
            "version": job.git.get("azureml.git.commit", ""),
            "branch": job.git.get("azureml.git.branch", ""),
        }
    return {
        "eventType": kinds.get(job.status, "RUNNING"),
        "eventTime": iso(job.ended_ms or job.created_ms),
        "run": {"runId": str(uuid.uuid5(uuid.NAMESPACE_URL, f"modelyard:{workspace}:{job.name}"))},
        "job": {"namespace": f"modelyard.{workspace}", "name": job.name, "facets": facets},
        "inputs": [_dataset(workspace, node) for node in inputs],
        "outputs": [_dataset(workspace, node) for node in outputs],
        "producer": _PRODUCER,
        "schemaURL": _SPECIFICATION,
    }


def _dataset(workspace: str, node: Node) -> dict[str, Any]:
    name, _, version = node.name.partition(":") if node.kind != "dataset" else (node.name, "", "")
    facets: dict[str, Any] = {}
    if version:
        facets["version"] = {
            "_producer": _PRODUCER,
            "_schemaURL": "https://openlineage.io/spec/facets/1-0-1/DatasetVersionDatasetFacet.json",
            "datasetVersion": version,
        }
    return {"namespace": f"modelyard.{workspace}.{node.kind}", "name": name, "facets": facets}
