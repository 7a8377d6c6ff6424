"""One attempt of one job, driven from its current state to its end: load, process, apply.

What the database knows is read in one unit; three units change the job: the one that claimed it, one when it runs, one at its end. Each
can be missing after a crash: the job's state and the executor's records of the attempt tell where to resume.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import cached_property
from typing import Any, TypeVar

from modelyard_runtime.protocol import ExitRecord

from ...core.errors import NO_ROOM, Conflict, Superseded, YardError, disk_full
from ...engine.yard import Yard
from ...spec.states import JobState
from . import resolution, service
from .keeping import keep
from .kinds import Execution, execution_of
from .logs import YardLog
from .model import JobRecord
from .outcome import AttemptResults, Failure
from .preparation import prepare
from .service import Ticket

T = TypeVar("T")
SOON_S = 0.3
"""Storing outputs is shown as the state Finalizing only when it takes longer."""
log = logging.getLogger(__name__)


class Attempt:
    def __init__(self, yard: Yard, record: JobRecord, ticket: Ticket | None) -> None:
        self.yard = yard
        self.record = record
        self.cancel_requested = record.cancel_requested
        """Set by the loop as soon as it sees the request."""
        self.task: asyncio.Task[None] | None = None
        """The task that drives it. Referenced here, as an event loop holds only weak references to tasks."""
        self.log = YardLog(yard.home, record.name)
        self._ticket = ticket
        self._settled: dict[str, Any] = {}
        """Properties that are known once the command was started."""

    @cached_property
    def execution(self) -> Execution:
        return execution_of(self.record)

    async def drive(self) -> None:
        try:
            if not await self._is_started():
                await self._start()
            exit = await self._wait()
            results = await self._keep(exit)
            await self._write(service.finish_attempt, self.record, exit, results)
            await self.yard.executor.release(self.record.name)
        except Superseded:
            return
        except YardError as error:
            if error.transient:
                raise  # the next turn of the loop resumes the job
            self.log.say(f"failed: {error}")
            await self._fail({"code": error.code, "message": error.message, **({"hint": error.hint} if error.hint else {})})
        except OSError as error:
            if error.errno in NO_ROOM:
                raise disk_full(f"job {self.record.name} goes on as soon as there is room") from error
            await self._fail({"code": "preparation_failed", "message": f"the job could not be prepared: {error}"})
        except Exception:
            log.exception("job %s failed inside the yard", self.record.name)
            await self._fail({"code": "internal", "message": "the yard failed at this job; its server log says more"})

    async def _is_started(self) -> bool:
        if self._ticket is not None:
            return False  # this server has just claimed the job
        return self.record.state is not JobState.PREPARING or await self.yard.executor.started(self.record.attempt_id)

    async def _start(self) -> None:
        await self._check_canceled()
        ticket = self._ticket
        if ticket is None:
            ticket = await self._write(service.ticket, self.record, self.yard.vault)
        material = await self.yard.db.read(
            lambda unit: resolution.material(unit, self.record, self.execution), workspace=self.record.workspace
        )
        run = await prepare(self.yard, self.record, self.execution, ticket, material, self.log.say)
        await self._check_canceled()
        hardware = await self.yard.executor.start(run, self.log.say)
        self._settled = {"environment_key": run.environment, **({"machine": dict(hardware)} if hardware else {})}

    async def _check_canceled(self) -> None:
        if self.cancel_requested:
            await self._end(JobState.CANCELED, None)
            raise Superseded("canceled", code="stale_attempt")

    async def _wait(self) -> ExitRecord:
        id = self.record.attempt_id
        if self.record.state is JobState.PREPARING:
            current = await self._write(service.set_running, self.record.name, self.record.attempt, **self._settled)
            self.cancel_requested = self.cancel_requested or current.cancel_requested
        if self.cancel_requested:
            await self.yard.executor.cancel(id)
        measuring = asyncio.create_task(self._measure())
        try:
            return await self.yard.executor.wait(id)
        finally:
            measuring.cancel()

    async def _measure(self) -> None:
        """Log the runner's samples as metrics while the job runs, so that its chart grows."""
        offset = 0
        while self.yard.settings.system_metrics_s > 0:
            await asyncio.sleep(self.yard.settings.system_metrics_s)
            try:
                samples, following = await self.yard.executor.samples(self.record.attempt_id, offset)
                if samples:
                    await self._write(service.keep_system_metrics, self.record.name, samples)
                offset = following
            except (YardError, OSError) as error:
                log.warning("samples of job %s could not be logged, and are tried again: %s", self.record.name, error)

    async def _keep(self, exit: ExitRecord) -> AttemptResults:
        """Storing that takes long shows in the job's state."""
        keeping = asyncio.create_task(keep(self.yard, self.record, self.execution, exit, self.log))
        await asyncio.wait([keeping], timeout=SOON_S)
        try:
            if not keeping.done() and self.record.state in (JobState.PREPARING, JobState.RUNNING):
                await self._write(service.set_finalizing, self.record.name, self.record.attempt)
        finally:
            await asyncio.wait([keeping])  # nobody may release the folder while it is read
        return keeping.result()

    async def _fail(self, error: Failure) -> None:
        """End the job; its command first, where one was started."""
        id = self.record.attempt_id
        try:
            if await self.yard.executor.started(id):
                await self.yard.executor.cancel(id)
                await self.yard.executor.wait(id)
        except YardError as unreachable:
            log.warning("the command of job %s, which fails, could not be ended: %s", self.record.name, unreachable)
        await self._end(JobState.FAILED, error)

    async def _end(self, state: JobState, error: Failure | None) -> None:
        try:
            await self._write(service.end, self.record.name, self.record.attempt, state, error)
        except Conflict:
            return
        await self.yard.executor.release(self.record.name)

    async def _write(self, fn: Callable[..., T], *args: Any, **values: Any) -> T:
        return await self.yard.db.write(lambda unit: fn(unit, *args, **values), workspace=self.record.workspace)
