"""The turns of a pipeline in a yard in this process: what starts when, what an end leads to, and that any turn may be the last before a kill."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from modelyard.ports.executor import JobRun
from modelyard.testing.memory.executor import Process
from modelyard.testing.yard import InProcessYard

JOBS = "/api/v1/workspaces/default/jobs"


class Story:
    """Steps by the words of their commands: `hold` goes on, `fail` exits with 1, `fail N times`, anything else writes its outputs."""

    def __init__(self, root: Path) -> None:
        self.started: list[str] = []
        self.runs: dict[str, JobRun] = {}
        """What was started, by job."""
        self.yard = InProcessYard(root, answer=self._answer)

    def _answer(self, process: Process) -> int | None:
        self.started.append(process.command)
        self.runs[process.run.id.job] = process.run
        words = process.command.split()
        if words[0] == "pip":
            process.installed.append(f"{words[2]}==1.0")
        if words[0] == "hold":
            return None
        if words[0] == "fail" and (len(words) == 1 or self.started.count(process.command) <= int(words[1])):
            return 1
        for port in process.run.outputs:
            process.files[f"/outputs/{port}/made.txt"] = process.command.encode()
        return 0

    def submit(self, steps: dict[str, Any], **more: Any) -> str:
        body = {"type": "pipeline", "jobs": steps, **more}
        return str(self.yard.call("POST", JOBS, json=body, expect=201).json()["name"])

    def run(self, steps: dict[str, Any], **more: Any) -> dict[str, Any]:
        name = self.submit(steps, **more)
        self.yard.settle()
        return self.job(name)

    def job(self, name: str) -> dict[str, Any]:
        return dict(self.yard.call("GET", f"{JOBS}/{name}", expect=200).json())


@pytest.fixture
def story(tmp_path: Path) -> Iterator[Story]:
    made = Story(tmp_path / "home")
    yield made
    made.yard.close()


def step(command: str, *needs: str, **more: Any) -> dict[str, Any]:
    """A step with an output, which reads the outputs of others."""
    inputs = {name: f"${{{{parent.jobs.{name}.outputs.o}}}}" for name in needs}
    body = {"type": "command", "command": command, "environment": {"pip": []}, "outputs": {"o": {"type": "uri_folder"}}, **more}
    return {**body, "inputs": {**inputs, **more.get("inputs", {})}}


def states(job: dict[str, Any]) -> dict[str, str]:
    return {name: found["status"] for name, found in job["steps"].items()}


def test_a_step_starts_once_all_that_it_reads_is_made(story: Story) -> None:
    name = story.submit({"last": step("last", "a", "b"), "a": step("make a"), "b": step("hold b")})
    story.yard.settle()
    assert sorted(story.started) == ["hold b", "make a"]
    assert states(story.job(name)) == {"a": "Completed", "b": "Running", "last": "NotStarted"}
    story.yard.executor.finish(story.job(name)["steps"]["b"]["job_name"])
    story.yard.settle()
    assert story.started[-1] == "last" and story.job(name)["status"] == "Completed"


def test_the_order_of_the_file_is_not_the_order_of_the_steps(story: Story) -> None:
    job = story.run({"c": step("c", "b"), "b": step("b", "a"), "a": step("a")})
    assert story.started == ["a", "b", "c"] and job["status"] == "Completed"


def test_an_equal_step_is_not_run_again_and_a_changed_one_takes_those_behind_it_along(story: Story) -> None:
    story.run({"a": step("a"), "b": step("b", "a"), "c": step("c")})
    again = story.run({"a": step("a"), "b": step("b", "a"), "c": step("c")})
    assert story.started == ["a", "c", "b"] and again["status"] == "Completed"
    assert all("reused_from" in found for found in again["steps"].values())
    other = story.run({"a": step("a "), "b": step("b", "a"), "c": step("c")})
    assert story.started[3:] == ["a ", "b"] and other["steps"]["a"]["ran_because"].startswith("command changed")
    assert other["steps"]["b"]["ran_because"] == "input a changed" and "reused_from" in other["steps"]["c"]


def test_a_failed_step_skips_what_needs_it_and_ends_the_pipeline(story: Story) -> None:
    job = story.run({"bad": step("fail"), "needs": step("needs", "bad"), "beside": step("beside")})
    assert job["status"] == "Failed" and "step bad failed" in job["error"]["message"]
    assert states(job)["needs"] in ("NotStarted", "Skipped") and "needs" not in story.started


def test_with_continue_on_step_failure_the_others_go_on(story: Story) -> None:
    steps = {"bad": step("fail"), "needs": step("needs", "bad"), "one": step("one"), "two": step("two", "one")}
    job = story.run(steps, settings={"continue_on_step_failure": True})
    assert job["status"] == "Failed" and states(job) == {"bad": "Failed", "needs": "Skipped", "one": "Completed", "two": "Completed"}


@pytest.mark.parametrize(("failing", "tries", "status"), [("fail 0", 1, "Completed"), ("fail 2", 3, "Completed"), ("fail 3", 3, "Failed")])
def test_a_step_is_tried_as_often_as_it_may_be(story: Story, failing: str, tries: int, status: str) -> None:
    job = story.run({"flaky": step(failing, retry_settings={"max_retries": 2})})
    assert job["status"] == status and job["steps"]["flaky"].get("tries", 1) == tries and len(story.started) == tries


def test_a_cancelled_pipeline_starts_nothing_more_and_ends_what_runs(story: Story) -> None:
    name = story.submit({"long": step("hold"), "next": step("next", "long"), "done": step("done")})
    story.yard.settle()
    story.yard.call("POST", f"{JOBS}/{name}/cancel", expect=200)
    story.yard.settle()
    job = story.job(name)
    assert job["status"] == "Canceled" and states(job) == {"long": "Canceled", "done": "Completed", "next": "NotStarted"}
    assert "next" not in story.started and story.job(job["steps"]["long"]["job_name"])["status"] == "Canceled"


def test_a_pipeline_in_a_pipeline_hands_its_output_on(story: Story) -> None:
    inner = {
        "type": "pipeline",
        "jobs": {"make": step("make", outputs={"o": "${{parent.outputs.o}}"})},
        "outputs": {"o": {"type": "uri_folder"}},
    }
    job = story.run({"inner": inner, "use": step("use", "inner")})
    assert job["status"] == "Completed" and story.started == ["make", "use"]


def test_turning_more_often_than_needed_changes_nothing(story: Story) -> None:
    name = story.submit({"a": step("hold"), "b": step("b", "a")})
    for _ in range(5):
        story.yard.settle()
    assert story.started == ["hold"]
    story.yard.executor.finish(story.job(name)["steps"]["a"]["job_name"])
    for _ in range(5):
        story.yard.settle()
    assert story.started == ["hold", "b"] and story.job(name)["status"] == "Completed"


def test_equal_steps_that_start_together_run_once(story: Story) -> None:
    """Those of other pipelines, and of the same one."""
    first = story.submit({"a": step("hold it"), "b": step("hold it")})
    second = story.submit({"other": step("hold it"), "after": step("after", "other")})
    story.yard.settle()
    assert story.started == ["hold it"]
    leader = story.job(first)["steps"]["a"]["job_name"]
    assert story.job(second)["steps"]["other"]["job_name"] == leader
    story.yard.executor.finish(leader)
    story.yard.settle()
    assert story.started == ["hold it", "after"]
    for name, reused in ((first, "b"), (second, "other")):
        job = story.job(name)
        assert job["status"] == "Completed" and job["steps"][reused]["reused_from"] == leader


def test_a_step_whose_equal_fails_runs_on_its_own(story: Story) -> None:
    first, second = (story.submit({"a": step("hold it")}) for _ in range(2))
    story.yard.settle()
    story.yard.executor.finish(story.job(first)["steps"]["a"]["job_name"], 1)
    story.yard.settle()
    assert story.started == ["hold it", "hold it"] and story.job(first)["status"] == "Failed"
    own = story.job(second)["steps"]["a"]["job_name"]
    assert own != story.job(first)["steps"]["a"]["job_name"]
    story.yard.executor.finish(own)
    story.yard.settle()
    assert story.job(second)["status"] == "Completed"


def test_a_pipeline_that_is_canceled_leaves_the_equal_step_of_another_alone(story: Story) -> None:
    first, second = (story.submit({"a": step("hold it")}) for _ in range(2))
    story.yard.settle()
    story.yard.call("POST", f"{JOBS}/{second}/cancel", expect=200)
    story.yard.settle()
    assert (story.job(first)["status"], story.job(second)["status"]) == ("Running", "Canceled")
    story.yard.call("POST", f"{JOBS}/{first}/cancel", expect=200)
    story.yard.settle()
    assert story.job(first)["status"] == "Canceled" and story.started == ["hold it"]


def test_the_pipeline_that_began_an_equal_step_may_be_canceled(story: Story) -> None:
    first, second = (story.submit({"a": step("hold it")}) for _ in range(2))
    story.yard.settle()
    story.yard.call("POST", f"{JOBS}/{first}/cancel", expect=200)
    story.yard.settle()
    assert story.started == ["hold it", "hold it"] and story.job(second)["status"] == "Running"


def test_steps_that_are_not_to_be_reused_run_each(story: Story) -> None:
    story.submit({"a": step("hold it", is_deterministic=False), "b": step("hold it", is_deterministic=False)})
    story.yard.settle()
    assert story.started == ["hold it", "hold it"]


def test_a_step_that_installs_packages_by_itself_is_not_reused(story: Story) -> None:
    """What it installed is no part of its key: the next may get another version."""
    for reason in ("first run of this step", "its command installs packages by itself: demo==1.0"):
        job = story.run({"a": step("pip install demo")})
        assert job["status"] == "Completed" and job["steps"]["a"]["ran_because"] == reason
        assert story.job(job["steps"]["a"]["job_name"])["properties"]["installed"] == ["demo==1.0"]
    assert story.started == ["pip install demo"] * 2


def test_a_job_that_is_run_again_installs_what_it_had(story: Story) -> None:
    story.yard.call("POST", JOBS, json={"name": "first", "command": "pip install demo", "environment": {"pip": []}}, expect=201)
    story.yard.settle()
    again = story.yard.call("POST", f"{JOBS}/first/rerun", expect=201).json()["name"]
    story.yard.settle()
    assert story.runs[again].constraints == ("demo==1.0",) and story.runs["first"].constraints == ()
    verified = story.yard.call("GET", f"{JOBS}/first/verify", params={"against": again}, expect=200).json()
    assert verified["identical"] and not [line for line in verified["unpinned"] if line.startswith("packages")]
