"""Servers as processes of this machine, kept alive by the supervisor."""

from __future__ import annotations

from modelyard_runtime import protocol
from modelyard_runtime.protocol import JobRequest

from ...core import trees
from ...ports.replicas import Replica, ReplicaStatus
from ..isolation import Isolation
from ..supervisor_client import SupervisorClient

LOG_BYTES = 32 * 2**20


class ProcessReplicas:
    """Implements Replicas."""

    def __init__(self, supervisor: SupervisorClient, isolation: Isolation) -> None:
        self._supervisor = supervisor
        self._isolation = isolation

    async def ensure(self, replica: Replica) -> None:
        folder = replica.log.parent / "control"
        trees.make(folder)
        request = JobRequest(
            id=replica.id,
            argv=list(replica.argv),
            cwd=str(replica.cwd),
            environment=dict(replica.environment),
            folder=str(folder),
            log=str(replica.log),
            log_limit=LOG_BYTES,
            keep_log=True,
            sandbox=self._isolation.confinement(replica.sandbox),
            own=[str(path) for path in replica.sandbox.writable] if replica.sandbox else [],
            memory_bytes=replica.memory_bytes,
        )
        await self._supervisor.call("start", id=replica.id, kind="server", request=protocol.document(request))

    async def remove(self, id: str) -> None:
        await self._supervisor.call("stop", id=id)

    async def restart(self, id: str) -> None:
        await self._supervisor.call("restart", id=id)

    async def status(self, id: str) -> ReplicaStatus | None:
        answer = await self._supervisor.call("status", id=id)
        if not answer["found"]:
            return None
        return ReplicaStatus(
            answer["running"],
            answer["restarts"],
            answer["last_exit"],
            answer["pid"],
            answer.get("since_s", 0.0),
            answer.get("memory_bytes", 0),
            answer.get("cpu_s", 0.0),
        )

    async def list(self, prefix: str = "") -> list[str]:
        answer = await self._supervisor.call("list", prefix=prefix)
        return list(answer["ids"])
