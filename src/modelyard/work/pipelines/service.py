"""Use cases of pipelines. `advance` records the steps that ended and starts those that can, all in one unit."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import orjson
from pydantic import ValidationError

from ...assets.components import service as components
from ...assets.environments import service as environments
from ...assets.files import service as files
from ...assets.files.model import output_folder
from ...assets.references import service as references
from ...core.actor import internal, requires
from ...core.errors import AlreadyExists, Conflict, Invalid, NotFound, Problem, YardError
from ...core.names import nearest
from ...ports.executor import Share
from ...ports.objects import File
from ...spec.component import CommandComponent, ComponentInput
from ...spec.fields import problems_of
from ...spec.inputs import LITERAL_TYPES, Input, Output
from ...spec.job import CommandJob
from ...spec.pipeline import PipelineComponent, PipelineJob
from ...spec.properties import JobProperties
from ...spec.references import BLOBSTORE, JobOutput
from ...spec.states import JOB, STEP, JobState, StepState
from ...spec.step import ConditionNode, DoWhileNode, Node, ParallelForNode, PipelineJobSettings
from ...storage.unit import Unit
from ..compute import service as computes
from ..jobs import outputs as job_outputs
from ..jobs import resolution
from ..jobs import service as jobs
from ..jobs.kinds import step_kinds
from ..jobs.model import JobRecord
from . import store
from .model import INSTALLED, Result, StepRow, changed, content_key
from .parallel import data_port
from .plan import (
    Binding,
    Plan,
    Step,
    binding,
    bindings_in,
    bound_outputs,
    compile_plan,
    loop_condition,
    output_of,
    pipeline_job,
    plan_of,
    step_inputs,
    step_outputs,
    text_of,
    variables_of,
    with_values,
)

MAX_ITERATIONS = 10_000


@requires("workspaces/jobs/write")
def submit(unit: Unit, spec: PipelineJob, machine: Share, parent: JobRecord | None = None) -> JobRecord:
    """Check the whole pipeline, then begin it. Components are resolved now: later versions of them do not change a submitted pipeline."""
    notes = [f"settings.{name}: there is no such setting{nearest(name, PipelineJobSettings.model_fields)}; it is ignored, as in Azure"
             for name in spec.settings.model_extra or ()]  # fmt: skip
    if spec.component is not None:
        spec = _of_component(unit, spec, notes)
    components.expanded(unit, spec)
    plan = compile_plan(spec)
    if parent is None:
        _check_references(unit, spec, plan)
    return jobs.begin(unit, spec, parent, [*notes, *plan.notes])


def _of_component(unit: Unit, spec: PipelineJob, notes: list[str]) -> PipelineJob:
    """A pipeline job that names a pipeline component runs the component's steps with its own inputs. `notes`: gets what is ignored."""
    component = components.resolve(unit, spec.component) if isinstance(spec.component, str) else spec.component
    if not isinstance(component, PipelineComponent):
        raise Invalid(f"component {spec.component!r} is not a pipeline", code="invalid_component")
    body = spec.document()
    body.pop("component", None)
    inputs = {port: value for port, value in body["inputs"].items() if port in component.inputs}
    notes += [
        f"inputs.{port}: the component has no input {port!r}{nearest(port, component.inputs)}; it is ignored, as in Azure"
        for port in body["inputs"] if port not in inputs
    ]  # fmt: skip
    problems = [
        Problem(f"the component has no output {port!r}", f"outputs.{port}") for port in spec.outputs if port not in component.outputs
    ]
    for port, declared in component.inputs.items():
        if port not in inputs and declared.default is not None:
            inputs[port] = {"type": declared.type, ("value" if declared.is_literal else "path"): declared.default}
        elif port not in inputs and declared.optional:
            inputs[port] = {"type": declared.type, "optional": True}
        elif port not in inputs:
            problems.append(Problem(f"input {port!r} ({declared.type}) is required", "inputs"))
    if problems:
        raise Invalid("this pipeline cannot run", code="invalid_pipeline", problems=tuple(problems))
    outputs = {**{port: {"type": output.type} for port, output in component.outputs.items()}, **body["outputs"]}
    return PipelineJob.model_validate({**body, "inputs": inputs, "outputs": outputs, "jobs": component.document()["jobs"]})


@internal
def as_component(unit: Unit, spec: PipelineJob) -> PipelineComponent:
    """The component that a pipeline job amounts to: its inputs become ports whose defaults are the job's values."""
    if spec.component is not None:
        spec = _of_component(unit, spec, [])
    inputs: dict[str, Any] = {}
    for port, value in spec.inputs.items():
        default = value.literal if value.is_literal else value.path
        inputs[port] = {"type": value.type, "default": default, "optional": value.optional, "description": value.description}
    body = {
        "name": spec.experiment_name or "azureml_anonymous", "display_name": spec.display_name, "description": spec.description,
        "inputs": {port: {key: item for key, item in fields.items() if item is not None} for port, fields in inputs.items()},
        "outputs": {port: {"type": output.type} for port, output in spec.outputs.items()}, "jobs": spec.document()["jobs"],
    }  # fmt: skip
    return PipelineComponent.model_validate({key: value for key, value in body.items() if value is not None})


@internal
def check(unit: Unit, component: PipelineComponent) -> None:
    """Raises Invalid with everything that keeps a pipeline component from being run, whatever its inputs are."""
    problems, attempt = _collector()
    _check_steps(unit, compile_plan(component), "jobs", attempt)
    if problems:
        raise Invalid("this pipeline cannot run", code="unresolved_reference", problems=tuple(problems))


def _collector() -> tuple[list[Problem], Callable[[str, Callable[[], Any]], None]]:
    problems: list[Problem] = []

    def attempt(where: str, look: Callable[[], Any]) -> None:
        try:
            look()
        except (NotFound, Invalid) as error:
            problems.append(Problem(error.message + (f". {error.hint}" if error.hint else ""), where))

    return problems, attempt


def _check_references(unit: Unit, spec: PipelineJob, plan: Plan) -> None:
    """Check that all references of the pipeline exist: its inputs, and the code, environment and data of every step."""
    problems, attempt = _collector()
    for port, value in spec.inputs.items():
        if value.path is not None:
            # How it is read, each step says for itself.
            attempt(f"inputs.{port}", lambda value=value: resolution.check_input(unit, value.model_copy(update={"mode": "direct"})))  # type: ignore[misc]
        elif not value.is_literal and not value.optional:
            problems.append(Problem("this input needs a path", f"inputs.{port}"))
    for port, output in spec.outputs.items():
        attempt(f"outputs.{port}", functools.partial(resolution.check_output, unit, resolution.PLACEHOLDER, port, output))
    if spec.settings.default_datastore:
        output = Output(path=_default_path(spec.settings))
        attempt("settings.default_datastore", functools.partial(resolution.check_output, unit, resolution.PLACEHOLDER, "output", output))
    _check_steps(unit, plan, "jobs", attempt, spec)
    if problems:
        raise Invalid("this pipeline cannot run", code="unresolved_reference", problems=tuple(problems))


def _check_steps(
    unit: Unit, plan: Plan, base: str, attempt: Callable[[str, Callable[[], Any]], None], spec: PipelineJob | None = None
) -> None:  # fmt: skip
    """`spec`: the pipeline itself, where the values of its inputs are known."""
    for step in plan.steps.values():
        where, component = f"{base}.{step.name}", step.component
        if component is None:
            continue
        for port, value in step.node.inputs.items():
            attempt(f"{where}.inputs.{port}", functools.partial(_check_step_input, unit, step, port, value, spec))
        for port, output in step.node.outputs.items():
            if not bindings_in(output.path):
                attempt(f"{where}.outputs.{port}", functools.partial(resolution.check_output, unit, resolution.PLACEHOLDER, port, output))
        if isinstance(component, PipelineComponent):
            _check_steps(unit, compile_plan(component), f"{where}.component.jobs", attempt)
            continue
        if step.node.compute and "${{" not in step.node.compute:
            attempt(f"{where}.compute", lambda step=step: computes.resolve(unit, step.node.compute))  # type: ignore[misc]
        code, environment = component.code_and_environment()
        if code:
            attempt(f"{where}.code", lambda code=code: resolution.check_code(unit, code))  # type: ignore[misc]
        if environment is not None:
            attempt(f"{where}.environment", lambda environment=environment: environments.resolve(unit, environment))  # type: ignore[misc]


def _check_step_input(unit: Unit, step: Step, port: str, value: Input, spec: PipelineJob | None) -> None:
    """Raises Invalid or NotFound when the data that an input of a step reads is not there, or is not read in the step's mode."""
    declared = step.component.inputs.get(port) if step.component is not None else None
    if declared is None or declared.is_literal:
        return
    mode = value.mode or (declared.mode if declared.mode in ("direct", "download") else None)
    if step.kind == "parallel" and port == data_port(
        getattr(step.node, "input_data", None) or getattr(step.component, "input_data", None) or ""
    ):
        mode = "ro_mount"  # its driver reads the items
    text = text_of(value)
    if text is None:
        path = value.path or (value.literal if value.is_literal and isinstance(value.literal, str) else None)
        if path is not None:
            resolution.check_input(unit, Input(type=_data_type(declared, value), path=path, mode=mode))
    elif spec is not None and (bound := binding(text)) is not None and bound.kind == "inputs":
        source = spec.inputs.get(bound.port)
        if source is not None and source.path is not None:
            resolution.check_mode(unit, source.model_copy(update={"mode": mode or source.mode}))


def _data_type(declared: ComponentInput, value: Input) -> Any:
    if declared.type != "path":
        return declared.type
    return "uri_folder" if value.is_literal else value.type


@internal
def details(unit: Unit, record: JobRecord) -> dict[str, Any]:
    """Every step with its state, in the order of the file, iterations after their loop."""
    rows = store.steps(unit, record.name)
    shown: dict[str, Any] = {}
    for name in record.stored["jobs"]:
        shown[name] = rows[name].document() if name in rows else {"status": "NotStarted"}
        shown |= {key: row.document() for key, row in rows.items() if key.startswith(f"{name}/")}
    return {"steps": shown}


@internal
def resume(unit: Unit, job: JobRecord, earlier: JobRecord) -> None:
    """Steps that `earlier` completed count as completed in `job`, with their outputs, deterministic or not."""
    completed = [row for row in store.steps(unit, earlier.name).values() if row.state == StepState.COMPLETED]
    for row in completed:
        if row.job:
            row.detail = {**{key: value for key, value in row.detail.items() if key in ("condition", "items")}, "reused_from": row.job}
    names = {row.step for row in completed}
    store.put_steps(unit, job.name, [row for row in completed if "/" not in row.step or row.step.partition("/")[0] in names])


@internal
def forget(unit: Unit, name: str) -> None:
    store.delete_steps(unit, name)
    store.forget_job(unit, name)


@internal
def job_ended(unit: Unit, job: str) -> None:
    """Pipelines that wait for an equal step which this job has carried out go on."""
    for pipeline in store.let_go(unit, job):
        jobs.make_due(unit, pipeline, "pipeline")


class NeedValue(Exception):
    """The text of a literal output is needed before the pipeline can advance; bytes are not read inside a unit."""

    def __init__(self, digest: str) -> None:
        super().__init__(digest)
        self.digest = digest


@internal
def advance(unit: Unit, name: str, values: dict[str, str], machine: Share) -> list[str]:
    """Advance a pipeline as far as it goes. Returns lines for its log. `values` are texts of literal outputs by digest. Raises NeedValue."""
    jobs.clear_due(unit, name)
    record = jobs.record_of(unit, name)
    if record is None or record.state in JOB.terminal:
        return []
    spec, plan = plan_of(orjson.dumps(record.stored).decode())
    turn = _Turn(unit, record, spec, plan, values, machine)
    turn.run()
    return turn.lines


class _Turn:
    def __init__(self, unit: Unit, record: JobRecord, spec: PipelineJob, plan: Plan, values: dict[str, str], machine: Share) -> None:
        self.unit, self.record, self.spec, self.plan, self.values, self.machine = unit, record, spec, plan, values, machine
        self.rows = store.steps(unit, record.name)
        self.changed: dict[str, StepRow] = {}
        self.lines: list[str] = []
        self.path = (JobProperties.read(spec.properties).step or "") if record.parent else ""

    def run(self) -> None:
        self._fold()
        while not self._is_stopping() and self._start_what_can():
            pass
        if self._is_stopping():
            self._stop()
        self._end_if_done()
        if self.changed:
            store.put_steps(self.unit, self.record.name, list(self.changed.values()))
            self.unit.record("pipeline.step", self.record.name, steps={row.step: row.state for row in self.changed.values()})

    def _is_stopping(self) -> bool:
        return self.record.cancel_requested or (self._failed() and not self.spec.settings.continue_on_step_failure)

    # What ended

    def _fold(self) -> None:
        active = [row for row in self.rows.values() if row.state == StepState.RUNNING and row.job]
        states = jobs.states_of(self.unit, [row.job for row in active if row.job])
        for row in active:
            state, error = states.get(str(row.job), (JobState.CANCELED if _waits(row) else JobState.RUNNING, None))
            if state in JOB.terminal:
                (self._equal_ended if _waits(row) else self._ended)(row, state, error)

    def _equal_ended(self, row: StepRow, state: JobState, error: dict[str, Any] | None) -> None:
        """The job that was waited for has ended: its outputs are the step's, or the step runs on its own."""
        kept = {key: value for key, value in row.detail.items() if key == "override"}
        if state == JobState.COMPLETED and not jobs.installed_by(self.unit, str(row.job)):
            self._set(row.step, StepState.COMPLETED, job=row.job, reused_from=row.job, **kept)
        elif not self._is_stopping():
            self.lines.append(f"step {row.step}: job {row.job}, which did the same, ended as {state}; it runs on its own")
            self._launch(row.step, self._step_of(row.step), row.detail.get("override"))

    def _ended(self, row: StepRow, state: JobState, error: dict[str, Any] | None) -> None:
        step = self._step_of(row.step)
        if state == JobState.FAILED and row.tries <= step.node.retries and not self.record.cancel_requested:
            self.lines.append(f"step {row.step}: try {row.tries} failed ({(error or {}).get('message', '')}); it is tried again")
            self._launch(row.step, step, row.detail.get("override"), tries=row.tries + 1)
            return
        outcome = {JobState.COMPLETED: StepState.COMPLETED, JobState.CANCELED: StepState.CANCELED}.get(state, StepState.FAILED)
        detail = {"reason": (error or {}).get("message", "")} if outcome == StepState.FAILED else {}
        self._set(row.step, outcome, job=row.job, tries=row.tries, **{**row.detail, **detail})
        if outcome == StepState.COMPLETED and "key" in row.detail and row.job:
            self._keep_result(row, row.job)

    def _keep_result(self, row: StepRow, job: str) -> None:
        """For later steps of an equal key; kept under no key where the command installed packages, which are no part of it."""
        key, parts = row.detail["key"], row.detail["parts"]
        if installed := jobs.installed_by(self.unit, job):
            key, parts = f"{key} {INSTALLED}", {**parts, INSTALLED: ", ".join(installed)}
            self.lines.append(f"step {row.step}: it is not reused later, since its command installed {parts[INSTALLED]}")
        store.put_result(self.unit, self._identity(row.step), Result(key, job, parts))

    def _step_of(self, name: str) -> Step:
        """The step of a row; that of an iteration is the loop's body."""
        loop, slash, _ = name.partition("/")
        if not slash:
            return self.plan.steps[loop]
        return next(step for step in self.plan.steps.values() if step.body_of == loop)

    def _set(self, name: str, state: StepState, *, job: str | None = None, tries: int = 0, **detail: Any) -> StepRow:
        earlier = self.rows.get(name)
        state = STEP.transition(earlier.state, state) if earlier else STEP.begin(state)
        started = earlier.started_ms if earlier else self.unit.now
        row = StepRow(name, state, job, tries, detail, started, self.unit.now if state in STEP.terminal else None)
        self.rows[name] = self.changed[name] = row
        if state in STEP.terminal:
            why = (
                f" (reused from {detail['reused_from']})"
                if "reused_from" in detail
                else f": {detail['reason']}"
                if detail.get("reason")
                else ""
            )
            self.lines.append(f"step {name}: {state}{why}")
        return row

    def _failed(self) -> bool:
        return any(row.state in (StepState.FAILED, StepState.CANCELED) for row in self.rows.values())

    def _stop(self) -> None:
        """Start no more steps, and cancel the running ones."""
        for row in list(self.rows.values()):
            if row.state == StepState.RUNNING and row.job and not _waits(row):
                jobs.cancel(self.unit, row.job)
        self._fold()
        for row in list(self.rows.values()):
            if row.state == StepState.RUNNING and (_waits(row) or not row.job) and not self._active_under(row.step):
                self._set(row.step, StepState.CANCELED, **row.detail)

    def _active_under(self, loop: str) -> bool:
        return any(row.state == StepState.RUNNING for name, row in self.rows.items() if name.startswith(f"{loop}/"))

    # What can start

    def _start_what_can(self) -> bool:
        """One pass over the steps. True when a step ended at once, so that another pass may start more."""
        progressed = False
        for step in self.plan.steps.values():
            if step.body_of is not None:
                continue
            row = self.rows.get(step.name)
            if row is None:
                progressed |= self._consider(step)
            elif row.state == StepState.RUNNING and isinstance(step.node, (ParallelForNode, DoWhileNode)):
                progressed |= self._loop(step, row)
        return progressed

    def _consider(self, step: Step) -> bool:
        needed = {name: self.rows.get(name) for name in step.needs}
        lost = [
            name
            for name, row in needed.items()
            if row is not None and row.state in (StepState.FAILED, StepState.CANCELED, StepState.SKIPPED)
        ]
        if lost:
            self._set(step.name, StepState.SKIPPED, reason=f"step {lost[0]} did not complete")
            return True
        if any(row is None or row.state != StepState.COMPLETED for row in needed.values()):
            return False
        for guard, outcome in step.guards.items():
            row = needed[guard]
            if row is not None and row.detail.get("condition") != outcome:
                self._set(step.name, StepState.SKIPPED, reason=f"{guard} decided otherwise")
                return True
        try:
            return self._begin(step)
        except YardError as error:
            if error.transient:
                raise
            self._set(step.name, StepState.FAILED, reason=error.message)
        except ValidationError as error:
            self._set(
                step.name,
                StepState.FAILED,
                reason="; ".join(f"{problem.field}: {problem.message}" for problem in problems_of(error, CommandJob)),
            )
        return True

    def _begin(self, step: Step) -> bool:
        node = step.node
        if isinstance(node, ConditionNode):
            self._set(step.name, StepState.COMPLETED, condition=self._truth(node.condition))
            return True
        if isinstance(node, ParallelForNode):
            row = self._set(step.name, StepState.RUNNING, items=self._items(node))
            return self._loop(step, row)
        if isinstance(node, DoWhileNode):
            row = self._set(step.name, StepState.RUNNING)
            return self._loop(step, row)
        return self._launch(step.name, step, None)

    def _launch(self, name: str, step: Step, override: dict[str, Any] | None, tries: int = 1) -> bool:
        """Start the job of a step, or take an equal one's outputs; True when it is done by that."""
        inputs = step_inputs(step, self._lookup, override)
        outputs = step_outputs(step, self.spec.outputs)
        self._place_outputs(outputs)
        detail: dict[str, Any] = {"override": override} if override else {}
        kind = step.kind
        if kind != "pipeline":
            parts, reason = self._parts(step, inputs, outputs)
            if parts is not None:
                key = content_key(parts)
                if tries == 1 and (earlier_result := self._reusable(key)) is not None:
                    references.hold(self.unit, "job", self.record.name, "job", earlier_result.job, "", strong=False)
                    self._set(name, StepState.COMPLETED, job=earlier_result.job, reused_from=earlier_result.job, **detail)
                    return True
                if tries == 1 and (equal := self._under_way(key)) is not None:
                    store.claim(self.unit, key, self.record.name, equal)
                    references.hold(self.unit, "job", self.record.name, "job", equal, "", strong=False)
                    self._set(name, StepState.RUNNING, job=equal, waits=True, **detail)
                    self.lines.append(f"step {name}: job {equal} does the same now, and is waited for")
                    return False
                earlier = store.last_result(self.unit, self._identity(name))
                reason = changed(earlier.parts, parts) if earlier is not None else "first run of this step"
                detail |= {"key": key, "parts": parts}
            detail["ran_because"] = reason
        job = self._submit(step, name, inputs, outputs)
        if "key" in detail:
            store.claim(self.unit, detail["key"], self.record.name, job.name)
        self._set(name, StepState.RUNNING, job=job.name, tries=tries, **detail)
        self.lines.append(f"step {name}: started as job {job.name}" + (f" ({detail['ran_because']})" if detail.get("ran_because") else ""))
        return False

    def _submit(self, step: Step, name: str, inputs: dict[str, Any], outputs: dict[str, Any]) -> JobRecord:
        if step.kind == "pipeline":
            nested = pipeline_job(step, inputs, outputs, self.spec.settings)
            nested.properties = JobProperties(step=f"{self.path}{name}.").over(nested.properties or {})
            return submit(self.unit, nested, self.machine, self.record)
        kind = step_kinds()[step.kind]
        try:
            job = kind.job(self._node(step), step.component, inputs, outputs)
        except Invalid as error:
            raise Invalid(f"step {step.name}: {error.message}", code=error.code, hint=error.hint) from None
        job.display_name = step.node.display_name or step.name
        job.compute = self._compute(step)
        if kind.program is not None:
            return jobs.submit(self.unit, job, self.machine, self.record, kind.program)
        return jobs.submit_any(self.unit, job, self.machine, self.record)

    def _node(self, step: Step) -> Node:
        """The step with the values of the pipeline's inputs in its environment variables."""
        node: Node = step.node
        variables = {name: with_values(text, self._lookup) for name, text in variables_of(node).items()}
        return node.model_copy(update={"environment_variables": variables}) if variables else node

    def _compute(self, step: Step) -> str | None:
        text = step.node.compute
        if text is not None and (bound := binding(text)) is not None:
            value = self._lookup(bound)
            text = str(value.value) if value is not None and value.value is not None else None
        return text or self.spec.settings.default_compute or self.spec.compute

    def _place_outputs(self, outputs: dict[str, Any]) -> None:
        path = _default_path(self.spec.settings)
        if path is not None:
            for output in outputs.values():
                output.setdefault("path", path)

    # Reuse

    def _identity(self, name: str) -> str:
        return f"{self.record.experiment}/{self.path}{name}"

    def _parts(self, step: Step, inputs: dict[str, Any], outputs: dict[str, Any]) -> tuple[dict[str, str] | None, str]:
        """The parts of a step's content key; or None, and why it is not reused."""
        assert step.component is not None
        if self.spec.settings.force_rerun or step.node.force_rerun:
            return None, "reuse is switched off for this " + ("step" if step.node.force_rerun else "run")
        deterministic = getattr(step.node, "is_deterministic", None)
        if not (deterministic if deterministic is not None else step.component.is_deterministic):
            return None, "the step is not deterministic"
        component, parts = step.component, {}
        code, environment = component.code_and_environment()
        if code:
            parts["code"] = resolution.check_code(self.unit, code)
        if environment is not None:
            parts["environment"] = str(environments.resolve(self.unit, environment))
        for port, value in inputs.items():
            if "value" in value:
                parts[f"param.{port}"] = str(value["value"])
            elif value.get("path"):
                line = resolution.check_input(self.unit, Input.model_validate(value)).split(" ")[-1]
                if not line.startswith("sha256:"):
                    return None, f"input {port} lies outside the yard, so that its content is not known"
                parts[f"input.{port}"] = f"{line} {value['type']} {value.get('mode', '')}".rstrip()
        parts["outputs"] = _text({port: {key: value for key, value in output.items() if key != "mode"} for port, output in outputs.items()})
        own = self._node(step)
        node = own.document()
        varying = ("inputs", "outputs", "component", "comment", "display_name", "description", "tags", "properties", "compute", "code", "environment",
                   "retry_settings", "name", "type", "identity")  # fmt: skip
        parts["settings"] = _text({key: value for key, value in node.items() if key not in varying and value not in ({}, [])})
        if isinstance(component, CommandComponent):
            parts["command"] = component.command
            parts["variables"] = _text({**component.environment_variables, **variables_of(own)})
        else:
            parts["command"] = _text(component.document())
        return parts, ""

    def _reusable(self, key: str) -> Result | None:
        """The result of a completed job with this content key, whose record and outputs still exist."""
        result = store.result(self.unit, key)
        if result is None or jobs.states_of(self.unit, [result.job]).get(result.job, ("", None))[0] != JobState.COMPLETED:
            return None
        return result

    def _under_way(self, key: str) -> str | None:
        """The job that carries out a step of this content key now, in this pipeline or another."""
        states = jobs.states_of(self.unit, store.claimed(self.unit, key))
        return next((job for job, (state, _) in states.items() if state not in JOB.terminal), None)

    # Values

    def _lookup(self, bound: Binding) -> Input | None:
        if bound.kind == "inputs":
            return _of_input(self.spec.inputs.get(bound.port))
        step = self.plan.steps[bound.step]
        declared = output_of(self.plan, step, bound.port)
        assert declared is not None
        job, port, fanned = self._source(step, bound.port)
        if fanned:
            return Input(type="uri_folder", path=f"azureml://jobs/{job}/outputs/{port}")
        if declared.type in LITERAL_TYPES:
            return Input(type=declared.type, value=_typed(declared.type, self._text_of(job, port)))
        return Input(type=declared.type, path=f"azureml://jobs/{job}/outputs/{port}")

    def _source(self, step: Step, port: str) -> tuple[str, str, bool]:
        """(job, output, whether a loop has gathered it) where an output of a step lies."""
        loop = step if isinstance(step.node, (ParallelForNode, DoWhileNode)) else self.plan.steps[step.body_of] if step.body_of else None
        if loop is None:
            row = self.rows[step.name]
            assert row.job is not None
            return row.job, port, False
        if isinstance(loop.node, ParallelForNode):
            return self.record.name, f"{loop.name}.{port}", True
        last = self._iterations(loop.name)[-1]
        assert last.job is not None
        return last.job, port, False

    def _text_of(self, job: str, port: str) -> str:
        location = files.output_place(self.unit, JobOutput(job, port))
        entries = files.files_at(self.unit, location).files
        if len(entries) != 1 or entries[0].size > 65_536:
            raise Invalid(f"output {port} of job {job} is not one small file with a value", code="invalid_output")
        if entries[0].digest not in self.values:
            raise NeedValue(entries[0].digest)
        return self.values[entries[0].digest].strip()

    def _truth(self, condition: str | bool) -> bool:
        if isinstance(condition, bool):
            return condition
        bound = binding(condition)
        value = self._lookup(bound) if bound is not None else Input(type="string", value=condition)
        text = None if value is None else value.value
        answer = _typed("boolean", str(text))
        return bool(answer)

    def _items(self, node: ParallelForNode) -> list[dict[str, Any]]:
        items: Any = node.items
        if isinstance(items, str):
            bound = binding(items)
            value = self._lookup(bound) if bound is not None else None
            text = str(value.value) if value is not None else items
            try:
                items = orjson.loads(text)
            except orjson.JSONDecodeError:
                raise Invalid(f"items is not a JSON list: {text[:80]!r}", code="invalid_items") from None
        if isinstance(items, dict):
            items = list(items.values())
        if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
            raise Invalid("items is a list of mappings from inputs of the body to values", code="invalid_items")
        if len(items) > MAX_ITERATIONS:
            raise Invalid(f"a loop has {MAX_ITERATIONS} items at most", code="too_many_items")
        return items

    # Loops

    def _iterations(self, loop: str) -> list[StepRow]:
        rows = [row for name, row in self.rows.items() if name.startswith(f"{loop}/")]
        return sorted(rows, key=lambda row: int(row.step.rsplit("/", 1)[1]))

    def _loop(self, step: Step, row: StepRow) -> bool:
        body = next(candidate for candidate in self.plan.steps.values() if candidate.body_of == step.name)
        if isinstance(step.node, DoWhileNode):
            return self._do_while(step, row, body)
        items: list[dict[str, Any]] = row.detail["items"]
        iterations = self._iterations(step.name)
        failed = [item for item in iterations if item.state in (StepState.FAILED, StepState.CANCELED)]
        running = sum(item.state == StepState.RUNNING for item in iterations)
        keep_on = bool(self.spec.settings.continue_on_step_failure)
        if not failed or keep_on:
            for number in range(len(iterations), len(items)):
                if running >= (step.node.max_concurrency or len(items)):
                    break
                running += not self._launch(f"{step.name}/{number}", body, items[number])
        iterations = self._iterations(step.name)
        if any(item.state == StepState.RUNNING for item in iterations) or (len(iterations) < len(items) and not failed):
            return False
        if failed:
            self._set(step.name, StepState.FAILED, reason=f"{len(failed)} of {len(items)} iterations did not complete", **row.detail)
            return True
        self._gather(step, body, iterations)
        self._set(step.name, StepState.COMPLETED, **row.detail)
        return True

    def _gather(self, step: Step, body: Step, iterations: list[StepRow]) -> None:
        """The fan-in: a folder for each output of the body, with a folder in it for each iteration."""
        assert body.component is not None
        for row in iterations:
            references.hold(self.unit, "job", self.record.name, "job", str(row.job), "", strong=False)
        for port in body.component.outputs:
            folder = output_folder(self.record.name, f"{step.name}.{port}")
            entries = []
            for number, row in enumerate(iterations):
                assert row.job is not None
                tree = files.files_at(self.unit, files.output_place(self.unit, JobOutput(row.job, port)))
                entries += [File(f"{number}/{file.path}", file.digest, file.size) for file in tree.files]
            files.put_tree(self.unit, folder, entries)
            files.name_output(self.unit, self.record.name, f"{step.name}.{port}", "uri_folder", folder)

    def _do_while(self, step: Step, row: StepRow, body: Step) -> bool:
        node: DoWhileNode = step.node
        iterations = self._iterations(step.name)
        if iterations and iterations[-1].state == StepState.RUNNING:
            return False
        if iterations and iterations[-1].state != StepState.COMPLETED:
            self._set(step.name, StepState.FAILED, reason=f"iteration {len(iterations) - 1} did not complete", **row.detail)
            return True
        override: dict[str, Any] = {}
        if iterations:
            repeats = len(iterations) < node.limits.max_iteration_count
            if node.condition is not None:
                assert iterations[-1].job is not None
                repeats = repeats and bool(_typed("boolean", self._text_of(iterations[-1].job, loop_condition(node.condition, body))))
            if not repeats:
                self._set(step.name, StepState.COMPLETED, job=iterations[-1].job, **row.detail)
                return True
            override = self._mapped(node, body, iterations[-1])
        return self._launch(f"{step.name}/{len(iterations)}", body, override or None)

    def _mapped(self, node: DoWhileNode, body: Step, last: StepRow) -> dict[str, Any]:
        """Outputs of the last iteration as inputs of the next."""
        assert body.component is not None and last.job is not None
        inputs = {}
        for port, targets in node.mapping.items():
            declared = body.component.outputs[port]
            value: Any = {"type": declared.type, "path": f"azureml://jobs/{last.job}/outputs/{port}"}
            if declared.type in LITERAL_TYPES:
                value = {"type": declared.type, "value": _typed(declared.type, self._text_of(last.job, port))}
            for target in [targets] if isinstance(targets, str) else targets:
                inputs[target.rsplit(".", 1)[-1].rstrip("} ")] = value
        return inputs

    # The end

    def _end_if_done(self) -> None:
        top = [step.name for step in self.plan.steps.values() if step.body_of is None]
        if any(row.state == StepState.RUNNING for row in self.rows.values()):
            return
        registered: dict[str, str] = {}
        stopped = self.record.cancel_requested or self._failed()
        if not stopped and any(name not in self.rows for name in top):
            return
        if self.record.cancel_requested:
            state, error = JobState.CANCELED, None
        elif self._failed():
            lost = [row for row in self.rows.values() if row.state in (StepState.FAILED, StepState.CANCELED)]
            first = min(lost, key=lambda row: row.ended_ms or 0)
            state = JobState.FAILED
            error = {"code": "step_failed", "message": f"step {first.step} failed: {first.detail.get('reason') or 'it was canceled'}"}
            if first.job:
                error["hint"] = f"yard job stream -n {first.job}"
        else:
            state, error = JobState.COMPLETED, None
            try:
                registered = self._name_outputs()
            except (NotFound, Invalid, Conflict, AlreadyExists) as problem:
                state, error = JobState.FAILED, {"code": problem.code, "message": f"keeping the outputs failed: {problem.message}"}
        jobs.end(self.unit, self.record.name, self.record.attempt, state, error, registered=registered)
        self.lines.append(f"pipeline {self.record.name}: {state}")

    def _name_outputs(self) -> dict[str, str]:
        """Steps' outputs become the pipeline's. Output → `NAME:VERSION` of those that are registered."""
        registered: dict[str, str] = {}
        for output, step_name, port in bound_outputs(self.plan):
            row = self.rows.get(step_name)
            if row is None or row.state != StepState.COMPLETED:
                continue
            job, source, _ = self._source(self.plan.steps[step_name], port)
            files.pass_output_on(self.unit, job, source, self.record.name, output)
            if (asset := self._registered(output, job, source)) is not None:
                registered[output] = asset
        return registered

    def _registered(self, output: str, job: str, port: str) -> str | None:
        """`NAME:VERSION` of an output of the pipeline: as the step's job registered it, or under the pipeline's own name beside the step's."""
        declared = self.spec.outputs.get(output)
        if declared is None or declared.name is None:
            return None
        record = jobs.record_of(self.unit, job)
        asset = (record.properties.registered or {}).get(port) if record is not None else None
        if asset is not None and asset.rpartition(":")[0] == declared.name and declared.version in (None, asset.rpartition(":")[2]):
            return asset
        earlier = job_outputs.latest_of(self.unit, self.record.name, output, declared.name) if declared.version is None else None
        return earlier or job_outputs.promote(self.unit, self.record.name, output, declared.name, declared.version)


def _default_path(settings: PipelineJobSettings) -> str | None:
    """Where outputs without a path go; None for the yard's own place."""
    name = settings.default_datastore or ""
    if "://" in name or name.startswith("/"):  # a URI, or Azure's id of the datastore
        name = name.partition("/datastores/")[2].partition("/")[0]
    name = name.removeprefix("azureml:")
    return f"azureml://datastores/{name}/paths/azureml/${{{{name}}}}/${{{{output_name}}}}/" if name not in ("", BLOBSTORE) else None


def _waits(row: StepRow) -> bool:
    """Whether its job is that of an equal step, which is waited for."""
    return bool(row.detail.get("waits"))


def _of_input(value: Input | Output | None) -> Input | None:
    if not isinstance(value, Input):
        return None
    if value.is_literal:
        return None if value.literal is None else Input(type=value.type, value=value.literal)
    return value if value.path is not None else None


def _typed(type: str, text: str) -> Any:
    try:
        return ComponentInput.model_validate({"type": type}).checked(text)
    except ValueError as error:
        raise Invalid(f"a value that should be a {type}: {error}", code="invalid_value") from None


def _text(value: Any) -> str:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()
