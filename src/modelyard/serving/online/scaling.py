"""What follows from how deployments do: more or fewer instances by their load, more or less traffic by their answers."""

from __future__ import annotations

import asyncio
import functools
import logging
import math
import time
from dataclasses import dataclass
from pathlib import Path

from ...core.errors import Conflict, YardError
from ...engine.yard import Yard
from . import service
from .model import DeploymentRecord, Scale
from .replicas import Maker, RouterTable

log = logging.getLogger(__name__)
OFTEN_S, SELDOM_S = 0.5, 10.0


def wanted(scale: Scale, load: int, concurrent: int, instances: int, quiet_s: float) -> int:
    """`load`: most requests that were held at a time, of which an instance takes `concurrent`; `quiet_s`: for how long it has asked for fewer instances than there are."""
    needed = math.ceil(load / max(1.0, concurrent * scale.target / 100))
    needed = max(scale.least, min(scale.most, needed))
    if needed > instances:
        return needed
    if needed < instances and quiet_s >= scale.quiet_s:
        return needed if needed == 0 else instances - 1
    return instances


class RolloutsLoop:
    """Looks at what a deployment that is being rolled out to answers, and gives it more traffic, or none."""

    name = "rollouts"
    topics = ("online_endpoint.rollout_started",)
    every = 1.0
    exclusive = False

    def __init__(self, yard: Yard, table: RouterTable) -> None:
        self.yard = yard
        self.table = table

    async def turn(self) -> None:
        records = await self.yard.db.lookup(service.running_rollouts)
        counted = await self.table.counted() if records else {}
        for record in records:
            now = counted.get((record.workspace, record.endpoint, record.rollout.to)) or NOTHING
            watch = functools.partial(service.watch_rollout, seen=record, now=now)
            if await self.yard.db.write(watch, workspace=record.workspace):
                await self.table.push()


NOTHING = {"requests": 0, "failed": 0, "buckets": [], "bounds_ms": []}
"""What a deployment that was not asked yet has answered."""


@dataclass
class _Seen:
    quiet_since: float | None = None
    busy: asyncio.Task[None] | None = None


class ScalingLoop:
    """Looks at the load of every deployment that scales, and starts and ends its instances."""

    name = "scaling"
    topics = ("online_deployment.",)
    every = OFTEN_S
    exclusive = False

    def __init__(self, yard: Yard, table: RouterTable, runtime: Path) -> None:
        self.yard = yard
        self.table = table
        self.runtime = runtime
        self._seen: dict[tuple[str, str, str], _Seen] = {}

    async def turn(self) -> None:
        live = await self.yard.db.lookup(service.live)
        records = [record for record in live if record.scale is not None and record.live == record.generation]
        self.every = OFTEN_S if records else SELDOM_S
        if not records:
            self._seen.clear()
            return
        loads = await self.table.loads()
        now = time.monotonic()
        for record in records:
            scale = record.scale
            assert scale is not None
            place = (record.workspace, record.endpoint, record.name)
            seen = self._seen.setdefault(place, _Seen())
            load = loads.get(place)
            if load is None or (seen.busy is not None and not seen.busy.done()):
                continue
            fewer = wanted(scale, *load, record.live_instances, math.inf) < record.live_instances
            seen.quiet_since = (seen.quiet_since or now) if fewer else None
            count = wanted(scale, *load, record.live_instances, now - seen.quiet_since if seen.quiet_since else 0.0)
            if count != record.live_instances:
                seen.busy = asyncio.create_task(self._to(record, count), name=f"scaling:{'/'.join(place)}")
                seen.quiet_since = None

    async def _to(self, record: DeploymentRecord, count: int) -> None:
        maker = Maker(self.yard, record.at_live(), self.runtime)
        try:
            if count > record.live_instances:
                await maker.add(range(record.live_instances, count))
                await self._settle(record, count)
            else:
                await self._settle(record, count)
                await maker.take_away(range(count, record.live_instances))
        except Conflict:
            return  # it was changed meanwhile: the next turn looks at what it is now
        except (YardError, OSError) as error:
            log.warning("deployment %s/%s cannot be scaled to %d: %s", record.endpoint, record.name, count, error)

    async def _settle(self, record: DeploymentRecord, count: int) -> None:
        await self.yard.db.write(lambda unit: service.set_instances(unit, record, count), workspace=record.workspace)
        await self.table.push()
