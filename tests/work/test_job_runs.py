"""The run is the job: what a job's token creates is the job's run or a child of it, wherever and however a script asks for it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from modelyard.app.home import first_start
from modelyard_runtime.plugin.modelyard_mlflow import RunOfJob
from running import API, Running

OUTSIDE = [{"key": "modelyard.outside_a_run", "value": "true"}]


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    made = Running(tmp_path / "home")
    yield made
    made.yard.close()


def create(running: Running, job: str, experiment: str = "0", **more: Any) -> dict[str, Any]:
    body = {"experiment_id": experiment, **more}
    return dict(running.yard.mlflow("POST", "runs/create", body, token=running.tokens[job])["run"])


def log(running: Running, job: str, run: str, key: str, *values: float) -> None:
    points = [{"key": key, "value": value, "timestamp": 1, "step": step} for step, value in enumerate(values)]
    running.yard.mlflow("POST", "runs/log-batch", {"run_id": run, "metrics": points}, token=running.tokens[job])


def tags(run: dict[str, Any]) -> dict[str, str]:
    return {tag["key"]: tag["value"] for tag in run["data"]["tags"]}


def run_of(running: Running, id: str) -> dict[str, Any]:
    return dict(running.yard.mlflow("GET", "runs/get", run_id=id)["run"])


def test_what_a_job_logs_outside_any_run_lands_in_its_own(running: Running) -> None:
    running.job("train")
    log(running, "train", "train", "accuracy", 0.5)
    resumed = create(running, "train", tags=OUTSIDE)
    assert resumed["info"]["run_id"] == "train" and resumed["data"]["metrics"][0]["key"] == "accuracy"
    assert "modelyard.outside_a_run" not in tags(run_of(running, "train"))


def test_a_run_that_a_script_starts_is_a_child_of_the_job(running: Running) -> None:
    running.job("train")
    for more in ({}, {"run_name": "second"}, {"tags": [{"key": "mlflow.autologging", "value": "sklearn"}]}):
        child = create(running, "train", **more)
        assert child["info"]["run_id"] != "train" and tags(child)["mlflow.parentRunId"] == "train"
    nested = create(running, "train", tags=[{"key": "mlflow.parentRunId", "value": child["info"]["run_id"]}])
    assert tags(nested)["mlflow.parentRunId"] == child["info"]["run_id"]


def test_a_run_of_a_person_is_nobodys_child(running: Running) -> None:
    made = running.yard.mlflow("POST", "runs/create", {"experiment_id": "0", "tags": OUTSIDE})["run"]
    assert not {"mlflow.parentRunId", "modelyard.outside_a_run"} & set(tags(made))


def test_a_run_in_another_experiment_is_a_child_with_a_note(running: Running) -> None:
    running.job("train", experiment_name="home")
    elsewhere = running.yard.mlflow("POST", "experiments/create", {"name": "elsewhere"}, token=running.tokens["train"])["experiment_id"]
    for more in ({}, {"tags": OUTSIDE}):
        child = create(running, "train", elsewhere, **more)
        assert child["info"]["experiment_id"] == elsewhere and tags(child)["mlflow.parentRunId"] == "train"
        assert "train of experiment home" in tags(child)["mlflow.note.content"]
    own_words = create(running, "train", elsewhere, tags=[{"key": "mlflow.note.content", "value": "mine"}])
    assert tags(own_words)["mlflow.note.content"] == "mine"


def test_the_run_of_a_job_runs_until_the_job_has_ended(running: Running) -> None:
    """MLflow ends the run that an autologger or a `with` block used; the job goes on."""
    running.job("train")
    child = create(running, "train")["info"]["run_id"]
    for run in ("train", child):
        ended = {"run_id": run, "status": "FINISHED", "end_time": 5}
        running.yard.mlflow("POST", "runs/update", ended, token=running.tokens["train"])
    assert [run_of(running, id)["info"]["status"] for id in ("train", child)] == ["RUNNING", "FINISHED"]
    left = create(running, "train")["info"]["run_id"]
    running.yard.executor.finish("train", 1)
    running.yard.settle()
    assert [run_of(running, id)["info"]["status"] for id in ("train", child, left)] == ["FAILED", "FINISHED", "FAILED"]


def sweep(running: Running) -> list[str]:
    """The two trials of the new sweep `search`, which run."""
    space = {"lr": {"type": "choice", "values": [1, 2]}}
    body = {
        "type": "sweep", "sampling_algorithm": "grid", "search_space": space, "objective": {"primary_metric": "loss", "goal": "minimize"},
        "trial": {"command": "train ${{search_space.lr}}", "environment": {"pip": []}}, "limits": {"max_total_trials": 2},
    }  # fmt: skip
    running.yard.call("POST", f"{API}/jobs", json={"name": "search", **body}, expect=201)
    running.yard.settle()
    return [trial["job_name"] for trial in running.shown("search")["trials"]]


def test_a_sweep_reads_the_metric_wherever_its_trials_logged_it(running: Running) -> None:
    first, second = sweep(running)
    log(running, first, create(running, first)["info"]["run_id"], "loss", 3, 2)
    elsewhere = running.yard.mlflow("POST", "experiments/create", {"name": "elsewhere"}, token=running.tokens[second])["experiment_id"]
    child = create(running, second, elsewhere)["info"]["run_id"]
    below = create(running, second, tags=[{"key": "mlflow.parentRunId", "value": child}])["info"]["run_id"]
    log(running, second, below, "loss", 1)
    for job in (first, second):
        running.yard.executor.finish(job)
    running.yard.settle()
    shown = running.shown("search")
    assert shown["status"] == "Completed" and [trial["metric"] for trial in shown["trials"]] == [2, 1]
    assert shown["best"]["job_name"] == second


def test_a_sweep_without_a_result_shows_what_its_trials_logged(running: Running) -> None:
    for job in sweep(running):
        log(running, job, create(running, job)["info"]["run_id"], "losses", 1)
        log(running, job, job, "accuracy", 1)
        running.yard.executor.finish(job)
    running.yard.settle()
    assert (
        running.shown("search")["error"]["message"]
        == "no trial logged the metric 'loss': they logged accuracy, losses; did you mean 'losses'?"
    )


def test_a_sweep_whose_trials_fail_shows_the_first_error(running: Running) -> None:
    first, second = sweep(running)
    running.yard.executor.finish(first)
    running.yard.executor.finish(second)
    running.yard.settle()
    assert running.shown("search")["error"]["message"] == "no trial logged the metric 'loss': they logged no metric at all"
    running.yard.call("DELETE", f"{API}/jobs/search", expect=204)
    for job in sweep(running):
        running.yard.executor.finish(job, 3)
    running.yard.settle()
    error = running.shown("search")["error"]
    assert error["message"].startswith("no trial completed; trial 0 failed: ") and "3" in error["message"]
    assert error["hint"] == f"yard job stream -n {running.shown('search')['trials'][0]['job_name']}"


def test_jobs_are_compared_with_the_runs_that_they_made_in_whatever_order(running: Running) -> None:
    for job, values in (("first", (1, 2)), ("second", (2, 1)), ("third", (1, 3))):
        running.job(job)
        for value in values:
            run = create(running, job)["info"]["run_id"]
            log(running, job, run, "loss", value)
            running.yard.mlflow("POST", "runs/log-parameter", {"run_id": run, "key": "c", "value": str(value)}, token=running.tokens[job])
        running.yard.executor.finish(job)
        running.yard.settle()

    def verified(other: str) -> dict[str, Any]:
        return dict(running.yard.call("GET", f"{API}/jobs/first/verify", params={"against": other}, expect=200).json())

    assert verified("second")["identical"] and verified("second")["compared"]["metrics"] == 2
    assert [item["name"] for item in verified("third")["differences"]] == ["run 2: loss", "run 2: c"]


def _get_or_start_run(provider: RunOfJob) -> dict[str, str]:
    return start_run(provider)


def start_run(provider: RunOfJob) -> dict[str, str]:
    return provider.tags()


def test_the_plugin_tells_a_start_by_mlflow_from_one_by_a_script(monkeypatch: pytest.MonkeyPatch) -> None:
    provider = RunOfJob()
    monkeypatch.delenv("AZUREML_RUN_ID", raising=False)
    assert not provider.in_context()
    monkeypatch.setenv("AZUREML_RUN_ID", "job")
    monkeypatch.setenv("YARD_URL", "http://127.0.0.1")
    assert provider.in_context()
    assert start_run(provider) == {} and _get_or_start_run(provider) == {OUTSIDE[0]["key"]: OUTSIDE[0]["value"]}


def test_mlflow_finds_the_plugin_by_its_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.metadata

    import modelyard_runtime.plugin as plugin

    monkeypatch.setattr(sys, "path", [str(Path(str(plugin.__file__)).parent), *sys.path])
    (found,) = importlib.metadata.entry_points(group="mlflow.run_context_provider")
    assert found.load()().tags() == {}


def test_a_job_starts_in_its_experiment_whatever_became_of_it(running: Running) -> None:
    """Renamed: it runs there. Deleted: it runs in one of that name, made again."""
    yard = running.yard

    def queued(name: str) -> None:
        body = {"name": name, "command": "true", "environment": {"pip": []}, "experiment_name": "mine"}
        yard.call("POST", f"{API}/jobs", json=body, expect=201)

    def experiment(name: str) -> str:
        return str(yard.mlflow("GET", "experiments/get-by-name", experiment_name=name)["experiment"]["experiment_id"])

    queued("first")
    id = experiment("mine")
    yard.mlflow("POST", "experiments/update", {"experiment_id": id, "new_name": "ours"})
    yard.settle()
    assert run_of(running, "first")["info"]["experiment_id"] == id and "first" in running.tokens
    queued("second")
    yard.mlflow("POST", "experiments/delete", {"experiment_id": experiment("mine")})
    yard.settle()
    moved = run_of(running, "second")["info"]
    assert moved["experiment_id"] == experiment("mine") and moved["lifecycle_stage"] == "active" and "second" in running.tokens


def test_a_yard_starts_again_when_its_first_experiment_was_renamed(running: Running) -> None:
    running.yard.mlflow("POST", "experiments/update", {"experiment_id": "0", "new_name": "ours"})
    running.yard.run(first_start(running.yard.yard))
    assert running.yard.mlflow("GET", "experiments/get-by-name", experiment_name="Default")["experiment"]["experiment_id"] != "0"
