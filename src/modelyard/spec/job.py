"""Command jobs: one command, in an environment, on inputs, making outputs."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Annotated, Any, Literal, NotRequired

from pydantic import BeforeValidator, Field, model_validator
from pydantic.json_schema import SkipJsonSchema
from typing_extensions import TypedDict

from ..core.errors import Invalid, Problem
from ..core.names import check_name
from . import expressions
from .environment import Environment
from .fields import Command, Entity, Failure, ShownAs, Spec, Variables, read_only
from .inputs import Inputs, Outputs
from .local import Code, EnvironmentFiles, Files, LocalPart
from .states import JobState
from .unused import CONTAINERS, SERVICES, TIERS


class JobResourceConfiguration(Spec):
    instance_count: int | None = Field(default=None, ge=1)
    instance_type: str | None = None
    properties: Annotated[dict[str, Any] | None, CONTAINERS] = None
    locations: Annotated[list[str] | None, CONTAINERS] = None
    shm_size: Annotated[str | None, CONTAINERS] = None
    max_instance_count: Annotated[int | None, CONTAINERS] = None
    docker_args: Annotated[str | list[str] | None, CONTAINERS] = None

    @property
    def instances(self) -> int:
        return self.instance_count or 1


class CommandJobLimits(Spec):
    """`timeout` in seconds, counted from the start of the command."""

    timeout: int | None = Field(default=None, ge=1)


class QueueSettings(Spec):
    job_tier: Literal["spot", "basic", "standard", "premium", "null"] | None = None
    priority: Literal["low", "medium", "high"] | None = None


class _Processes(Spec):
    process_count_per_instance: int | None = None

    def processes(self, instances: int) -> tuple[int, int]:
        """(processes of an instance, parameter servers)"""
        return self.process_count_per_instance or 1, 0


class PyTorchDistribution(_Processes):
    type: Literal["pytorch"] = "pytorch"


class TensorFlowDistribution(Spec):
    type: Literal["tensorflow"] = "tensorflow"
    parameter_server_count: int | None = None
    worker_count: int | None = None

    def processes(self, instances: int) -> tuple[int, int]:
        """(workers, parameter servers)"""
        return self.worker_count or instances, self.parameter_server_count or 0


class MpiDistribution(_Processes):
    type: Literal["mpi"] = "mpi"


class RayDistribution(Spec):
    type: Literal["ray"] = "ray"
    port: int | None = None
    address: str | None = None
    include_dashboard: bool | None = None
    dashboard_port: int | None = None
    head_node_additional_args: str | None = None
    worker_node_additional_args: str | None = None

    def processes(self, instances: int) -> tuple[int, int]:
        return 1, 0


Distribution = Annotated[PyTorchDistribution | TensorFlowDistribution | MpiDistribution | RayDistribution, Field(discriminator="type")]


class ManagedIdentityConfiguration(Spec):
    type: Literal["managed", "managed_identity"] = "managed"
    client_id: str | None = None
    object_id: str | None = None
    msi_resource_id: str | None = None


class UserIdentityConfiguration(Spec):
    type: Literal["user_identity"] = "user_identity"


class AmlTokenConfiguration(Spec):
    type: Literal["aml_token"] = "aml_token"


JobIdentity = Annotated[ManagedIdentityConfiguration | UserIdentityConfiguration | AmlTokenConfiguration, Field(discriminator="type")]


class JobService(Spec):
    type: str | None = None
    port: int | None = None
    nodes: str | None = None
    properties: dict[str, Any] | None = None
    ssh_public_keys: str | None = None
    log_dir: str | None = None
    endpoint: str | None = None
    error_message: str | None = None


def _inline_environment(value: Any) -> Any:
    if isinstance(value, (str, Environment, dict)):
        return value
    raise ValueError("an environment is azureml:NAME:VERSION, azureml:NAME@LABEL, a registry URI or an inline definition")


EnvironmentField = Annotated[str | Environment, BeforeValidator(_inline_environment)]


class JobFailure(Failure, total=False):
    """Why a job failed: what its command exited with, the end of its log, and what of its outputs could not be kept."""

    exit_code: int
    log_tail: list[str]
    not_kept: str


class Job(Entity):
    """What every kind of job has."""

    display_name: str | None = None
    experiment_name: str | None = None
    services: Annotated[dict[str, JobService] | None, SERVICES] = None
    compute: str | None = None
    identity: JobIdentity | None = None

    status: Annotated[str | None, ShownAs(JobState | Literal["CancelRequested"])] = read_only()
    error: Annotated[dict[str, Any] | None, ShownAs(JobFailure)] = read_only()
    warnings: list[str] | None = read_only()
    log_files: dict[str, str] | None = read_only()
    start_time: str | None = read_only()
    end_time: str | None = read_only()
    studio_url: str | None = read_only()

    def submitted(self) -> dict[str, Any]:
        """The document without what the server answers."""
        answered = self.read_only_fields()
        return {key: value for key, value in self.document().items() if key not in answered}


class CommandJob(Job):
    type: Literal["command"] = "command"
    command: Command = Field(min_length=1)
    code: str | None = None
    environment: EnvironmentField
    environment_variables: Variables = Field(default_factory=dict)
    inputs: Inputs = Field(default_factory=dict)
    outputs: Outputs = Field(default_factory=dict)
    resources: JobResourceConfiguration | None = None
    distribution: Distribution | None = None
    queue_settings: Annotated[QueueSettings | None, TIERS] = None
    limits: CommandJobLimits | None = None
    parent_job_name: str | None = read_only()
    parameters: SkipJsonSchema[dict[str, Any] | None] = Field(default=None, exclude=True)

    @model_validator(mode="after")
    def _consistent(self) -> CommandJob:
        try:
            if self.name is not None:
                check_name("job", self.name)
            for port in (*self.inputs, *self.outputs):
                check_name("port", port, "input or output")
            ports: dict[str, Collection[str]] = {"inputs": self.inputs, "outputs": self.outputs}
            expressions.COMMAND.check(self.command, ports)
            for text in self.environment_variables.values():
                expressions.VARIABLES.check(text, ports)
            for output in self.outputs.values():
                expressions.OUTPUT_PATH.check(output.path or "")
        except Invalid as error:
            raise ValueError(error.message) from None
        return self

    def local_parts(self) -> Iterator[LocalPart]:
        yield Code(described=True)
        for name, value in self.inputs.items():
            yield Files(("inputs", name, "path"), "file" if value.type == "uri_file" else "any")
        yield EnvironmentFiles()

    def check_complete(self) -> None:
        """Raise Invalid when an input has no path: a step in the making may lack one, a job that is to run may not."""
        lacking = [name for name, value in self.inputs.items() if not value.is_literal and value.path is None and not value.optional]
        if lacking:
            problems = tuple(Problem(f"input {name} needs a path", f"inputs.{name}") for name in lacking)
            raise Invalid("this is not a valid command job", code="invalid_spec", problems=problems)

    def __call__(self, *args: Any, **inputs: Any) -> Any:
        """Inside a function under `@dsl.pipeline` a step of that pipeline; elsewhere this job with other inputs, or the start of a sweep."""
        from .dsl import call_command

        return call_command(self, args, inputs)


class JobChanges(TypedDict, total=False):
    """What of a job may change."""

    display_name: str | None
    description: str | None
    tags: dict[str, str]
    properties: dict[str, Any]


class LoggedMetric(TypedDict):
    """The latest value of a metric; a NaN is null."""

    metric: str
    value: float | None
    step: int


class JobMetrics(TypedDict):
    """What a job logged through MLflow."""

    metrics: list[LoggedMetric]
    params: dict[str, str]


class JobOutput(TypedDict):
    """`content` is where it stays as it was written, when others may write to `uri` too; `source` the job that wrote it, of one that a
    pipeline or sweep has taken over; `default` are the artifacts of the run."""

    type: str
    uri: str
    content: NotRequired[str]
    source: NotRequired[str]
    default: NotRequired[bool]


class Difference(TypedDict):
    kind: str
    name: str
    first: str | None
    second: str | None


class Compared(TypedDict):
    metrics: int
    params: int
    outputs: int
    artifacts: int


class Verification(TypedDict):
    """Whether two jobs came to the same, bit by bit. `unpinned` are reasons why they may differ."""

    first: str
    second: str
    identical: bool
    compared: Compared
    differences: list[Difference]
    unpinned: list[str]
