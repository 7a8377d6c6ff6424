"""What follows from how deployments do: more or fewer instances by their load, more or less traffic by their answers."""

from __future__ import annotations

import asyncio
import functools
import logging
import math
import time
from dataclasses import dataclass, field

from ...core.errors import Conflict, YardError
from ...engine.yard import Yard
from . import service
from .model import DeploymentRecord, Scale
from .replicas import Maker, RouterTable

log = logging.getLogger(__name__)
OFTEN_S, SELDOM_S = 0.5, 10.0
CPU_S = 2.0
"""CPU time is looked at over so long."""
IDLE = 0.05
"""Of an instance: an endpoint that nobody asks may use so much CPU and still sleep."""


def needed_by_requests(scale: Scale, held: int, concurrent: int) -> int:
    """Instances for a peak of `held` requests at a time, of which an instance handles `concurrent`."""
    return math.ceil(held / max(1.0, concurrent * scale.target / 100))


def needed_by_cpu(scale: Scale, held: int, used: float) -> int:
    """Instances for the CPU that was used, in instances' worth: `used` is 1.5 when three instances used half of their limit."""
    if held == 0 and used < IDLE:
        return 0
    # At least one: a deployment that is scaled to zero is started by the request that the router holds.
    return max(1, math.ceil(round(used / (scale.target / 100), 2)))


def desired(scale: Scale, needed: int, instances: int, quiet_s: float) -> int:
    """The desired number of instances; `quiet_s`: seconds for which fewer were needed than there are."""
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

    def __init__(self, yard: Yard) -> None:
        self.yard = yard
        self.table = yard.one(RouterTable)

    async def turn(self) -> None:
        records = await self.yard.db.lookup(service.running_rollouts)
        counted = await self.table.counted() if records else {}
        for record in records:
            now = counted.get((record.workspace, record.endpoint, record.spec.to)) or NOTHING
            watch = functools.partial(service.watch_rollout, seen=record, now=now)
            if await self.yard.db.write(watch, workspace=record.workspace):
                await self.table.push()


NOTHING = {"requests": 0, "failed": 0, "buckets": [], "bounds_ms": []}
"""What a deployment that was not asked yet has answered."""


@dataclass
class _Usage:
    """What the instances of a deployment use of their CPU, over the last `CPU_S`."""

    at: float = 0.0
    spent: dict[str, float] = field(default_factory=dict)  # CPU seconds by process
    instances: float = 0.0  # in use, of as many as there are
    requests: int = 0  # most that were held at a time
    arriving: int = 0  # of the time that has not ended yet

    def arrived(self, requests: int) -> bool:
        """Whether it is time to look."""
        self.arriving = max(self.arriving, requests)
        return time.monotonic() >= self.at + CPU_S

    def look(self, spent: dict[str, float], cpus: int) -> None:
        now = time.monotonic()
        more = sum(max(0.0, seconds - self.spent.get(process, seconds)) for process, seconds in spent.items())
        self.instances = more / (now - self.at) / cpus if self.at else 0.0
        self.at, self.spent = now, spent
        self.requests, self.arriving = self.arriving, 0


@dataclass
class _Seen:
    quiet_since: float | None = None
    busy: asyncio.Task[None] | None = None
    usage: _Usage = field(default_factory=_Usage)


class ScalingLoop:
    """Reconciles the number of instances of every deployment that scales with its load."""

    name = "scaling"
    topics = ("online_deployment.",)
    every = OFTEN_S
    exclusive = False

    def __init__(self, yard: Yard) -> None:
        self.yard = yard
        self.table = yard.one(RouterTable)
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
            key = (record.workspace, record.endpoint, record.name)
            seen = self._seen.setdefault(key, _Seen())
            load = loads.get(key)
            if load is None or (seen.busy is not None and not seen.busy.done()):
                continue
            if scale.by_cpu:
                if seen.usage.arrived(load[0]):
                    seen.usage.look(await self._spent(record), record.threads)
                needed = needed_by_cpu(scale, max(seen.usage.requests, seen.usage.arriving), seen.usage.instances)
            else:
                needed = needed_by_requests(scale, *load)
            fewer = desired(scale, needed, record.live_instances, math.inf) < record.live_instances
            seen.quiet_since = (seen.quiet_since or now) if fewer else None
            count = desired(scale, needed, record.live_instances, now - seen.quiet_since if seen.quiet_since else 0.0)
            if count != record.live_instances:
                seen.busy = asyncio.create_task(self._to(record, count), name=f"scaling:{'/'.join(key)}")
                seen.quiet_since = None

    async def _spent(self, record: DeploymentRecord) -> dict[str, float]:
        """CPU seconds of each instance that runs."""
        ids = [record.replica_id(index, record.live) for index in range(record.live_instances)]
        statuses = await asyncio.gather(*(self.yard.replicas.status(id) for id in ids))
        return {
            f"{id} {status.pid}": status.cpu_s for id, status in zip(ids, statuses, strict=True) if status is not None and status.running
        }

    async def _to(self, record: DeploymentRecord, count: int) -> None:
        maker = Maker(self.yard, record.at_live())
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
