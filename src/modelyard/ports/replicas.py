"""Servers that are restarted until they are stopped: the router, and the instances of deployments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class Sandbox:
    """What a process may touch. Everything else of the yard's home is out of its reach."""

    writable: tuple[Path, ...] = ()
    readable: tuple[Path, ...] = ()
    tmp: Path | None = None
    """Of `writable`, what it finds as `/tmp`."""


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
