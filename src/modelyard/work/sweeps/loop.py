"""Takes sweeps further when a trial ended, and looks at the metrics of those that stop trials early."""

from __future__ import annotations

import logging

from ...core.errors import PASSING, YardError
from ...engine.yard import Yard
from ...storage.unit import Unit
from ..compute.model import machine
from ..jobs import service as jobs
from . import service

log = logging.getLogger(__name__)


class SweepsLoop:
    name = "sweeps"
    topics = ("sweep.due",)
    every = 2.0
    exclusive = False

    def __init__(self, yard: Yard) -> None:
        self.yard = yard
        self.machine = machine(yard.settings.cpu_slots)

    async def turn(self) -> None:
        for workspace, name in await self.yard.db.read(self._due):
            try:
                await self.yard.db.write(lambda unit, name=name: service.advance(unit, name, self.machine), workspace=workspace)  # type: ignore[misc]
            except YardError as error:
                if error.code not in PASSING:
                    await self._give_up(workspace, name, error.message)
            except Exception:
                log.exception("sweep %s cannot be taken further", name)
                await self._give_up(workspace, name, "the yard failed at this sweep; its server log says more")

    async def _give_up(self, workspace: str, name: str, reason: str) -> None:
        await self.yard.db.write(lambda unit: service.give_up(unit, name, reason), workspace=workspace)

    def _due(self, unit: Unit) -> list[tuple[str, str]]:
        found = jobs.due(unit, "sweep")
        watched = [(workspace, name) for workspace, name in jobs.running(unit, "sweep") if service.is_watched(unit.at(workspace), name)]
        return list(dict.fromkeys([*found, *watched]))
