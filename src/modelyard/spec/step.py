"""Steps of pipelines: what every step has, and each type of step (reference `azure-v2-fields`, section 3).

Which types there are stands in the row `job` of `nouns`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SerializeAsAny, WithJsonSchema

from ..core.errors import Invalid, Problem
from .component import CommandComponent, Component, ParallelFields, RetrySettings
from .fields import Command, ReadFile, Spec, Text, Variables
from .inputs import Inputs, Outputs, input_files
from .job import CommandJobLimits, Distribution, EnvironmentField, JobIdentity, JobResourceConfiguration, JobService, QueueSettings
from .local import Code, EnvironmentFiles, Inside, LocalPart
from .nouns import NOUNS
from .sweep import ParameterizedCommand, SweepFields
from .unused import SERVICES, TIERS

NOT_RUN = ("automl", "spark", "import", "data_transfer")
"""Kinds of steps that are read, so that the refusal can name them, and not run."""


def component(value: Any) -> Any:
    """An inline component by its type; a reference stays text."""
    if not isinstance(value, dict):
        return value
    kind = str(value.get("type") or ("pipeline" if "jobs" in value else "command")).lower()
    known = NOUNS["component"].specs
    model = known.get(kind)
    if model is None:
        raise ValueError(f"{kind!r} is not a component type; known are {', '.join(known)}")
    return model.model_validate({"name": "azureml_anonymous", **value})


ComponentField = Annotated[
    str | SerializeAsAny[Component] | None,
    BeforeValidator(component),
    # A component holds steps, which hold components: the schema of one that is written out stays open.
    WithJsonSchema(
        {"anyOf": [{"type": "string"}, {"type": "object"}], "description": "`azureml:NAME:VERSION`, or a component written out."}
    ),
]


class Node(Spec):
    """What every step has. A `component`, or the fields of the job itself."""

    component: ComponentField = None
    name: str | None = None
    display_name: str | None = None
    description: str | None = None
    tags: dict[str, Text] = Field(default_factory=dict)
    properties: dict[str, Any] = Field(default_factory=dict)
    comment: str | None = None
    inputs: Inputs = Field(default_factory=dict)
    outputs: Outputs = Field(default_factory=dict)
    compute: str | None = None
    identity: JobIdentity | None = None
    force_rerun: bool | None = None
    """The yard's own: never reuse this step."""

    def local_parts(self) -> Iterator[LocalPart]:
        yield from input_files(self.inputs)
        yield from component_parts(self.component)
        yield from super().local_parts()

    def read_files(self, read: ReadFile) -> None:
        self._read_file("component", "component", read)
        super().read_files(read)

    def inline(self, ports: dict[str, Any]) -> Component:
        """The component that a step without one amounts to: the fields that both have, and `ports`. Raises Invalid naming the missing
        field, and pydantic's ValidationError."""
        kind = getattr(self, "type", None) or "command"
        # The step's variables win over its component's wherever both are read, and may name inputs of the pipeline.
        common = NOUNS["component"].specs[kind].model_fields.keys() - Node.model_fields.keys() - {"type", "environment_variables"}
        fields = {key: value for key, value in self.document().items() if key in common}
        made: Component = component({**fields, **ports, "type": kind})
        return made

    @property
    def retries(self) -> int:
        """How often the whole step is tried again after it failed."""
        settings: RetrySettings | None = getattr(self, "retry_settings", None)
        return int(settings.max_retries or 0) if settings is not None else 0


def component_parts(component: str | Component | None) -> Iterator[LocalPart]:
    if isinstance(component, Component):
        yield Inside(("component",), component)


def _missing(field: str, message: str) -> Invalid:
    return Invalid(message, problems=(Problem(message, field),))


class CommandNode(Node):
    type: Literal["command"] | None = None
    command: Command | None = None
    code: str | None = None
    environment: EnvironmentField | None = None
    environment_variables: Variables = Field(default_factory=dict)
    resources: JobResourceConfiguration | None = None
    distribution: Distribution | None = None
    queue_settings: Annotated[QueueSettings | None, TIERS] = None
    limits: CommandJobLimits | None = None
    services: Annotated[dict[str, JobService] | None, SERVICES] = None
    is_deterministic: bool | None = None
    retry_settings: RetrySettings | None = None
    experiment_name: str | None = None

    def local_parts(self) -> Iterator[LocalPart]:
        yield from (Code(), EnvironmentFiles())
        yield from super().local_parts()

    def inline(self, ports: dict[str, Any]) -> Component:
        for field in ("command", "environment"):
            if getattr(self, field) is None:
                raise _missing(field, f"a step without a component needs a {field}")
        return super().inline(ports)


class SweepNode(Node, SweepFields):
    type: Literal["sweep"]
    is_deterministic: bool | None = None
    retry_settings: RetrySettings | None = None

    def inline(self, ports: dict[str, Any]) -> Component:
        """The trial, whose inputs are those of the step and the parameters that are varied."""
        if isinstance(self.trial, CommandComponent):
            return self.trial
        assert isinstance(self.trial, ParameterizedCommand)
        inputs = {**ports["inputs"], **{name: {"type": "string"} for name in self.search_space}}
        trial = {key: value for key, value in self.trial.document().items() if key != "queue_settings"}
        return CommandComponent.model_validate({**ports, "inputs": inputs, **trial})


class PipelineJobSettings(Spec):
    """Azure ignores settings that it does not know; here they are noted at submit."""

    model_config = {"extra": "allow"}
    default_datastore: str | None = None
    default_compute: str | None = None
    continue_on_step_failure: bool | None = None
    force_rerun: bool | None = None


class ParallelNode(Node, ParallelFields):
    type: Literal["parallel"]
    is_deterministic: bool | None = None
    environment: EnvironmentField | None = None

    def local_parts(self) -> Iterator[LocalPart]:
        yield EnvironmentFiles()
        yield from super().local_parts()

    def inline(self, ports: dict[str, Any]) -> Component:
        if self.task is None:
            raise _missing("task", "a parallel step has a component or a task")
        return super().inline(ports)

    @property
    def retries(self) -> int:
        """None: its `retry_settings` are of its mini batches."""
        return 0


class PipelineNode(Node):
    type: Literal["pipeline"]
    jobs: dict[str, Any] | None = None
    settings: PipelineJobSettings | None = None
    retry_settings: RetrySettings | None = None

    def inline(self, ports: dict[str, Any]) -> Component:
        if self.jobs is None:
            raise _missing("component", "a pipeline step has a component")
        return super().inline(ports)


class ConditionNode(Spec):
    type: Literal["if_else"]
    condition: str | bool
    true_block: str | list[str] | None = None
    false_block: str | list[str] | None = None


class DoWhileLimits(Spec):
    max_iteration_count: int = Field(ge=1, le=1000)


class DoWhileNode(Spec):
    type: Literal["do_while"]
    body: str
    condition: str | None = None
    mapping: dict[str, str | list[str]]
    limits: DoWhileLimits


class ParallelForNode(Spec):
    type: Literal["parallel_for"]
    body: str
    items: list[dict[str, Any]] | dict[str, dict[str, Any]] | str
    max_concurrency: int | None = Field(default=None, ge=1)
    outputs: dict[str, Any] = Field(default_factory=dict)


class OtherNode(Spec):
    """A step of a kind that is not run here."""

    model_config = {"extra": "allow"}
    type: Literal["automl", "spark", "import", "data_transfer"]
