"""Jobs as processes of this machine, run by the supervisor's runners."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

from ...core.errors import Unavailable
from ...ports.processes import Interpreter, JobExit, JobRun
from ..isolation import Isolation
from ..supervisor_client import SupervisorClient
from .warm import WarmInterpreters

SHELL = shutil.which("bash") or "/bin/sh"


class LocalExecutor:
    """Implements Executor."""

    def __init__(self, supervisor: SupervisorClient, isolation: Isolation, interpreters: WarmInterpreters) -> None:
        self._supervisor = supervisor
        self._isolation = isolation
        self._interpreters = interpreters

    def warm(self, wanted: Interpreter, command: str) -> Path | None:
        return self._interpreters.find(wanted, command)

    async def start(self, run: JobRun) -> None:
        request = {
            "id": run.id,
            "argv": [SHELL, "-c", run.command],
            "cwd": str(run.cwd),
            "environment": dict(run.environment),
            "log": str(run.log),
            "log_limit": run.log_limit,
            "folder": str(run.folder),
            "sandbox": self._isolation.document(run.sandbox),
            "own": [str(path) for path in run.sandbox.writable],
            "timeout_s": run.timeout_s,
            "sample_s": run.sample_s,
            "cpus": run.cpus,
            "warm": self._interpreters.request(run),
        }
        self._interpreters.used(run)
        await self._supervisor.call("start", id=run.id, kind="job", request=request, secrets=dict(run.secrets))

    async def wait(self, id: str, folder: Path) -> JobExit:
        while True:
            found = _record(folder)
            if found is None:
                try:
                    answer = await self._supervisor.call("wait", patient=True, id=id, folder=str(folder))
                except Unavailable:
                    await asyncio.sleep(0.5)
                    continue
                found = answer["exit"]
            if found is None:
                return JobExit("lost", None, "the command's process vanished without a record")
            keep = ("reason", "code", "message", "started_ms", "ended_ms", "usage", "start")
            return JobExit(**{key: found[key] for key in keep if found.get(key) is not None or key == "code"})

    def metrics(self, folder: Path, offset: int) -> tuple[list[dict[str, Any]], int]:
        try:
            with (folder / "metrics.jsonl").open("rb") as file:
                file.seek(offset)
                data = file.read(1 << 20)
        except FileNotFoundError:
            return [], offset
        whole = data[: data.rfind(b"\n") + 1]
        return [json.loads(line) for line in whole.splitlines()], offset + len(whole)

    async def cancel(self, id: str) -> None:
        await self._supervisor.call("stop", id=id)


def _record(folder: Path) -> dict[str, Any] | None:
    try:
        document: dict[str, Any] = json.loads((folder / "exit.json").read_text())
    except (OSError, ValueError):
        return None
    return document
