"""What the machine can run for a yard: jobs to their end, and servers for as long as they are wanted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from modelyard_runtime.protocol import ExitRecord


@dataclass(frozen=True)
class Sandbox:
    """What a process may touch. Everything else of the yard's home is out of its reach."""

    writable: tuple[Path, ...] = ()
    readable: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Interpreter:
    """What jobs have in common that may share a warm interpreter: their workspace, their Python, and what it sees when it is started."""

    workspace: str
    python: Path
    readable: tuple[Path, ...]
    environment: Mapping[str, str]


@dataclass(frozen=True)
class JobRun:
    """One attempt of one job. `secrets` become environment variables that are never written to disk."""

    id: str
    command: str
    cwd: Path
    folder: Path
    """Where the runner keeps its request and exit record; user code cannot write there."""
    log: Path
    environment: Mapping[str, str]
    secrets: Mapping[str, str]
    sandbox: Sandbox
    timeout_s: int | None = None
    log_limit: int = 256 * 2**20
    cpus: int = 1
    sample_s: int = 10
    """Seconds between samples of what it uses of the machine; 0 for none."""
    interpreter: Interpreter | None = None
    """What a warm interpreter for this job would be; None for a job that always starts its own process."""
    warm: Path | None = None
    """The warm interpreter that may fork it, as `Executor.warm` gave it."""


class Executor(Protocol):
    """Runs attempts of jobs. `start` is idempotent by id: an attempt that was started is never started again."""

    async def start(self, run: JobRun) -> None: ...

    async def wait(self, id: str, folder: Path) -> ExitRecord:
        """Wait for the attempt's end, across restarts of the yard; `lost` when its runner vanished without a record."""
        ...

    def warm(self, wanted: Interpreter, command: str) -> Path | None:
        """A warm interpreter that can run `command` now. Jobs that it runs read nothing but their own folders and their environment."""
        ...

    def metrics(self, folder: Path, offset: int) -> tuple[list[dict[str, Any]], int]:
        """Samples `{time_ms, values: {name: number}}` written since `offset` (0 at first), and the offset to go on from."""
        ...

    async def cancel(self, id: str) -> None:
        """End the whole tree of the attempt: asked first, killed 10 s later."""
        ...


@dataclass(frozen=True)
class Replica:
    """One server process that is kept alive. It listens on `socket` (a unix socket) or on a port of its own."""

    id: str
    argv: tuple[str, ...]
    cwd: Path
    log: Path
    environment: Mapping[str, str]
    sandbox: Sandbox | None = None
    """None: the yard's own program, with the yard's rights (the router)."""
    socket: Path | None = None
    memory_bytes: int | None = None
    """It is ended, and started again, when all its processes together hold more."""


@dataclass(frozen=True)
class ReplicaStatus:
    running: bool
    restarts: int
    """Times it ended by itself since it was last changed."""
    last_exit: str = ""
    """How it last ended, for a person: `exit code 1`, `killed by signal 9`."""
    pid: int | None = None
    since_s: float = 0.0
    """How long it has been running."""
    memory_bytes: int = 0
    cpu_s: float = 0.0
    """CPU time of all its processes since it was started."""


class Replicas(Protocol):
    """Keeps servers running through crashes, with back-off, and across restarts of the yard."""

    async def ensure(self, replica: Replica) -> None:
        """Start it, or replace it when its definition changed; the same definition changes nothing."""
        ...

    async def remove(self, id: str) -> None: ...

    async def restart(self, id: str) -> None:
        """End it now; it is started again as one that ended by itself."""
        ...

    async def status(self, id: str) -> ReplicaStatus | None: ...

    async def list(self, prefix: str = "") -> list[str]: ...
