"""Reconciles deployments with their specs: a new generation is started, then the router's table changes, then the old generation ends."""

from __future__ import annotations

import asyncio
import logging

from ...core.errors import Conflict, Superseded, YardError
from ...engine.yard import Yard
from ...spec.states import ProvisioningState
from . import service
from .model import DeploymentRecord
from .replicas import Maker, RouterTable

log = logging.getLogger(__name__)
DRAIN_S = 1.0


class DeploymentsLoop:
    name = "deployments"
    topics = ("online_",)
    every = 3.0
    exclusive = False

    def __init__(self, yard: Yard) -> None:
        self.yard = yard
        self.table = yard.one(RouterTable)
        self._making: dict[tuple[str, str, str], tuple[int, asyncio.Task[None]]] = {}
        self._restored = False

    async def turn(self) -> None:
        if not self._restored:
            await self._restore()
            self._restored = True
        for record in await self.yard.db.read(service.to_make):
            key = (record.workspace, record.endpoint, record.name)
            busy = self._making.get(key)
            if busy is not None and not busy[1].done():
                if busy[0] == record.generation and record.state is not ProvisioningState.DELETING:
                    continue
                busy[1].cancel()
                await asyncio.gather(busy[1], return_exceptions=True)
            task = asyncio.create_task(self._make(record), name=f"deployment:{'/'.join(key)}")
            self._making[key] = (record.generation, task)

    async def _restore(self) -> None:
        """After a reboot, the generations that serve while their successors are made, or have failed. The others are `Updating`."""
        for record in await self.yard.db.read(service.live):
            if record.is_restored or record.live_instances == 0 or await self.yard.replicas.list(record.replica_prefix):
                continue
            try:
                await self._maker(record.at_live()).add(range(record.live_instances))
            except YardError as error:
                log.error("deployment %s/%s cannot be started again: %s", record.endpoint, record.name, error)
        await self.table.push()

    def _maker(self, record: DeploymentRecord) -> Maker:
        return Maker(self.yard, record)

    async def _make(self, record: DeploymentRecord) -> None:
        maker = self._maker(record)
        if record.state is ProvisioningState.DELETING:
            await self.table.push()
            await maker.remove(keep=0)
            await self.yard.db.write(lambda unit: service.forget(unit, record), workspace=record.workspace)
            return
        try:
            resolved = await maker.make()
            await self.yard.db.write(lambda unit: service.set_ready(unit, record, **resolved), workspace=record.workspace)
        except Superseded:
            return
        except (YardError, OSError) as error:
            await self._fail(record, maker, error)
            return
        await self.table.push()
        if record.live and not record.is_restored:
            await asyncio.sleep(DRAIN_S)  # requests in flight to the old generation are answered
        await maker.remove(keep=record.generation)

    async def _fail(self, record: DeploymentRecord, maker: Maker, error: Exception) -> None:
        document = {"code": getattr(error, "code", "failed"), "message": getattr(error, "message", str(error))}
        maker.say(f"failed: {error}")
        if not record.is_restored:  # those that serve may answer yet: the supervisor starts them again and again
            for id in await self.yard.replicas.list(f"{record.replica_prefix}{record.generation}-"):
                await self.yard.replicas.remove(id)
        try:
            await self.yard.db.write(lambda unit: service.set_failed(unit, record, document), workspace=record.workspace)
        except Conflict:
            return
