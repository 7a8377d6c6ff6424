"""Fires what is due, and looks whether what change triggers wait for has changed."""

from __future__ import annotations

import logging

from ...core.errors import YardError
from ...engine.yard import Yard
from ...storage.unit import Unit
from . import service, store

log = logging.getLogger(__name__)


class SchedulesLoop:
    name = "schedules"
    topics = ("schedule.", "data.", "job.ended", "files.")
    every = 1.0
    exclusive = False

    def __init__(self, yard: Yard) -> None:
        self.yard = yard

    async def turn(self) -> None:
        due, watching = await self.yard.db.lookup(self._load)
        for workspace, name in due:
            await self._fire(workspace, name, service.fire_due)
        for workspace, name in watching:
            # Checked by a reader first: walking a folder must not block the writer.
            if await self.yard.db.read(lambda unit, name=name: service.has_changed(unit, name), workspace=workspace):  # type: ignore[misc]
                await self._fire(workspace, name, service.fire_changed)

    def _load(self, unit: Unit) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
        return store.due(unit, unit.now), store.watching(unit)

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
