"""Every executor through the conformance suite of its port."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from grounds import Ground
from modelyard.drivers.objects.local import LocalObjects
from modelyard.drivers.supervisor_client import SupervisorClient
from modelyard.testing.memory.executor import MemoryExecutor
from modelyard.testing.suites.executor import Bench, ExecutorSuite, play


class TestLocalExecutor(ExecutorSuite):
    @pytest.fixture
    def bench(self, tmp_path: Path) -> Iterator[Bench]:
        ground = Ground(tmp_path)
        yield Bench(ground.executor, ground.objects, again=lambda: ground.executor_of(SupervisorClient(tmp_path / "supervisor")))
        asyncio.run(ground.client.call("shutdown", all=True))


class TestMemoryExecutor(ExecutorSuite):
    @pytest.fixture
    def bench(self, tmp_path: Path) -> Bench:
        objects = LocalObjects(tmp_path)
        return Bench(MemoryExecutor(objects, play), objects)
