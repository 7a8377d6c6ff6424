"""The yard's programs as processes of their own, forked from one that has imported them: 10 ms instead of half a second each.

`python -m modelyard.testing.forks SOCKET modelyard.cli modelyard.app` listens on a unix socket. A connection carries one request, a line
of JSON with three open files (standard input, output and error). The answers are two lines: the pid, and the exit code once the program
has ended; a program that was killed sends no second one.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import pkgutil
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from .. import app, cli, drivers, sdk, storage
from ..app.__main__ import main
from ..cli.main import run

Program = Callable[[list[str]], int]
MOST_BYTES = 1 << 20
"""Of a request: arguments and environment."""


@dataclass
class Fork:
    """A program that was started."""

    pid: int
    _connection: socket.socket
    _answers: BinaryIO

    def wait(self, seconds: float) -> int:
        """The exit code, -9 for a program that was killed. One that is not done in time is killed, and subprocess.TimeoutExpired raised."""
        self._connection.settimeout(seconds)
        try:
            line = self._answers.readline()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            raise subprocess.TimeoutExpired(f"process {self.pid}", seconds) from None
        finally:
            self.leave()
        return int(line) if line.strip() else -signal.SIGKILL

    def leave(self) -> None:
        """Let it run on unwatched."""
        self._answers.close()
        self._connection.close()


class Forks:
    """The process that programs are forked from; started with the first one, ended with this process."""

    def __init__(self) -> None:
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._starting = threading.Lock()

    def start(
        self, program: str, arguments: Sequence[str], environment: Mapping[str, str], files: tuple[int, int, int], cwd: str | None = None
    ) -> Fork:
        """Start `yard` or `server` with these arguments. `files`: its standard input, output and error."""
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(self._address())
        request = {"program": program, "arguments": list(arguments), "environment": dict(environment), "cwd": cwd or os.getcwd()}
        text = json.dumps(request).encode() + b"\n"
        sent = socket.send_fds(connection, [text], files)
        connection.sendall(text[sent:])
        answers = connection.makefile("rb")
        return Fork(int(answers.readline()), connection, answers)

    def _address(self) -> str:
        with self._starting:
            if self._folder is None or self._process is None or self._process.poll() is not None:
                self._folder = tempfile.TemporaryDirectory(prefix="yard-forks-", ignore_cleanup_errors=True)
                address = str(Path(self._folder.name) / "socket")
                # Its standard input ends when this process does, and so does it. The names of the packages are there for `yard`, which
                # knows a server by its command line.
                self._process = subprocess.Popen(
                    [sys.executable, "-m", __name__, address, "modelyard.cli", "modelyard.app"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    start_new_session=True,
                )
                assert self._process.stdout is not None
                self._process.stdout.readline()
            return str(Path(self._folder.name) / "socket")

    def close(self) -> None:
        if self._process is not None:
            self._process.communicate()
        if self._folder is not None:
            self._folder.cleanup()
        self._process = self._folder = None


def _programs() -> dict[str, Program]:
    """What can be started, with all that it may import later."""
    for package in (cli, app, sdk, storage, drivers):
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not found.name.endswith((".__main__", ".env")):
                importlib.import_module(found.name)
    return {"yard": run, "server": main}


def serve(address: str) -> None:
    programs = _programs()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen(64)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody here waits for them
    print("ready", flush=True)  # noqa: T201
    while sys.stdin.buffer not in select.select([sys.stdin.buffer, listener], [], [])[0]:
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            _become(connection, programs)
        connection.close()


def _become(connection: socket.socket, programs: Mapping[str, Program]) -> None:
    """This process, just forked, as the program that is asked for."""
    text, files, _, _ = socket.recv_fds(connection, MOST_BYTES, 3)
    while not text.endswith(b"\n"):
        text += connection.recv(MOST_BYTES)
    request: dict[str, Any] = json.loads(text)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.argv = [request["program"], *request["arguments"]]
    connection.sendall(b"%d\n" % os.getpid())
    code = 1
    try:
        code = programs[request["program"]](request["arguments"])
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        with contextlib.suppress(OSError):
            connection.sendall(b"%d\n" % code)
        os._exit(code)


if __name__ == "__main__":
    serve(sys.argv[1])
