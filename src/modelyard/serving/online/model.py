"""Records of endpoints and deployments, and the router's table made of them."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from typing import Any

from ...core.clock import iso
from ...core.errors import Invalid

CREATING, UPDATING, SUCCEEDED, FAILED, DELETING = "Creating", "Updating", "Succeeded", "Failed", "Deleting"

PENDING = (CREATING, UPDATING, DELETING)


@dataclass(frozen=True)
class EndpointRecord:
    workspace: str
    name: str
    spec: dict[str, Any]
    created_ms: int
    created_by: str

    def document(self, router_url: str) -> dict[str, Any]:
        base = f"{router_url}/{self.workspace}/{self.name}"
        return {
            **self.spec,
            "name": self.name,
            "scoring_uri": f"{base}/score",
            "openapi_uri": f"{base}/swagger.json",
            "provisioning_state": SUCCEEDED,
            "id": f"azureml:{self.name}",
            "creation_context": {"created_at": iso(self.created_ms), "created_by": self.created_by},
        }


@dataclass(frozen=True)
class DeploymentRecord:
    """`generation` grows with every change; `live` is the one whose replicas the router uses, 0 when none."""

    workspace: str
    endpoint: str
    name: str
    spec: dict[str, Any]
    state: str
    generation: int
    live: int
    live_instances: int
    error: dict[str, Any] | None
    created_ms: int
    created_by: str
    warnings: list[str] = field(default_factory=list)
    resolved: dict[str, Any] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        answer = {
            **self.spec,
            "name": self.name,
            "endpoint_name": self.endpoint,
            "provisioning_state": self.state,
            "error": self.error,
            "warnings": self.warnings or None,
            "id": f"azureml:{self.endpoint}:{self.name}",
            "creation_context": {"created_at": iso(self.created_ms), "created_by": self.created_by},
        }
        answer["properties"] = {**self.spec.get("properties", {}), **self.resolved}
        return {key: value for key, value in answer.items() if value is not None}

    def replica_id(self, index: int, generation: int | None = None) -> str:
        return f"{self.replica_prefix}{generation or self.generation}-{index}"

    @property
    def replica_prefix(self) -> str:
        return f"online/{self.workspace}/{self.endpoint}/{self.name}/"


def rate_of(spec: dict[str, Any]) -> list[float] | None:
    """[requests, seconds] of a deployment's property `rate_limit`: `100/s`, `600/min`, `1000/h`. Raises Invalid."""
    text = (spec.get("properties") or {}).get("rate_limit")
    if text is None:
        return None
    match = re.fullmatch(r"\s*(\d+)\s*/\s*(s|sec|second|m|min|minute|h|hour)\s*", str(text))
    if match is None or int(match[1]) < 1:
        raise Invalid(f"property rate_limit is {text!r}", code="invalid_rate", hint="Write it as 100/s, 600/min or 1000/h.")
    return [int(match[1]), {"s": 1, "m": 60, "h": 3600}[match[2][0]]]


def key_digest(key: str) -> str:
    """What the router compares: it never holds the key itself."""
    return hashlib.sha256(key.encode()).hexdigest()


def stored_only(spec: dict[str, Any]) -> list[str]:
    """One line for each field that is kept but has no effect on this yard."""
    notes = []
    if spec.get("app_insights_enabled"):
        notes.append("app_insights_enabled: nothing is sent anywhere; logs stay on the yard")
    if (spec.get("scale_settings") or {}).get("type") == "target_utilization":
        notes.append("scale_settings target_utilization: instances stay at instance_count on this version")
    if spec.get("data_collector"):
        notes.append("data_collector: what scoring scripts collect is kept beside the instance; nothing reads it yet")
    if spec.get("egress_public_network_access") == "disabled":
        notes.append("egress_public_network_access: not enforced by this version")
    for name in ("private_network_connection", "model_mount_path", "resources"):
        if spec.get(name) is not None:
            notes.append(f"{name}: belongs to the cloud or to Kubernetes; kept, not used")
    return notes
