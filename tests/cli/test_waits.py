"""What a command says while it waits, where nobody can see a line change, and what it says at the end or when it is interrupted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from checked_yard import YardUnderTest
from endpoints import deploy_script
from modelyard.cli import progress
from modelyard.cli.rollout import Steps
from modelyard.sdk.poller import Poller
from modelyard.testing.process import YARD


def pipeline(folder: Path, **jobs: Any) -> str:
    steps = {name: {"type": "command", "environment": {"pip": []}, **job} for name, job in jobs.items()}
    (folder / "pipeline.yml").write_text(json.dumps({"type": "pipeline", "settings": {"default_compute": "local"}, "jobs": steps}))
    return str(folder / "pipeline.yml")


def test_a_failed_step_shows_the_end_of_its_log_and_where_the_whole_of_it_is(yard: YardUnderTest, tmp_path: Path) -> None:
    file = pipeline(tmp_path, good={"command": "echo fine"}, bad={"command": "seq 100; echo the disk is on fire; exit 3"})
    done = yard.run("job", "create", "-f", file, "-n", "fails", "--stream", ok=False)
    assert done.returncode == 1
    job = yard.json("job", "show", "-n", "fails")["steps"]["bad"]["job_name"]
    assert f"the log of step bad (job {job}) ends with:" in done.stderr
    assert "  the disk is on fire" in done.stderr and "  100\n" in done.stderr and "  1\n" not in done.stderr, "the end, not all of it"
    assert done.stderr.count(f"yard job stream -n {job}") == 1


def test_a_parallel_step_counts_its_mini_batches(yard: YardUnderTest, tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    # Each batch waits for the file of the one before to have been there long enough for somebody to look.
    (tmp_path / "code/s.py").write_text("import time\ndef init(): pass\ndef run(batch):\n    time.sleep(0.6)\n    return list(batch)\n")
    (tmp_path / "files").mkdir()
    for number in range(4):
        (tmp_path / "files" / str(number)).write_text("x")
    task = {"type": "run_function", "code": "./code", "entry_script": "s.py", "environment": {"pip": []}}
    step = {"type": "parallel", "mini_batch_size": "1", "input_data": "${{inputs.files}}", "max_concurrency_per_instance": 1, "task": task,
            "inputs": {"files": "${{parent.inputs.files}}"}, "outputs": {"out": {}}}  # fmt: skip
    document = {"type": "pipeline", "settings": {"default_compute": "local"}, "jobs": {"score": step},
                "inputs": {"files": {"type": "uri_folder", "path": "./files"}}}  # fmt: skip
    (tmp_path / "parallel.yml").write_text(json.dumps(document))
    done = yard.run("job", "create", "-f", str(tmp_path / "parallel.yml"), "--stream")
    assert " of 4 mini batches" in done.stderr, done.stderr


def test_an_interrupted_stream_says_that_the_job_goes_on_and_how_it_is_ended(yard: YardUnderTest, tmp_path: Path) -> None:
    (tmp_path / "job.yml").write_text("command: echo begun; sleep 600\nenvironment: {pip: []}\n")
    arguments = [YARD, "job", "create", "-f", tmp_path / "job.yml", "-n", "goes-on", "--stream"]
    process = subprocess.Popen(
        arguments, env={**yard.environment, "PYTHONUNBUFFERED": "1"}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    assert process.stdout is not None and process.stdout.readline() == "begun\n"
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in said
    assert "job goes-on goes on; `yard job stream -n goes-on` shows it again, `yard job cancel -n goes-on` ends it" in said
    assert yard.json("job", "show", "-n", "goes-on")["status"] == "Running"
    yard.run("job", "cancel", "-n", "goes-on")


def test_a_deployment_that_fails_says_why_with_its_log_and_exits_1(yard: YardUnderTest, tmp_path: Path) -> None:
    script = "def init(): raise RuntimeError('no such weights')\ndef run(data): return data\n"
    done = deploy_script(yard, tmp_path, script, endpoint="never-ready", ok=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "deploying blue to never-ready" in done.stderr and "get-logs" in done.stderr
    assert "its log ends with:" in done.stderr and "  RuntimeError: no such weights" in done.stderr
    yard.run("online-endpoint", "delete", "-n", "never-ready", "-y")


class Requests:
    """The list of requests of an endpoint."""

    def __init__(self) -> None:
        self.times: list[datetime] = []

    def list_requests(self, name: str, *, deployment_name: str, limit: int) -> list[dict[str, Any]]:
        return [{"time": f"{time:%Y-%m-%dT%H:%M:%S.000Z}", "status": 200} for time in self.times][:limit]


def test_a_rollout_tells_its_step_its_requests_and_its_time() -> None:
    requests = Requests()
    steps = Steps(cast(Any, requests), "e")
    now = datetime.now(UTC)
    rollout = {"to": "green", "steps": [20, 100], "step": 1, "percent": 20, "min_requests": 3, "bake_time_s": 3600,
               "started_at": f"{now - timedelta(minutes=10):%Y-%m-%dT%H:%M:%S.000Z}"}  # fmt: skip
    requests.times = [now - timedelta(minutes=minutes) for minutes in (5, 20)]
    text, milestone = steps.seen(rollout)
    assert text == "step 1 of 2: green has 20 % of the traffic; 1 of 3 requests, 49 min to watch"
    assert milestone == "step 1 of 2: green has 20 % of the traffic"
    requests.times = [now + timedelta(minutes=1)] * 5
    assert "3 of 3 requests" in steps.seen(rollout)[0], "more than needed are not counted"
    later, milestone = steps.seen({**rollout, "step": 2, "percent": 100, "min_requests": 0, "bake_time_s": 0})
    assert later == "step 2 of 2: green has 100 % of the traffic; being judged" and milestone != text
    assert steps.seen(None) == ("", "")


def test_a_poller_shows_what_it_sees_on_the_way() -> None:
    answers = iter([("InProgress", 1), ("InProgress", 2), ("Succeeded", 3)])
    seen: list[int] = []
    assert Poller(lambda: next(answers)).result(seen=seen.append) == 3
    assert seen == [1, 2]


def test_a_line_changes_on_a_terminal_and_fits_it_and_is_gone_at_the_end() -> None:
    code = "from modelyard.cli.progress import waiting\nwith waiting('deploying azureml:bank:1') as line: line.show('x' * 500); line.show('日本' * 40)"
    reader, terminal = os.openpty()
    environment = {**os.environ, "COLUMNS": "40", "TERM": "xterm"}
    subprocess.run([sys.executable, "-c", code], stdout=terminal, stderr=terminal, env=environment, check=True)
    os.close(terminal)
    first, long, wide, end = os.read(reader, 1 << 16).decode().split("\r\x1b[K")[1:]
    os.close(reader)
    assert (first, end) == ("deploying azureml:bank:1", "")
    assert long == "x" * 38 + "…" and wide == "日本" * 9 + "日…"


def test_elsewhere_each_milestone_is_a_line_and_a_long_silence_is_broken(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    with progress.waiting("waiting") as line:
        for step in range(8):
            line.show(f"step {step}", f"milestone {step // 4}")
        clock[0] = 31
        line.show("still at it", "milestone 1")
    assert capsys.readouterr().err.splitlines() == ["waiting", "milestone 0", "milestone 1", "still at it"]


def test_sizes() -> None:
    assert [progress.size(count) for count in (0, 999, 1536, 200 * 1024, 5 << 40)] == ["0 B", "999 B", "1.5 KiB", "200 KiB", "5.0 TiB"]
