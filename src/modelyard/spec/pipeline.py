"""Pipelines: steps, their bindings, and the flow between them (reference `azure-v2-fields`, sections 3 and 7.3)."""

from __future__ import annotations

import functools
import operator
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, Literal, Required

from pydantic import BeforeValidator, Field, model_validator
from typing_extensions import TypedDict

from .component import Component, ComponentInputs, ComponentOutputs
from .fields import ReadFile, ShownAs, Spec, read_only
from .inputs import LITERAL_TYPES, Inputs, Output, Outputs, input_files
from .job import Job
from .local import Inside, LocalPart
from .nouns import NOUNS
from .states import StepState
from .step import (
    NOT_RUN,
    CommandNode,
    ComponentField,
    ConditionNode,
    DoWhileNode,
    Node,
    OtherNode,
    ParallelForNode,
    PipelineJobSettings,
    SweepNode,
    component_parts,
)
from .sweep import SweepFields


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


_STEPS: dict[str, type[Spec]] = {**dict.fromkeys(NOT_RUN, OtherNode), **NOUNS["job"].step_specs}


def node(value: Any) -> Any:
    """A step by its `type`; without one it is a command, or what its component is."""
    if isinstance(value, Spec):
        return value
    if not isinstance(value, dict):
        raise ValueError("a step is a mapping of fields")
    inner = value.get("component")
    implied = inner.get("type") if isinstance(inner, dict) else inner.type if isinstance(inner, Component) else None
    kind = str(value.get("type") or implied or ("sweep" if "trial" in value else "parallel" if "task" in value else "command"))
    model = _STEPS.get(kind.lower().replace("-", "_"))
    if model is None:
        raise ValueError(f"{kind!r} is not a type of step; known are {', '.join(_STEPS)}")
    if model is CommandNode or (model is SweepNode and inner is not None):  # of a sweep component: becomes a sweep when it is resolved
        value = {key: item for key, item in value.items() if model is CommandNode or key != "type"}
        model = CommandNode
    if model is CommandNode:
        return model.model_validate(value)
    return model.model_validate({**value, "type": kind.lower()})


if TYPE_CHECKING:
    AnyNode = Node | ConditionNode | DoWhileNode | ParallelForNode | OtherNode
else:
    # The rows are known when this runs, and no sooner.
    AnyNode = functools.reduce(operator.or_, dict.fromkeys((*NOUNS["job"].step_specs.values(), OtherNode)))
Nodes = dict[str, Annotated[AnyNode, BeforeValidator(node)]]


_BOUND = re.compile(r"^\s*\$\{\{\s*parent\.outputs\.([\w-]+)\s*\}\}\s*$")


def _typed_by_pipeline(nodes: dict[str, Any], outputs: dict[str, Any]) -> None:
    """An output of a step without a type of its own has the type of the pipeline's output that it is bound to."""
    for step in nodes.values():
        for output in getattr(step, "outputs", {}).values():
            match = _BOUND.match(output.path or "") if isinstance(output, Output) and "type" not in output.model_fields_set else None
            if match and match[1] in outputs and outputs[match[1]].type not in LITERAL_TYPES:
                output.type = outputs[match[1]].type


class PipelineComponent(Component):
    type: Literal["pipeline"] = "pipeline"
    inputs: ComponentInputs = Field(default_factory=dict)
    outputs: ComponentOutputs = Field(default_factory=dict)
    jobs: Nodes = Field(default_factory=dict)

    def local_parts(self) -> Iterator[LocalPart]:
        yield from (Inside(("jobs", name), step) for name, step in self.jobs.items())
        yield from super().local_parts()

    def read_files(self, read: ReadFile) -> None:
        for step in self.jobs.values():
            step.read_files(read)

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
        yield from component_parts(self.component)
        yield from (Inside(("jobs", name), step) for name, step in self.jobs.items())

    def read_files(self, read: ReadFile) -> None:
        self._read_file("component", "component", read)
        for step in self.jobs.values():
            step.read_files(read)

    @model_validator(mode="after")
    def _types(self) -> PipelineJob:
        _typed_by_pipeline(self.jobs, self.outputs)
        return self
