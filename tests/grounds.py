"""A supervisor by itself, and short ways to run jobs and servers under it."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Any, cast

from modelyard.drivers.executor.local.executor import LocalExecutor
from modelyard.drivers.executor.local.folder import JobFolder
from modelyard.drivers.executor.local.warm import WarmInterpreters
from modelyard.drivers.isolation import Isolation
from modelyard.drivers.objects.layout import LocalLayout
from modelyard.drivers.objects.local import LocalObjects
from modelyard.drivers.replicas.process import ProcessReplicas
from modelyard.drivers.supervisor_client import SupervisorClient
from modelyard.ports.builder import Builder, Built
from modelyard.ports.executor import AttemptId, Command, JobRun
from modelyard.ports.replicas import Replica
from modelyard.testing.waiting import wait_for
from modelyard_runtime.protocol import ExitRecord

NONE = Isolation(False, False, 0)


class ThisPython:
    """The part of a builder that an executor uses: every environment is the Python that runs the tests."""

    def find(self, key: str) -> Built:
        return Built(key, Path(sys.executable), (Path(sys.prefix), Path(sys.base_prefix)))


class Ground:
    """A supervisor in a folder of its own, and short ways to run jobs and servers under it."""

    def __init__(self, root: Path, isolation: Isolation = NONE) -> None:
        self.root = root
        self.isolation = isolation
        self.by_mark_only = False
        for name in ("supervisor", "blobs", "trees", "tmp", "jobs"):
            (root / name).mkdir(parents=True)
        self.client = SupervisorClient(root / "supervisor")
        self.objects = LocalObjects(root / "blobs")
        self.executor = self.executor_of(self.client)
        self.replicas = ProcessReplicas(self.client, isolation)

    def executor_of(self, client: SupervisorClient) -> LocalExecutor:
        layout = LocalLayout(self.objects, self.root / "trees", self.root / "tmp")
        interpreters = WarmInterpreters(client, self.isolation, self.root, self.root / "jobs", 0)
        return LocalExecutor(client, self.isolation, interpreters, cast(Builder, ThisPython()), self.objects, layout, self.root / "jobs")

    def job(self, name: str, command: str, **more: Any) -> JobRun:
        return JobRun(AttemptId(name, 1), "default", Command(command), "here", **more)

    async def start(self, job: JobRun) -> None:
        await self.executor.start(job, lambda line: None)

    def run(self, name: str, command: str, **more: Any) -> ExitRecord:
        async def whole() -> ExitRecord:
            job = self.job(name, command, **more)
            await self.start(job)
            return await self.executor.wait(job.id)

        return asyncio.run(whole())

    def work(self, name: str) -> Path:
        """The working directory of a job."""
        return JobFolder(self.root / "jobs", name).code

    def records(self, name: str) -> Path:
        """Where the runner of its first attempt keeps its request and exit record."""
        return JobFolder(self.root / "jobs", name).attempt(AttemptId(name, 1))

    def log(self, name: str) -> str:
        path = JobFolder(self.root / "jobs", name).log
        return path.read_text() if path.exists() else ""

    def runner(self, name: str) -> int:
        """The pid of the runner of a job's first attempt, once it has written that; its command may be further by then."""
        record = self.records(name) / "running.json"
        wait_for(record.exists, 10, "the record of the runner")
        return int(json.loads(record.read_text())["runner"]["pid"])

    def child(self, file: str, name: str = "j") -> int:
        """A pid that a job wrote into a file of its working directory."""
        return int((self.work(name) / file).read_text())

    @property
    def yard_digest(self) -> str:
        """What the marks of its commands begin with."""
        return hashlib.sha256(os.path.realpath(self.root / "supervisor").encode()).hexdigest()[:16]

    @property
    def pid(self) -> int:
        return int(json.loads((self.root / "supervisor" / "running.json").read_text())["pid"])


def server(ground: Ground, name: str, script: str) -> Replica:
    folder = ground.root / name
    folder.mkdir(exist_ok=True)
    return Replica(name, ("/bin/sh", "-c", script), folder, folder / "log", {"PATH": os.environ["PATH"]})
