"""Keeps how late it was: expiries go by a time that never goes back (`core.clock.ExpiryClock`)."""

from __future__ import annotations

from ..storage import high_water
from .yard import Yard


class ClockLoop:
    name = "clock"
    topics: tuple[str, ...] = ()
    every = 60.0
    exclusive = False

    def __init__(self, yard: Yard) -> None:
        self.yard = yard

    async def turn(self) -> None:
        self.yard.db.expiry.raise_to(await self.yard.db.write(high_water.keep))
