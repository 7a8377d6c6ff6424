"""One loop for all jobs that their children carry out."""

from __future__ import annotations

import logging

from ...core.errors import YardError
from ...engine.yard import Yard
from . import service
from .kinds import job_kinds

log = logging.getLogger(__name__)


class OrchestrationLoop:
    """Takes the jobs that something happened to further. Better an end that says why than a turn that fails again and again."""

    name = "orchestration"
    every = 2.0
    exclusive = False

    def __init__(self, yard: Yard) -> None:
        self.yard = yard
        self.kinds = {name: kind.children for name, kind in job_kinds().items() if kind.children is not None}
        self.topics = tuple(f"{name}.due" for name in self.kinds)

    async def turn(self) -> None:
        machine = self.yard.executor.capacity()
        for type, children in self.kinds.items():
            for workspace, name in await self.yard.db.lookup(children.due):
                reason = ""
                try:
                    await children.advance(self.yard, machine, workspace, name)
                except YardError as error:
                    reason = "" if error.transient else error.message
                except Exception:
                    log.exception("%s %s cannot be taken further", type, name)
                    reason = f"the yard failed at this {type}; its server log says more"
                if reason:
                    await self._end(workspace, name, reason)

    async def _end(self, workspace: str, name: str, reason: str) -> None:
        await self.yard.db.write(lambda unit: service.give_up(unit, name, reason), workspace=workspace)
