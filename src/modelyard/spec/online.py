"""Online endpoints and deployments: a model behind an address."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal, NotRequired

from pydantic import Field, field_validator, model_validator
from typing_extensions import TypedDict

from ..core.errors import Invalid
from ..core.names import check_name
from .fields import Entity, Failure, ShownAs, Spec, Text, Variables, read_only
from .job import EnvironmentField
from .local import Code, EnvironmentFiles, Files, LocalPart, ModelFiles
from .model import Model
from .states import InstanceState, ProvisioningState, RolloutState
from .unused import CLOUD, CONTAINERS, IDENTITY, NETWORK, Unused
from .workspace import Identity


def check_spec_name(rule: str, value: str) -> str:
    try:
        return check_name(rule, value)
    except Invalid as error:
        raise ValueError(error.message) from None


class MetricBound(Spec):
    """A metric of a run, logged by whoever knows how the answers turned out, and where it has to stay."""

    run_id: str
    name: str
    at_least: float | None = None
    at_most: float | None = None

    @model_validator(mode="after")
    def _bounded(self) -> MetricBound:
        if self.at_least is None and self.at_most is None:
            raise ValueError("a metric needs at_least or at_most")
        return self


class Rollout(Spec):
    """Traffic moved to a deployment step by step, as long as it answers well; the yard's own."""

    to: str
    steps: list[Annotated[int, Field(ge=1, le=100)]] = Field(default_factory=lambda: [10, 50, 100], min_length=1, max_length=20)
    """Percent after each step; the last is 100."""
    bake_time_s: float = Field(default=60, ge=0, le=86_400)
    """How long each step is watched."""
    min_requests: int = Field(default=20, ge=0)
    """A step is not judged, nor left, before the deployment has had so many requests."""
    max_error_rate: float = Field(default=0.01, ge=0, le=1)
    """Share of its requests that may fail: status 408 and 500 and above."""
    max_p99_ms: float | None = Field(default=None, gt=0)
    metric: MetricBound | None = None
    """A step is not left before it was logged in that step."""

    @model_validator(mode="after")
    def _growing(self) -> Rollout:
        if self.steps != sorted(set(self.steps)) or self.steps[-1] != 100:
            raise ValueError("steps grow and end with 100, such as [10, 50, 100]")
        return self


class RolloutStatus(TypedDict):
    """A rollout as it stands: what was asked for, and how far it has come."""

    to: str
    steps: list[int]
    bake_time_s: float
    min_requests: int
    max_error_rate: float
    max_p99_ms: NotRequired[float]
    metric: NotRequired[Annotated[dict[str, Any], ShownAs(MetricBound)]]
    status: RolloutState
    step: int
    """Counted from 1."""
    percent: int
    reason: str
    """Why it ended."""
    started_at: str
    started_by: str


class OnlineEndpoint(Entity):
    """`traffic` and `mirror_traffic` map deployments to percent; an update that does not name them leaves them as they are. Keys and tokens are
    never part of the spec."""

    kind: Literal["managed", "kubernetes"] | None = None
    name: str
    auth_mode: Literal["key", "aml_token", "aad_token"] = "key"
    location: Annotated[str | None, CLOUD] = None
    identity: Annotated[Identity | None, IDENTITY] = None
    traffic: dict[str, int] = Field(default_factory=dict)
    mirror_traffic: dict[str, int] = Field(default_factory=dict)
    public_network_access: Annotated[Literal["enabled", "disabled"] | None, NETWORK] = None
    compute: Annotated[str | None, CLOUD] = None
    scoring_uri: str | None = read_only()
    openapi_uri: str | None = read_only()
    provisioning_state: Annotated[str | None, ShownAs(ProvisioningState)] = read_only()
    rollout: Annotated[dict[str, Any] | None, ShownAs(RolloutStatus)] = read_only()
    """The rollout that goes on, or the last one, with its state and reason."""

    def document(self) -> dict[str, Any]:
        """Without the traffic that was not named."""
        unnamed = {"traffic", "mirror_traffic"} - self.model_fields_set
        return {name: value for name, value in super().document().items() if name not in unnamed}

    @field_validator("name")
    @classmethod
    def _name(cls, value: str) -> str:
        return check_spec_name("endpoint", value)

    @model_validator(mode="after")
    def _percentages(self) -> OnlineEndpoint:
        if any(not 0 <= share <= 100 for share in self.traffic.values()) or sum(self.traffic.values()) not in (0, 100):
            raise ValueError(f"traffic must sum to 0 or 100 percent, not {sum(self.traffic.values())}")
        if len(self.mirror_traffic) > 1 or any(not 0 <= share <= 50 for share in self.mirror_traffic.values()):
            raise ValueError("mirror_traffic names one deployment, with 50 percent at most")
        return self


class CodeConfiguration(Spec):
    code: str | None = None
    scoring_script: str | None = None


class DefaultScaleSettings(Spec):
    type: Literal["default"] = "default"


class TargetUtilizationScaleSettings(Spec):
    """Left out: one instance at least, no more than that, and a target of 70 percent (as Azure)."""

    type: Literal["target_utilization"] = "target_utilization"
    polling_interval: int | None = None
    target_utilization_percentage: int | None = Field(default=None, ge=1, le=100)
    min_instances: int | None = Field(default=None, ge=0, le=64)
    """0 lets the deployment sleep: the first request wakes it, and waits meanwhile."""
    max_instances: int | None = Field(default=None, ge=1, le=64)

    @property
    def least(self) -> int:
        return 1 if self.min_instances is None else self.min_instances

    @property
    def most(self) -> int:
        return max(self.max_instances or 1, self.least)

    @property
    def target_percent(self) -> int:
        return self.target_utilization_percentage or 70


ScaleSettings = Annotated[DefaultScaleSettings | TargetUtilizationScaleSettings, Field(discriminator="type")]


TOGETHER = 64
"""Requests at a time of a model that predicts several in one call, when its deployment does not say how many."""


class OnlineRequestSettings(Spec):
    """Defaults of managed online deployments (reference `serving-contracts`, section 1)."""

    request_timeout_ms: int = Field(default=5000, ge=1, le=180_000)
    max_concurrent_requests_per_instance: int | None = Field(default=None, ge=1)
    """1 for a script when it is not given; without a script as many as the model predicts in one call."""
    max_queue_wait_ms: int = Field(default=500, ge=0)

    @property
    def concurrent(self) -> tuple[int, int]:
        """Requests at a time of a model that predicts them one by one, and of one that predicts several in one call."""
        limit = self.max_concurrent_requests_per_instance
        return limit or 1, limit or TOGETHER


class ProbeSettings(Spec):
    """Times in seconds, thresholds in counts."""

    initial_delay: int = Field(default=10, ge=0)
    period: int = Field(default=10, ge=1)
    timeout: int = Field(default=2, ge=1)
    success_threshold: int = Field(default=1, ge=1)
    failure_threshold: int = Field(default=30, ge=1)


class DeploymentCollection(Spec):
    enabled: bool | Literal["true", "false"]
    data: dict[str, Any] | str | None = None
    client_id: str | None = None


class RequestLogging(Spec):
    capture_headers: list[str] | None = None


class DataCollector(Spec):
    collections: dict[str, DeploymentCollection] | None = None
    rolling_rate: Literal["minute", "day", "hour"] | None = None
    sampling_rate: float | None = None
    request_logging: RequestLogging | None = None


SUFFIXES = {"": 1, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


def quantity(text: str) -> float:
    """A Kubernetes quantity as a number. Raises ValueError."""
    match = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)([a-zA-Z]*)", text.strip())
    if match is None or match[2] not in SUFFIXES or not float(match[1]):
        raise ValueError(f"{text!r} is no quantity such as 500m, 2, 512Mi or 1.5Gi")
    return float(match[1]) * SUFFIXES[match[2]]


class ResourceSettings(Spec):
    """Quantities as Kubernetes writes them: `cpu` 0.5 or 500m, `memory` 512Mi or 1.5Gi."""

    cpu: Text | None = None
    memory: Text | None = None
    gpu: Text | None = None

    @field_validator("cpu", "memory")
    @classmethod
    def _quantity(cls, value: str | None) -> str | None:
        if value is not None:
            quantity(value)
        return value

    @property
    def cpus(self) -> float | None:
        return quantity(self.cpu) if self.cpu is not None else None

    @property
    def memory_bytes(self) -> int | None:
        return int(quantity(self.memory)) if self.memory is not None else None


class ResourceRequirements(Spec):
    requests: Annotated[ResourceSettings | None, Unused("nothing is set apart on this machine; limits are kept")] = None
    limits: ResourceSettings | None = None


class InstanceStatus(TypedDict):
    """One instance: its state, the reason of its last end, how often it was started again, and its memory."""

    name: str
    generation: int
    state: InstanceState
    restarts: NotRequired[int]
    reason: NotRequired[str | None]
    memory_mb: NotRequired[float]
    running_s: NotRequired[float | None]


class OnlineDeployment(Entity):
    type: Literal["managed", "kubernetes"] = "managed"
    name: str
    endpoint_name: str
    model: str | Model | None = None
    code_configuration: CodeConfiguration | None = None
    environment: EnvironmentField | None = None
    environment_variables: Variables = Field(default_factory=dict)
    app_insights_enabled: Annotated[bool, Unused("nothing is sent anywhere; logs stay on the yard")] = False
    scale_settings: ScaleSettings | None = None
    request_settings: OnlineRequestSettings = Field(default_factory=OnlineRequestSettings)
    liveness_probe: ProbeSettings = Field(default_factory=ProbeSettings)
    readiness_probe: ProbeSettings = Field(default_factory=ProbeSettings)
    instance_count: int = Field(default=1, ge=1, le=64)
    instance_type: str | None = None
    model_mount_path: Annotated[str | None, CONTAINERS] = None
    data_collector: DataCollector | None = None
    egress_public_network_access: Annotated[Literal["enabled", "disabled"] | None, NETWORK] = None
    private_network_connection: Annotated[bool | None, NETWORK] = None
    resources: ResourceRequirements | None = None
    provisioning_state: Annotated[str | None, ShownAs(ProvisioningState)] = read_only()
    error: Annotated[dict[str, Any] | None, ShownAs(Failure)] = read_only()
    warnings: list[str] | None = read_only()
    instances: Annotated[list[dict[str, Any]] | None, ShownAs(list[InstanceStatus])] = read_only()

    def local_parts(self) -> Iterator[LocalPart]:
        yield Code(("code_configuration", "code"))
        yield Files(("model", "path")) if isinstance(self.model, Model) else ModelFiles()
        yield EnvironmentFiles()

    @property
    def limits(self) -> ResourceSettings:
        """Of one process."""
        return (self.resources.limits if self.resources is not None else None) or ResourceSettings()

    @field_validator("name", "endpoint_name")
    @classmethod
    def _name(cls, value: str) -> str:
        return check_spec_name("deployment", value)

    @model_validator(mode="after")
    def _runnable(self) -> OnlineDeployment:
        code = self.code_configuration
        if code is None and self.model is None:
            raise ValueError("a deployment needs a model, a code_configuration with a scoring script, or both")
        if code is not None and not (code.code and code.scoring_script):
            raise ValueError("code_configuration needs both code and scoring_script")
        if code is not None and self.environment is None:
            raise ValueError("a deployment with a scoring script needs an environment")
        if code is not None and self.request_settings.max_concurrent_requests_per_instance is None:
            self.request_settings.max_concurrent_requests_per_instance = 1
        if code is not None and self.properties.get("batching") is not None:
            raise ValueError("the property batching is for MLflow models without a script: run() is given one request at a time")
        return self


class EndpointKeys(Spec):
    """The two keys of an endpoint; either opens it."""

    primary_key: str = Field(alias="primaryKey")
    secondary_key: str = Field(alias="secondaryKey")


class EndpointToken(Spec):
    """A token that opens one endpoint. Times in seconds since 1970."""

    access_token: str = Field(alias="accessToken")
    token_type: str = Field(alias="tokenType")
    expiry_time_utc: int = Field(alias="expiryTimeUtc")
    refresh_after_time_utc: int = Field(alias="refreshAfterTimeUtc")


class KeyChoice(TypedDict):
    key_type: NotRequired[Literal["primary", "secondary", "signing"]]


class AnsweredRequest(TypedDict, total=False):
    """A line of the router's log: one request and how it was answered."""

    time: str
    prediction_id: str
    path: str
    deployment: str
    generation: int
    status: int
    model_status: int
    """What the model answered; `status` is what the caller got."""
    ms: float
    bytes_in: int
    bytes_out: int
    client_request_id: str
    request_id: str
    mirror: bool
