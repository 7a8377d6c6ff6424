"""The health of instances: the state that is reported of each, and the liveness probe, which ends one that has stopped answering."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from typing import Any

from ...engine.yard import Yard
from ...spec.states import InstanceState, ProvisioningState
from . import service
from .model import DeploymentRecord
from .replicas import folder_of, request

log = logging.getLogger(__name__)
LOOK_S = 1.0


async def instances(yard: Yard, record: DeploymentRecord) -> list[dict[str, Any]]:
    """The instances that serve, and those of a generation that is being started."""
    numbers = [(record.live, index) for index in range(record.live_instances)] if record.live else []
    if record.generation != record.live:
        numbers += [(record.generation, index) for index in range(record.first_instances)]
    return list(await asyncio.gather(*(_instance(yard, record, generation, index) for generation, index in numbers)))


async def _instance(yard: Yard, record: DeploymentRecord, generation: int, index: int) -> dict[str, Any]:
    status = await yard.replicas.status(record.replica_id(index, generation))
    known = {"name": f"{generation}-{index}", "generation": generation}
    if status is None:
        return {**known, "state": InstanceState.MISSING}
    if not status.running:
        state = InstanceState.BACK_OFF
    else:
        state = InstanceState.RUNNING if await _answers(yard, record, index, generation, LOOK_S) else InstanceState.STARTING
    return {
        **known, "state": state, "restarts": status.restarts, "reason": status.last_exit or None,
        "memory_mb": round(status.memory_bytes / 2**20, 1), "running_s": round(status.since_s, 1) if status.running else None,
    }  # fmt: skip


async def _answers(yard: Yard, record: DeploymentRecord, index: int, generation: int, timeout: float) -> bool:
    try:
        status, _ = await request(folder_of(yard, record, index, generation) / "run" / "sock", "GET", "/", timeout)
    except OSError:
        return False
    return status == 200


async def mark_unanswering(yard: Yard) -> None:
    """As the server starts: a deployment whose instances do not answer, as after a reboot, is `Updating` until they do."""
    records = [record for record in await yard.db.read(service.live) if record.state is ProvisioningState.SUCCEEDED]
    await asyncio.gather(*(_mark(yard, record) for record in records))


async def _mark(yard: Yard, record: DeploymentRecord) -> None:
    indices = range(record.live_instances)
    if not all(await asyncio.gather(*(_answers(yard, record, index, record.live, LOOK_S) for index in indices))):
        await yard.db.write(lambda unit: service.set_restoring(unit, record), workspace=record.workspace)


@dataclass
class Seen:
    """The probe's memory of an instance: its process, when it is probed next (monotonic clock), probes in a row without an answer."""

    pid: int | None
    due: float
    failures: int = 0


class LivenessLoop:
    """Probes every instance that serves, as its `liveness_probe` says; one that does not answer is ended, and started again."""

    name = "liveness"
    topics = ("online_deployment.ready",)
    every = 1.0
    exclusive = False

    def __init__(self, yard: Yard) -> None:
        self.yard = yard
        self._seen: dict[str, Seen] = {}

    async def turn(self) -> None:
        records = await self.yard.db.lookup(service.live)
        serving = {record.replica_id(index, record.live): (record, index) for record in records for index in range(record.live_instances)}
        self._seen = {id: seen for id, seen in self._seen.items() if id in serving}
        now = time.monotonic()
        due = [(id, *instance) for id, instance in serving.items() if id not in self._seen or self._seen[id].due <= now]
        await asyncio.gather(*(self._look(*item) for item in due))

    async def _look(self, id: str, record: DeploymentRecord, index: int) -> None:
        probe = record.spec.liveness_probe
        status = await self.yard.replicas.status(id)
        pid = status.pid if status is not None else None
        seen = self._seen.get(id)
        if seen is None or seen.pid != pid or pid is None:
            self._seen[id] = Seen(pid, time.monotonic() + probe.initial_delay)
            return
        answers = await _answers(self.yard, record, index, record.live, probe.timeout)
        seen.failures = 0 if answers else seen.failures + 1
        seen.due = time.monotonic() + probe.period
        if answers and record.state is ProvisioningState.FAILED and record.is_restored:
            await self.yard.db.write(lambda unit: service.set_restoring(unit, record), workspace=record.workspace)
        if seen.failures >= probe.failure_threshold:
            log.warning("instance %s did not answer its liveness probe %d times; it is started again", id, seen.failures)
            await self.yard.replicas.restart(id)
            del self._seen[id]
