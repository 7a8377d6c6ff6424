"""The alarm about content whose bytes were found to differ from their digest."""

from __future__ import annotations

import asyncio

from ...engine.yard import Yard
from ...storage.unit import Unit
from . import service

DAMAGED = "damaged_content"


class ContentAlarm:
    """Sounds for what a read or `yard fsck` has found, and ends when the content was stored again or repaired."""

    name = "content-alarm"
    topics: tuple[str, ...] = ()
    every = 5.0
    exclusive = False

    def __init__(self, yard: Yard) -> None:
        self.yard = yard

    async def turn(self) -> None:
        damaged = await asyncio.to_thread(self.yard.objects.damaged)
        self.yard.alarms.end(DAMAGED, still=damaged)
        for digest in sorted(damaged):
            if self.yard.alarms.sound(DAMAGED, digest, "stored content differs from its digest; yard fsck --repair --from PATH mends it"):
                await self.yard.db.write(lambda unit, digest=digest: _record(unit, digest))  # type: ignore[misc]


def _record(unit: Unit, digest: str) -> None:
    """An event in each workspace that has the content."""
    paths: dict[str, list[str]] = {}
    for workspace, datastore, path in service.paths_of(unit, digest):
        paths.setdefault(workspace, []).append(f"{datastore}/{path}")
    for workspace, named in paths.items():
        unit.at(workspace).record("content.damaged", digest, paths=named[:5])
