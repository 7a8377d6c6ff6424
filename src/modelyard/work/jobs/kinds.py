"""Kinds of jobs: each is a feature, whose manifest adds a `JobKind`, and a `StepKind` when pipelines run it as a step."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from ...core.errors import Invalid
from ...engine.feature import composed
from ...engine.yard import Yard
from ...ports.executor import Command, Share
from ...spec.environment import Environment
from ...spec.inputs import Input, Output
from ...spec.job import Job
from ...storage.unit import Unit
from .model import JobRecord, Program


@dataclass(frozen=True)
class Execution:
    """What is executed for a job, as its spec says it. Its references are looked up at submit, and resolved when the job starts."""

    command: Command
    environment: str | Environment
    code: str | None = None
    inputs: Mapping[str, Input] = field(default_factory=dict)
    outputs: Mapping[str, Output] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)
    timeout_s: int | None = None
    instance_type: str | None = None
    """The VM size whose share of the machine it asks for."""
    notes: tuple[str, ...] = ()
    """A line for each field that is stored but has no effect here."""


@dataclass(frozen=True)
class Children:
    """Other jobs, which carry a job out."""

    due: Callable[[Unit], list[tuple[str, str]]]
    """(workspace, name) of the jobs that are due now."""
    advance: Callable[[Yard, Share, str, str], Awaitable[None]]
    """Advance the job (workspace, name) as far as it goes."""


class Submit(Protocol):
    def __call__(self, unit: Unit, spec: Any, machine: Share, parent: JobRecord | None = None, /) -> JobRecord: ...


def _nothing(unit: Unit, record: JobRecord) -> dict[str, Any]:
    return {}


def _no_rows(unit: Unit, name: str) -> None:
    return


@dataclass(frozen=True)
class JobKind:
    """Either `run` or `children`."""

    name: str
    """The `type` of its jobs."""
    submit: Submit
    """`work.jobs.service.submit` for a kind that runs a process; another one calls `begin`."""
    run: Callable[[Any], Execution] | None = None
    """What an executor runs, of the spec of a job. Raises Invalid when the spec is not complete."""
    children: Children | None = None
    details: Callable[[Unit, JobRecord], dict[str, Any]] = _nothing
    """What a job of this kind shows besides its record."""
    forget: Callable[[Unit, str], None] = _no_rows
    """Drop the rows the kind keeps about a job."""
    ended: Callable[[Unit, str], None] = _no_rows
    """A job, of whatever kind and parent, has ended: make those of this kind due that wait for it."""
    resume: Callable[[Unit, JobRecord, JobRecord], None] | None = None
    """Give a job, newly made, what an earlier one of the same spec has completed; None when the kind cannot."""

    def __post_init__(self) -> None:
        if (self.run is None) == (self.children is None):
            raise TypeError(f"the job kind {self.name} either runs a process or is carried out by children")

    def execution(self, spec: Any) -> Execution:
        if self.run is None:
            raise TypeError(f"a {self.name} runs no process")
        return self.run(spec)


@dataclass(frozen=True)
class StepKind:
    """How a step of a pipeline is carried out."""

    type: str
    """Of its component, or of the step itself."""
    job: Callable[[Any, Any, dict[str, Any], dict[str, Any]], Job]
    """(step, its component, inputs, outputs) → its job. Settings of the step win over those of the component. Raises Invalid for what
    cannot be run."""
    program: Program | None = None
    """The program of the runtime that runs the job's command."""


def step_kinds() -> dict[str, StepKind]:
    return {kind.type: kind for kind in composed().extensions(StepKind)}


def job_kinds() -> dict[str, JobKind]:
    """Every kind that this process knows, by name."""
    return {kind.name: kind for kind in composed().extensions(JobKind)}


def kind_of(type: str) -> JobKind:
    kind = job_kinds().get(type)
    if kind is None:
        raise Invalid(f"this yard runs no jobs of type {type}; it runs {', '.join(job_kinds())}", code="unknown_kind")
    return kind


def execution_of(record: JobRecord) -> Execution:
    """Raises Invalid when this version cannot read the job's spec."""
    execution = kind_of(record.type).execution(record.spec)
    if record.program is None:
        return execution
    return replace(execution, command=replace(execution.command, program=record.program))
