"""What the tests of the runtime's programs stand on."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from checked_yard import YardUnderTest
from grounds import Ground
from scripts import Scripts


@pytest.fixture
def ground(tmp_path: Path) -> Iterator[Ground]:
    made = Ground(tmp_path)
    yield made
    asyncio.run(made.client.call("shutdown", all=True))


@pytest.fixture
def scripts(yard: YardUnderTest, tmp_path: Path, request: pytest.FixtureRequest) -> Scripts:
    made = Scripts(yard, tmp_path)
    made.kind = abs(hash(request.node.name))  # an interpreter of its own
    return made
