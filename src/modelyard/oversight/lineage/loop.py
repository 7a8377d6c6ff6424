"""The emitter: tells what jobs read and wrote as they start and end, in order, each at least once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import httpx

from ...core.errors import Unavailable
from ...core.events import Event
from ...engine.yard import Yard
from ...storage import cursors
from ...tenancy.audit import service as audit
from . import service
from .emission import TIMEOUT_S, Refused, Target, append, post, read_setting

log = logging.getLogger(__name__)
READER, NOT_TAKEN = "openlineage", "openlineage_not_taken"
TOPICS = ("job.submitted", "job.running", "job.ended")
BATCH = 100


class Emitter:
    name = "openlineage"
    topics = ("job.",)
    every = 10.0
    exclusive = True

    def __init__(self, yard: Yard) -> None:
        self.yard = yard
        self._target = read_setting(yard.settings.openlineage, yard.settings.openlineage_api_key)

    async def turn(self) -> None:
        if self._target is None:
            return
        after = await self.yard.db.read(lambda unit: cursors.position(unit, READER))
        if after is None:
            after = await self.yard.db.write(lambda unit: cursors.begin(unit, READER))
        while True:
            happened, upto = await self.yard.db.read(lambda unit, after=after: audit.happened(unit, after, TOPICS, BATCH))  # type: ignore[misc]
            taken = after
            try:
                async for seq in self._emit(self._target, happened):
                    taken = seq
                taken = upto
                self.yard.alarms.end(NOT_TAKEN)
            except Unavailable as problem:
                self.yard.alarms.sound(NOT_TAKEN, "lineage", f"{problem.message}; events wait, in order")
            if taken - after > BATCH or (happened and taken > after):
                await self.yard.db.write(lambda unit, taken=taken: cursors.move_to(unit, READER, taken))  # type: ignore[misc]
            if taken < upto or len(happened) < BATCH:
                return
            after = upto

    async def _emit(self, target: Target, happened: list[Event]) -> AsyncIterator[int]:
        """Up to which event the target has taken them. Raises Unavailable where it takes no more."""
        documents = [(event, document) for event in happened if (document := await self._document(event)) is not None]
        if target.file is not None:
            await asyncio.to_thread(append, target.file, [document for _, document in documents])
            return
        async with httpx.AsyncClient(timeout=TIMEOUT_S, trust_env=False) as client:
            for event, document in documents:
                try:
                    await post(client, target, document)
                except Refused as refusal:
                    log.warning("the OpenLineage event %s of %s was refused: %s", event.topic, event.subject, refusal)
                yield event.seq

    async def _document(self, event: Event) -> dict[str, Any] | None:
        return await self.yard.db.read(lambda unit: service.happening(unit, event), workspace=event.workspace)
