"""`@dsl.pipeline`: a Python function as a pipeline, as `azure.ai.ml.dsl` has it.

    @pipeline(default_compute="cpu-cluster")
    def churn(rows, rate=0.1):
        prepared = prepare(raw=rows)
        trained = train(rows=prepared.outputs.clean, rate=rate)
        return {"model": trained.outputs.model}

    job = churn(rows=Input(type="uri_folder", path="./data"))

The function is called once, when the pipeline is built; its components become steps that are named after the variables that
hold them. Called inside another pipeline, it becomes a step of it.
"""

from __future__ import annotations

import contextvars
import functools
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..core.errors import Invalid
from .component import CommandComponent, Component, ComponentInput
from .fields import Spec
from .inputs import Input, Output, literal_type
from .job import CommandJob
from .pipeline import PipelineComponent, PipelineJob
from .step import PipelineJobSettings
from .sweep import Choice, Normal, QNormal, QUniform, Randint, SweepJob, Uniform

_Space = (Choice, Normal, QNormal, QUniform, Randint, Uniform)


class _Building:
    """The pipeline whose function is running."""

    def __init__(self) -> None:
        self.steps: list[Step] = []


_current: contextvars.ContextVar[_Building | None] = contextvars.ContextVar("pipeline", default=None)


class Bound:
    """An input of the pipeline, or an output of a step, inside the function: it stands for its binding."""

    def __init__(self, text: Callable[[], str], type: str) -> None:
        self._text = text
        self.type = type

    def __str__(self) -> str:
        return self._text()


class StepOutput(Bound):
    """`step.outputs.model`; its `mode`, `path`, `name` and `version` may be set."""

    def __init__(self, step: Step, port: str, type: str) -> None:
        super().__init__(lambda: f"${{{{parent.jobs.{step.name}.outputs.{port}}}}}", type)
        self.step = step
        self.port = port
        self.mode: str | None = None
        self.path: str | None = None
        self.name: str | None = None
        self.version: str | None = None
        self.bound_to: str | None = None

    def document(self) -> dict[str, Any]:
        fields = {"type": self.type, "mode": self.mode, "path": self.path, "name": self.name, "version": self.version}
        if self.bound_to is not None:
            fields["path"] = f"${{{{parent.outputs.{self.bound_to}}}}}"
        return {key: value for key, value in fields.items() if value is not None}


class _Ports:
    """Ports by attribute or by key."""

    def __init__(self, ports: dict[str, Any]) -> None:
        self.__dict__["_ports"] = ports

    def __getattr__(self, name: str) -> Any:
        try:
            return self._ports[name]
        except KeyError:
            raise AttributeError(f"there is no port {name!r}; there are {', '.join(self._ports) or 'none'}") from None

    def __getitem__(self, name: str) -> Any:
        return self.__getattr__(name)

    def __setattr__(self, name: str, value: Any) -> None:
        current = self._ports.get(name)
        if isinstance(current, StepOutput) and isinstance(value, Output):
            for part in ("mode", "path", "name", "version"):
                setattr(current, part, getattr(value, part))
            current.type = value.type
        else:
            self._ports[name] = value

    __setitem__ = __setattr__

    def __iter__(self) -> Any:
        return iter(self._ports)


class Step:
    """A step of a pipeline that is being built. What is set on it (`compute`, `resources`, `limits`, …) becomes a field of the step."""

    def __init__(
        self, type: str, component: Component | None, body: dict[str, Any], inputs: dict[str, Any], base: Path | None = None
    ) -> None:
        building = _current.get()
        assert building is not None
        self.name = ""
        self._type, self._component, self._body, self._base = type, component, body, base
        ports = component.outputs if component is not None else {}
        self.inputs = _Ports(inputs)
        self.outputs = _Ports({port: StepOutput(self, port, output.type) for port, output in ports.items()})
        building.steps.append(self)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ("name", "inputs", "outputs") or name.startswith("_"):
            object.__setattr__(self, name, value)
        else:
            self._body[name] = value.document() if isinstance(value, Spec) else value

    def sweep(self, **fields: Any) -> Step:
        """This command as the trial of a sweep over those of its inputs whose value is a distribution."""
        building = _current.get()
        assert building is not None and isinstance(self._component, CommandComponent)
        building.steps.remove(self)
        space = {port: value.document() for port, value in self.inputs._ports.items() if isinstance(value, _Space)}
        inputs = {port: value for port, value in self.inputs._ports.items() if not isinstance(value, _Space)}
        step = Step("sweep", self._component, _sweep_fields(space, fields), inputs, self._base)
        step._body["trial"] = self._component
        return step

    def set_limits(self, **limits: Any) -> None:
        self._body["limits"] = {**self._body.get("limits", {}), **limits}

    def set_resources(self, **resources: Any) -> None:
        self._body["resources"] = {**self._body.get("resources", {}), **resources}

    def node(self) -> dict[str, Any]:
        body = {key: value for key, value in self._body.items() if value is not None}
        if self._type != "sweep":
            body["component"] = self._component
        return {
            "type": self._type, **body, "inputs": {port: _input(value) for port, value in self.inputs._ports.items() if value is not None},
            "outputs": {port: output.document() for port, output in self.outputs._ports.items() if isinstance(output, StepOutput)},
        }  # fmt: skip


def _sweep_fields(space: dict[str, Any], fields: dict[str, Any]) -> dict[str, Any]:
    """azure.ai.ml's keyword arguments of `sweep` as fields of a sweep."""
    remaining = dict(fields)
    body: dict[str, Any] = {"search_space": space, "limits": {}}
    metric, goal = remaining.pop("primary_metric", None), remaining.pop("goal", None)
    if metric is not None:
        body["objective"] = {"primary_metric": metric, "goal": str(goal).lower()}
    for name in ("max_concurrent_trials", "max_total_trials", "timeout", "trial_timeout"):
        if remaining.get(name) is not None:
            body["limits"][name] = remaining[name]
        remaining.pop(name, None)
    policy = remaining.pop("early_termination_policy", None)
    if policy is not None:
        body["early_termination"] = policy.document() if isinstance(policy, Spec) else policy
    algorithm = remaining.pop("sampling_algorithm", None)
    if algorithm is not None:
        body["sampling_algorithm"] = algorithm.document() if isinstance(algorithm, Spec) else str(algorithm).lower()
    return {
        **body,
        **{key: value.document() if isinstance(value, Spec) else value for key, value in remaining.items() if value is not None},
    }


def _input(value: Any) -> Any:
    if isinstance(value, Bound):
        return str(value)
    if isinstance(value, Step):
        outputs = list(value.outputs)
        if len(outputs) != 1:
            raise Invalid(f"step {value.name} has the outputs {', '.join(outputs) or 'none'}; say which: step.outputs.NAME")
        return str(value.outputs[outputs[0]])
    return value.document() if isinstance(value, Spec) else value


def call_component(component: Component, args: tuple[Any, ...], inputs: dict[str, Any]) -> Any:
    """What `component(port=value)` returns: a step of the pipeline whose function is running."""
    if _current.get() is None:
        raise Invalid(f"component {component.name} is called outside of a pipeline", hint="Call it in a function under @dsl.pipeline.")
    arguments = _named(component.name or "component", list(component.inputs), args, inputs)
    return Step(component.type, component, {}, arguments, component._base_path)


def call_command(job: CommandJob, args: tuple[Any, ...], inputs: dict[str, Any]) -> Any:
    """What calling a `command(…)` returns: a step inside a pipeline, else the same job with other inputs."""
    arguments = _named(job.display_name or "command", list(job.inputs), args, inputs)
    if _current.get() is None:
        return _Varied(job, arguments) if any(isinstance(value, _Space) for value in arguments.values()) else _with_inputs(job, arguments)
    document = job.document()
    ports: dict[str, Any] = {}
    for port, value in job.inputs.items():
        new = arguments.get(port)
        type = new.type if isinstance(new, (Bound, Input)) else value.type
        ports[port] = {"type": type, "default": value.literal} if value.is_literal and value.literal is not None else {"type": type}
    names = ("command", "code", "environment", "environment_variables", "resources", "distribution")
    outputs = {port: {"type": output.type} for port, output in job.outputs.items()}
    whole: dict[str, Any] = {key: document[key] for key in names if key in document}
    component = CommandComponent.model_validate({"name": "azureml_anonymous", "inputs": ports, "outputs": outputs, **whole})
    component.settled(job.base_path)
    body = {key: document.get(key) for key in ("compute", "limits", "display_name", "tags", "identity")}
    merged: dict[str, Any] = {port: value for port, value in job.inputs.items() if not value.is_literal and value.path}
    merged |= arguments
    return Step("command", component, {key: value for key, value in body.items() if value}, merged, job.base_path)


def _with_inputs(job: CommandJob, arguments: dict[str, Any]) -> CommandJob:
    inputs = {port: value.document() for port, value in job.inputs.items()}
    for port, value in arguments.items():
        inputs[port] = value.document() if isinstance(value, Spec) else {"type": literal_type(value), "value": value}
    return CommandJob.model_validate({**job.document(), "inputs": inputs}).settled(job.base_path)


class _Varied:
    """A command some of whose inputs are distributions, of which only `sweep` makes a job."""

    def __init__(self, job: CommandJob, arguments: dict[str, Any]) -> None:
        self._job = job
        self._arguments = arguments

    def sweep(self, **fields: Any) -> SweepJob:
        space = {port: value.document() for port, value in self._arguments.items() if isinstance(value, _Space)}
        job = _with_inputs(self._job, {port: value for port, value in self._arguments.items() if port not in space})
        document = job.document()
        inputs = {port: value for port, value in document["inputs"].items() if port not in space}
        names = ("command", "code", "environment", "environment_variables", "resources", "distribution")
        ports = {port: {"type": value.type} for port, value in self._job.inputs.items()}
        trial = CommandComponent.model_validate(
            {
                "name": "trial", "inputs": {**ports, **{port: {"type": _sampled_type(value)} for port, value in space.items()}},
                "outputs": {port: {"type": output.type} for port, output in job.outputs.items()},
                **{key: document[key] for key in names if key in document},
            }
        ).settled(job.base_path)  # fmt: skip
        shared: dict[str, Any] = {key: document[key] for key in ("compute", "experiment_name", "display_name", "tags") if key in document}
        body = {**shared, **_sweep_fields(space, fields), "type": "sweep", "trial": trial, "inputs": inputs, "outputs": document["outputs"]}
        body["limits"] = body["limits"] or {"max_total_trials": 1}
        sweep_job = SweepJob.model_validate(body)
        return sweep_job.settled(job.base_path)


def _sampled_type(space: dict[str, Any]) -> str:
    if space["type"] == "choice":
        return literal_type(space["values"][0]) if not any(isinstance(value, str) for value in space["values"]) else "string"
    return "integer" if space["type"] == "randint" else "number"


def _named(what: str, ports: list[str], args: tuple[Any, ...], inputs: dict[str, Any]) -> dict[str, Any]:
    if len(args) > len(ports):
        raise Invalid(f"{what} has {len(ports)} inputs, not {len(args)}")
    return {**dict(zip(ports, args, strict=False)), **inputs}


def pipeline(function: Callable[..., Any] | None = None, **fields: Any) -> Any:
    """Decorate a function as a pipeline. Fields: name, version, display_name, description, experiment_name, tags, default_compute,
    default_datastore, continue_on_step_failure, force_rerun."""
    if function is None:
        return functools.partial(pipeline, **fields)
    compute = fields.pop("compute", None)
    settings = {key: fields.pop(key) for key in list(fields) if key in PipelineJobSettings.model_fields}
    if compute is not None:
        settings.setdefault("default_compute", compute)

    @functools.wraps(function)
    def build(*args: Any, **kwargs: Any) -> Any:
        call = inspect.signature(function).bind(*args, **kwargs)
        call.apply_defaults()
        inputs = {name: value for name, value in call.arguments.items() if value is not None}
        component, outer = _built(function, inputs, fields), _current.get()
        if outer is not None:
            return Step("pipeline", component, {}, inputs)
        body = {key: value for key, value in fields.items() if key in ("name", "display_name", "description", "experiment_name", "tags")}
        job = PipelineJob.model_validate(
            {
                "type": "pipeline", "display_name": function.__name__, **body, "settings": settings, "jobs": component.jobs,
                "inputs": {name: _input(value) for name, value in inputs.items()},
                "outputs": {name: {"type": output.type} for name, output in component.outputs.items()},
            }
        )  # fmt: skip
        return job.settled(Path.cwd())

    return build


def _built(function: Callable[..., Any], inputs: dict[str, Any], fields: dict[str, Any]) -> PipelineComponent:
    """Run the function once and read the steps it created."""
    building = _Building()
    bound_inputs = {name: Bound(lambda name=name: f"${{{{parent.inputs.{name}}}}}", _input_type(value)) for name, value in inputs.items()}  # type: ignore[misc]
    locals_: dict[str, Any] = {}

    def watch(frame: Any, event: str, argument: Any) -> None:
        if event == "return" and frame.f_code is function.__code__:
            locals_.update(frame.f_locals)

    earlier = sys.getprofile()
    token = _current.set(building)
    sys.setprofile(watch)
    try:
        result = function(**bound_inputs)
    finally:
        sys.setprofile(earlier)
        _current.reset(token)
    _name_steps(building.steps, locals_)
    outputs = {}
    for name, output in (result or {}).items():
        if not isinstance(output, StepOutput):
            raise Invalid(f"{function.__name__} returns {name!r}, which is not an output of a step: write step.outputs.NAME")
        output.bound_to = name
        outputs[name] = {"type": output.type}
    ports = {name: ComponentInput(type=bound.type) for name, bound in bound_inputs.items()}
    return PipelineComponent.model_validate(
        {
            "name": fields.get("name") or function.__name__.lower(), "version": fields.get("version"), "display_name": fields.get("display_name"),
            "inputs": ports, "outputs": outputs, "jobs": {step.name: step.node() for step in building.steps},
        }
    )  # fmt: skip


def _input_type(value: Any) -> Any:
    if isinstance(value, (Bound, Input)):
        return value.type
    return literal_type(value)


def _name_steps(steps: list[Step], variables: dict[str, Any]) -> None:
    """After the variables that hold them; a step that none holds, after its component."""
    taken: set[str] = {step.name for step in steps if step.name}
    for step in steps:
        if step.name:
            continue
        name = next((key for key, value in variables.items() if value is step and key not in taken), None)
        base = name or str(getattr(step._component, "name", None) or "step").replace("-", "_").replace(".", "_")
        name, number = base, 1
        while name in taken:
            name, number = f"{base}_{number}", number + 1
        step.name = name
        taken.add(name)
