"""Servers kept alive: the suite that every driver of the port passes, and one in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from ...ports.replicas import Replica, Replicas, ReplicaStatus


@dataclass
class Servers:
    """What the suite needs of a driver."""

    replicas: Replicas
    folder: Path
    """Where servers may work and log."""

    def server(self, id: str, command: str = "exec sleep 300") -> Replica:
        folder = self.folder / id.replace("/", "-")
        folder.mkdir(exist_ok=True)
        return Replica(id, ("/bin/sh", "-c", command), folder, folder / "log", {"PATH": "/usr/bin:/bin"})

    async def until(self, id: str, condition: Callable[[ReplicaStatus], bool]) -> ReplicaStatus:
        """The first status of a replica for which a condition holds; TimeoutError after 30 s."""
        async with asyncio.timeout(30):
            while True:
                status = await self.replicas.status(id)
                if status is not None and condition(status):
                    return status
                await asyncio.sleep(0.02)

    async def until_gone(self, id: str) -> None:
        """TimeoutError when it is still there after 30 s."""
        async with asyncio.timeout(30):
            while await self.replicas.status(id) is not None:
                await asyncio.sleep(0.02)


class ReplicasSuite:
    """Subclass it with a fixture `servers`, which ends what it started."""

    @pytest.fixture
    def servers(self) -> Servers:
        raise NotImplementedError

    def test_a_server_that_is_wanted_runs_until_it_is_removed(self, servers: Servers) -> None:
        async def story() -> None:
            await servers.replicas.ensure(servers.server("web"))
            status = await servers.until("web", lambda status: status.running)
            assert status.restarts == 0 and status.pid
            await servers.replicas.remove("web")
            await servers.until_gone("web")
            await servers.replicas.remove("web")

        asyncio.run(story())

    def test_the_same_definition_changes_nothing_and_another_replaces_it(self, servers: Servers) -> None:
        async def story() -> None:
            await servers.replicas.ensure(servers.server("web"))
            first = await servers.until("web", lambda status: status.running)
            await servers.replicas.ensure(servers.server("web"))
            same = await servers.until("web", lambda status: status.running)
            assert same.pid == first.pid
            await servers.replicas.ensure(servers.server("web", "exec sleep 301"))
            other = await servers.until("web", lambda status: status.running and status.pid != first.pid)
            assert other.restarts == 0, "a new definition begins to count anew"

        asyncio.run(story())

    def test_a_restart_is_another_process_and_is_counted(self, servers: Servers) -> None:
        async def story() -> None:
            await servers.replicas.ensure(servers.server("web"))
            first = await servers.until("web", lambda status: status.running)
            await servers.replicas.restart("web")
            again = await servers.until("web", lambda status: status.running and status.pid != first.pid)
            assert again.restarts == 1 and "signal" in again.last_exit

        asyncio.run(story())

    def test_servers_are_listed_by_how_their_names_begin(self, servers: Servers) -> None:
        async def story() -> None:
            for id in ("a/1", "a/2", "b/1"):
                await servers.replicas.ensure(servers.server(id))
            assert sorted(await servers.replicas.list("a/")) == ["a/1", "a/2"]
            assert sorted(await servers.replicas.list()) == ["a/1", "a/2", "b/1"]
            assert await servers.replicas.list("c") == []

        asyncio.run(story())

    def test_what_was_never_wanted_has_no_status(self, servers: Servers) -> None:
        assert asyncio.run(servers.replicas.status("none")) is None
