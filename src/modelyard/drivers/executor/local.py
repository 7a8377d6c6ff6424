"""Jobs as processes of this machine, run by the supervisor's runners."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

from modelyard_runtime import protocol
from modelyard_runtime.protocol import ExitRecord, JobRequest, Reason

from ...core import trees
from ...core.errors import Unavailable
from ...ports.processes import Interpreter, JobRun
from ..isolation import Isolation
from ..supervisor_client import SupervisorClient
from .warm import WarmInterpreters

SHELL = shutil.which("bash") or "/bin/sh"
RECORD_BYTES = 1 << 20


class LocalExecutor:
    """Implements Executor."""

    def __init__(self, supervisor: SupervisorClient, isolation: Isolation, interpreters: WarmInterpreters) -> None:
        self._supervisor = supervisor
        self._isolation = isolation
        self._interpreters = interpreters

    def warm(self, wanted: Interpreter, command: str) -> Path | None:
        return self._interpreters.find(wanted, command)

    async def start(self, run: JobRun) -> None:
        request = JobRequest(
            id=run.id,
            argv=[SHELL, "-c", run.command],
            cwd=str(run.cwd),
            environment=dict(run.environment),
            folder=str(run.folder),
            log=str(run.log),
            log_limit=run.log_limit,
            sandbox=self._isolation.confinement(run.sandbox),
            own=[str(path) for path in run.sandbox.writable],
            timeout_s=run.timeout_s,
            sample_s=run.sample_s,
            cpus=run.cpus,
            warm=self._interpreters.request(run),
        )
        self._interpreters.used(run)
        await self._supervisor.call("start", id=run.id, kind="job", request=protocol.document(request), secrets=dict(run.secrets))

    async def wait(self, id: str, folder: Path) -> ExitRecord:
        while True:
            record = _left_in(folder)
            if record is not None:
                return record
            try:
                answer = await self._supervisor.call("wait", patient=True, id=id, folder=str(folder))
            except Unavailable:
                await asyncio.sleep(0.5)
                continue
            return exit_record(answer["exit"]) or ExitRecord(Reason.LOST, None, "the command's process vanished without a record")

    def metrics(self, folder: Path, offset: int) -> tuple[list[dict[str, Any]], int]:
        try:
            data = trees.read(folder / "metrics.jsonl", 1 << 20, offset)
        except FileNotFoundError:
            return [], offset
        whole = data[: data.rfind(b"\n") + 1]
        return [json.loads(line) for line in whole.splitlines()], offset + len(whole)

    async def cancel(self, id: str) -> None:
        await self._supervisor.call("stop", id=id)


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
