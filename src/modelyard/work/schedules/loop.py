"""Fires what is due, and looks whether what change triggers wait for has changed."""

from __future__ import annotations

import functools
import logging

from ...core.clock import JumpWatch
from ...core.errors import YardError
from ...engine.yard import Yard
from ...storage.unit import Unit
from . import service, store

log = logging.getLogger(__name__)
Schedules = list[tuple[str, str]]
"""(workspace, name) of each."""
JUMP_MS = 60_000
"""A clock that moves further than this beside the time that has passed was set."""
SKEW_MS = 1_000
"""By which the clocks of two servers may differ."""


class SchedulesLoop:
    name = "schedules"
    topics = ("schedule.", "data.", "job.ended", "files.")
    every = 1.0
    exclusive = False

    def __init__(self, yard: Yard) -> None:
        self.yard = yard
        self._jumps = JumpWatch(yard.db.elapsed)

    async def turn(self) -> None:
        due, watching, ahead, now = await self.yard.db.lookup(self._load)
        clock_was_set = self._jumps.jumped(now) > JUMP_MS
        for workspace, name in ahead:
            await self.yard.db.write(lambda unit, name=name: service.plan_anew(unit, name), workspace=workspace)  # type: ignore[misc]
        for workspace, name in due:
            await self._fire(workspace, name, functools.partial(service.fire_due, clock_was_set=clock_was_set))
        for workspace, name in watching:
            # Checked by a reader first: walking a folder must not block the writer.
            if await self.yard.db.read(lambda unit, name=name: service.has_changed(unit, name), workspace=workspace):  # type: ignore[misc]
                await self._fire(workspace, name, service.fire_changed)

    def _load(self, unit: Unit) -> tuple[Schedules, Schedules, Schedules, int]:
        """(those that are due, those that wait for a change, those whose next due time is to be found again, the time)"""
        return store.due(unit, unit.now), store.watching(unit), store.planned_ahead(unit, unit.now, SKEW_MS), unit.now

    async def _fire(self, workspace: str, name: str, fire: object) -> None:
        machine = self.yard.executor.capacity()
        try:
            job = await self.yard.db.write(lambda unit: fire(unit, name, machine), workspace=workspace)  # type: ignore[operator]
        except YardError as error:
            if error.transient:
                return
            message = error.message
            await self.yard.db.write(lambda unit: service.keep_error(unit, name, message), workspace=workspace)
            log.warning("schedule %s could not make its job: %s", name, message)
        else:
            if job:
                log.info("schedule %s made job %s", name, job)
