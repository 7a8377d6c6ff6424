"""Takes queued jobs when there is room, and drives each from its state to its end.

Every step can be done again: after a crash the next server looks at the state, the attempt's folder and the runner's
record, and goes on from there. Results are applied guarded by the attempt, so that a stale one changes nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging

from ...core.errors import Conflict, YardError
from ...engine.yard import Yard
from ...ports.executor import Share
from ...storage.unit import Unit
from . import service, store
from .attempt import Attempt
from .model import JobRecord
from .service import Ticket

log = logging.getLogger(__name__)


class JobsLoop:
    name = "jobs"
    topics = ("job.submitted", "job.ended", "job.cancel_requested")
    every = 2.0
    exclusive = False

    def __init__(self, yard: Yard) -> None:
        self.yard = yard
        self._driving: dict[str, Attempt] = {}

    async def turn(self) -> None:
        active, heads = await self.yard.db.lookup(self._load)
        for record in active:
            if record.name not in self._driving:
                self._drive(record, None)
            elif record.cancel_requested:
                self._driving[record.name].cancel_requested = True
                if record.attempt_to_end is not None:
                    await self.yard.executor.cancel(record.attempt_to_end)
        for record in self._choose(active, heads):
            taken = await self._take(record, self._free_gpus(active, record.gpus))
            if taken is not None:
                active.append(taken[0])
                self._drive(*taken)

    async def _take(self, record: JobRecord, gpu_ids: str) -> tuple[JobRecord, Ticket | None] | None:
        """Take the job for this node; None when another server or a cancel was first."""
        with contextlib.suppress(YardError):  # parsed here, not while the writer waits; the attempt tells what is wrong
            _ = record.spec
        begin = functools.partial(service.begin_attempt, record=record, node=self.yard.node, gpu_ids=gpu_ids, vault=self.yard.vault)
        try:
            return await self.yard.db.write(begin, workspace=record.workspace)
        except Conflict:
            return None

    def _load(self, unit: Unit) -> tuple[list[JobRecord], dict[str, list[JobRecord]]]:
        return store.active_on(unit, self.yard.node), store.queued_heads(unit, 2 * self.yard.executor.capacity().cpus)

    def _choose(self, active: list[JobRecord], heads: dict[str, list[JobRecord]]) -> list[JobRecord]:
        """Fill the free share, always from the workspace that has the least running."""
        free = self.yard.executor.capacity()
        running: dict[str, int] = {}
        on_compute: dict[tuple[str, str], int] = {}
        for record in active:
            free = free.minus(Share(record.cpus, record.memory, record.gpus))
            running[record.workspace] = running.get(record.workspace, 0) + 1
            place = (record.workspace, record.compute)
            on_compute[place] = on_compute.get(place, 0) + 1
        chosen: list[JobRecord] = []
        waiting = {workspace: list(queue) for workspace, queue in heads.items()}
        while waiting:
            workspace = min(waiting, key=lambda name: running.get(name, 0))
            queue = waiting[workspace]
            if not queue:
                del waiting[workspace]
                continue
            record = queue.pop(0)
            share = Share(record.cpus, record.memory, record.gpus)
            place = (workspace, record.compute)
            if record.max_instances is not None and on_compute.get(place, 0) >= record.max_instances:
                continue
            if not share.fits(free):
                # Nothing smaller overtakes within the workspace: a large job is not starved by small ones.
                del waiting[workspace]
                continue
            free = free.minus(share)
            running[workspace] = running.get(workspace, 0) + 1
            on_compute[place] = on_compute.get(place, 0) + 1
            chosen.append(record)
        return chosen

    def _free_gpus(self, active: list[JobRecord], wanted: int) -> str:
        used = {id for record in active for id in record.gpu_ids.split(",") if id}
        return ",".join([str(id) for id in range(self.yard.executor.capacity().gpus) if str(id) not in used][:wanted])

    def _drive(self, record: JobRecord, ticket: Ticket | None) -> None:
        attempt = self._driving[record.name] = Attempt(self.yard, record, ticket)
        task = attempt.task = asyncio.create_task(attempt.drive(), name=f"job:{record.name}")

        def ended(task: asyncio.Task[None]) -> None:
            self._driving.pop(record.name, None)
            if not task.cancelled() and task.exception() is not None:
                log.error("job %s: the drive failed and is taken up again", record.name, exc_info=task.exception())

        task.add_done_callback(ended)
