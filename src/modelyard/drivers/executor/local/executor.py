"""Jobs as processes of this machine, run by the supervisor's runners."""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelyard_runtime import protocol
from modelyard_runtime.protocol import ExitRecord, JobRequest, Reason

from ....core import trees
from ....core.errors import Invalid, NotFound, Unavailable
from ....ports.builder import OLDEST_RUNTIME, Builder, Built, dotted
from ....ports.executor import AttemptId, Collected, InputFiles, JobRun, Log, MachinePath, OutputPort, Share
from ....ports.objects import ObjectStore, TreeLayout
from ....ports.replicas import Sandbox
from ...isolation import Isolation
from ...supervisor_client import SupervisorClient
from ...table import Parts
from .folder import JobFolder, LaidOut
from .gathering import gather
from .machine import hardware, share_of_machine
from .packages import PLUGIN
from .warm import Interpreter, WarmInterpreters

SHELL = shutil.which("bash") or "/bin/sh"
RECORD_BYTES = 1 << 20
MOST_COPIED = 64 * 2**20
"""Bytes of inputs: a job with more reads them where they are shared, and starts a process of its own."""
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Preparation:
    """All that a command needs, laid out."""

    folder: JobFolder
    built: Built
    laid: LaidOut
    interpreter: Interpreter | None
    warm: Path | None
    """The warm interpreter that may fork it."""


class LocalExecutor:
    """Implements ExecutorWithMachinePaths. `jobs` holds a folder for each job."""

    def __init__(
        self, supervisor: SupervisorClient, isolation: Isolation, interpreters: WarmInterpreters, builder: Builder, objects: ObjectStore,
        layout: TreeLayout, jobs: Path, cpu_slots: int = 0,
    ) -> None:  # fmt: skip
        self._supervisor = supervisor
        self._isolation = isolation
        self._interpreters = interpreters
        self._builder = builder
        self._objects = objects
        self._layout = layout
        self._jobs = jobs
        self._capacity = share_of_machine(cpu_slots)
        self._hardware = hardware()

    def capacity(self) -> Share:
        return self._capacity

    def has(self, path: MachinePath) -> bool:
        return trees.has(Path(path.path))

    async def started(self, id: AttemptId) -> bool:
        if trees.has(self._folder(id.job).attempt(id) / "running.json"):
            return True
        return bool((await self._supervisor.call("status", id=str(id)))["found"])  # its runner has not written that yet

    async def start(self, run: JobRun, log: Log) -> Mapping[str, str | int]:
        if await self.started(run.id):
            return self._hardware
        ready = await asyncio.to_thread(self._prepare, run)
        command, variables = run.bound(ready.laid.inputs, ready.laid.outputs)
        log(f"starting: {command}")
        request = self._request(run, ready, command, variables)
        if ready.interpreter is not None:
            self._interpreters.used(ready.interpreter, command)
        await self._supervisor.call("start", id=str(run.id), kind="job", request=protocol.document(request), secrets=dict(run.secrets))
        return self._hardware

    def _prepare(self, run: JobRun) -> Preparation:
        built = self._builder.find(run.environment)
        if built is None:
            raise NotFound(f"the environment {run.environment} is not built", code="environment_not_built")
        if (run.command.launcher or run.command.program) and not built.runs_programs:
            raise Invalid(
                f"the environment has Python {dotted(built.python_version)}; parallel and distributed jobs run from {dotted(OLDEST_RUNTIME)} on",
                code="python_too_old", hint="Give the job an environment with a later Python; plain commands run on this one.",
            )  # fmt: skip
        interpreter = self._interpreter(run, built)
        warm = self._interpreters.find(interpreter, run.command.text) if interpreter is not None else None
        folder = self._folder(run.id.job)
        return Preparation(folder, built, folder.lay_out(run, self._layout, built, private=warm is not None), interpreter, warm)

    def _interpreter(self, run: JobRun, built: Built) -> Interpreter | None:
        """What a warm interpreter for this job would be: it sees nothing of the machine but the jobs' folders and the environment."""
        if run.command.launcher or run.command.program or run.gpu_ids or not built.runs_programs:
            return None
        if not (self._isolation.user or self._isolation.name == "none" or run.only_workspace):
            return None  # without users of their own, what a package does when it is loaded could reach other workspaces' jobs
        if any(isinstance(value, MachinePath) for value in run.inputs.values()):
            return None
        if sum(value.tree.size for value in run.inputs.values() if isinstance(value, InputFiles)) > MOST_COPIED:
            return None
        if any("${{" in text for text in run.declared_variables.values()):
            return None  # their values are another job's next time
        readable = (*built.readable, PLUGIN)
        return Interpreter(
            run.workspace, built.python, readable, _with_plugin({**_machine_variables(run, built), **run.declared_variables})
        )

    def _request(self, run: JobRun, ready: Preparation, command: str, variables: Mapping[str, str]) -> JobRequest:
        folder = ready.folder
        sandbox = Sandbox(folder.own, (*ready.built.readable, PLUGIN, *ready.laid.readable), folder.tmp)
        return JobRequest(
            id=str(run.id),
            argv=[SHELL, "-c", command],
            cwd=str(folder.code),
            environment=_with_plugin(
                {**_folder_variables(run, folder), **_machine_variables(run, ready.built), **ready.laid.variables, **variables}
            ),
            folder=str(folder.attempt(run.id)),
            log=str(folder.log),
            log_limit=run.log_limit,
            sandbox=self._isolation.confinement(sandbox),
            own=[str(path) for path in sandbox.writable],
            timeout_s=run.timeout_s,
            memory_bytes=run.share.memory or None,
            memory_by_group_only=True,
            sample_s=run.sample_s,
            cpus=run.share.cpus,
            warm=self._interpreters.request(ready.warm, command, folder.code) if ready.warm is not None else None,
        )

    async def wait(self, id: AttemptId) -> ExitRecord:
        folder = self._folder(id.job).attempt(id)
        while True:
            record = _left_in(folder)
            if record is not None:
                return record
            try:
                answer = await self._supervisor.call("wait", patient=True, id=str(id), folder=str(folder))
            except Unavailable:
                await asyncio.sleep(0.5)
                continue
            return exit_record(answer["exit"]) or ExitRecord(Reason.LOST, None, "the command's process vanished without a record")

    async def cancel(self, id: AttemptId) -> None:
        await self._supervisor.call("stop", id=str(id))

    async def samples(self, id: AttemptId, offset: int) -> tuple[list[dict[str, Any]], int]:
        try:
            data = await asyncio.to_thread(trees.read, self._folder(id.job).attempt(id) / "metrics.jsonl", 1 << 20, offset)
        except FileNotFoundError:
            return [], offset
        whole = data[: data.rfind(b"\n") + 1]
        return [json.loads(line) for line in whole.splitlines()], offset + len(whole)

    async def read_log(self, job: str, offset: int, limit: int) -> bytes:
        return trees.read_log(self._folder(job).log, limit, offset)

    async def collect(self, id: AttemptId, outputs: Mapping[str, OutputPort]) -> Collected:
        return await asyncio.to_thread(gather, self._folder(id.job), id, self._objects, outputs)

    async def release(self, job: str, *, logs: bool = False) -> None:
        folder = self._folder(job)
        try:
            await asyncio.to_thread(trees.remove, folder.root) if logs else await asyncio.to_thread(folder.empty)
        except OSError as error:
            log.warning("what job %s left in %s could not be removed: %s", job, folder.root, error)

    def _folder(self, job: str) -> JobFolder:
        return JobFolder(self._jobs, job)


def make(parts: Parts) -> LocalExecutor:
    home, settings = parts.home, parts.settings
    interpreters = WarmInterpreters(parts.supervisor, parts.isolation, home.interpreters, home.jobs, settings.warm_interpreters)
    return LocalExecutor(
        parts.supervisor, parts.isolation, interpreters, parts.builder, parts.objects, parts.layout, home.jobs, settings.cpu_slots
    )


def _machine_variables(run: JobRun, built: Built) -> dict[str, str]:
    """Those that Python and its packages look at when they are loaded; alike for every job of the environment and size."""
    return {**built.variables(max(1, run.share.cpus)), "CUDA_VISIBLE_DEVICES": run.gpu_ids}


def _with_plugin(variables: dict[str, str]) -> dict[str, str]:
    """The yard's plugin for MLflow on the path of every Python; what the job puts there stays."""
    return {**variables, "PYTHONPATH": ":".join(filter(None, (str(PLUGIN), variables.get("PYTHONPATH", ""))))}


def _folder_variables(run: JobRun, folder: JobFolder) -> dict[str, str]:
    program = {"YARD_PROGRAM": str(folder.program / run.command.program)} if run.command.program else {}
    return {
        **program,
        "HOME": str(folder.home),
        "TMPDIR": str(folder.tmp),
        "USER": "job",
        "AZUREML_SCRIPT_DIRECTORY_NAME": str(folder.code),
    }


def _left_in(folder: Path) -> ExitRecord | None:
    try:
        return exit_record(json.loads(trees.read(folder / "exit.json", RECORD_BYTES)))
    except (OSError, ValueError):
        return None


def exit_record(document: Any) -> ExitRecord | None:
    """What a runner has left, of this version or an earlier one; None when that is no record."""
    try:
        return protocol.read(ExitRecord, document)
    except protocol.Malformed:
        return None
