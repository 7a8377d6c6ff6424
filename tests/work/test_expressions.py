"""Where `${{…}}` may stand, what it stands for there, and that one without a value is refused before anything runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from modelyard.testing.memory.executor import Process
from modelyard.testing.yard import InProcessYard

API = "/api/v1/workspaces/default"
PIP: dict[str, Any] = {"pip": []}


class Seen:
    """A yard that keeps what its commands were given, by the display name of their jobs."""

    def __init__(self, root: Path) -> None:
        self.processes: list[Process] = []
        self.yard = InProcessYard(root, answer=self._answer)

    def _answer(self, process: Process) -> int:
        self.processes.append(process)
        return 0

    def submit(self, expect: int = 201, **job: Any) -> dict[str, Any]:
        answered = self.yard.call("POST", f"{API}/jobs", json=job, expect=expect).json()
        self.yard.settle()
        return dict(answered)

    @property
    def last(self) -> Process:
        return self.processes[-1]


@pytest.fixture
def seen(tmp_path: Path) -> Iterator[Seen]:
    made = Seen(tmp_path / "home")
    yield made
    made.yard.close()


def test_environment_variables_take_inputs_and_outputs(seen: Seen) -> None:
    variables = {"RATE": "rate=${{inputs.rate}}", "TO": "${{outputs.model}}/best", "PLAIN": "$HOME and {braces}"}
    seen.submit(command="true", environment=PIP, inputs={"rate": 0.5}, outputs={"model": {}}, environment_variables=variables)
    environment = seen.last.environment
    assert environment["RATE"] == "rate=0.5" and environment["PLAIN"] == "$HOME and {braces}"
    assert environment["TO"] == environment["AZURE_ML_OUTPUT_model"] + "/best"


def test_environment_variables_of_a_step_take_inputs_of_the_pipeline_and_of_the_step(seen: Seen) -> None:
    step = {
        "command": "true", "environment": PIP, "inputs": {"n": "${{parent.inputs.rounds}}"},
        "environment_variables": {"MODE": "${{parent.inputs.mode}}-x", "N": "${{inputs.n}}"},
    }  # fmt: skip
    for mode in ("fast", "slow", "fast"):
        seen.submit(type="pipeline", inputs={"mode": mode, "rounds": 3}, jobs={"a": step})
    assert [(item.environment["MODE"], item.environment["N"]) for item in seen.processes] == [("fast-x", "3"), ("slow-x", "3")]


@pytest.mark.parametrize(
    "part",
    [
        {"environment_variables": {"A": "${{inputs.none}}"}},
        {"environment_variables": {"A": "${{parent.inputs.x}}"}},
        {"environment_variables": {"A": "${{secrets.key}}"}},
        {"command": "echo ${{inputs.none}}"},
        {"command": "echo ${{name}}"},
        {"inputs": {"x": "${{name}}"}},
        {"inputs": {"x": "day ${{creation_context.trigger_time}}"}},
        {"inputs": {"x": {"type": "uri_folder", "path": "azureml://datastores/workspaceblobstore/paths/${{parent.inputs.y}}"}}},
        {"outputs": {"o": {"path": "azureml://datastores/workspaceblobstore/paths/${{when}}/x"}}},
        {"outputs": {"o": {"path": "azureml://datastores/workspaceblobstore/paths/${{inputs.x}}"}}},
    ],
)
def test_one_without_a_value_is_refused_when_the_job_is_submitted(seen: Seen, part: dict[str, Any]) -> None:
    refused = seen.submit(expect=400, **{"command": "true", "environment": PIP, **part})
    assert "${{" in str(refused["error"]), refused
    assert not seen.processes


@pytest.mark.parametrize(
    "variables",
    [{"A": "${{parent.inputs.none}}"}, {"A": "${{parent.inputs.rows}}"}, {"A": "${{parent.jobs.a.outputs.o}}"}],
)
def test_one_of_a_step_that_has_no_value_there_is_refused(seen: Seen, variables: dict[str, str]) -> None:
    step = {"command": "true", "environment": PIP, "environment_variables": variables}
    rows = {"type": "uri_folder", "path": "azureml://datastores/workspaceblobstore/paths/rows/"}
    seen.submit(expect=400, type="pipeline", inputs={"rows": rows}, jobs={"a": step})


def test_what_a_step_was_given_is_text_and_not_read_again(seen: Seen) -> None:
    step = {"command": "true", "environment": PIP, "inputs": {"x": {"type": "string", "value": "plain"}}}
    seen.submit(type="pipeline", jobs={"a": step})
    seen.submit(command="echo ${{inputs.x}}", environment=PIP, inputs={"x": "$ {{ not one }}"})
    assert seen.last.command == "echo $ {{ not one }}"


def schedule(seen: Seen, inputs: dict[str, Any], expect: int = 200, **job: Any) -> dict[str, Any]:
    create = {
        "job": {
            "type": "command",
            "command": "run ${{inputs.who}} ${{inputs.when}}",
            "environment": PIP,
            "inputs": {"who": "x", "when": "y"},
            **job,
        },
        "inputs": inputs,
    }
    body = {"trigger": {"type": "cron", "expression": "0 * * * *"}, "create_job": create}
    return dict(seen.yard.call("PUT", f"{API}/schedules/hourly", json=body, expect=expect).json())


def test_inputs_of_a_schedule_take_the_name_of_the_job_and_when_it_was_due(seen: Seen) -> None:
    schedule(seen, {"who": "${{name}}", "when": "at ${{creation_context.trigger_time}}"})
    seen.yard.clock.turn(hours=1, seconds=3)
    seen.yard.settle()
    job = seen.yard.call("GET", f"{API}/schedules/hourly", expect=200).json()["last_job"]
    due = seen.yard.call("GET", f"{API}/jobs/{job}", expect=200).json()["inputs"]["when"]["value"].removeprefix("at ")
    assert seen.last.command == f"run {job} at {due}" and due.startswith("2026-01-05T13:00:00")


@pytest.mark.parametrize("text", ["${{inputs.who}}", "${{creation_context.created_by}}", "${{ }}"])
def test_a_schedule_whose_inputs_have_another_is_refused(seen: Seen, text: str) -> None:
    refused = schedule(seen, {"who": text}, expect=400)
    assert "${{" in str(refused["error"])
    seen.yard.call("GET", f"{API}/schedules/hourly", expect=404)
