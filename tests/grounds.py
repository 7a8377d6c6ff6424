"""A supervisor by itself, and short ways to run jobs and servers under it."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

from modelyard.drivers.executor.local import LocalExecutor
from modelyard.drivers.executor.warm import WarmInterpreters
from modelyard.drivers.isolation import Isolation
from modelyard.drivers.replicas.process import ProcessReplicas
from modelyard.drivers.supervisor_client import SupervisorClient
from modelyard.ports.processes import JobRun, Replica, Sandbox
from modelyard_runtime.protocol import ExitRecord

NONE = Isolation(False, False, 0)


class Ground:
    """A supervisor in a folder of its own, and short ways to run things under it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "supervisor").mkdir(parents=True)
        self.client = SupervisorClient(root / "supervisor")
        self.executor = LocalExecutor(self.client, NONE, WarmInterpreters(self.client, NONE, root, root, 0))
        self.replicas = ProcessReplicas(self.client, NONE)

    def job(self, name: str, command: str, **more: Any) -> JobRun:
        folder = self.root / name
        for part in ("work", "control"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        values: dict[str, Any] = {
            "id": name, "command": command, "cwd": folder / "work", "folder": folder / "control", "log": folder / "log",
            "environment": {"PATH": os.environ["PATH"]}, "secrets": {}, "sandbox": Sandbox((folder / "work",)),
        }  # fmt: skip
        return JobRun(**{**values, **more})

    def run(self, name: str, command: str, **more: Any) -> ExitRecord:
        async def whole() -> ExitRecord:
            job = self.job(name, command, **more)
            await self.executor.start(job)
            return await self.executor.wait(name, job.folder)

        return asyncio.run(whole())

    def log(self, name: str) -> str:
        return (self.root / name / "log").read_text()

    @property
    def pid(self) -> int:
        return int(json.loads((self.root / "supervisor" / "running.json").read_text())["pid"])


def server(ground: Ground, name: str, script: str) -> Replica:
    folder = ground.root / name
    folder.mkdir(exist_ok=True)
    return Replica(name, ("/bin/sh", "-c", script), folder, folder / "log", {"PATH": os.environ["PATH"]})
