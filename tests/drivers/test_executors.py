"""Every executor through the conformance suite of its port."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelyard.drivers.objects.local import LocalObjects
from modelyard.testing.executor import Bench, ExecutorSuite, play
from modelyard.testing.memory import MemoryExecutor


class TestMemoryExecutor(ExecutorSuite):
    @pytest.fixture
    def bench(self, tmp_path: Path) -> Bench:
        objects = LocalObjects(tmp_path)
        return Bench(MemoryExecutor(objects, play), objects)
