"""Drivers in memory, for tests that need no processes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from modelyard_runtime.protocol import ExitRecord, Reason

from ...core.errors import Invalid
from ...ports.executor import LOG, AttemptId, Collected, InputFiles, JobRun, Log, MachinePath, OutputPort, RunInput, Share
from ...ports.objects import File, ObjectStore, Tree

CODE = "/code"


@dataclass
class Process:
    """A command, as the function that answers for it sees it. Files are path → content, its own and what it reads alike."""

    run: JobRun
    command: str
    environment: Mapping[str, str]
    """Secrets included."""
    files: dict[str, bytes]
    log: bytearray = field(default_factory=bytearray)
    installed: list[str] = field(default_factory=list)
    """What it installs, as `name==version`."""

    def say(self, text: str) -> None:
        """To standard output."""
        self.log += text.encode()


Answer = Callable[[Process], int | None]
"""Reads and writes the files of a process and gives its exit code; None when it goes on until it is canceled or its time is over."""


def succeed(process: Process) -> int:
    return 0


class MemoryExecutor:
    """Implements Executor. Runs nothing: a function answers for every command, when it is started; time does not pass."""

    def __init__(self, objects: ObjectStore, answer: Answer = succeed, capacity: Share = Share(4, 2**33)) -> None:
        self._objects = objects
        self._answer = answer
        self._capacity = capacity
        self._processes: dict[AttemptId, Process] = {}
        self._ends: dict[AttemptId, asyncio.Future[ExitRecord]] = {}
        self._logs: dict[str, bytearray] = {}

    def capacity(self) -> Share:
        return self._capacity

    async def started(self, id: AttemptId) -> bool:
        return id in self._ends

    async def start(self, run: JobRun, log: Log) -> Mapping[str, str | int]:
        if run.id in self._ends:
            return {}
        process = self._laid_out(run)
        log(f"starting: {process.command}")
        self._ends[run.id] = asyncio.get_running_loop().create_future()
        self._processes[run.id] = process
        code = self._answer(process)
        self._logs.setdefault(run.id.job, bytearray()).extend(process.log[: run.log_limit])
        if code is not None:
            self._end(run.id, ExitRecord(Reason.EXITED, code, f"exit code {code}"))
        elif run.timeout_s is not None:
            self._end(run.id, ExitRecord(Reason.TIMEOUT, None, f"ended after {run.timeout_s} s"))
        return {}

    async def wait(self, id: AttemptId) -> ExitRecord:
        if id not in self._ends:
            return ExitRecord(Reason.LOST, None, "the attempt was never started")
        return await asyncio.shield(self._ends[id])

    async def cancel(self, id: AttemptId) -> None:
        if id in self._ends:
            self._end(id, ExitRecord(Reason.CANCELED, None, "canceled"))

    async def samples(self, id: AttemptId, offset: int) -> tuple[list[dict[str, Any]], int]:
        return [], offset

    async def read_log(self, job: str, offset: int, limit: int) -> bytes:
        return bytes(self._logs.get(job, b"")[offset : offset + limit])

    async def collect(self, id: AttemptId, outputs: Mapping[str, OutputPort]) -> Collected:
        files = self._processes[id].files if id in self._processes else {}
        installed = self._processes[id].installed if id in self._processes else []
        collected = Collected(installed=installed, logs=self._stored([(LOG, bytes(self._logs.get(id.job, b"")))]))
        for port, output in outputs.items():
            path = f"/outputs/{port}/"
            names = [output.file] if output.file else [name.removeprefix(path) for name in files if name.startswith(path)]
            collected.outputs[port] = self._stored((name, files[path + name]) for name in names if path + name in files)
            collected.unchanged[port] = {
                file.path for file in collected.outputs[port] if (file.path, file.digest) in self._present(id, port)
            }  # fmt: skip
        for folder in ("outputs/", "logs/"):
            below = f"{CODE}/{folder}"
            collected.artifacts += self._stored(
                (path.removeprefix(f"{CODE}/"), data) for path, data in files.items() if path.startswith(below)
            )
        return collected

    def _present(self, id: AttemptId, port: str) -> set[tuple[str, str]]:
        output = self._processes[id].run.outputs[port]
        if not isinstance(output.present, Tree):
            return set()
        return {(output.file or file.path, file.digest) for file in output.present.files}

    async def release(self, job: str, *, logs: bool = False) -> None:
        self._processes = {id: process for id, process in self._processes.items() if id.job != job}
        if logs:
            self._logs.pop(job, None)

    def finish(self, job: str, code: int = 0) -> None:
        """Let the commands of a job that go on exit with this code."""
        for id in self._ends:
            if id.job == job:
                self._end(id, ExitRecord(Reason.EXITED, code, f"exit code {code}"))

    def goes_on(self, job: str) -> bool:
        """Whether a command of a job was started and has not ended."""
        return any(id.job == job and not end.done() for id, end in self._ends.items())

    def _end(self, id: AttemptId, record: ExitRecord) -> None:
        if not self._ends[id].done():
            self._ends[id].set_result(record)

    def _laid_out(self, run: JobRun) -> Process:
        files = {f"{CODE}/{file.path}": self._content(file) for file in (run.code.files if run.code else ())}
        inputs = {port: self._input(port, value, files) for port, value in run.inputs.items()}
        outputs = {port: f"/outputs/{port}" + (f"/{output.file}" if output.file else "") for port, output in run.outputs.items()}
        for port, output in run.outputs.items():
            if isinstance(output.present, Tree):
                files |= {f"/outputs/{port}/{output.file or file.path}": self._content(file) for file in output.present.files}
        command, variables = run.bound(inputs, outputs)
        return Process(run, command, {**variables, **run.secrets}, files)

    def _input(self, port: str, value: RunInput, files: dict[str, bytes]) -> str:
        """The text of an input, or its path, where its files are put."""
        if isinstance(value, str):
            return value
        if isinstance(value, MachinePath):
            raise Invalid(f"input {port} is a folder of the server's machine, which jobs in memory do not read", code="unreachable_input")
        return self._put(f"/inputs/{port}", value, files)

    def _put(self, folder: str, value: InputFiles, files: dict[str, bytes]) -> str:
        files |= {f"{folder}/{file.path}": self._content(file) for file in value.tree.files}
        return f"{folder}/{value.tree.files[0].path}" if value.single else folder

    def _content(self, file: File) -> bytes:
        return b"".join(self._objects.open(file.digest))

    def _stored(self, files: Iterable[tuple[str, bytes]]) -> list[File]:
        return [File(name, blob.digest, blob.size) for name, data in sorted(files) for blob in (self._objects.put_bytes(data),)]
