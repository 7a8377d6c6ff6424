"""Servers kept alive in memory."""

from __future__ import annotations

import itertools
from dataclasses import replace

from ...ports.replicas import Replica, ReplicaStatus


class MemoryReplicas:
    """Implements Replicas. Nothing is run: a replica that is wanted is running."""

    def __init__(self) -> None:
        self.wanted: dict[str, tuple[Replica, ReplicaStatus]] = {}
        self._pids = itertools.count(1)

    async def ensure(self, replica: Replica) -> None:
        if replica.id not in self.wanted or self.wanted[replica.id][0] != replica:
            self.wanted[replica.id] = (replica, ReplicaStatus(True, 0, pid=next(self._pids)))

    async def remove(self, id: str) -> None:
        self.wanted.pop(id, None)

    async def restart(self, id: str) -> None:
        replica, status = self.wanted[id]
        self.wanted[id] = (replica, replace(status, restarts=status.restarts + 1, pid=next(self._pids), last_exit="killed by signal 15"))

    async def status(self, id: str) -> ReplicaStatus | None:
        return self.wanted[id][1] if id in self.wanted else None

    async def list(self, prefix: str = "") -> list[str]:
        return sorted(id for id in self.wanted if id.startswith(prefix))
