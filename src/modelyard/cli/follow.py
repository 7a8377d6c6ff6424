"""Following a job to its end: its log, what its steps and trials come to, and at last why it failed."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any

from modelyard_runtime.protocol import ENDS_OF_COMMANDS

from ..core.errors import NotFound, Unavailable
from ..core.terminal import LogText
from ..spec.states import JOB, JobState
from .output import say, say_log
from .progress import Line, waiting
from .summary import best_trial, pairs, progress_of_sweep

if TYPE_CHECKING:
    from ..sdk.client import MLClient

PATIENCE_S = 1.0
"""A job that starts sooner needs no words about how it was prepared."""
POLL_S = 0.5
LOST = "the yard does not answer; what runs goes on without it"
TAIL = 15
"""Lines of the log of what failed."""
_DRIVER = 'python "$YARD_PROGRAM" --script '
"""How the command of a parallel step begins; its log counts the mini batches."""
_BATCHES = re.compile(r"\[(\d+)/(\d+)\] mini batch")


def follow(ml_client: MLClient, name: str) -> int:
    """Show the log, then how the job ended. The exit code: 1 when it failed or was canceled."""
    kind = ml_client.jobs.get(name).type
    on = f"job {name} goes on; `yard job stream -n {name}` shows it again, `yard job cancel -n {name}` ends it"
    with waiting("", on) as line:
        if kind in ("pipeline", "sweep"):
            ended = _Children(ml_client, name, line).follow()
        else:
            _preparation(ml_client, name, line)
            log = LogText()

            def write(text: str) -> None:
                line.clear()
                say_log(text, log)

            ended = ml_client.jobs.follow(name, write, lost=lambda: line.show(LOST, LOST))
            say_log(log.end())
    if ended.status == JobState.FAILED:
        _failure(ml_client, ended)
    else:
        if ended.best:
            say(f"best {best_trial(ended.document())}")
        say(f"job {name}: {ended.status}")
    return 0 if ended.status == JobState.COMPLETED else 1


def _preparation(ml_client: MLClient, name: str, line: Line) -> None:
    """The system log until the command starts (locking and building the environment), when that takes longer than PATIENCE_S."""
    began, shown = time.monotonic(), 0
    while (status := ml_client.jobs.get(name).status) in (JobState.QUEUED, JobState.PREPARING):
        if time.monotonic() - began < PATIENCE_S:
            time.sleep(0.1)
            continue
        lines = ml_client.jobs.log(name, "system_logs/yard.log").splitlines()
        for text in lines[shown:]:
            if " + " not in text:  # the list of packages stays in the log
                line.clear()
                say(f"  {text}")
        shown = len(lines)
        line.show(f"job {name}: {status}", f"job {name}: {status}")
        time.sleep(POLL_S / 2)
    line.clear()


class _Children:
    """A job that other jobs carry out: what happens to them is its log, and is asked for again and again."""

    def __init__(self, ml_client: MLClient, name: str, line: Line) -> None:
        self.jobs, self.name, self.line = ml_client.jobs, name, line
        self.log = LogText()
        self.read = 0
        """Bytes of the log that were shown."""
        self.batches: dict[str, _Batches | None] = {}
        """Job of a step → how far it is, of one that works through mini batches."""
        self.trials: dict[int, str] = {}

    def follow(self) -> Any:
        while True:
            try:
                if (ended := self._look()) is not None:
                    return ended
            except Unavailable:
                self.line.show(LOST, LOST)  # the server restarts, and goes on where it was
            time.sleep(POLL_S)

    def _look(self) -> Any:
        """The job, when it has ended."""
        job = self.jobs.get(self.name)
        self._show_log()
        if job.type == "sweep":
            self._sweep(job.document())
        else:
            self._steps(job.document())
        if job.status not in JOB.terminal:
            return None
        self._show_log()
        self.line.clear()
        say_log(self.log.end())
        return job

    def _show_log(self) -> None:
        chunk = self.jobs.log_from(self.name, self.read)
        if chunk:
            self.read += len(chunk)
            self.line.clear()
            say_log(chunk.decode("utf-8", "replace"), self.log)

    def _sweep(self, job: dict[str, Any]) -> None:
        metric = (job.get("objective") or {}).get("primary_metric", "metric")
        for trial in job.get("trials") or ():
            if trial["status"] in JOB.terminal and self.trials.get(trial["number"]) != trial["status"]:
                self.trials[trial["number"]] = trial["status"]
                value = f", {metric} {trial['metric']:.6g}" if trial.get("metric") is not None else ""
                self.line.clear()
                say(f"trial {trial['number']}: {trial['status']}{value} ({pairs(trial.get('params'))})")
        best = best_trial(job)
        self.line.show(progress_of_sweep(job) + (f"; best {best}" if best else ""))

    def _steps(self, job: dict[str, Any]) -> None:
        steps = job.get("steps") or {}
        running = {name: step for name, step in steps.items() if step.get("status") == "Running"}
        done = sum(step.get("status") in ("Completed", "Failed", "Canceled", "Skipped") for step in steps.values())
        texts, milestones = [], []
        for name, step in running.items():
            batches = self._batches_of(step.get("job_name"))
            texts.append(name if batches is None or not batches.total else f"{name}, {batches.done} of {batches.total} mini batches")
            if batches is not None and batches.another_tenth():
                milestones.append(f"step {name}: {batches.done} of {batches.total} mini batches")
        self.line.show(f"{done} of {len(steps)} steps done" + (f"; running: {'; '.join(texts)}" if texts else ""), "\n".join(milestones))

    def _batches_of(self, job: str | None) -> _Batches | None:
        if job is None:
            return None
        if job not in self.batches:
            parallel = str(self.jobs.get(job).command or "").startswith(_DRIVER)
            self.batches[job] = _Batches() if parallel else None
        batches = self.batches[job]
        if batches is not None:
            batches.add(self.jobs.log_from(job, batches.read))
        return batches


class _Batches:
    """How far a parallel step is: its driver counts the mini batches in its log."""

    def __init__(self) -> None:
        self.read = self.done = self.total = self._tenths = 0

    def add(self, chunk: bytes) -> None:
        self.read += len(chunk)
        if counts := _BATCHES.findall(chunk.decode("utf-8", "replace")):
            self.done, self.total = map(int, counts[-1])

    def another_tenth(self) -> bool:
        tenths, before = 10 * self.done // (self.total or 1), self._tenths
        self._tenths = tenths
        return tenths > before


def _failure(ml_client: MLClient, job: Any) -> None:
    """Why the job failed: the end of the log of the step or trial that did, and where the whole of it is."""
    from ..sdk.nouns.jobs import describe_failure

    say(f"error: {describe_failure(job)}")
    if job.type == "pipeline":
        for step, child in _failed_steps(ml_client, job.document()):
            say(f"the log of step {step} (job {child.name}) ends with:")
            _tail(_end_of_log(ml_client, child))
            if str(child.name) not in str((job.error or {}).get("hint")):
                say(f"`yard job stream -n {child.name}` shows all of it")
    elif job.type != "sweep" and (job.error or {}).get("code") not in ENDS_OF_COMMANDS:
        _tail(_end_of_log(ml_client, job))


def _end_of_log(ml_client: MLClient, job: Any) -> list[str]:
    """Of what its command wrote, or where none ran of what the yard noted."""
    error = job.error or {}
    if error.get("log_tail"):
        return list(error["log_tail"])
    file = "user_logs/std_log.txt" if error.get("code") in ENDS_OF_COMMANDS else "system_logs/yard.log"
    return ml_client.jobs.log(str(job.name), file).splitlines()


def _failed_steps(ml_client: MLClient, job: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """(step, job) of each command that failed, in pipelines inside this one too."""
    found: list[tuple[str, Any]] = []
    for name, step in (job.get("steps") or {}).items():
        if step.get("status") != "Failed" or not step.get("job_name"):
            continue
        try:
            child = ml_client.jobs.get(step["job_name"])
        except NotFound:
            continue
        inner = _failed_steps(ml_client, child.document(), f"{prefix}{name}.") if child.type == "pipeline" else []
        found += inner or [(prefix + name, child)]
    return found


def _tail(lines: list[str]) -> None:
    for text in lines[-TAIL:] or ["(nothing)"]:
        say(f"  {text}")
