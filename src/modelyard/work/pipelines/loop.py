"""Takes pipelines that something happened to as far as they go."""

from __future__ import annotations

import asyncio
import logging
import time

from ...core.errors import PASSING, YardError
from ...engine.yard import Yard
from ..compute.model import machine
from ..jobs import service as jobs
from ..jobs.model import LOG
from . import service

log = logging.getLogger(__name__)


class PipelinesLoop:
    name = "pipelines"
    topics = ("pipeline.due",)
    every = 2.0
    exclusive = False

    def __init__(self, yard: Yard) -> None:
        self.yard = yard
        self.machine = machine(yard.settings.cpu_slots)

    async def turn(self) -> None:
        for workspace, name in await self.yard.db.read(lambda unit: jobs.due(unit, "pipeline")):
            try:
                await self._advance(workspace, name)
            except YardError as error:
                if error.code not in PASSING:
                    await self._give_up(workspace, name, error.message)
            except Exception:
                log.exception("pipeline %s cannot be taken further", name)
                await self._give_up(workspace, name, "the yard failed at this pipeline; its server log says more")

    async def _give_up(self, workspace: str, name: str, reason: str) -> None:
        """Better an end that says why than a turn that fails again and again."""
        await self.yard.db.write(lambda unit: service.give_up(unit, name, reason), workspace=workspace)

    async def _advance(self, workspace: str, name: str) -> None:
        values: dict[str, str] = {}
        while True:
            try:
                lines = await self.yard.db.write(lambda unit: service.advance(unit, name, values, self.machine), workspace=workspace)
            except service.NeedValue as need:
                data = await asyncio.to_thread(lambda digest=need.digest: b"".join(self.yard.objects.open(digest)))  # type: ignore[misc]
                values[need.digest] = data.decode("utf-8", "replace")
                continue
            break
        if lines:
            await asyncio.to_thread(self._say, name, lines)

    def _say(self, name: str, lines: list[str]) -> None:
        """What happened, in the pipeline's own log: what `yard job stream` shows of a pipeline."""
        path = self.yard.home.jobs / name / "logs" / LOG
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as file:
            file.writelines(f"{time.strftime('%H:%M:%S')} {line}\n" for line in lines)
