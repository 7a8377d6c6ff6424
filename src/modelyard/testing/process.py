"""A yard as a person has it: processes of its own in a home of its own, driven by its command line and its REST API."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from .forks import Forks
from .waiting import alive, wait_for

YARD = str(Path(sys.executable).parent / "yard")
FORKS = Forks()
Check = Callable[[str, httpx.Response], None]
"""Looks at each native answer; it is given the yard's address too."""


@dataclass
class YardProcess:
    home: Path
    database_url: str = ""
    settings: str = ""
    """Lines of server.toml."""
    environments: Path | None = None
    """A folder with built environments that several yards share; None for one of its own."""
    check: Check | None = None

    @property
    def environment(self) -> dict[str, str]:
        keep = {k: v for k, v in os.environ.items() if not k.startswith(("YARD_", "MLFLOW_"))}
        own = {"YARD_HOME": str(self.home), "XDG_CONFIG_HOME": f"{self.home}-config", "YARD_ALLOW_ADDRESSES": "127.0.0.1=data"}
        return {**keep, **own, **({"YARD_ENVIRONMENTS": str(self.environments)} if self.environments is not None else {})}

    @property
    def built(self) -> Path:
        """The folder of built environments."""
        return self.environments or self.home / "envs"

    def run(self, *arguments: str, ok: bool = True, stdin: str = "", cwd: Path | str | None = None) -> subprocess.CompletedProcess[str]:
        """`yard ARGUMENTS`, to its end. Raises AssertionError with what it said and the server's log when it fails and should not (`ok`)."""
        with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            given.write(stdin.encode())
            given.seek(0)
            files = (given.fileno(), out.fileno(), err.fileno())
            code = FORKS.start("yard", arguments, self.environment, files, str(cwd) if cwd else None).wait(300)
            out.seek(0)
            err.seek(0)
            done = subprocess.CompletedProcess(["yard", *arguments], code, out.read().decode(), err.read().decode())
        if ok and code != 0:
            raise AssertionError(f"yard {' '.join(arguments)} exited with {code}:\n{done.stdout}\n{done.stderr}\n{self.log()[-3000:]}")
        return done

    def json(self, *arguments: str, **more: Any) -> Any:
        return json.loads(self.run(*arguments, "-o", "json", **more).stdout)

    def up(self, *flags: str) -> None:
        """Start the server, on the ports of its last start, and wait until it is ready."""
        self.home.mkdir(parents=True, exist_ok=True)
        if self.settings:
            (self.home / "server.toml").write_text(self.settings)
        self._start("--port", "0", "--router-port", "0", *flags)

    def _start(self, *flags: str) -> None:
        control = self.home / "control"
        control.mkdir(mode=0o700, exist_ok=True)
        environment = {**self.environment, **({"YARD_DATABASE_URL": self.database_url} if self.database_url else {})}
        with (control / "server.log").open("ab") as log, Path(os.devnull).open("rb") as nothing:
            files = (nothing.fileno(), log.fileno(), log.fileno())
            fork = FORKS.start("server", ["serve", *flags], environment, files, "/")
        fork.leave()
        wait_for(lambda: self._is_ready(fork.pid), 30, f"the start of the yard\n{self.log()[-3000:]}")

    def _is_ready(self, pid: int) -> bool:
        if not alive(pid):
            raise AssertionError(f"the yard does not start:\n{self.log()[-3000:]}")
        try:
            record = self.record
            return (
                record["pid"] == pid and httpx.get(f"{record['url']}/readyz", timeout=5, trust_env=False, verify=False).status_code == 200
            )
        except (OSError, ValueError, httpx.HTTPError):
            return False

    def down(self) -> None:
        """End the server, the jobs and the endpoints."""
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
        """kill -9, and wait until it and its lock on the home are gone."""
        os.kill(self.record["pid"], signal.SIGKILL)
        wait_for(self._is_free, 10, "the end of the server")

    def _is_free(self) -> bool:
        with (self.home / "control" / "lock").open("rb") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return False
        return True

    def rest(self, token: str | None = None) -> httpx.Client:
        """A client with a token, the first owner's when none is given. It speaks plain HTTP: certificates, slow to load, are left out."""
        headers = {"Authorization": f"Bearer {token or self.token}"}
        hooks = {"response": [self._check]}
        return httpx.Client(base_url=self.url, headers=headers, timeout=60, trust_env=False, verify=False, event_hooks=hooks)

    def _check(self, response: httpx.Response) -> None:
        if self.check is not None and response.request.url.path.startswith("/api/v1/"):
            if not response.headers.get("content-type", "").startswith(("text/", "application/octet-stream")):
                response.read()  # logs and files may be streams without an end
            self.check(self.url, response)

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
