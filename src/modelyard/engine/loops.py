"""The loops: each turn loads what is due, processes it outside any unit, and applies the result guarded.

A loop wakes when an event it listens to was committed, and at the latest after `every` seconds, which is what makes it
recover from anything missed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import Protocol

from ..core.errors import YardError
from ..storage import leases
from .yard import Yard

log = logging.getLogger(__name__)


class Loop(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def topics(self) -> tuple[str, ...]:
        """Event topics that wake it; `job.` means all that begin so."""
        ...

    @property
    def every(self) -> float:
        """Seconds until its next turn when nothing wakes it."""
        ...

    @property
    def exclusive(self) -> bool:
        """Whether one server at a time runs it (by lease)."""
        ...

    async def turn(self) -> None: ...


class Loops:
    """Runs the loops of one server until `stop`."""

    def __init__(self, yard: Yard) -> None:
        self.yard = yard
        self._wakes: list[tuple[Loop, asyncio.Event]] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._event_loop: asyncio.AbstractEventLoop | None = None

    def start(self, loops: Iterable[Loop]) -> None:
        self._event_loop = asyncio.get_running_loop()
        self.yard.db.listeners.append(self._notify)
        for loop in loops:
            wake = asyncio.Event()
            self._wakes.append((loop, wake))
            self._tasks.append(asyncio.create_task(self._run(loop, wake), name=f"loop:{loop.name}"))

    async def stop(self) -> None:
        self.yard.db.listeners.remove(self._notify)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _notify(self, topics: list[str]) -> None:
        if self._event_loop is not None and not self._event_loop.is_closed():
            self._event_loop.call_soon_threadsafe(self._wake, topics)

    def _wake(self, topics: list[str]) -> None:
        for loop, wake in self._wakes:
            if any(topic.startswith(loop.topics) for topic in topics):
                wake.set()

    async def _run(self, loop: Loop, wake: asyncio.Event) -> None:
        pause = 0.2
        while True:
            wake.clear()
            try:
                if not loop.exclusive or await self._holds_lease(loop):
                    await loop.turn()
                pause = 0.2
            except Exception as error:
                longest_s = 30
                if isinstance(error, YardError) and error.transient:
                    log.warning("loop %s: %s; it goes on in %.1f s", loop.name, error.message, pause)
                    longest_s = 2
                else:
                    log.exception("loop %s failed; it goes on in %.1f s", loop.name, pause)
                await asyncio.sleep(pause)
                pause = min(pause * 2, longest_s)
                continue
            try:
                await asyncio.wait_for(wake.wait(), loop.every)
            except TimeoutError:
                pass

    async def _holds_lease(self, loop: Loop) -> bool:
        duration = int(loop.every * 3000) + 5000
        token = await self.yard.db.write(lambda unit: leases.acquire(unit, f"loop:{loop.name}", self.yard.node, duration))
        return token is not None
