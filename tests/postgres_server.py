"""A real PostgreSQL server for tests, which may stop and start it."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from modelyard.testing.waiting import wait_for


class PostgresServer:
    """`folder` must be reachable by any user: as root the server runs as nobody. Skips the test where PostgreSQL is not installed."""

    def __init__(self, folder: Path) -> None:
        self._binaries = _binaries()
        self._folder = folder
        self._as_user = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"] if os.geteuid() == 0 else []
        self._databases = 0
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(mode=0o777)
        folder.chmod(0o777)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        initdb = [self._binaries / "initdb", "-D", folder / "data", "-U", "yard", "-A", "trust", "--no-sync", "-E", "UTF8"]
        subprocess.run([*self._as_user, *initdb, "--locale=C.UTF-8"], check=True, capture_output=True)

    def start(self) -> None:
        command = [self._binaries / "postgres", "-D", self._folder / "data", "-p", str(self.port), "-k", self._folder]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*self._as_user, *command, "-c", "listen_addresses=127.0.0.1"], stdout=subprocess.DEVNULL, stderr=log
            )
        wait_for(self._connects, 30, "PostgreSQL")

    def stop(self) -> None:
        """At once: connections are ended whatever they do."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(30)
            self._process = None

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def url(self, database: str, user: str = "yard") -> str:
        return f"postgresql://{user}@127.0.0.1:{self.port}/{database}"

    def new_database(self) -> str:
        self._databases += 1
        name = f"yard{self._databases}"
        self.execute(f"CREATE DATABASE {name}")
        return self.url(name)

    def execute(self, statement: str) -> list[Any]:
        """As the server's owner, beside all yards; the rows when there are any."""
        import psycopg

        with psycopg.connect(self.url("postgres"), autocommit=True, options="-c default_transaction_read_only=off") as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def _connects(self) -> bool:
        import psycopg

        try:
            psycopg.connect(self.url("postgres")).close()
        except psycopg.OperationalError:
            return False
        return True


def _binaries() -> Path:
    initdb = shutil.which("initdb")
    installed = [Path(initdb).resolve()] if initdb else sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not installed:
        pytest.skip("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    return installed[-1].parent
