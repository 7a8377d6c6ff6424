"""Claims queued jobs when there is capacity, and drives each from its state to its end.

Every step can be repeated: after a crash the next server reads the state, the attempt's folder and the runner's record, and
resumes there. Results are applied under the attempt's fencing token, so that a stale one changes nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging

from ...core.errors import Conflict, YardError
from ...engine.yard import Yard
from ...storage.unit import Unit
from . import service, store
from .attempt import Attempt
from .model import JobRecord
from .queue import fair_share, free_gpus
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
        capacity = self.yard.executor.capacity()
        for record in fair_share(capacity, active, heads):
            taken = await self._take(record, free_gpus(capacity, active, record.gpus))
            if taken is not None:
                active.append(taken[0])
                self._drive(*taken)

    async def _take(self, record: JobRecord, gpu_ids: str) -> tuple[JobRecord, Ticket | None] | None:
        """Claim the job for this node; None when another server or a cancel was first."""
        with contextlib.suppress(YardError):  # parsed here, not in the writer's transaction; the attempt reports what is wrong
            _ = record.spec
        begin = functools.partial(service.begin_attempt, record=record, node=self.yard.node, gpu_ids=gpu_ids, vault=self.yard.vault)
        try:
            return await self.yard.db.write(begin, workspace=record.workspace)
        except Conflict:
            return None

    def _load(self, unit: Unit) -> tuple[list[JobRecord], dict[str, list[JobRecord]]]:
        return store.active_on(unit, self.yard.node), store.queued_heads(unit, 2 * self.yard.executor.capacity().cpus)

    def _drive(self, record: JobRecord, ticket: Ticket | None) -> None:
        attempt = self._driving[record.name] = Attempt(self.yard, record, ticket)
        task = attempt.task = asyncio.create_task(attempt.drive(), name=f"job:{record.name}")

        def ended(task: asyncio.Task[None]) -> None:
            self._driving.pop(record.name, None)
            if not task.cancelled() and task.exception() is not None:
                log.error("job %s: the drive failed and is taken up again", record.name, exc_info=task.exception())

        task.add_done_callback(ended)
