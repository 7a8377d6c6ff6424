"""Kinds of jobs, and whom a cancel reaches."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from modelyard.ports.executor import AttemptId, Command
from modelyard.spec.environment import Environment
from modelyard.spec.inputs import Output
from modelyard.spec.job import CommandJob
from modelyard.spec.states import JobState
from modelyard.work.jobs import command, service
from modelyard.work.jobs.kinds import Children, Execution, JobKind
from modelyard.work.jobs.model import JobRecord, output_port


def record(state: JobState, **values: Any) -> JobRecord:
    base = JobRecord(
        name="j", workspace="default", stored={"command": "true"}, state=state, attempt=2, node="here", created_ms=0, created_by="admin",
        started_ms=None, ended_ms=None, error=None, cancel_requested=True, archived=False, experiment="Default", compute="local",
        max_instances=None, cpus=1, memory=0, gpus=0, gpu_ids="",
    )  # fmt: skip
    return replace(base, **values)


def test_a_kind_runs_a_process_or_is_carried_out_by_children() -> None:
    run, children = command.execution, Children(lambda unit: [], lambda *_: None)  # type: ignore[arg-type, return-value]
    for both in ({}, {"run": run, "children": children}):
        with pytest.raises(TypeError, match="either runs a process"):
            JobKind("odd", service.submit, **both)  # type: ignore[arg-type]
    assert JobKind("command", service.submit, run=run).execution(job()) == Execution(Command("true"), Environment(pip=[]))


def job(**fields: Any) -> CommandJob:
    return CommandJob.model_validate({"command": "true", "environment": {"pip": []}, **fields})


def test_a_distributed_command_is_one_word_behind_its_launcher() -> None:
    made = command.execution(job(distribution={"type": "pytorch", "process_count_per_instance": 2}, resources={"instance_count": 3}))
    assert made.command.program == "distributed" and made.command.text == "true"
    assert made.command.launcher == 'exec python "$YARD_PROGRAM" pytorch 3 2 0 -- sh -c'


def test_settings_of_a_ray_cluster_are_a_variable_that_the_spec_may_replace() -> None:
    assert command.execution(job(distribution={"type": "ray"})).variables["RAY_SETTINGS"].startswith("{")
    own = command.execution(job(distribution={"type": "ray"}, environment_variables={"RAY_SETTINGS": "mine"}))
    assert own.variables == {"RAY_SETTINGS": "mine"}


@pytest.mark.parametrize(
    ("now", "reached"),
    [
        (record(JobState.RUNNING), True),
        (record(JobState.RUNNING, cancel_requested=False), False),
        (record(JobState.PREPARING), False),
        (record(JobState.COMPLETED), False),
        (record(JobState.RUNNING, node=None, attempt=0), False),  # its children carry it out
    ],
)
def test_a_cancel_is_signalled_to_the_executor_that_runs_the_attempt(now: JobRecord, reached: bool) -> None:
    assert now.attempt_to_end == (AttemptId("j", 2) if reached else None)


def test_ids_of_attempts_stay_what_running_supervisors_know() -> None:
    assert str(AttemptId("j", 2)) == "job/j/2"


@pytest.mark.parametrize(
    ("output", "file"),
    [
        (Output(), ""),
        (Output(type="uri_file"), "p"),
        (Output(type="uri_file", path="azureml://datastores/workspaceblobstore/paths/a/b c.txt"), "b_c.txt"),
        (Output(type="uri_file", path="azureml://datastores/workspaceblobstore/paths/a/"), "p"),
    ],
)
def test_a_file_of_an_output_has_a_name_that_is_one_word(output: Output, file: str) -> None:
    assert output_port("p", output).file == file
