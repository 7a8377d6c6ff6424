"""A job from submit to its end in a yard of this process: what is decided, and what the executor is handed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from modelyard.core.errors import Invalid, Unavailable
from modelyard.ports.executor import JobRun, Log
from modelyard.spec.references import DatastorePath
from modelyard.testing.memory.executor import Process
from modelyard.testing.yard import InProcessYard

JOBS = "/api/v1/workspaces/default/jobs"
Start = Callable[..., InProcessYard]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    yards: list[InProcessYard] = []

    def started(answer: Any) -> InProcessYard:
        yards.append(InProcessYard(tmp_path / "home", answer=answer))
        return yards[-1]

    yield started
    for yard in yards:
        yard.close()


def submit(yard: InProcessYard, **fields: Any) -> dict[str, Any]:
    """The job once nothing more happens by itself."""
    body = {"name": "j", "command": "run", "environment": {"pip": []}, **fields}
    yard.call("POST", JOBS, json=body, expect=201)
    yard.settle()
    return job(yard)


def job(yard: InProcessYard) -> dict[str, Any]:
    return dict(yard.call("GET", f"{JOBS}/j", expect=200).json())


def test_a_job_reads_its_inputs_and_leaves_outputs_artifacts_and_logs(start: Start) -> None:
    def copies(process: Process) -> int:
        _, source, rate, target = process.command.split()
        process.files[f"{target}/copy.txt"] = process.files[source] + rate.encode()
        process.files["/code/outputs/model.txt"] = b"model"
        process.say("copied\n")
        return 0

    yard = start(copies)
    blob = yard.yard.objects.put_bytes(b"data ")
    yard.write(lambda unit: put_file(unit, "in/d.txt", blob.digest, blob.size))
    data = {"type": "uri_file", "path": "azureml://datastores/workspaceblobstore/paths/in/d.txt"}
    done = submit(yard, command="copy ${{inputs.d}} ${{inputs.r}} ${{outputs.o}}", inputs={"d": data, "r": 0.5}, outputs={"o": {}})
    assert done["status"] == "Completed", done
    assert content(yard, "workspaceblobstore", "azureml/j/o/copy.txt") == b"data 0.5"
    assert content(yard, "workspaceartifactstore", "ExperimentRun/dcid.j/outputs/model.txt") == b"model"
    assert content(yard, "workspaceartifactstore", "ExperimentRun/dcid.j/user_logs/std_log.txt") == b"copied\n"
    assert b"starting: copy /inputs/d/d.txt 0.5 /outputs/o" in content(
        yard, "workspaceartifactstore", "ExperimentRun/dcid.j/system_logs/yard.log"
    )
    assert yard.call("GET", f"{JOBS}/j/logs", expect=200).text == "copied\n"


def put_file(unit: Any, path: str, digest: str, size: int) -> None:
    from modelyard.assets.files import service as files

    files.put_file(unit, "workspaceblobstore", path, digest, size)


def content(yard: InProcessYard, store: str, path: str) -> bytes:
    from modelyard.assets.files import service as files

    (file,) = yard.read(lambda unit: files.files_at(unit, DatastorePath(store, path))).files
    return b"".join(yard.yard.objects.open(file.digest))


def test_a_command_that_fails_fails_its_job_with_the_end_of_its_log(start: Start) -> None:
    def fails(process: Process) -> int:
        process.say("before\ntrouble\n")
        return 3

    failed = submit(start(fails))
    assert (failed["status"], failed["error"]["exit_code"], failed["error"]["log_tail"]) == ("Failed", 3, ["before", "trouble"])


def test_a_running_job_is_canceled_by_a_signal_and_a_queued_one_at_once(start: Start) -> None:
    yard = start(lambda process: None)
    assert submit(yard)["status"] == "Running"
    yard.call("POST", f"{JOBS}/j/cancel", expect=200)
    yard.settle()
    assert job(yard)["status"] == "Canceled"
    yard.call("POST", JOBS, json={"name": "k", "command": "run", "environment": {"pip": []}}, expect=201)
    assert yard.call("POST", f"{JOBS}/k/cancel", expect=200).json()["status"] == "Canceled"


def test_an_attempt_that_was_started_before_a_fault_is_taken_up_and_not_started_again(start: Start) -> None:
    began: list[str] = []

    def counts(process: Process) -> int:
        began.append(process.run.id.job)
        return 0

    yard = start(counts)
    first = yard.executor.start
    faults = [Unavailable("the supervisor does not answer", code="supervisor_unavailable", transient=True)]

    async def starts_and_fails(run: JobRun, log: Log) -> Mapping[str, str | int]:
        answer = await first(run, log)
        if faults:
            raise faults.pop()
        return answer

    yard.executor.start = starts_and_fails  # type: ignore[method-assign]
    submit(yard)
    yard.settle()
    assert job(yard)["status"] == "Completed" and began == ["j"]


def test_a_job_that_fails_after_its_start_leaves_no_command_behind(start: Start) -> None:
    yard = start(lambda process: None)
    first = yard.executor.start

    async def starts_and_fails(run: JobRun, log: Log) -> Mapping[str, str | int]:
        await first(run, log)
        raise Invalid("what comes after the start is wrong")

    yard.executor.start = starts_and_fails  # type: ignore[method-assign]
    failed = submit(yard)
    assert failed["status"] == "Failed" and "after the start" in failed["error"]["message"]
    assert not yard.executor.goes_on("j")


def test_what_an_executor_cannot_read_is_refused_with_the_reason(start: Start, tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    yard = start(lambda process: 0)
    yard.call(
        "PUT", "/api/v1/workspaces/default/datastores/here", json={"type": "local", "path": str(tmp_path / "here")}, expect=None
    ).raise_for_status()
    failed = submit(yard, inputs={"d": {"path": "azureml://datastores/here/paths/"}})
    assert failed["error"]["code"] == "unreachable_input" and "do not run where" in failed["error"]["message"]
