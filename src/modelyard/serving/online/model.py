"""Records of endpoints and deployments, and the router's table made of them."""

from __future__ import annotations

import hashlib
import math
import re
from dataclasses import dataclass, field, replace
from typing import Any

from ...core.clock import iso
from ...core.errors import Invalid
from ...spec.online import ResourceSettings

CREATING, UPDATING, SUCCEEDED, FAILED, DELETING = "Creating", "Updating", "Succeeded", "Failed", "Deleting"

QUIET_S = 60.0
"""How long a deployment that scales must have had less to do before an instance ends; the property `scale_down_after_s`."""
TOGETHER = 64
"""Requests at a time of a model that predicts several in one call, when its deployment does not say how many."""
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
class Scale:
    """Between `least` and `most` instances, so that each holds `target` percent of the requests that it may, or uses so much of its CPU.

    Fewer after `quiet_s`.
    """

    least: int
    most: int
    target: int
    quiet_s: float
    by_cpu: bool


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

    @property
    def workers(self) -> int:
        """Processes of each instance; as Azure's inference server, by the variable WORKER_COUNT. Here each counts as an instance."""
        text = str((self.spec.get("environment_variables") or {}).get("WORKER_COUNT", "1"))
        return min(64, max(1, int(text))) if text.isdigit() else 1

    @property
    def limits(self) -> ResourceSettings:
        """Of one process."""
        return ResourceSettings.model_validate((self.spec.get("resources") or {}).get("limits") or {})

    @property
    def threads(self) -> int:
        """What one process may compute with."""
        return max(1, round(self.limits.cpus or 1))

    @property
    def scale(self) -> Scale | None:
        """None when the number of instances is fixed."""
        given = self.spec.get("scale_settings") or {}
        if given.get("type") != "target_utilization":
            return None
        least = 1 if given.get("min_instances") is None else int(given["min_instances"])
        most = int(given.get("max_instances") or max(1, least))
        properties = self.spec.get("properties") or {}
        quiet = float(properties.get("scale_down_after_s", QUIET_S))
        target = int(given.get("target_utilization_percentage") or 70)
        by_cpu = properties.get("scale_on") == "cpu"
        return Scale(least * self.workers, max(most, least, 1) * self.workers, target, quiet, by_cpu)

    @property
    def first_instances(self) -> int:
        """How many a new generation starts with: one that sleeps must have shown that it can wake."""
        return max(1, self.scale.least) if self.scale is not None else int(self.spec.get("instance_count", 1)) * self.workers

    @property
    def concurrent(self) -> tuple[int, int]:
        """Requests that one process is given at a time: by default one, and `TOGETHER` of a model that predicts them in one call."""
        given = self.spec.get("request_settings", {}).get("max_concurrent_requests_per_instance")
        single, batched = (math.ceil((given or most) / self.workers) for most in (1, TOGETHER))
        return single, batched

    def at_live(self) -> DeploymentRecord:
        """As the generation that serves."""
        return replace(self, generation=self.live)

    def replica_id(self, index: int, generation: int | None = None) -> str:
        return f"{self.replica_prefix}{generation or self.generation}-{index}"

    @property
    def replica_prefix(self) -> str:
        return f"online/{self.workspace}/{self.endpoint}/{self.name}/"


def rate_of(spec: dict[str, Any]) -> tuple[float, float] | None:
    """(requests, seconds) of a deployment's property `rate_limit`: `100/s`, `600/min`, `1000/h`. Raises Invalid."""
    text = (spec.get("properties") or {}).get("rate_limit")
    if text is None:
        return None
    match = re.fullmatch(r"\s*(\d+)\s*/\s*(s|sec|second|m|min|minute|h|hour)\s*", str(text))
    if match is None or int(match[1]) < 1:
        raise Invalid(f"property rate_limit is {text!r}", code="invalid_rate", hint="Write it as 100/s, 600/min or 1000/h.")
    return int(match[1]), {"s": 1, "m": 60, "h": 3600}[match[2][0]]


def check_scale_on(spec: dict[str, Any]) -> None:
    """The property `scale_on` of a deployment: `requests` (the default) or `cpu`. Raises Invalid."""
    wanted = (spec.get("properties") or {}).get("scale_on", "requests")
    if wanted not in ("requests", "cpu"):
        raise Invalid(f"property scale_on is {wanted!r}", code="invalid_scale_on", hint="Write requests or cpu, or leave it out.")


def callers_of(spec: dict[str, Any]) -> list[str] | None:
    """The property `allowed_callers` of an endpoint, names between commas; None lets in whoever has a token for the yard."""
    text = (spec.get("properties") or {}).get("allowed_callers")
    return None if text is None else [name.strip() for name in str(text).split(",") if name.strip()]


def optimize_of(spec: dict[str, Any]) -> str | None:
    """The property `optimize` of a deployment: `onnx`, or None. Raises Invalid."""
    wanted = (spec.get("properties") or {}).get("optimize")
    if wanted not in (None, "", "none", "onnx"):
        raise Invalid(f"property optimize is {wanted!r}", code="invalid_optimize", hint="Write onnx, or leave it out.")
    return "onnx" if wanted == "onnx" else None


def key_digest(key: str) -> str:
    """What the router compares: it never holds the key itself."""
    return hashlib.sha256(key.encode()).hexdigest()


def stored_only(spec: dict[str, Any]) -> list[str]:
    """One line for each field that is kept but has no effect on this yard."""
    notes = []
    if spec.get("app_insights_enabled"):
        notes.append("app_insights_enabled: nothing is sent anywhere; logs stay on the yard")
    if spec.get("data_collector"):
        notes.append("data_collector: what scoring scripts collect is kept beside the instance; nothing reads it yet")
    if spec.get("egress_public_network_access") == "disabled":
        notes.append("egress_public_network_access: not enforced by this version")
    if (spec.get("resources") or {}).get("requests") is not None:
        notes.append("resources.requests: nothing is set apart on this machine; limits are kept")
    for name in ("private_network_connection", "model_mount_path"):
        if spec.get(name) is not None:
            notes.append(f"{name}: belongs to the cloud or to Kubernetes; kept, not used")
    return notes
