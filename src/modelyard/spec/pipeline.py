"""Pipelines: steps, their bindings, and the flow between them (reference `azure-v2-fields`, sections 3 and 7.3)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Required

from pydantic import BeforeValidator, Field, SerializeAsAny, WithJsonSchema, model_validator
from typing_extensions import TypedDict

from .component import (
    Component,
    ComponentInputs,
    ComponentOutputs,
    ParallelFields,
    RetrySettings,
)
from .fields import ShownAs, Spec, Text, Variables, read_only
from .inputs import LITERAL_TYPES, Inputs, Output, Outputs, input_files
from .job import CommandJobLimits, Distribution, EnvironmentField, Job, JobIdentity, JobResourceConfiguration, JobService, QueueSettings
from .local import Code, EnvironmentFiles, Inside, LocalPart
from .nouns import NOUNS
from .states import StepState
from .sweep import SweepFields

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
        yield from _component_parts(self.component)
        yield from super().local_parts()


def _component_parts(component: str | Component | None) -> Iterator[LocalPart]:
    if isinstance(component, Component):
        yield Inside(("component",), component)


class CommandNode(Node):
    type: Literal["command"] | None = None
    command: str | None = None
    code: str | None = None
    environment: EnvironmentField | None = None
    environment_variables: Variables = Field(default_factory=dict)
    resources: JobResourceConfiguration | None = None
    distribution: Distribution | None = None
    queue_settings: QueueSettings | None = None
    limits: CommandJobLimits | None = None
    services: dict[str, JobService] | None = None
    is_deterministic: bool | None = None
    retry_settings: RetrySettings | None = None
    experiment_name: str | None = None

    def local_parts(self) -> Iterator[LocalPart]:
        yield from (Code(), EnvironmentFiles())
        yield from super().local_parts()


class SweepNode(Node, SweepFields):
    type: Literal["sweep"]
    is_deterministic: bool | None = None
    retry_settings: RetrySettings | None = None


class SweepComponent(Component, SweepFields):
    """A sweep as a component: its ports are inputs and outputs of its trial, by name."""

    type: Literal["sweep"] = "sweep"

    def as_step(self, step: Node) -> SweepNode:
        """The sweep step that a step of this component amounts to."""
        document = step.document()
        fields = {key: value for key, value in self.document().items() if key in SweepFields.model_fields}
        overridden = {
            key: document[key] for key in SweepNode.model_fields if key in document and key in Node.model_fields and key != "component"
        }
        defaults = {
            port: {"type": input_port.type, "value" if input_port.is_literal else "path": input_port.default}
            for port, input_port in self.inputs.items()
            if input_port.default is not None
        }
        return SweepNode.model_validate({**fields, **overridden, "type": "sweep", "inputs": {**defaults, **document.get("inputs", {})}})


class ParallelNode(Node, ParallelFields):
    type: Literal["parallel"]
    is_deterministic: bool | None = None
    environment: EnvironmentField | None = None

    def local_parts(self) -> Iterator[LocalPart]:
        yield EnvironmentFiles()
        yield from super().local_parts()


class PipelineNode(Node):
    type: Literal["pipeline"]
    jobs: dict[str, Any] | None = None
    settings: PipelineJobSettings | None = None
    retry_settings: RetrySettings | None = None


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


_NODES: dict[str, type[Spec]] = {
    "command": CommandNode, "sweep": SweepNode, "parallel": ParallelNode, "pipeline": PipelineNode, "if_else": ConditionNode,
    "do_while": DoWhileNode, "parallel_for": ParallelForNode, **dict.fromkeys(NOT_RUN, OtherNode),
}  # fmt: skip


def node(value: Any) -> Any:
    """A step by its `type`; without one it is a command, or what its component is."""
    if isinstance(value, Spec):
        return value
    if not isinstance(value, dict):
        raise ValueError("a step is a mapping of fields")
    inner = value.get("component")
    implied = inner.get("type") if isinstance(inner, dict) else inner.type if isinstance(inner, Component) else None
    kind = str(value.get("type") or implied or ("sweep" if "trial" in value else "parallel" if "task" in value else "command"))
    model = _NODES.get(kind.lower().replace("-", "_"))
    if model is None:
        raise ValueError(f"{kind!r} is not a type of step; known are {', '.join(_NODES)}")
    if model is CommandNode or (model is SweepNode and inner is not None):  # of a sweep component: becomes a sweep when it is resolved
        value = {key: item for key, item in value.items() if model is CommandNode or key != "type"}
        model = CommandNode
    if model is CommandNode:
        return model.model_validate(value)
    return model.model_validate({**value, "type": kind.lower()})


AnyNode = CommandNode | SweepNode | ParallelNode | PipelineNode | ConditionNode | DoWhileNode | ParallelForNode | OtherNode
Nodes = dict[str, Annotated[AnyNode, BeforeValidator(node)]]


_BOUND = re.compile(r"^\s*\$\{\{\s*parent\.outputs\.([\w-]+)\s*\}\}\s*$")


def _typed_by_pipeline(nodes: dict[str, Any], outputs: dict[str, Any]) -> None:
    """An output of a step without a type of its own has the type of the pipeline's output that it is bound to."""
    for step in nodes.values():
        for output in getattr(step, "outputs", {}).values():
            match = _BOUND.match(output.path or "") if isinstance(output, Output) and "type" not in output.model_fields_set else None
            if match and match[1] in outputs and outputs[match[1]].type not in LITERAL_TYPES:
                output.type = outputs[match[1]].type


class PipelineJobSettings(Spec):
    default_datastore: str | None = None
    default_compute: str | None = None
    continue_on_step_failure: bool | None = None
    force_rerun: bool | None = None


class PipelineComponent(Component):
    type: Literal["pipeline"] = "pipeline"
    inputs: ComponentInputs = Field(default_factory=dict)
    outputs: ComponentOutputs = Field(default_factory=dict)
    jobs: Nodes = Field(default_factory=dict)

    def local_parts(self) -> Iterator[LocalPart]:
        yield from (Inside(("jobs", name), step) for name, step in self.jobs.items())
        yield from super().local_parts()

    @model_validator(mode="after")
    def _types(self) -> PipelineComponent:
        _typed_by_pipeline(self.jobs, self.outputs)
        return self


class StepStatus(TypedDict, total=False):
    """One step: its state, its job, and why it ran or from which job it was reused."""

    status: Required[StepState | Literal["NotStarted"]]
    job_name: str
    reused_from: str
    ran_because: str
    reason: str
    condition: bool
    tries: int
    start_time: str
    end_time: str


class PipelineJob(Job):
    type: Literal["pipeline"] = "pipeline"
    settings: PipelineJobSettings = Field(default_factory=PipelineJobSettings)
    inputs: Inputs = Field(default_factory=dict)
    outputs: Outputs = Field(default_factory=dict)
    jobs: Nodes = Field(default_factory=dict)
    component: ComponentField = None
    parent_job_name: str | None = read_only()
    steps: Annotated[dict[str, dict[str, Any]] | None, ShownAs(dict[str, StepStatus])] = read_only()

    def local_parts(self) -> Iterator[LocalPart]:
        yield from input_files(self.inputs)
        yield from _component_parts(self.component)
        yield from (Inside(("jobs", name), step) for name, step in self.jobs.items())

    @model_validator(mode="after")
    def _types(self) -> PipelineJob:
        _typed_by_pipeline(self.jobs, self.outputs)
        return self


PipelineNode.model_rebuild()
PipelineJob.model_rebuild()
