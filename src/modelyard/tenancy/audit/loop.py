"""The sealer: chains committed audit rows by hash, away from the writes themselves."""

from __future__ import annotations

from ...engine.yard import Yard
from . import service


class Sealer:
    name = "audit-sealer"
    topics: tuple[str, ...] = ()
    every = 5.0
    exclusive = True

    def __init__(self, yard: Yard) -> None:
        self.yard = yard

    async def turn(self) -> None:
        while await self.yard.db.write(service.seal) == 1000:
            pass
