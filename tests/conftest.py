"""Shared fixtures: real yards, a real PostgreSQL, and a client for each."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest

import checked_yard
from checked_yard import YardUnderTest
from modelyard.app.compose import compose
from modelyard.app.features import FEATURES
from modelyard.storage.database import Database
from modelyard.storage.migrate import migrate
from modelyard.storage.open import open_database
from modelyard.testing.process import FORKS
from modelyard.testing.yard import InProcessYard
from postgres_server import PostgresServer

# The same examples each time, however busy the machine is; `--hypothesis-seed` asks for others.
hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None)
hypothesis.settings.load_profile("repeatable")


compose(FEATURES)  # every table and every kind of job is known to services that are called without a yard


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Torture tests run only when they are asked for."""
    if "torture" not in (config.getoption("-m") or ""):
        chosen = [item for item in items if not item.get_closest_marker("torture")]
        config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
        items[:] = chosen


@pytest.fixture(scope="session")
def postgres() -> Iterator[Callable[[], str]]:
    """A real PostgreSQL server; each call makes a new database and answers its address."""
    server = PostgresServer(Path("/tmp") / f"yard-postgres-{os.getpid()}")
    server.start()
    yield server.new_database
    server.remove()


@pytest.fixture(scope="session", autouse=True)
def environments(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Environments are built once for all yards of a test run, whichever worker they belong to."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "environments"
    folder.mkdir(mode=0o755, exist_ok=True)
    checked_yard.environments.append(folder)
    yield
    FORKS.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def db(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """An empty database of each kind, with every table."""
    url = request.getfixturevalue("postgres")() if request.param == "postgresql" else f"sqlite:///{tmp_path / 'yard.db'}"
    made = open_database(url)
    migrate(made, tmp_path / "backups")
    yield made
    made.close()


@pytest.fixture(scope="session")
def yard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[YardUnderTest]:
    """One running yard on SQLite, shared by tests that leave it as it was or use names of their own."""
    made = YardUnderTest(tmp_path_factory.mktemp("yard") / "home")
    made.up()
    yield made
    made.down()


@pytest.fixture
def turned(tmp_path: Path) -> Iterator[InProcessYard]:
    """A yard in this process, whose clock stands at noon of 2026-01-05, a Monday, until it is turned."""
    made = InProcessYard(tmp_path / "home")
    yield made
    made.close()


@pytest.fixture
def own_yard(tmp_path: Path) -> Iterator[YardUnderTest]:
    """A running yard for one test, which may kill it."""
    made = YardUnderTest(tmp_path / "home")
    made.up()
    yield made
    made.down()


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def any_yard(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[YardUnderTest]:
    """A running yard on each database."""
    url = request.getfixturevalue("postgres")() if request.param == "postgresql" else ""
    made = YardUnderTest(tmp_path_factory.mktemp(request.param) / "home", url)
    made.up()
    yield made
    made.down()
