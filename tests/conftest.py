"""Shared fixtures: real yards, a real PostgreSQL, and a client for each."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from contract import Contract

PYTHON = sys.executable
YARD = str(Path(sys.executable).parent / "yard")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Torture tests run only when they are asked for."""
    if "torture" not in (config.getoption("-m") or ""):
        chosen = [item for item in items if not item.get_closest_marker("torture")]
        config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
        items[:] = chosen


def wait_for(condition: Callable[[], Any], seconds: float = 60, what: str = "the condition") -> Any:
    """The first true answer of `condition`; fails the test when there is none in time."""
    deadline = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > deadline:
            pytest.fail(f"{what} did not come true within {seconds} s")
        time.sleep(0.02)


_contracts: list[Contract] = []


def contract_of(url: str) -> Contract:
    """What the program under test declares, asked for once: every yard of a test run is of the same code."""
    if not _contracts:
        _contracts.append(Contract(httpx.get(f"{url}/openapi.json", timeout=60, trust_env=False).raise_for_status().json()))
    return _contracts[0]


@dataclass
class YardUnderTest:
    """A yard in a home of its own, driven by its command line and its REST API."""

    home: Path
    database_url: str = ""
    settings: str = ""
    """Lines of server.toml."""

    @property
    def environment(self) -> dict[str, str]:
        keep = {k: v for k, v in os.environ.items() if not k.startswith(("YARD_", "MLFLOW_"))}
        return {**keep, "YARD_HOME": str(self.home), "XDG_CONFIG_HOME": str(self.home) + "-config", "YARD_FETCH_ALLOWED_HOSTS": "127.0.0.1"}

    def run(self, *arguments: str, ok: bool = True, stdin: str = "", **more: Any) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [YARD, *arguments], capture_output=True, text=True, env=self.environment, input=stdin, timeout=300, cwd=more.get("cwd")
        )
        if ok and done.returncode != 0:
            pytest.fail(f"yard {' '.join(arguments)} exited with {done.returncode}:\n{done.stdout}\n{done.stderr}\n{self.log()[-3000:]}")
        return done

    def json(self, *arguments: str, **more: Any) -> Any:
        return json.loads(self.run(*arguments, "-o", "json", **more).stdout)

    def up(self) -> None:
        if self.settings:
            self.home.mkdir(parents=True, exist_ok=True)
            (self.home / "server.toml").write_text(self.settings)
        extra = ["--database-url", self.database_url] if self.database_url else []
        self.run("up", "--port", "0", *extra)

    def down(self) -> None:
        self.run("down", "--all", ok=False)

    @property
    def record(self) -> dict[str, Any]:
        return dict(json.loads((self.home / "control" / "server.json").read_text()))

    @property
    def url(self) -> str:
        return str(self.record["url"])

    @property
    def token(self) -> str:
        return (self.home / "control" / "admin.token").read_text().strip()

    def kill_server(self) -> None:
        """kill -9, and wait until it is gone."""
        pid = self.record["pid"]
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not alive(pid), 10, "the end of the server")

    def rest(self, token: str | None = None) -> httpx.Client:
        """A client whose native answers are checked against the OpenAPI document."""
        headers = {"Authorization": f"Bearer {token or self.token}"}
        hooks = {"response": [self._check]}
        return httpx.Client(base_url=self.url, headers=headers, timeout=60, trust_env=False, event_hooks=hooks)

    def _check(self, response: httpx.Response) -> None:
        if response.request.url.path.startswith("/api/v1/"):
            if not response.headers.get("content-type", "").startswith(("text/", "application/octet-stream")):
                response.read()  # logs and files may be streams without an end
            contract_of(self.url).check(response)

    def call(self, method: str, path: str, *, token: str | None = None, expect: int | None = None, **kwargs: Any) -> httpx.Response:
        with self.rest(token) as client:
            response = client.request(method, path, **kwargs)
        if expect is not None:
            assert response.status_code == expect, f"{method} {path}: {response.status_code} {response.text}"
        return response

    def mlflow(
        self, method: str, path: str, body: Any = None, /, *, expect: int | None = 200, token: str | None = None, **params: Any
    ) -> Any:
        response = self.call(method, f"/api/2.0/mlflow/{path}", json=body, params=params or None, expect=expect, token=token)
        return response.json()

    def log(self) -> str:
        path = self.home / "control" / "server.log"
        return path.read_text() if path.exists() else ""

    def wait_job(self, name: str, seconds: float = 90) -> dict[str, Any]:
        def ended() -> dict[str, Any] | None:
            job = self.call("GET", f"/api/v1/workspaces/default/jobs/{name}", expect=200).json()
            return job if job["status"] in ("Completed", "Failed", "Canceled") else None

        return dict(wait_for(ended, seconds, f"the end of job {name}"))

    def submit(self, command: str, **fields: Any) -> str:
        """A job with an empty environment: it starts at once."""
        body = {"type": "command", "command": command, "environment": {"pip": []}, **fields}
        return str(self.call("POST", "/api/v1/workspaces/default/jobs", json=body, expect=201).json()["name"])

    def job_log(self, name: str) -> str:
        return self.call("GET", f"/api/v1/workspaces/default/jobs/{name}/logs", expect=200).text


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in ("Z", "X")
    except OSError:
        return False


def postgres_binaries() -> Path | None:
    found = shutil.which("initdb")
    if found:
        return Path(found).resolve().parent
    places = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return places[-1].parent if places else None


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], str]]:
    """A real PostgreSQL server; each call makes a new database and answers its address."""
    binaries = postgres_binaries()
    if binaries is None:
        pytest.skip("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    folder = Path("/tmp") / f"yard-postgres-{os.getpid()}"
    folder.mkdir(mode=0o777)
    folder.chmod(0o777)
    as_user: list[str] = []
    if os.geteuid() == 0:
        as_user = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    data = folder / "data"
    subprocess.run(
        [*as_user, binaries / "initdb", "-D", data, "-U", "yard", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C.UTF-8"],
        check=True,
        capture_output=True,
    )
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            [*as_user, binaries / "postgres", "-D", data, "-p", str(port), "-k", folder, "-c", "listen_addresses=127.0.0.1"],
            stdout=subprocess.DEVNULL,
            stderr=log,
        )
    import psycopg

    def connects() -> bool:
        try:
            psycopg.connect(f"postgresql://yard@127.0.0.1:{port}/postgres").close()
        except psycopg.OperationalError:
            return False
        return True

    wait_for(connects, 30, "PostgreSQL")
    made = 0

    def new_database() -> str:
        nonlocal made
        made += 1
        with psycopg.connect(f"postgresql://yard@127.0.0.1:{port}/postgres", autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE yard{made}")
        return f"postgresql://yard@127.0.0.1:{port}/yard{made}"

    yield new_database
    server.terminate()
    server.wait(30)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def yard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[YardUnderTest]:
    """One running yard on SQLite, shared by tests that leave it as it was or use names of their own."""
    made = YardUnderTest(tmp_path_factory.mktemp("yard") / "home")
    made.up()
    yield made
    made.down()


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
