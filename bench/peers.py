"""The programs that a yard is compared with: installed into virtual environments of their own, started on loopback, ended as trees."""

from __future__ import annotations

import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from measure import process_tree

MLFLOW = "mlflow==3.17.2"


class NotAvailable(Exception):
    """A peer that does not install or start: its row is left out, with this as the reason."""


class Venv:
    """A virtual environment with these requirements: created when it is missing, and again when they have changed."""

    def __init__(self, folder: Path, requirements: Sequence[str]) -> None:
        self.folder = folder
        self.requirements = tuple(requirements)

    def install(self) -> None:
        """By pip, which knows the user's index and compiles what it installs. Raises NotAvailable."""
        requirements, mark = "\n".join(self.requirements), self.folder / "installed"
        if mark.exists() and mark.read_text() == requirements:
            return
        shutil.rmtree(self.folder, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", self.folder], check=True)
        if self.requirements:
            command = [self.program("python"), "-m", "pip", "install", "--quiet", *self.requirements]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode != 0:
                raise NotAvailable(f"not installed: {last_line(done.stderr)}")
        mark.write_text(requirements)

    def program(self, name: str) -> str:
        return str(self.folder / "bin" / name)

    def environment(self, **variables: str) -> dict[str, str]:
        """This process's variables, with the venv's programs first on PATH."""
        return {**os.environ, "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}", **variables}

    def version(self, package: str) -> str:
        code = "import importlib.metadata, sys; print(importlib.metadata.version(sys.argv[1]))"
        return subprocess.run([self.program("python"), "-c", code, package], check=True, capture_output=True, text=True).stdout.strip()


def last_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[-1][:200]


def start(
    command: Sequence[str], ready: Callable[[], bool], log: Path, seconds: float = 60, *,
    cwd: Path | None = None, environment: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:  # fmt: skip
    """Start a server and wait until it is ready. Raises NotAvailable, with the server ended, when it ends or `seconds` pass."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=cwd, env=environment, stdout=output, stderr=output, start_new_session=True)
    try:
        wait_until(lambda: process.poll() is not None or ready(), seconds)
        if process.poll() is not None:
            raise NotAvailable(f"ended with {process.returncode}; see {log}")
    except BaseException:
        end(process)
        raise
    return process


def wait_until(condition: Callable[[], bool], seconds: float = 60) -> None:
    """Raises NotAvailable when `condition` does not hold in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise NotAvailable(f"not ready in {seconds:.0f} s")
        time.sleep(0.05)


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and everything below it."""
    for pid in reversed(process_tree(process.pid) if process.poll() is None else []):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def is_healthy(port: int) -> bool:
    """Whether /health is answered with 200."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


class MlflowServer(NamedTuple):
    url: str
    pid: int
    store: Path
    """Its folder; `db.sqlite` lies there."""


@contextmanager
def mlflow_server(work: Path) -> Iterator[MlflowServer]:
    """`mlflow server` on SQLite, with an empty store and its default number of workers, once it has come to rest."""
    venv = Venv(work / "mlflow-venv", [MLFLOW])
    venv.install()
    port, store = free_port(), work / "mlflow-store"
    shutil.rmtree(store, ignore_errors=True)
    store.mkdir()
    command = [
        venv.program("mlflow"), "server", "--host", "127.0.0.1", "--port", str(port),
        "--backend-store-uri", f"sqlite:///{store}/db.sqlite", "--artifacts-destination", str(store),
    ]  # fmt: skip
    process = start(command, lambda: is_healthy(port), work / "mlflow.log", 120, environment=venv.environment())
    try:
        time.sleep(12)  # its helper processes are busy for some ten seconds after its health check
        yield MlflowServer(f"http://127.0.0.1:{port}", process.pid, store)
    finally:
        end(process)
