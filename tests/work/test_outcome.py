"""How an attempt ended, from its exit record and what could be stored."""

from __future__ import annotations

from typing import Any

import pytest

from modelyard.ports.objects import File
from modelyard.spec.inputs import Output
from modelyard.spec.states import JobState
from modelyard.work.jobs.outcome import AttemptResults, outcome
from modelyard_runtime.protocol import ENDS_OF_COMMANDS, ExitRecord, Reason

WELL = ExitRecord(Reason.EXITED, 0)
PROBLEM = {"code": "output_not_kept", "message": "a link"}
FILE = File("f.txt", "0" * 64, 1)


def end(exit: ExitRecord, results: AttemptResults | None = None, *, canceled: bool = False, **outputs: Output) -> tuple[JobState, Any]:
    state, error = outcome(outputs, exit, canceled, results or AttemptResults())
    return state, error


def test_a_command_that_ended_well_completes_its_job() -> None:
    assert end(WELL) == (JobState.COMPLETED, None)
    assert end(WELL, canceled=True) == (JobState.COMPLETED, None), "the cancel came too late"


@pytest.mark.parametrize("files", [[], [FILE]])
def test_a_file_that_was_promised_must_be_written_and_a_folder_may_be_empty(files: list[File]) -> None:
    state, error = end(WELL, AttemptResults(outputs={"f": files, "d": []}), f=Output(type="uri_file"), d=Output())
    assert (state, (error or {}).get("code")) == ((JobState.COMPLETED, None) if files else (JobState.FAILED, "missing_output"))


def test_what_could_not_be_stored_fails_a_job_that_ended_well_and_is_noted_with_one_that_did_not() -> None:
    assert end(WELL, AttemptResults(problem=PROBLEM)) == (JobState.FAILED, PROBLEM)
    state, error = end(ExitRecord(Reason.EXITED, 7, "exit code 7"), AttemptResults(problem=PROBLEM, tail=["last words"]))
    assert state is JobState.FAILED
    assert error == {"code": "exited", "message": "exit code 7", "exit_code": 7, "not_kept": "a link", "log_tail": ["last words"]}


@pytest.mark.parametrize("reason", list(Reason))
def test_a_job_is_canceled_when_its_command_gave_way_to_the_request(reason: Reason) -> None:
    asked, unasked = end(ExitRecord(reason, None), canceled=True)[0], end(ExitRecord(reason, None))[0]
    assert unasked is (JobState.CANCELED if reason is Reason.CANCELED else JobState.FAILED)
    gave_way = reason in (Reason.CANCELED, Reason.SIGNAL, Reason.EXITED)
    assert asked is (JobState.CANCELED if gave_way else JobState.FAILED)


def test_a_log_says_most_of_commands_that_ran() -> None:
    assert set(Reason) - set(ENDS_OF_COMMANDS) == {Reason.CANCELED, Reason.LOST, Reason.RUNNER_KILLED, Reason.FAILED_TO_START}
