"""A pipeline as a graph that can be run: what a step needs, what its ports are bound to, and everything wrong with it. Pure."""

from __future__ import annotations

import functools
import graphlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import orjson

from ...core.errors import Invalid, Problem
from ...core.names import check_name, nearest
from ...spec.component import Component, ComponentInput, ComponentOutput
from ...spec.fields import from_row
from ...spec.inputs import LITERAL_TYPES, Input, Output, literal_type
from ...spec.nouns import NOUNS
from ...spec.pipeline import PipelineComponent, PipelineJob
from ...spec.step import ConditionNode, DoWhileNode, Node, OtherNode, ParallelForNode, SweepNode

_BINDING = re.compile(r"\$\{\{\s*(parent\.[\w.-]+?)\s*\}\}")


@dataclass(frozen=True)
class Binding:
    """`${{parent.inputs.x}}`, `${{parent.outputs.x}}` or `${{parent.jobs.s.outputs.x}}`; a bare `${{parent.jobs.s}}` has no port."""

    kind: str
    """inputs, outputs or jobs"""
    step: str
    port: str


@dataclass
class Step:
    name: str
    node: Any
    component: Component | None
    """The component that runs, also for an inline job; None for control flow."""
    needs: set[str] = field(default_factory=set)
    guards: dict[str, bool] = field(default_factory=dict)
    """Conditions under which it runs: if_else step → which block it stands in."""
    body_of: str | None = None
    """The loop that runs it; it does not run by itself."""

    @property
    def kind(self) -> str:
        if isinstance(self.node, (ConditionNode, DoWhileNode, ParallelForNode)):
            return self.node.type
        if isinstance(self.node, SweepNode):
            return "sweep"
        return self.component.type if self.component is not None else "command"


@dataclass
class Plan:
    steps: dict[str, Step]
    inputs: dict[str, ComponentInput]
    outputs: list[str]
    notes: list[str] = field(default_factory=list)
    """What is ignored, as in Azure."""


def binding(text: str) -> Binding | None:
    """The binding when `text` is one and nothing else. Raises Invalid for a `parent.` path that is none of the known forms."""
    match = _BINDING.fullmatch(text.strip())
    return _read(match[1]) if match else None


def _read(path: str) -> Binding:
    match path.split("."):
        case ["parent", ("inputs" | "outputs") as kind, port]:
            return Binding(kind, "", port)
        case ["parent", "jobs", step, "outputs", port]:
            return Binding("jobs", step, port)
        case ["parent", "jobs", step]:
            return Binding("jobs", step, "")
    raise Invalid(
        f"${{{{{path}}}}} is not a binding", hint="Known: ${{parent.inputs.X}}, ${{parent.outputs.X}}, ${{parent.jobs.STEP.outputs.X}}."
    )


def bindings_in(text: object) -> list[Binding]:
    return [_read(match) for match in _BINDING.findall(text)] if isinstance(text, str) else []


def text_of(value: Input) -> str | None:
    """The expression of an input, from its path or its value; None when it has none."""
    text = value.path if value.path is not None else value.literal if value.is_literal else None
    return text if isinstance(text, str) and "${{" in text else None


def compile_plan(spec: PipelineJob | PipelineComponent) -> Plan:
    """Raises Invalid with every problem at once, each with the field it stands in."""
    problems: list[Problem] = []

    def wrong(where: str, message: str) -> None:
        problems.append(Problem(message, where))

    notes: list[str] = []
    steps = {name: _step(name, node, wrong, notes) for name, node in spec.jobs.items()}
    inputs = {name: port if isinstance(port, ComponentInput) else _port_of(port) for name, port in spec.inputs.items()}
    plan = Plan(steps, inputs, list(spec.outputs), notes)
    if not steps:
        wrong("jobs", "a pipeline has one step at least")
    for step in steps.values():
        _mark_flow(plan, step, wrong)
    for step in steps.values():
        _bind(plan, step, wrong)
    _check_bound_outputs(plan, wrong)
    if not problems:
        cycle = _cycle(plan)
        if cycle:
            wrong("jobs", f"the steps wait for each other in a circle: {' → '.join(cycle)}")
    if problems:
        raise Invalid("this pipeline cannot run", code="invalid_pipeline", problems=tuple(problems))
    return plan


Wrong = Callable[[str, str], None]


def _port_of(value: Input) -> ComponentInput:
    return ComponentInput(type=value.type, optional=value.optional)


def _step(name: str, node: Any, wrong: Wrong, notes: list[str]) -> Step:
    where = f"jobs.{name}"
    try:
        check_name("port", name, "step")
    except Invalid as error:
        wrong(where, error.message)
    if isinstance(node, OtherNode):
        wrong(f"{where}.type", f"steps of type {node.type} are not run by this version of modelyard")
        return Step(name, node, None)
    if isinstance(node, (ConditionNode, DoWhileNode, ParallelForNode)):
        return Step(name, node, None)
    component = node.component
    if isinstance(component, str):
        raise AssertionError("components are found before a plan is made")
    if component is None:
        component = _inline(name, node, wrong)
    elif component.type not in NOUNS["job"].steps:
        wrong(f"{where}.component", f"components of type {component.type} are not run by this version of modelyard")
    if isinstance(component, PipelineComponent):
        try:
            notes += [f"{where}.component.{note}" for note in compile_plan(component).notes]
        except Invalid as error:
            for problem in error.problems:
                wrong(f"{where}.component.{problem.field}", problem.message)
    return Step(name, node, component)


def _inline(name: str, node: Node, wrong: Wrong) -> Component | None:
    """The component that an inline job amounts to: its ports are what it binds."""
    inputs = {port: {"type": _type_of(value), "optional": value.optional} for port, value in node.inputs.items()}
    outputs = {port: {"type": output.type} for port, output in node.outputs.items()}
    base: dict[str, Any] = {"name": "azureml_anonymous", "inputs": inputs, "outputs": outputs}
    try:
        return node.inline(base)
    except Invalid as error:
        for problem in error.problems:
            wrong(f"jobs.{name}.{problem.field}", problem.message)
        return None
    except ValueError as error:
        errors = getattr(error, "errors", None)
        for item in errors(include_url=False) if errors else [{"msg": str(error), "loc": ()}]:
            wrong(".".join(("jobs", name, *(str(part) for part in item["loc"]))), str(item["msg"]).removeprefix("Value error, "))
        return None


def _type_of(value: Input) -> str:
    """A bare binding has the type of its source; text around it makes it a string."""
    text = text_of(value)
    if text is None or not value.is_literal:
        return value.type
    return "path" if _BINDING.fullmatch(text.strip()) else "string"


def _blocks(value: str | list[str] | None) -> list[str]:
    return [] if value is None else [value] if isinstance(value, str) else list(value)


def _mark_flow(plan: Plan, step: Step, wrong: Wrong) -> None:
    """Record which steps a control-flow step guards or loops over."""
    node, where = step.node, f"jobs.{step.name}"

    def target(text: str, part: str) -> Step | None:
        try:
            bound = binding(text)
        except Invalid:
            bound = None
        if bound is None or bound.kind != "jobs" or bound.port:
            wrong(f"{where}.{part}", f"{text!r} does not name a step; write ${{{{parent.jobs.STEP}}}}")
            return None
        if bound.step not in plan.steps:
            wrong(f"{where}.{part}", f"there is no step {bound.step!r}{nearest(bound.step, plan.steps)}")
            return None
        return plan.steps[bound.step]

    if isinstance(node, ConditionNode):
        if not (node.true_block or node.false_block):
            wrong(where, "an if_else has a true_block or a false_block")
        for part, block, outcome in (("true_block", node.true_block, True), ("false_block", node.false_block, False)):
            for text in _blocks(block):
                if (ruled := target(text, part)) is not None:
                    ruled.guards[step.name] = outcome
                    ruled.needs.add(step.name)
    if isinstance(node, (DoWhileNode, ParallelForNode)) and (body := target(node.body, "body")) is not None:
        if body.body_of is not None or body.component is None:
            wrong(f"{where}.body", f"step {body.name} cannot be the body of this loop")
        body.body_of = step.name


def _bind(plan: Plan, step: Step, wrong: Wrong) -> None:
    """Check the step's bindings and record the steps that it needs."""
    where, node = f"jobs.{step.name}", step.node
    if isinstance(node, ConditionNode):
        _need(plan, step, node.condition, f"{where}.condition", wrong, literal=True)
        return
    if isinstance(node, (DoWhileNode, ParallelForNode)):
        _bind_loop(plan, step, wrong)
        return
    if step.component is None:
        return
    known = step.component.inputs
    space = set(node.search_space) if isinstance(node, SweepNode) else set()
    for port, value in node.inputs.items():
        if port not in known:
            plan.notes.append(
                f"{where}.inputs.{port}: the component has no input {port!r}{nearest(port, known)}; it is ignored, as in Azure"
            )
            continue
        text = text_of(value)
        if text is not None:
            _need(plan, step, text, f"{where}.inputs.{port}", wrong, literal=known[port].is_literal, port=known[port])
        elif value.is_literal:
            _check_literal(known[port], value.literal, f"{where}.inputs.{port}", wrong)
        elif known[port].is_literal:
            wrong(f"{where}.inputs.{port}", f"this input is a {known[port].type}, not data")
    for port, declared in known.items():
        looped = step.body_of is not None
        if (
            port not in node.inputs
            and port not in space
            and not declared.optional
            and declared.default is None
            and declared.path is None
            and not looped
        ):
            wrong(f"{where}.inputs", f"input {port!r} ({declared.type}) is required")
    for port, output in node.outputs.items():
        if port not in step.component.outputs:
            wrong(f"{where}.outputs.{port}", f"the component has no output {port!r}{nearest(port, step.component.outputs)}")
        for bound in _bindings(output.path, f"{where}.outputs.{port}", wrong):
            if bound.kind != "outputs" or bound.port not in plan.outputs:
                wrong(f"{where}.outputs.{port}", f"the pipeline has no output {bound.port!r}{nearest(bound.port, plan.outputs)}")
    settings = {"compute": node.compute, **{f"environment_variables.{name}": text for name, text in variables_of(node).items()}}
    for part, text in settings.items():
        for bound in _bindings(text, f"{where}.{part}", wrong):
            if bound.kind != "inputs" or bound.port not in plan.inputs:
                wrong(f"{where}.{part}", f"the pipeline has no input {bound.port!r}{nearest(bound.port, plan.inputs)}")
            elif not plan.inputs[bound.port].is_literal:
                wrong(f"{where}.{part}", f"the pipeline's input {bound.port} is data, and this is a text")


def _check_bound_outputs(plan: Plan, wrong: Wrong) -> None:
    """An output of the pipeline is one output of one step."""
    first: dict[str, tuple[Step, str]] = {}
    for step in plan.steps.values():
        for port, output in getattr(step.node, "outputs", {}).items():
            where = f"jobs.{step.name}.outputs.{port}"
            for bound in _bindings(getattr(output, "path", output), where, lambda *_: None):  # `_bind` has named what is no binding
                if bound.kind != "outputs":
                    continue
                earlier, earlier_where = first.setdefault(bound.port, (step, where))
                if earlier_where != where and not _exclude(earlier, step):
                    wrong(where, f"output {bound.port} of the pipeline is bound to {earlier_where} already")


def _exclude(one: Step, other: Step) -> bool:
    """Whether one of them runs only when the other does not."""
    return any(other.guards.get(guard) is (not outcome) for guard, outcome in one.guards.items())


def variables_of(node: Node) -> dict[str, str]:
    """Environment variables that a step sets."""
    return getattr(node, "environment_variables", {})


def _bindings(text: object, where: str, wrong: Wrong) -> list[Binding]:
    try:
        return bindings_in(text)
    except Invalid as error:
        wrong(where, f"{error.message}. {error.hint}")
        return []


def _check_literal(port: ComponentInput, value: Any, where: str, wrong: Wrong) -> None:
    if not port.is_literal:
        if port.type == "path" or isinstance(value, str):
            return
        wrong(where, f"this input takes data of type {port.type}, not the value {value!r}")
        return
    if value is None:
        return
    try:
        port.checked(value)
    except ValueError as error:
        wrong(where, str(error))


def _need(plan: Plan, step: Step, text: object, where: str, wrong: Wrong, *, literal: bool, port: ComponentInput | None = None) -> None:
    """Check that the sources of an expression exist and that their types fit, and record the steps it needs."""
    for bound in _bindings(text, where, wrong):
        if bound.kind == "inputs":
            if bound.port not in plan.inputs:
                wrong(where, f"the pipeline has no input {bound.port!r}{nearest(bound.port, plan.inputs)}")
            elif port is not None and _is_whole(text) and not _compatible(port, plan.inputs[bound.port]):
                wrong(where, f"takes {port.type}, but the pipeline's input {bound.port} is {plan.inputs[bound.port].type}")
            continue
        if bound.kind == "outputs" or not bound.port:
            wrong(where, f"{text!r} cannot be read here; steps read inputs of the pipeline and outputs of steps")
            continue
        source = plan.steps.get(bound.step)
        if source is None:
            wrong(where, f"there is no step {bound.step!r}{nearest(bound.step, plan.steps)}")
            continue
        step.needs.add(loop_of(plan, source))
        output = output_of(plan, source, bound.port)
        if output is None:
            outputs = _outputs_of(plan, source)
            wrong(
                where,
                f"step {bound.step} has no output {bound.port!r}{nearest(bound.port, outputs)}" + ("" if outputs else "; it has none"),
            )
        elif literal and output.type not in LITERAL_TYPES and port is not None:
            wrong(where, f"takes {port.type}, but output {bound.port} of step {bound.step} is {output.type}")


def _compatible(port: ComponentInput, source: ComponentInput) -> bool:
    return "path" in (port.type, source.type) or port.is_literal == source.is_literal


def _is_whole(text: object) -> bool:
    return isinstance(text, str) and _BINDING.fullmatch(text.strip()) is not None


def loop_of(plan: Plan, step: Step) -> str:
    """The step whose end makes the outputs of `step` final: itself, or the loop it is the body of."""
    return step.body_of or step.name


def _outputs_of(plan: Plan, step: Step) -> dict[str, ComponentOutput]:
    if isinstance(step.node, (DoWhileNode, ParallelForNode)):
        body = next((candidate for candidate in plan.steps.values() if candidate.body_of == step.name), None)
        return _outputs_of(plan, body) if body is not None else {}
    return step.component.outputs if step.component is not None else {}


def output_of(plan: Plan, step: Step, port: str) -> ComponentOutput | None:
    return _outputs_of(plan, step).get(port)


def _bind_loop(plan: Plan, step: Step, wrong: Wrong) -> None:
    node, where = step.node, f"jobs.{step.name}"
    body = next((candidate for candidate in plan.steps.values() if candidate.body_of == step.name), None)
    if body is None or body.component is None:
        return
    for needed in list(body.needs):
        step.needs.add(needed)
    for value in body.node.inputs.values():
        for bound in bindings_in(text_of(value)):
            if bound.kind == "jobs" and bound.step in plan.steps:
                step.needs.add(loop_of(plan, plan.steps[bound.step]))
    if isinstance(node, ParallelForNode):
        items = list(node.items.values()) if isinstance(node.items, dict) else node.items if isinstance(node.items, list) else []
        if isinstance(node.items, str):
            _need(plan, step, node.items, f"{where}.items", wrong, literal=True)
        elif not items:
            wrong(f"{where}.items", "there is nothing to loop over")
        for number, item in enumerate(items):
            for port in item:
                if port not in body.component.inputs:
                    wrong(f"{where}.items.{number}", f"the body has no input {port!r}{nearest(port, body.component.inputs)}")
    else:
        if node.condition is not None:
            try:
                loop_condition(node.condition, body)
            except Invalid as error:
                wrong(f"{where}.condition", error.message)
        for port, targets in node.mapping.items():
            if port not in body.component.outputs:
                wrong(f"{where}.mapping.{port}", f"the body has no output {port!r}{nearest(port, body.component.outputs)}")
            for target in _blocks(targets):
                name = target.rsplit(".", 1)[-1].rstrip("} ")
                if name not in body.component.inputs:
                    wrong(f"{where}.mapping.{port}", f"the body has no input {name!r}{nearest(name, body.component.inputs)}")


def loop_condition(condition: str, body: Step) -> str:
    """The output of a do_while's body that decides on another iteration; the condition binds or names it. Raises Invalid."""
    bound = binding(condition)
    step, port = (bound.step, bound.port) if bound is not None else (body.name, condition)
    if step != body.name or body.component is None or port not in body.component.outputs:
        raise Invalid("the condition is an output of the loop's body", code="invalid_condition")
    return port


def _cycle(plan: Plan) -> list[str]:
    """A circle of steps that wait for each other; empty when there is none."""
    graph = {name: sorted(step.needs) for name, step in plan.steps.items()}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        circle: list[str] = error.args[1]  # each is waited for by the next
        return circle[::-1]
    return []


# What a step's job looks like

Value = Input
"""The source of a binding: data with its path, or a literal."""
Lookup = Callable[[Binding], Input | None]


def step_inputs(step: Step, lookup: Lookup, override: dict[str, Any] | None = None) -> dict[str, dict[str, Any]]:
    """The inputs of a step's job: bindings replaced, defaults filled in, values as the port's type. Raises Invalid."""
    assert step.component is not None
    values: dict[str, Input] = dict(step.node.inputs)
    for port, value in (override or {}).items():
        values[port] = (
            value
            if isinstance(value, Input)
            else Input.model_validate(value if isinstance(value, dict) else {"type": literal_type(value), "value": value})
        )
    inputs: dict[str, dict[str, Any]] = {}
    for port, declared in step.component.inputs.items():
        value = values.get(port)
        resolved = _resolved(value, lookup) if value is not None else None
        if resolved is None and declared.default is not None:
            resolved = (
                Input(type=declared.type, value=declared.default)
                if declared.is_literal
                else Input(type=declared.type, path=str(declared.default))
            )
        if resolved is None and declared.path is not None:
            resolved = Input(type=declared.type, path=declared.path)
        if resolved is None:
            if declared.optional:
                inputs[port] = {"type": declared.type, "optional": True}
            continue
        inputs[port] = _settled(step, port, declared, resolved, value)
    return inputs


def _settled(step: Step, port: str, declared: ComponentInput, resolved: Input, written: Input | None) -> dict[str, Any]:
    if resolved.is_literal:
        if declared.is_literal:
            try:
                return {
                    "type": declared.type,
                    "value": declared.checked(resolved.literal),
                    **({"optional": True} if declared.optional else {}),
                }
            except ValueError as error:
                raise Invalid(f"step {step.name}, input {port}: {error}", code="invalid_input") from None
        if declared.type == "path":
            return {"type": resolved.type, "value": resolved.literal}
        return {"type": declared.type, "path": str(resolved.literal)}
    if declared.is_literal:
        raise Invalid(f"step {step.name}, input {port}: takes {declared.type}, not data", code="invalid_input")
    mode = written.mode if written is not None and written.mode else declared.mode or resolved.mode
    plain = mode if mode in ("download", "ro_mount", "direct", "eval_mount", "eval_download") else None
    kind = resolved.type if declared.type == "path" else declared.type
    return {"type": kind, "path": resolved.path, **({"mode": plain} if plain else {})}


def _resolved(value: Input, lookup: Lookup) -> Input | None:
    text = text_of(value)
    if text is None:
        return value if (value.literal if value.is_literal else value.path) is not None else None
    whole = binding(text)
    if whole is not None:
        return lookup(whole)
    filled = with_values(text, lookup)
    return Input(type="string", value=filled) if value.is_literal else Input(type=value.type, path=filled)


def with_values(text: str, lookup: Lookup) -> str:
    """A text with what its bindings stand for in their places; nothing for what has no value."""

    def put(match: re.Match[str]) -> str:
        replacement = lookup(_read(match[1]))
        if replacement is None:
            return ""
        return str(replacement.value) if replacement.is_literal else str(replacement.path)

    return _BINDING.sub(put, text)


def step_outputs(step: Step, of_pipeline: dict[str, Output]) -> dict[str, dict[str, Any]]:
    """The outputs of a step's job; one bound to an output of the pipeline takes that one's path, and its name unless it has its own."""
    assert step.component is not None
    outputs: dict[str, dict[str, Any]] = {}
    for port, declared in step.component.outputs.items():
        output = step.node.outputs.get(port)
        body: dict[str, Any] = {"type": declared.travels_as}
        bound = (
            next((item for item in bindings_in(output.path) if item.kind == "outputs"), None)
            if output is not None and output.path
            else None
        )
        source = of_pipeline.get(bound.port) if bound is not None else output
        if source is not None:
            for name in ("path", "mode", "name", "version"):
                value = getattr(source, name)
                if value is not None and not (name == "path" and bindings_in(value)):
                    body[name] = value
        if output is not None and bound is not None and output.name is not None:
            # Under its own name; that of the pipeline is registered when the pipeline ends.
            body = {key: value for key, value in body.items() if key not in ("name", "version")}
            body |= {key: value for key, value in (("name", output.name), ("version", output.version)) if value is not None}
        outputs[port] = body
    return outputs


def bound_outputs(plan: Plan) -> Iterator[tuple[str, str, str]]:
    """(output of the pipeline, step, port) for every step output that is bound to one."""
    for step in plan.steps.values():
        for port, output in getattr(step.node, "outputs", {}).items():
            path = getattr(output, "path", output)
            for bound in bindings_in(path):
                if bound.kind == "outputs":
                    yield bound.port, loop_of(plan, step), port


def pipeline_job(step: Step, inputs: dict[str, Any], outputs: dict[str, Any], settings: Any) -> PipelineJob:
    assert isinstance(step.component, PipelineComponent)
    body = {
        "type": "pipeline", "display_name": step.node.display_name or step.name, "inputs": inputs, "outputs": outputs,
        "jobs": step.component.document()["jobs"], "settings": settings.document(),
    }  # fmt: skip
    return PipelineJob.model_validate(body)


@functools.lru_cache(maxsize=256)
def plan_of(text: str) -> tuple[PipelineJob, Plan]:
    """The plan of a stored pipeline, by its spec as JSON: the same one turn after turn."""
    spec = from_row(PipelineJob, orjson.loads(text))
    return spec, compile_plan(spec)
