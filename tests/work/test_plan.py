"""The graph of a pipeline: what waits for what, what is bound to what, what is refused and where, and what makes a step new."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.core.errors import Invalid
from modelyard.ports.executor import Share
from modelyard.spec.component import CommandComponent
from modelyard.spec.inputs import Input
from modelyard.spec.pipeline import PipelineComponent, PipelineJob
from modelyard.storage.database import Database
from modelyard.storage.migrate import migrate
from modelyard.storage.open import open_database
from modelyard.storage.unit import Unit
from modelyard.work.jobs import command
from modelyard.work.jobs import service as jobs
from modelyard.work.pipelines import service, store
from modelyard.work.pipelines.model import StepRow, changed, content_key
from modelyard.work.pipelines.plan import (
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
)
from modelyard.work.sweeps.step import of_step

Document = dict[str, Any]
PIP: Document = {"pip": []}


def component(inputs: Document | None = None, outputs: Document | None = None, **fields: Any) -> Document:
    return {
        "type": "command", "command": "true", "environment": PIP,
        "inputs": {name: {"type": port} if isinstance(port, str) else port for name, port in (inputs or {}).items()},
        "outputs": {name: {"type": port} for name, port in (outputs or {}).items()}, **fields,
    }  # fmt: skip


def step(inputs: Document | None = None, outputs: Document | None = None, binds: Document | None = None, **fields: Any) -> Document:
    return {"component": component(inputs, outputs), "inputs": binds or {}, **fields}


def command_of(step: Step) -> CommandComponent:
    assert isinstance(step.component, CommandComponent)
    return step.component


def of(name: str, port: str = "out") -> str:
    return f"${{{{parent.jobs.{name}.outputs.{port}}}}}"


def named(name: str) -> str:
    return f"${{{{parent.jobs.{name}}}}}"


def parent(name: str, kind: str = "inputs") -> str:
    return f"${{{{parent.{kind}.{name}}}}}"


def pipeline(jobs: Document, **fields: Any) -> PipelineJob:
    return PipelineJob.model_validate({"jobs": jobs, **fields})


def plan(jobs: Document, **fields: Any) -> Plan:
    return compile_plan(pipeline(jobs, **fields))


def problems(jobs: Document, **fields: Any) -> dict[str, str]:
    """What is wrong, by the field it stands in."""
    with pytest.raises(Invalid) as refused:
        plan(jobs, **fields)
    assert refused.value.code == "invalid_pipeline"
    return {problem.field: problem.message for problem in refused.value.problems}


SOURCE = step(outputs={"out": "uri_folder", "flag": "boolean", "many": "string"})


def follower(*names: str) -> Document:
    return step({f"from_{name}": "uri_folder" for name in names}, {"out": "uri_folder"}, {f"from_{name}": of(name) for name in names})


# Bindings as text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("${{parent.inputs.x}}", Binding("inputs", "", "x")),
        ("  ${{ parent.outputs.y }} ", Binding("outputs", "", "y")),
        ("${{parent.jobs.train.outputs.model}}", Binding("jobs", "train", "model")),
        ("${{parent.jobs.train}}", Binding("jobs", "train", "")),
        ("azureml:data:1", None),
        ("x ${{parent.inputs.x}}", None),
        ("${{inputs.x}}", None),
    ],
)
def test_a_binding_is_one_expression_and_nothing_else(text: str, expected: Binding | None) -> None:
    assert binding(text) == expected


@pytest.mark.parametrize(
    "path", ["parent.input.x", "parent.inputs.a.b", "parent.jobs.a.inputs.x", "parent.jobs.a.outputs", "parent.jobs.a.outputs.x.y"]
)
def test_a_path_of_the_parent_that_leads_nowhere_is_refused(path: str) -> None:
    with pytest.raises(Invalid, match=f"{path}.* is not a binding"):
        binding(f"${{{{{path}}}}}")


def test_bindings_are_read_out_of_text_in_their_order() -> None:
    assert bindings_in("a/${{parent.inputs.x}}/${{ parent.jobs.s.outputs.o }}") == [Binding("inputs", "", "x"), Binding("jobs", "s", "o")]
    assert bindings_in(None) == bindings_in(5) == bindings_in("${{name}}") == []


# What waits for what


def test_a_step_needs_the_steps_whose_outputs_it_reads() -> None:
    steps = plan({"d": follower("b", "c"), "b": follower("a"), "c": follower("a"), "a": SOURCE}).steps
    assert {name: item.needs for name, item in steps.items()} == {"a": set(), "b": {"a"}, "c": {"a"}, "d": {"b", "c"}}


def test_steps_keep_the_order_of_the_file() -> None:
    assert list(plan({"d": follower("a"), "b": SOURCE, "a": SOURCE}).steps) == ["d", "b", "a"]


def test_inputs_of_the_pipeline_are_waited_for_by_nobody() -> None:
    job = step({"x": "integer"}, binds={"x": parent("n")})
    assert plan({"a": job}, inputs={"n": 3}).steps["a"].needs == set()


def test_a_binding_inside_text_is_waited_for_as_well() -> None:
    job = step({"x": "string"}, binds={"x": {"type": "string", "value": f"--many={of('a', 'many')}"}})
    assert plan({"a": SOURCE, "b": job}).steps["b"].needs == {"a"}


def waves(compiled: Plan) -> Iterator[set[str]]:
    """The steps that can start together, time after time, until none is left."""
    done: set[str] = set()
    while len(done) < len(compiled.steps):
        ready = {name for name, item in compiled.steps.items() if name not in done and item.needs <= done}
        assert ready, "the rest waits for ever"
        yield ready
        done |= ready


@st.composite
def graphs(draw: st.DrawFn) -> dict[str, set[str]]:
    """Steps in any order of the file, each with the earlier ones it reads, of a hidden order."""
    count = draw(st.integers(1, 12))
    parents = {f"s{number}": draw(st.sets(st.integers(0, number - 1))) if number else set() for number in range(count)}
    edges = {name: {f"s{number}" for number in found} for name, found in parents.items()}
    return {name: edges[name] for name in draw(st.permutations(list(edges)))}


@given(graphs())
@settings(max_examples=60)
def test_any_graph_without_a_circle_runs_each_step_after_those_it_reads(graph: dict[str, set[str]]) -> None:
    compiled = plan({name: follower(*sorted(parents)) for name, parents in graph.items()})
    assert {name: item.needs for name, item in compiled.steps.items()} == graph
    assert [len(graph[name]) == 0 for name in sorted(next(waves(compiled)))] and set().union(*waves(compiled)) == set(graph)


@given(graphs(), st.data())
@settings(max_examples=60)
def test_any_circle_is_named_along_its_edges(graph: dict[str, set[str]], data: st.DataObject) -> None:
    early, late = sorted(
        (data.draw(st.sampled_from(sorted(graph))), data.draw(st.sampled_from(sorted(graph)))), key=lambda name: int(name[1:])
    )
    graph = {name: set(parents) for name, parents in graph.items()}
    graph[late] |= {early} if early != late else set()
    graph[early] |= {late}
    message = problems({name: follower(*sorted(parents)) for name, parents in graph.items()})["jobs"]
    circle = message.removeprefix("the steps wait for each other in a circle: ").split(" → ")
    assert circle[0] == circle[-1] and len(circle) == len(set(circle)) + 1
    assert all(needed in graph[name] for name, needed in zip(circle, circle[1:], strict=False))


def test_a_chain_may_be_longer_than_the_stack_of_python() -> None:
    chain = {"s0": SOURCE} | {f"s{number}": follower(f"s{number - 1}") for number in range(1, 1200)}
    assert len(list(waves(plan(dict(reversed(chain.items())))))) == 1200


# Control flow


def test_the_steps_of_a_block_wait_for_the_condition_and_know_their_side() -> None:
    branch = {"type": "if_else", "condition": of("a", "flag"), "true_block": named("yes"), "false_block": [named("no"), named("never")]}
    steps = plan({"a": SOURCE, "if": branch, "yes": step(), "no": step(), "never": step()}).steps
    assert steps["if"].needs == {"a"} and steps["if"].kind == "if_else"
    assert [steps[name].guards for name in ("yes", "no", "never")] == [{"if": True}, {"if": False}, {"if": False}]
    assert all(steps[name].needs == {"if"} for name in ("yes", "no", "never"))


def test_a_block_inside_a_block_waits_for_its_own_condition() -> None:
    jobs = {
        "outer": {"type": "if_else", "condition": True, "true_block": named("inner")},
        "inner": {"type": "if_else", "condition": False, "false_block": named("leaf")},
        "leaf": step(),
    }
    steps = plan(jobs).steps
    assert (steps["inner"].guards, steps["leaf"].guards) == ({"outer": True}, {"inner": False})


def loop(body: str, **fields: Any) -> Document:
    return {"type": "do_while", "body": named(body), "mapping": {}, "limits": {"max_iteration_count": 3}, **fields}


def fan(body: str, items: Any, **fields: Any) -> Document:
    return {"type": "parallel_for", "body": named(body), "items": items, **fields}


def test_a_loop_waits_for_what_its_body_reads_and_others_wait_for_the_loop() -> None:
    body = step({"x": "uri_folder"}, {"out": "uri_folder", "again": "boolean"}, {"x": of("a")})
    jobs = {
        "after": follower("body"),
        "body": body,
        "loop": loop("body", condition=of("body", "again"), mapping={"out": parent("x")}),
        "a": SOURCE,
    }
    steps = plan(jobs).steps
    assert steps["body"].body_of == "loop" and steps["loop"].body_of is None
    assert (steps["loop"].needs, steps["after"].needs) == ({"a"}, {"loop"})


@pytest.mark.parametrize("first", ["loop", "body"])
@pytest.mark.parametrize("flow", [loop("body"), fan("body", [{"x": 1}])])
@pytest.mark.parametrize("source", ["loop", "body"])
def test_a_body_that_reads_what_its_own_loop_makes_is_a_circle(flow: Document, source: str, first: str) -> None:
    jobs = {"body": step({"x": "integer", "d": "uri_folder"}, {"out": "uri_folder"}, {"d": of(source)}), "loop": flow}
    assert problems({first: jobs[first], **jobs})["jobs"] == "the steps wait for each other in a circle: loop → loop"


@pytest.mark.parametrize("condition", ["again", of("body", "again")])
def test_the_condition_of_a_loop_is_an_output_of_its_body_by_name_or_by_binding(condition: str) -> None:
    steps = plan({"loop": loop("body", condition=condition), "body": step(outputs={"again": "boolean"})}).steps
    assert loop_condition(condition, steps["body"]) == "again"


def test_outputs_of_a_loop_are_those_of_its_body() -> None:
    jobs = {"each": fan("body", [{"x": 1}]), "body": step({"x": "integer"}, {"out": "uri_folder"}), "after": follower("each")}
    compiled = plan(jobs)
    assert compiled.steps["after"].needs == {"each"}
    assert output_of(compiled, compiled.steps["each"], "out") == output_of(compiled, compiled.steps["body"], "out") is not None
    assert output_of(compiled, compiled.steps["each"], "other") is None


def test_a_loop_over_the_output_of_a_step_waits_for_it() -> None:
    jobs = {"each": fan("body", of("a", "many")), "body": step({"x": "integer"}), "a": SOURCE}
    assert plan(jobs).steps["each"].needs == {"a"}


def test_a_body_need_not_bind_what_the_loop_hands_it() -> None:
    assert plan({"each": fan("body", [{"x": 1}]), "body": step({"x": "integer"})}).steps["body"].body_of == "each"


# What is refused, and where


@pytest.mark.parametrize(
    ("jobs", "field", "message"),
    [
        ({}, "jobs", "a pipeline has one step at least"),
        ({"a": step({"x": "integer"})}, "jobs.a.inputs", "input 'x' (integer) is required"),
        ({"a": step({"x": "integer"}, binds={"x": "three"})}, "jobs.a.inputs.x", "'three' is not of type integer"),
        ({"a": step({"x": "uri_file"}, binds={"x": 3})}, "jobs.a.inputs.x", "this input takes data of type uri_file, not the value 3"),
        ({"a": step({"x": "integer"}, binds={"x": {"type": "uri_file", "path": "azureml:d:1"}})}, "jobs.a.inputs.x", "this input is a integer, not data"),
        ({"a": step({"x": "integer"}, binds={"x": parent("n")})}, "jobs.a.inputs.x", "the pipeline has no input 'n'"),
        ({"a": step({"x": "uri_file"}, binds={"x": of("b")})}, "jobs.a.inputs.x", "there is no step 'b'"),
        ({"a": step(), "b": step({"x": "uri_file"}, binds={"x": of("a")})}, "jobs.b.inputs.x", "step a has no output 'out'; it has none"),
        ({"a": SOURCE, "b": step({"x": "uri_file"}, binds={"x": of("a", "outt")})}, "jobs.b.inputs.x", "step a has no output 'outt'; did you mean 'out'?"),
        ({"a": SOURCE, "b": step({"x": "integer"}, binds={"x": of("a")})}, "jobs.b.inputs.x", "takes integer, but output out of step a is uri_folder"),
        ({"a": step({"x": "uri_file"}, binds={"x": "${{parent.wrong.x}}"})}, "jobs.a.inputs.x", "is not a binding"),
        ({"a": step({"x": "uri_file"}, binds={"x": parent("o", "outputs")})}, "jobs.a.inputs.x", "cannot be read here"),
        ({"a": SOURCE, "b": step({"x": "uri_file"}, binds={"x": named("a")})}, "jobs.b.inputs.x", "cannot be read here"),
        ({"a": step(outputs={"o": "uri_file"}) | {"outputs": {"p": {}}}}, "jobs.a.outputs.p", "the component has no output 'p'"),
        ({"a": step(outputs={"o": "uri_file"}) | {"outputs": {"o": parent("z", "outputs")}}}, "jobs.a.outputs.o", "the pipeline has no output 'z'"),
        ({"a": step(compute=parent("c"))}, "jobs.a.compute", "the pipeline has no input 'c'"),
        ({"a": {"type": "spark"}}, "jobs.a.type", "steps of type spark are not run"),
        ({"a": {"command": "true"}}, "jobs.a.environment", "a step without a component needs a environment"),
        ({"a": {"environment": PIP}}, "jobs.a.command", "a step without a component needs a command"),
        ({"a": {"type": "parallel"}}, "jobs.a.task", "a parallel step has a component or a task"),
        ({"a": {"type": "pipeline"}}, "jobs.a.component", "a pipeline step has a component"),
        ({"a": {"command": "echo ${{inputs.x}}", "environment": PIP}}, "jobs.a", "names no input; there are: none"),
        ({"a b": step()}, "jobs.a b", "step"),
        ({"i": {"type": "if_else", "condition": True}}, "jobs.i", "an if_else has a true_block or a false_block"),
        ({"i": {"type": "if_else", "condition": True, "true_block": named("x")}}, "jobs.i.true_block", "there is no step 'x'"),
        ({"i": {"type": "if_else", "condition": True, "true_block": "x"}}, "jobs.i.true_block", "'x' does not name a step; write ${{parent.jobs.STEP}}"),
        ({"i": {"type": "if_else", "condition": of("b"), "true_block": named("a")}, "a": step()}, "jobs.i.condition", "there is no step 'b'"),
        ({"l": loop("b")}, "jobs.l.body", "there is no step 'b'"),
        ({"l": loop("l")}, "jobs.l.body", "step l cannot be the body of this loop"),
        ({"l": loop("b"), "m": loop("b"), "b": step()}, "jobs.m.body", "step b cannot be the body of this loop"),
        ({"l": loop("b", condition=of("a", "flag")), "b": step(), "a": SOURCE}, "jobs.l.condition", "the condition is an output of the loop's body"),
        ({"l": loop("b", condition="true"), "b": step(outputs={"again": "boolean"})}, "jobs.l.condition", "the condition is an output of the loop's body"),
        ({"l": loop("b", condition=f"not {of('b', 'again')}"), "b": step(outputs={"again": "boolean"})}, "jobs.l.condition", "the condition is an output of the loop's body"),
        ({"l": loop("b", condition="${{parent.again}}"), "b": step(outputs={"again": "boolean"})}, "jobs.l.condition", "is not a binding"),
        ({"l": loop("b", mapping={"o": parent("x")}), "b": step({"x": "integer"})}, "jobs.l.mapping.o", "the body has no output 'o'"),
        ({"l": loop("b", mapping={"o": parent("y")}), "b": step({"x": "uri_file"}, {"o": "uri_file"})}, "jobs.l.mapping.o", "the body has no input 'y'"),
        ({"f": fan("b", []), "b": step()}, "jobs.f.items", "there is nothing to loop over"),
        ({"f": fan("b", [{"x": 1}, {"y": 1}]), "b": step({"x": "integer"})}, "jobs.f.items.1", "the body has no input 'y'"),
        ({"f": fan("b", of("z")), "b": step()}, "jobs.f.items", "there is no step 'z'"),
    ],
)  # fmt: skip
def test_what_cannot_run_is_refused_at_its_field(jobs: Document, field: str, message: str) -> None:
    assert message in problems(jobs)[field]


@pytest.mark.parametrize(("port", "value", "fits"), [
    ("integer", 3, True), ("number", 3, True), ("uri_file", 3, False), ("path", 3, True),
    ("uri_folder", {"path": "azureml:d:1"}, True), ("integer", {"path": "azureml:d:1"}, False), ("path", {"path": "azureml:d:1"}, True),
])  # fmt: skip
def test_an_input_of_the_pipeline_is_data_where_data_is_taken_and_a_value_where_values_are(port: str, value: Any, fits: bool) -> None:
    jobs = {"a": step({"x": port}, binds={"x": parent("n")})}
    if fits:
        assert plan(jobs, inputs={"n": value}).steps
    else:
        assert problems(jobs, inputs={"n": value})["jobs.a.inputs.x"].startswith(f"takes {port}, but the pipeline's input n is ")


def test_an_input_that_a_component_does_not_have_is_ignored_with_a_note() -> None:
    compiled = plan({"a": step({"rate": "integer"}, binds={"rate": 1, "rat": 1})})
    assert compiled.notes == ["jobs.a.inputs.rat: the component has no input 'rat'; did you mean 'rate'?; it is ignored, as in Azure"]
    nested = {"type": "pipeline", "jobs": {"inner": step(binds={"x": 1})}}
    assert [note.partition(": ")[0] for note in plan({"outer": {"component": nested}}).notes] == [
        "jobs.outer.component.jobs.inner.inputs.x"
    ]


def test_an_output_of_the_pipeline_is_one_output_of_one_step() -> None:
    bound = step(outputs={"o": "uri_folder"}) | {"outputs": {"o": parent("whole", "outputs")}}
    outputs = {"outputs": {"whole": {"type": "uri_folder"}}}
    assert problems({"a": bound, "b": bound}, **outputs) == {
        "jobs.b.outputs.o": "output whole of the pipeline is bound to jobs.a.outputs.o already"
    }
    either = {"type": "if_else", "condition": True, "true_block": named("a"), "false_block": named("b")}
    assert plan({"i": either, "a": bound, "b": bound}, **outputs).steps


def test_all_that_is_wrong_is_told_at_once() -> None:
    jobs = {"a": step({"x": "integer"}), "b": follower("z"), "c": {"type": "spark"}}
    assert list(problems(jobs)) == ["jobs.c.type", "jobs.a.inputs", "jobs.b.inputs.from_z"]


def test_what_is_wrong_inside_a_nested_pipeline_is_refused_with_its_whole_path() -> None:
    inner = {"type": "pipeline", "jobs": {"deep": {"component": {"type": "pipeline", "jobs": {"leaf": step({"x": "integer"})}}}}}
    assert list(problems({"outer": {"component": inner}})) == ["jobs.outer.component.jobs.deep.component.jobs.leaf.inputs"]


def test_a_circle_inside_a_nested_pipeline_is_found() -> None:
    inner = {"type": "pipeline", "jobs": {"a": follower("b"), "b": follower("a")}}
    assert problems({"outer": {"component": inner}}) == {
        "jobs.outer.component.jobs": "the steps wait for each other in a circle: a → b → a"
    }


def test_steps_of_a_nested_pipeline_do_not_see_those_outside() -> None:
    inner = {"type": "pipeline", "jobs": {"leaf": follower("a")}}
    assert "there is no step 'a'" in problems({"a": SOURCE, "outer": {"component": inner}})["jobs.outer.component.jobs.leaf.inputs.from_a"]


def test_a_condition_that_waits_for_its_own_block_is_a_circle() -> None:
    jobs = {"i": {"type": "if_else", "condition": of("a", "flag"), "true_block": named("a")}, "a": SOURCE}
    assert problems(jobs)["jobs"] == "the steps wait for each other in a circle: i → a → i"


# What a step's job is given

DATA = Input(type="uri_folder", path="azureml://jobs/j/outputs/out")


def given_to(
    job: Document, answers: dict[Binding, Input | None] | None = None, override: Document | None = None, **fields: Any
) -> Document:
    compiled = plan({"a": SOURCE, "s": job}, **fields)
    return step_inputs(compiled.steps["s"], (answers or {}).get, override)


def test_bindings_become_what_stands_at_their_other_end() -> None:
    job = step({"d": "uri_folder", "n": "integer"}, binds={"d": of("a"), "n": parent("n")})
    answers = {Binding("jobs", "a", "out"): DATA, Binding("inputs", "", "n"): Input(type="integer", value=3)}
    assert given_to(job, answers, inputs={"n": 3}) == {"d": {"type": "uri_folder", "path": DATA.path}, "n": {"type": "integer", "value": 3}}


def test_bindings_inside_text_are_put_in_and_an_absent_one_is_empty() -> None:
    path = f"azureml://datastores/{parent('n')}/paths/{parent('none')}x"
    job = step({"d": "uri_folder"}, binds={"d": {"type": "uri_folder", "path": path}})
    answers = {Binding("inputs", "", "n"): Input(type="integer", value=3)}
    given = given_to(job, answers, inputs={"n": 3, "none": {"type": "string", "optional": True}})
    assert given["d"] == {"type": "uri_folder", "path": "azureml://datastores/3/paths/x"}


def test_what_is_put_in_is_not_read_again() -> None:
    job = step({"t": "string"}, binds={"t": {"type": "string", "value": f"x{parent('n')}"}})
    answers = {Binding("inputs", "", "n"): Input(type="string", value=parent("n"))}
    assert given_to(job, answers, inputs={"n": "?"})["t"]["value"] == f"x{parent('n')}"


@pytest.mark.parametrize(
    ("port", "value", "expected"),
    [
        ("integer", "7", 7), ("number", "7", 7.0), ("boolean", "TRUE", True), ("string", True, "True"), ("string", 1.5, "1.5"),
    ],
)  # fmt: skip
def test_a_value_takes_the_type_of_its_port(port: str, value: Any, expected: Any) -> None:
    shown = given_to(step({"x": port}, binds={"x": value}))["x"]
    assert shown == {"type": port, "value": expected} and type(shown["value"]) is type(expected)


def test_an_input_that_is_left_out_takes_the_default_of_its_port() -> None:
    ports = {
        "n": {"type": "integer", "default": 5},
        "d": {"type": "uri_file", "path": "azureml:d:1"},
        "o": {"type": "string", "optional": True},
    }
    assert given_to(step(ports)) == {
        "n": {"type": "integer", "value": 5}, "d": {"type": "uri_file", "path": "azureml:d:1"}, "o": {"type": "string", "optional": True},
    }  # fmt: skip


def test_an_input_written_with_a_default_alone_has_that_value() -> None:
    """`{type: string, default: x}`, as in the inputs of a job or a step."""
    job = step(
        {"t": "string", "n": {"type": "integer", "default": 1}},
        binds={"t": {"type": "string", "default": "x"}, "n": {"default": 5, "type": "integer"}},
    )
    assert given_to(job) == {"t": {"type": "string", "value": "x"}, "n": {"type": "integer", "value": 5}}
    bound = step({"t": "string"}, binds={"t": {"type": "string", "default": parent("n")}})
    assert given_to(bound, {Binding("inputs", "", "n"): Input(type="string", default="y")}, inputs={"n": "?"})["t"]["value"] == "y"
    wrong = step({"n": "integer"}, binds={"n": {"type": "string", "default": "many"}})
    assert "many" in problems({"s": wrong})["jobs.s.inputs.n"]


def test_a_binding_to_an_optional_input_that_was_not_given_falls_back_to_the_default() -> None:
    job = step({"n": {"type": "integer", "default": 5}}, binds={"n": parent("n")})
    assert given_to(job, inputs={"n": {"type": "integer", "optional": True}}) == {"n": {"type": "integer", "value": 5}}


def test_the_step_chooses_the_mode_before_its_component() -> None:
    ports = {
        "x": {"type": "uri_file", "mode": "download"},
        "y": {"type": "uri_file", "mode": "download"},
        "z": {"type": "uri_file", "mode": "rw_mount"},
    }
    path = {"type": "uri_file", "path": "azureml:d:1"}
    given = given_to(step(ports, binds={"x": {**path, "mode": "direct"}, "y": path, "z": path}))
    assert [item.get("mode") for item in given.values()] == ["direct", "download", None]


def test_an_iteration_is_given_its_item_over_what_the_body_binds() -> None:
    job = step({"x": "integer", "d": "uri_folder"}, binds={"x": 1, "d": DATA.document()})
    assert given_to(job, override={"x": 2}) == {"x": {"type": "integer", "value": 2}, "d": {"type": "uri_folder", "path": DATA.path}}


@pytest.mark.parametrize(
    ("port", "value"), [({"type": "integer", "max": 5}, 6), ("integer", "six"), ({"type": "string", "enum": ["a"]}, "b")]
)
def test_an_item_that_the_port_does_not_take_is_refused_with_step_and_input(port: Any, value: Any) -> None:
    with pytest.raises(Invalid, match="step s, input x: ") as refused:
        given_to(
            step({"x": port}, binds={}) | {"inputs": {"x": parent("n")}},
            override={"x": value},
            inputs={"n": "a" if isinstance(port, dict) and "enum" in port else 1},
        )
    assert refused.value.code == "invalid_input"


def test_data_where_a_value_is_taken_is_refused_when_it_arrives() -> None:
    job = step({"n": "integer"}, binds={"n": of("a", "many")})
    with pytest.raises(Invalid, match="step s, input n: takes integer, not data"):
        given_to(job, {Binding("jobs", "a", "many"): DATA})


def test_an_output_bound_to_one_of_the_pipeline_takes_its_path_and_name() -> None:
    job = step(outputs={"o": "uri_file", "p": "uri_folder", "n": "number"}) | {
        "outputs": {
            "o": {"path": parent("final", "outputs"), "mode": "upload"},
            "p": {"path": "azureml://datastores/d/paths/p", "mode": "mount"},
        }
    }
    final = {"type": "uri_file", "path": "azureml://datastores/d/paths/final", "name": "model", "version": "3", "mode": "rw_mount"}
    spec = pipeline({"s": job}, outputs={"final": final})
    compiled = compile_plan(spec)
    assert step_outputs(compiled.steps["s"], spec.outputs) == {
        "o": final, "p": {"type": "uri_folder", "path": "azureml://datastores/d/paths/p", "mode": "mount"}, "n": {"type": "uri_file"},
    }  # fmt: skip
    assert list(bound_outputs(compiled)) == [("final", "s", "o")]


def test_the_output_of_a_loops_body_is_the_pipelines_through_the_loop() -> None:
    body = step({"x": "integer"}, {"o": "uri_file"}) | {"outputs": {"o": parent("final", "outputs")}}
    assert list(bound_outputs(plan({"each": fan("b", [{"x": 1}]), "b": body}, outputs={"final": {}}))) == [("final", "each", "o")]


# What a step's job is


def test_settings_of_a_step_win_over_those_of_its_component() -> None:
    part = component(environment_variables={"A": "component", "B": "component"}, resources={"instance_count": 2})
    jobs = {
        "plain": {"component": part},
        "own": {"component": part, "environment_variables": {"A": "step"}, "resources": {"instance_count": 3}, "tags": {"t": "1"}, "limits": {"timeout": 9}},
    }  # fmt: skip
    steps = plan(jobs).steps
    plain, own = (command.of_step(steps[name].node, command_of(steps[name]), {}, {}) for name in jobs)
    assert (plain.environment_variables, own.environment_variables) == (
        {"A": "component", "B": "component"},
        {"A": "step", "B": "component"},
    )
    assert plain.resources is not None and own.resources is not None
    assert (plain.resources.instance_count, own.resources.instance_count) == (2, 3)
    assert own.tags == {"t": "1"}
    assert plain.limits is None and own.limits is not None and own.limits.timeout == 9


def test_the_timeout_of_a_try_limits_the_job_unless_it_has_limits() -> None:
    retried = {"retry_settings": {"timeout": "60", "max_retries": 1}}
    steps = plan({"a": step(**retried), "b": step(**retried, limits={"timeout": 5})}).steps
    limits = [command.of_step(item.node, command_of(item), {}, {}).limits for item in steps.values()]
    assert [item.timeout for item in limits if item is not None] == [60, 5]


def test_an_inline_job_is_a_component_whose_ports_are_what_it_binds() -> None:
    job = {
        "command": "run ${{inputs.n}} ${{inputs.d}} ${{inputs.t}} > ${{outputs.o}}", "environment": PIP, "code": "azureml:c:1",
        "inputs": {"n": 3, "d": of("a"), "t": {"type": "string", "value": f"x{of('a', 'many')}"}}, "outputs": {"o": {"type": "uri_file"}},
    }  # fmt: skip
    compiled = plan({"a": SOURCE, "s": job})
    made = compiled.steps["s"].component
    assert made is not None and {name: port.type for name, port in made.inputs.items()} == {"n": "integer", "d": "path", "t": "string"}
    assert made.outputs["o"].type == "uri_file" and compiled.steps["s"].needs == {"a"}
    inputs = {name: {"type": "string", "value": name} for name in ("n", "d", "t")}
    inline = compiled.steps["s"]
    assert command.of_step(inline.node, command_of(inline), inputs, {"o": {"type": "uri_file"}}).code == "azureml:c:1"


def test_a_sweep_step_takes_its_space_as_inputs_of_its_trial() -> None:
    job = {
        "type": "sweep", "trial": {"command": "train ${{inputs.d}} ${{search_space.lr}}", "environment": PIP}, "inputs": {"d": of("a")},
        "search_space": {"lr": {"type": "uniform", "min_value": 0, "max_value": 1}}, "limits": {"max_total_trials": 4},
        "objective": {"goal": "minimize", "primary_metric": "loss"}, "early_termination": {"type": "bandit", "slack_factor": 0.1},
    }  # fmt: skip
    compiled = plan({"a": SOURCE, "s": job})
    item = compiled.steps["s"]
    assert (item.kind, item.needs) == ("sweep", {"a"}) and item.component is not None and set(item.component.inputs) == {"d", "lr"}
    sweep = of_step(item.node, command_of(item), {"d": DATA.document()}, {})
    assert sweep.limits.max_total_trials == 4 and sweep.early_termination is not None and sweep.early_termination.type == "bandit"
    assert sweep.inputs["d"].path == DATA.path and not isinstance(sweep.trial, str) and sweep.trial.command == job["trial"]["command"]


NESTED: Document = {
    "type": "pipeline", "inputs": {"x": {"type": "integer"}}, "outputs": {"o": {"type": "uri_folder"}},
    "jobs": {"leaf": step({"x": "integer"}, {"out": "uri_folder"}, {"x": parent("x")}) | {"outputs": {"out": parent("o", "outputs")}}},
}  # fmt: skip


def test_a_nested_pipeline_is_one_step_with_its_components_ports() -> None:
    compiled = plan({"sub": {"component": NESTED, "inputs": {"x": 3}}, "after": step({"d": "uri_folder"}, binds={"d": of("sub", "o")})})
    assert compiled.steps["sub"].kind == "pipeline" and compiled.steps["after"].needs == {"sub"}


def test_a_nested_pipeline_inherits_the_settings_of_the_outer_one() -> None:
    inherited = {"default_compute": "local", "default_datastore": "azureml:d", "continue_on_step_failure": True, "force_rerun": True}
    spec = pipeline({"sub": {"component": NESTED, "inputs": {"x": 3}}}, settings=inherited)
    sub = pipeline_job(compile_plan(spec).steps["sub"], {"x": {"type": "integer", "value": 3}}, {"o": {}}, spec.settings)
    assert sub.settings.document() == inherited and sub.inputs["x"].value == 3 and list(compile_plan(sub).steps) == ["leaf"]


def test_a_pipeline_component_is_checked_like_a_pipeline() -> None:
    assert list(compile_plan(PipelineComponent.model_validate({"name": "p", **NESTED})).steps) == ["leaf"]


def test_a_plan_of_a_stored_pipeline_is_the_plan_of_the_pipeline() -> None:
    spec = pipeline({"a": SOURCE, "b": follower("a")})
    text = orjson.dumps(spec.document()).decode()
    stored, compiled = plan_of(text)
    assert compiled.steps["b"].needs == {"a"} and stored.document() == spec.document() and plan_of(text)[1] is compiled


# Content keys

words = st.text("ab.→", max_size=4)
parts = st.dictionaries(words, words, max_size=6)


@given(parts.flatmap(lambda values: st.tuples(st.just(values), st.permutations(list(values)))))
def test_a_key_does_not_depend_on_the_order_of_its_parts(case: tuple[dict[str, str], list[str]]) -> None:
    values, order = case
    assert content_key({name: values[name] for name in order}) == content_key(values)


@given(parts, parts)
def test_keys_are_equal_only_of_equal_parts_and_a_miss_names_the_difference(one: dict[str, str], other: dict[str, str]) -> None:
    assert (content_key(one) == content_key(other)) == (one == other)
    assert (changed(one, other) == "nothing is known to have changed") == (one == other)


@pytest.mark.parametrize(
    ("before", "now", "message"),
    [
        ({"param.lr": "0.1"}, {"param.lr": "0.2"}, "parameter lr changed 0.1 → 0.2"),
        ({"environment": "e:1"}, {"environment": "e:2"}, "environment changed e:1 → e:2"),
        ({"input.data": "sha256:a"}, {"input.data": "sha256:b"}, "input data changed"),
        ({"code": "a", "command": "x"}, {"code": "b", "command": "y"}, "code changed; command changed"),
        ({}, {"param.lr": "0.2"}, "parameter lr is new"),
        ({"input.data": "a"}, {}, "input data is gone"),
    ],
)
def test_a_miss_says_what_changed(before: dict[str, str], now: dict[str, str], message: str) -> None:
    assert changed(before, now) == message


# The key of a step, as a submitted pipeline has it

MACHINE = Share(64, 2**40, 0)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    folder = tmp_path_factory.mktemp("plan")
    opened = open_database(f"sqlite:///{folder / 'yard.db'}")
    migrate(opened, folder / "backups")
    yield opened
    opened.close()


def started(database: Database, document: Document) -> tuple[str, dict[str, StepRow]]:
    """The name of a pipeline that was submitted, and its steps after its first turn."""

    def submitted(unit: Unit) -> tuple[str, dict[str, StepRow]]:
        record = service.submit(unit, PipelineJob.model_validate(copy.deepcopy(document)), MACHINE)
        service.advance(unit, record.name, {}, MACHINE)
        unit.run(sa.delete(store.step_claims))  # the next pipeline starts equal steps itself, and does not wait for those of this one
        return record.name, store.steps(unit, record.name)

    return database.write_now(submitted, workspace="default")


def parts_of(database: Database, document: Document) -> dict[str, str]:
    found: dict[str, str] = started(database, document)[1]["s"].detail["parts"]
    return found


def with_step(**fields: Any) -> Document:
    return {"jobs": {"s": {**BASE, **fields}}}


def with_component(**fields: Any) -> Document:
    return with_step(component={**BASE["component"], **fields})


BASE: Document = {
    "component": component(
        {"n": "integer", "t": {"type": "string", "default": "d"}}, {"o": "uri_file"},
        command="echo ${{inputs.n}} ${{inputs.t}} > ${{outputs.o}}", environment_variables={"A": "1", "B": "2"},
    ),
    "inputs": {"n": 3}, "environment_variables": {"C": "3", "D": "4"}, "resources": {"instance_count": 1},
}  # fmt: skip


@pytest.mark.parametrize(
    ("document", "changes"),
    [
        (with_step(inputs={"n": 4}), {"param.n"}),
        (with_step(inputs={"n": 3, "t": "other"}), {"param.t"}),
        (with_component(command="cat ${{inputs.n}} ${{inputs.t}} > ${{outputs.o}}"), {"command"}),
        (with_component(environment={"pip": ["pandas"]}), {"environment"}),
        (with_component(environment_variables={"A": "1", "B": "3"}), {"variables"}),
        (with_step(environment_variables={"C": "3", "D": "5"}), {"variables", "settings"}),
        (with_step(resources={"instance_count": 2}), {"settings"}),
        (with_component(outputs={"o": {"type": "uri_folder"}}), {"outputs"}),
        (with_step(outputs={"o": {"path": "azureml://datastores/workspaceblobstore/paths/p"}}), {"outputs"}),
    ],
)
def test_a_key_changes_with_what_a_steps_outputs_depend_on(database: Database, document: Document, changes: set[str]) -> None:
    before, now = parts_of(database, {"jobs": {"s": BASE}}), parts_of(database, document)
    assert {name for name in {*before, *now} if before.get(name) != now.get(name)} == changes
    assert content_key(before) != content_key(now)


@pytest.mark.parametrize(
    "document",
    [
        with_step(display_name="shown", description="d", comment="c", tags={"t": "1"}, properties={"p": "1"}, name="n"),
        with_step(compute="local"), with_step(retry_settings={"max_retries": 2}), with_step(inputs={"n": 3, "t": "d"}), with_step(inputs={"n": "3"}),
        with_step(outputs={"o": {"mode": "upload"}}), with_component(display_name="shown", description="d", version="7"),
        with_step(environment_variables={"D": "4", "C": "3"}), with_component(environment_variables={"B": "2", "A": "1"}),
        {"jobs": {"s": BASE}, "display_name": "p", "tags": {"t": "1"}, "settings": {"continue_on_step_failure": True, "default_compute": "local"}},
        {"jobs": {"s": {**BASE, "inputs": {"n": parent("m")}}}, "inputs": {"m": 3}},
        {"jobs": {"first": step(), "s": BASE, "last": step()}},
    ],
)  # fmt: skip
def test_a_key_does_not_change_with_what_they_do_not_depend_on(database: Database, document: Document) -> None:
    assert parts_of(database, document) == parts_of(database, {"jobs": {"s": BASE}})


def reordered(value: Any) -> Any:
    return {key: reordered(item) for key, item in reversed(value.items())} if isinstance(value, dict) else value


def test_a_key_does_not_depend_on_the_order_of_the_file(database: Database) -> None:
    one, other = (
        started(database, document)[1]["s"].detail["key"] for document in ({"jobs": {"s": BASE}}, reordered({"jobs": {"s": BASE}}))
    )
    assert one == other


@pytest.mark.parametrize(
    ("document", "because"),
    [
        (with_step(force_rerun=True), "reuse is switched off for this step"),
        ({"jobs": {"s": BASE}, "settings": {"force_rerun": True}}, "reuse is switched off for this run"),
        (with_component(is_deterministic=False), "the step is not deterministic"),
        (with_step(is_deterministic=False), "the step is not deterministic"),
    ],
)
def test_a_step_that_must_run_has_no_key_and_says_why(database: Database, document: Document, because: str) -> None:
    detail = started(database, document)[1]["s"].detail
    assert "key" not in detail and detail["ran_because"] == because


def test_a_step_may_be_deterministic_where_its_component_is_not(database: Database) -> None:
    document = with_component(is_deterministic=False)
    document["jobs"]["s"]["is_deterministic"] = True
    assert "key" in started(database, document)[1]["s"].detail


def test_only_steps_that_wait_for_nothing_start_at_first(database: Database) -> None:
    _, rows = started(database, {"jobs": {"c": follower("b"), "b": follower("a"), "a": SOURCE, "z": step()}})
    assert set(rows) == {"a", "z"}


def test_a_step_runs_on_its_own_compute_or_that_of_the_settings_or_of_the_pipeline(database: Database) -> None:
    computes = {"compute": "azureml:two", "settings": {"default_compute": "azureml:one"}, "inputs": {"where": "cpu-cluster"}}
    steps = {
        "own": step({"n": "integer"}, binds={"n": 1}, compute="local"), "bound": step({"n": "integer"}, binds={"n": 2}, compute=parent("where")),
        "default": step({"n": "integer"}, binds={"n": 3}),
    }  # fmt: skip
    document = {"jobs": steps, **computes}

    def chosen(document: Document) -> dict[str, str | None]:
        _, rows = started(database, document)

        def read(unit: Unit) -> dict[str, str | None]:
            records = {name: jobs.record_of(unit, str(row.job)) for name, row in rows.items()}
            return {name: record.stored.get("compute") for name, record in records.items() if record is not None}

        return database.write_now(read, workspace="default")

    assert chosen(document) == {"own": "local", "bound": "cpu-cluster", "default": "azureml:one"}
    del document["settings"]
    assert chosen(document)["default"] == "azureml:two"
