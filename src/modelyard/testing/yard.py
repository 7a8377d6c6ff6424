"""A yard in this process: its own database, routes, services and loops, over drivers in memory and a clock that is turned.

Nothing happens by itself: `call` answers one request, and the loops run in `settle`, as long as there is something for them to do. So a
test says what happens when, waits for nothing, and sees the same each time. What needs processes (a router, a model server, a runner)
takes a `YardProcess`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import httpx

from ..app.asgi import make_asgi
from ..app.compose import compose, loops_of
from ..app.features import DIALECTS, FEATURES
from ..app.home import first_start
from ..core.actor import SYSTEM, Actor
from ..core.home import Home
from ..drivers.objects.layout import LocalLayout
from ..engine.dialect import Dialect
from ..engine.feature import Feature
from ..engine.yard import Yard
from ..settings import Settings
from ..storage.migrate import migrate
from ..storage.open import open_database
from ..storage.unit import Unit
from .clock import TurnedClock
from .memory.builder import MemoryBuilder
from .memory.executor import Answer, MemoryExecutor, succeed
from .memory.objects import MemoryObjects
from .memory.replicas import MemoryReplicas
from .memory.vault import MemoryVault

T = TypeVar("T")
WITHOUT_PROCESSES = tuple(feature for feature in FEATURES if feature.start is None)
"""All but online endpoints: what a feature starts before the yard answers are processes, such as the router."""
MOST_TURNS = 1000
"""More than any story of a test needs; a loop that wakes itself for ever is found."""


class InProcessYard:
    def __init__(
        self,
        root: Path,
        *,
        features: Sequence[Feature] = WITHOUT_PROCESSES,
        dialects: Sequence[Dialect] = DIALECTS,
        answer: Answer = succeed,
        database_url: str = "",
        start: str = "",
    ) -> None:
        """`answer`: what commands of jobs do. `start`: the time on the clock, ISO."""
        self.home = Home(root)
        self.home.prepare()
        self.clock = TurnedClock(start) if start else TurnedClock()
        self.db = open_database(database_url or f"sqlite:///{self.home.database}", clock=self.clock, elapsed=self.clock.elapsed, readers=1)
        migrate(self.db, self.home.backups)
        objects = MemoryObjects()
        self.executor = MemoryExecutor(objects, answer)
        self.yard = Yard(
            home=self.home, settings=Settings(isolation="off"), db=self.db, objects=objects,
            layout=LocalLayout(objects, self.home.trees, self.home.tmp), executor=self.executor,
            replicas=MemoryReplicas(),
            builder=MemoryBuilder(), vault=MemoryVault(), node="here", url="http://127.0.0.1", router_url="http://127.0.0.1",
        )  # fmt: skip
        self._runner = asyncio.Runner()
        composition = compose(features)
        self._topics: set[str] = set()
        self.db.listeners.append(self._topics.update)
        self.run(first_start(self.yard))
        self._loops = loops_of(composition, self.yard)
        self.token = self.home.admin_token.read_text().strip()
        self._app = make_asgi(composition, self.yard, dialects)

    def close(self) -> None:
        self._runner.close()
        self.db.close()

    def run(self, work: Awaitable[T]) -> T:
        async def whole() -> T:
            return await work

        return self._runner.run(whole())

    def call(self, method: str, path: str, *, token: str | None = None, expect: int | None = None, **more: Any) -> httpx.Response:
        """One request, with the first owner's token when none is given. AssertionError when the status is not the expected one."""
        headers = {"Authorization": f"Bearer {token or self.token}", **more.pop("headers", {})}

        async def asked() -> httpx.Response:
            transport = httpx.ASGITransport(self._app)
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", headers=headers) as client:
                return await client.request(method, path, **more)

        response = self.run(asked())
        if expect is not None:
            assert response.status_code == expect, f"{method} {path}: {response.status_code} {response.text}"
        return response

    def mlflow(
        self, method: str, path: str, body: Any = None, /, *, expect: int | None = 200, token: str | None = None, **params: Any
    ) -> Any:
        return self.call(method, f"/api/2.0/mlflow/{path}", json=body, params=params or None, expect=expect, token=token).json()

    def write(self, fn: Callable[[Unit], T], actor: Actor = SYSTEM, workspace: str = "default") -> T:
        return self.run(self.db.write(fn, actor, workspace))

    def read(self, fn: Callable[[Unit], T], actor: Actor = SYSTEM, workspace: str = "default") -> T:
        return self.run(self.db.read(fn, actor, workspace))

    def settle(self) -> None:
        """Turn every loop until there is nothing more for any to do at this moment of the clock."""
        self.run(self._settle())

    async def _settle(self) -> None:
        for _ in range(MOST_TURNS):
            self._topics.clear()
            for loop in self._loops:
                await loop.turn()
            await self._begun()
            if not self._topics:
                return
        raise AssertionError(f"the loops found no rest in {MOST_TURNS} turns: {sorted(self._topics)}")

    async def _begun(self) -> None:
        """Wait for the jobs that the loops began, but for those whose commands go on (`executor.finish` ends them)."""
        while tasks := [task for task in asyncio.all_tasks() if self._is_under_way(task.get_name())]:
            await asyncio.wait(tasks, timeout=0.01)

    def _is_under_way(self, task: str) -> bool:
        kind, _, job = task.partition(":")
        return kind == "job" and not self.executor.goes_on(job)
