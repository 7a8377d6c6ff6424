"""Records of endpoints and deployments, and the router's table, which follows from them."""

from __future__ import annotations

import hashlib
import logging
import math
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import Any

from ...core.clock import iso
from ...core.errors import Invalid
from ...spec.fields import from_row
from ...spec.online import OnlineDeployment, OnlineEndpoint, TargetUtilizationScaleSettings
from ...spec.properties import OnlineDeploymentProperties, OnlineEndpointProperties, noted
from ...spec.states import ProvisioningState
from ...spec.unused import unused
from .rollout import RolloutRecord

log = logging.getLogger(__name__)
PENDING = (ProvisioningState.CREATING, ProvisioningState.UPDATING, ProvisioningState.DELETING)
"""A deployment is not yet what it should be."""
SERVES = (ProvisioningState.SUCCEEDED, ProvisioningState.UPDATING, ProvisioningState.FAILED)
"""A generation may be live."""


@dataclass(frozen=True)
class EndpointRecord:
    workspace: str
    name: str
    stored: dict[str, Any]
    created_ms: int
    created_by: str
    notes: tuple[str, ...] = ()
    """Notes for the caller that has just created or updated it; never stored."""

    @cached_property
    def spec(self) -> OnlineEndpoint:
        return from_row(OnlineEndpoint, self.stored, name=self.name)

    @cached_property
    def properties(self) -> OnlineEndpointProperties:
        return OnlineEndpointProperties.read(self.spec.properties)

    def document(self, router_url: str) -> dict[str, Any]:
        base = f"{router_url}/{self.workspace}/{self.name}"
        answer = {
            **self.stored,
            "name": self.name,
            "scoring_uri": f"{base}/score",
            "openapi_uri": f"{base}/swagger.json",
            "provisioning_state": ProvisioningState.SUCCEEDED,
            "id": f"azureml:{self.name}",
            "creation_context": {"created_at": iso(self.created_ms), "created_by": self.created_by},
        }
        return noted(answer, list(self.notes))


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
    stored: dict[str, Any]
    state: ProvisioningState
    generation: int
    live: int
    live_instances: int
    error: dict[str, Any] | None
    created_ms: int
    created_by: str
    warnings: list[str] = field(default_factory=list)
    resolved: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def spec(self) -> OnlineDeployment:
        return from_row(OnlineDeployment, self.stored, name=self.name, endpoint_name=self.endpoint)

    @cached_property
    def properties(self) -> OnlineDeploymentProperties:
        return OnlineDeploymentProperties.read(self.spec.properties, self.resolved)

    def document(self) -> dict[str, Any]:
        answer = {
            **self.stored,
            "name": self.name,
            "endpoint_name": self.endpoint,
            "provisioning_state": self.state,
            "error": self.error,
            "warnings": self.warnings or None,
            "id": f"azureml:{self.endpoint}:{self.name}",
            "creation_context": {"created_at": iso(self.created_ms), "created_by": self.created_by},
        }
        answer["properties"] = {**self.stored.get("properties", {}), **self.resolved}
        return {key: value for key, value in answer.items() if value is not None}

    @property
    def workers(self) -> int:
        """Processes of each instance; as Azure's inference server, by the variable WORKER_COUNT. Here each counts as an instance."""
        text = self.spec.environment_variables.get("WORKER_COUNT", "1")
        return min(64, max(1, int(text))) if text.isdigit() else 1

    @property
    def threads(self) -> int:
        """What one process may compute with."""
        return max(1, round(self.spec.limits.cpus or 1))

    @property
    def scale(self) -> Scale | None:
        """None when the number of instances is fixed."""
        settings, properties = self.spec.scale_settings, self.properties
        if not isinstance(settings, TargetUtilizationScaleSettings):
            return None
        return Scale(
            settings.least * self.workers, settings.most * self.workers, settings.target_percent, properties.scale_down_after_s,
            properties.scale_on == "cpu",
        )  # fmt: skip

    @property
    def first_instances(self) -> int:
        """How many a new generation starts with: one that sleeps must have shown that it can wake."""
        return max(1, self.scale.least) if self.scale is not None else self.spec.instance_count * self.workers

    @property
    def is_restored(self) -> bool:
        """Whether what is made is the generation that serves: its instances had ended with the machine."""
        return self.generation == self.live

    @property
    def instances_to_make(self) -> int:
        return self.live_instances if self.is_restored else self.first_instances

    @property
    def concurrent(self) -> tuple[int, int]:
        """Requests that one process handles at a time: (of a model that predicts them one by one, of one that predicts batches)."""
        single, together = (math.ceil(most / self.workers) for most in self.spec.request_settings.concurrent)
        return single, together

    def at_live(self) -> DeploymentRecord:
        """As the generation that serves."""
        return replace(self, generation=self.live)

    def replica_id(self, index: int, generation: int | None = None) -> str:
        return f"{self.replica_prefix}{generation or self.generation}-{index}"

    @property
    def replica_prefix(self) -> str:
        return f"online/{self.workspace}/{self.endpoint}/{self.name}/"


def is_readable(record: EndpointRecord | DeploymentRecord | RolloutRecord) -> bool:
    """Whether this version can read the spec: one that it cannot read keeps no other from being served."""
    try:
        return bool(record.spec)
    except Invalid as error:
        _say_once(str(error))
        return False


@lru_cache(maxsize=1000)
def _say_once(message: str) -> None:
    log.error(message)


def key_digest(key: str) -> str:
    """What the router compares: it never holds the key itself."""
    return hashlib.sha256(key.encode()).hexdigest()


def changes(earlier: dict[str, Any], document: dict[str, Any]) -> list[str]:
    """A line for each field of an endpoint that an update changes."""
    names = [name for name in {**earlier, **document} if (earlier.get(name) or None) != (document.get(name) or None)]
    return [f"{name} was {_shown(earlier.get(name))} and is {_shown(document.get(name))}" for name in names]


def _shown(value: Any) -> str:
    if isinstance(value, dict) and value:
        return " ".join(f"{name}={item}" for name, item in value.items())
    return str(value) if value else "not set"


def stored_only(spec: OnlineDeployment) -> list[str]:
    """One line for each field that is stored but has no effect on this yard."""
    notes = unused(spec)
    if spec.data_collector is not None:
        notes.append("data_collector: what scoring scripts collect is kept beside the instance; nothing reads it yet")
    return notes
