"""Every job that ever ran is run again from its record, and comes to the same: each kind, and each way to name an environment."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from modelyard.testing.memory.executor import Process
from modelyard.testing.yard import InProcessYard

API = "/api/v1/workspaces/default"
COMMAND = {"type": "command", "command": "make it", "environment": {"pip": []}, "outputs": {"o": {"type": "uri_folder"}}}


def answer(process: Process) -> int:
    for port in process.run.outputs:
        process.files[f"/outputs/{port}/made.txt"] = process.run.environment.encode() + process.command.encode()
    return 0


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[InProcessYard]:
    made = InProcessYard(tmp_path / "home", answer=answer)
    yield made
    made.close()


def submit(yard: InProcessYard, body: dict[str, Any]) -> str:
    return str(yard.call("POST", f"{API}/jobs", json=body, expect=201).json()["name"])


def shown(yard: InProcessYard, name: str) -> dict[str, Any]:
    return dict(yard.call("GET", f"{API}/jobs/{name}", expect=200).json())


def repeats(yard: InProcessYard, name: str) -> dict[str, Any]:
    """The job that repeats another one, once the two were found to be identical."""
    yard.settle()
    again = str(yard.call("POST", f"{API}/jobs/{name}/rerun", expect=201).json()["name"])
    yard.settle()
    first, second = shown(yard, name), shown(yard, again)
    assert (first["status"], second["status"]) == ("Completed", "Completed"), (first.get("error"), second.get("error"))
    report = yard.call("GET", f"{API}/jobs/{name}/verify", params={"against": again}, expect=200).json()
    assert report["identical"] and second["properties"]["rerun_of"] == name, report
    assert first["properties"].get("environment") == second["properties"].get("environment")
    return second


@pytest.mark.parametrize(
    "environment",
    [
        "azureml:mine:1", "azureml:mine@latest", "azureml:sklearn-1.5@latest", "azureml:AzureML-lightgbm-3.3:7", "azureml:sklearn-1.5",
        "azureml://registries/azureml/environments/sklearn-1.5/labels/latest", "azureml://registries/shared/environments/mine/versions/1",
        {"pip": ["six"]}, {"image": "mcr.microsoft.com/azureml/openmpi4.1.0-ubuntu20.04", "pip": ["six"]},
    ],
    ids=str,
)  # fmt: skip
def test_a_job_of_every_environment_is_run_again(yard: InProcessYard, environment: Any) -> None:
    yard.call("POST", f"{API}/environments", json={"name": "mine", "version": "1", "pip": ["six"]}, expect=201)
    yard.call("PUT", "/api/v1/workspaces/shared", json={"kind": "registry"}, expect=200)
    yard.call("POST", f"{API}/environments/mine/versions/1/share", json={"registry": "shared"}, expect=201)
    name = submit(yard, {**COMMAND, "environment": environment})
    repeats(yard, name)
    repeats(yard, str(repeats(yard, name)["name"]))


def test_the_newest_version_is_the_one_that_it_was(yard: InProcessYard) -> None:
    yard.call("POST", f"{API}/environments", json={"name": "mine", "version": "1", "pip": ["six"]}, expect=201)
    name = submit(yard, {**COMMAND, "environment": "azureml:mine@latest"})
    yard.settle()
    yard.call("POST", f"{API}/environments", json={"name": "mine", "version": "2", "pip": ["six==1.0"]}, expect=201)
    assert repeats(yard, name)["properties"]["environment"] == "mine:1"


def test_an_environment_of_ones_own_does_not_take_the_place_of_a_curated_one(yard: InProcessYard) -> None:
    name = submit(yard, {**COMMAND, "environment": "azureml:sklearn-1.5@latest"})
    yard.settle()
    yard.call("POST", f"{API}/environments", json={"name": "sklearn-1.5", "version": "1", "pip": ["six"]}, expect=201)
    assert repeats(yard, name)["properties"]["environment"] == "curated/sklearn-1.5:latest"


def sweep(**more: Any) -> dict[str, Any]:
    return {
        "type": "sweep", "sampling_algorithm": "grid", "search_space": {"x": {"type": "choice", "values": [1, 2]}},
        "objective": {"primary_metric": "m", "goal": "minimize"}, "limits": {"max_total_trials": 2}, "outputs": {"o": {"type": "uri_folder"}},
        "trial": {"command": "try ${{search_space.x}}", "environment": "azureml:sklearn-1.5@latest"}, **more,
    }  # fmt: skip


TRAIN = {"name": "train", "type": "command", "version": "1", "command": "train", "environment": "azureml:sklearn-1.5@latest",
         "outputs": {"o": {"type": "uri_folder"}}}  # fmt: skip
PARALLEL = {
    "type": "parallel", "mini_batch_size": "1", "input_data": "${{inputs.items}}", "inputs": {"items": "${{parent.jobs.a.outputs.o}}"},
    "outputs": {"o": {"type": "uri_folder"}}, "resources": {"instance_count": 1},
    "task": {"type": "run_function", "entry_script": "s.py", "environment": "azureml:sklearn-1.5@latest"},
}  # fmt: skip


def pipeline(**jobs: Any) -> dict[str, Any]:
    last = list(jobs)[-1]
    outputs = {"o": {"type": "uri_folder"}}
    bound = {**jobs[last], "outputs": {"o": "${{parent.outputs.o}}"}}
    return {"type": "pipeline", "jobs": {**jobs, last: bound}, "outputs": outputs, "settings": {"force_rerun": True}}


def pipeline_component(name: str) -> dict[str, Any]:
    document = pipeline(a=COMMAND)
    return {"type": "pipeline", "name": name, "version": "1", "outputs": document["outputs"], "jobs": document["jobs"]}


@pytest.mark.parametrize(
    "body",
    [
        {**COMMAND, "distribution": {"type": "pytorch", "process_count_per_instance": 2}, "resources": {"instance_count": 2}},
        {"type": "pipeline", "component": "azureml:chain:1"},
        pipeline(a=COMMAND),
        pipeline(a={"component": "azureml:train@latest"}),
        pipeline(a=COMMAND, b=PARALLEL),
    ],
    ids=["distributed", "job of a component", "pipeline", "pipeline of components", "parallel"],
)
def test_a_job_of_every_kind_is_run_again(yard: InProcessYard, body: dict[str, Any]) -> None:
    yard.call("POST", f"{API}/components", json=TRAIN, expect=201)
    yard.call("POST", f"{API}/components", json=pipeline_component("chain"), expect=201)
    name = submit(yard, body)
    repeats(yard, name)
    for step in shown(yard, name).get("steps", {}).values():
        repeats(yard, step["job_name"])


def test_a_sweep_and_its_trials_are_run_again(yard: InProcessYard) -> None:
    name = submit(yard, sweep())
    yard.settle()
    assert shown(yard, name)["status"] == "Failed"  # nothing was logged
    for trial in shown(yard, name)["trials"]:
        repeats(yard, trial["job_name"])
    again = yard.call("POST", f"{API}/jobs/{name}/rerun", expect=201).json()["name"]
    yard.settle()
    assert [trial["params"] for trial in shown(yard, again)["trials"]] == [trial["params"] for trial in shown(yard, name)["trials"]]


def test_what_a_schedule_made_is_run_again(yard: InProcessYard) -> None:
    trigger = {"type": "cron", "expression": "0 13 * * *"}
    yard.call("PUT", f"{API}/schedules/daily", json={"trigger": trigger, "create_job": COMMAND}, expect=200)
    yard.clock.turn(hours=2)
    yard.settle()
    (job,) = yard.call("GET", f"{API}/jobs", expect=200).json()["value"]
    assert repeats(yard, job["name"])["properties"]["schedule"] == "daily"


def test_what_a_batch_endpoint_ran_is_run_again(yard: InProcessYard) -> None:
    yard.call("PUT", f"{API}/batch-endpoints/score", json={"name": "score"})
    yard.call("POST", f"{API}/components", json=pipeline_component("p"), expect=201)
    body = {"name": "blue", "endpoint_name": "score", "type": "pipeline", "component": "azureml:p:1"}
    yard.call("PUT", f"{API}/batch-endpoints/score/deployments/blue", json=body)
    made = yard.call("POST", f"{API}/batch-endpoints/score/jobs", json={"deployment_name": "blue"}, expect=201).json()
    assert repeats(yard, made["name"])["properties"]["batch_endpoint"] == "score"
