"""Warm interpreters: which commands they can run, when one is started, and which is there.

One is started when a second job of its kind comes within `AGAIN_S`: a single job never pays for it. It ends by itself when it
was not used for ten minutes.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import re
import secrets
import shlex
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from modelyard_runtime import protocol
from modelyard_runtime.protocol import JobRequest, WarmStart

from ....core import trees
from ....core.errors import YardError
from ....ports.replicas import Sandbox
from ...isolation import RUNTIME, Isolation
from ...supervisor_client import SupervisorClient

AGAIN_S = 600.0
LONGEST_PLAIN = 4096
"""Characters of a command that a warm interpreter may run."""
READY_BYTES = 1 << 20
SCRIPT_BYTES = 1 << 20
OWN = (b"/tmp", b"/dev/shm")
"""What scripts that an interpreter forks share or cannot reach; a script that names them starts a process of its own, which has its own."""
_INSTALLS = re.compile(rb"\bpip\b|\bensurepip\b")
"""What installs packages: those that an interpreter has loaded already could not be replaced by them."""
_SHELL = re.compile(r"[$`\\!*?\[\]{}()<>|&;#~\n]")
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Interpreter:
    """What jobs have in common that may share a warm interpreter: their workspace, their Python, and what it sees when it is started."""

    workspace: str
    python: Path
    readable: tuple[Path, ...]
    environment: Mapping[str, str]


def plain_script(command: str) -> list[str] | None:
    """`python SCRIPT.py ARGUMENTS…` as [script, arguments…]; None for what needs a shell or another program."""
    # shlex takes a time that grows with the square of the length; so long a command is started as every other program is.
    text = command.strip()
    if len(text) > LONGEST_PLAIN or _SHELL.search(text):
        return None
    try:
        program, script, *arguments = shlex.split(text)
    except ValueError:
        return None
    return [script, *arguments] if program in ("python", "python3") and script.endswith(".py") and not script.startswith("-") else None


class WarmInterpreters:
    def __init__(self, supervisor: SupervisorClient, isolation: Isolation, root: Path, jobs: Path, most: int) -> None:
        self._supervisor = supervisor
        self._isolation = isolation
        self._root = root
        self._jobs = jobs
        self._most = most if sys.platform.startswith("linux") else 0
        self._used: dict[str, float] = {}
        """key → monotonic seconds of the last job of its kind"""
        self._starting: set[asyncio.Task[None]] = set()

    def find(self, interpreter: Interpreter, command: str) -> Path | None:
        """The folder of a warm interpreter that can run `command` now."""
        if self._most == 0 or plain_script(command) is None:
            return None
        folder = self._root / _key(interpreter)
        return folder if trees.has(folder / "run" / "ready") and not trees.has(folder / "exit.json") else None

    def request(self, warm: Path, command: str, cwd: Path) -> WarmStart | None:
        """The `warm` part of a runner's request. None when the job's folder has modules that it would shadow, when its scripts name what only
        a process of its own has to itself, or when the interpreter is gone."""
        script = plain_script(command)
        if script is None:
            return None
        try:
            loaded = set(json.loads(trees.read(warm / "run" / "ready", READY_BYTES))["modules"])
            with trees.Folder((cwd / script[0]).parent) as folder:
                names = folder.names()
            beside_script = {name.partition(".")[0] for name in names}
            if any(_names_own((cwd / script[0]).parent / name) for name in names if name.endswith(".py")):
                return None
            key = trees.read(warm / "key", READY_BYTES).decode()
        except (OSError, ValueError, TypeError, KeyError):  # user code may have written it
            return None
        job_modules = beside_script - {Path(script[0]).stem}
        return WarmStart(str(warm), key, script[0], script[1:]) if not job_modules & loaded else None

    def used(self, interpreter: Interpreter, command: str) -> None:
        """Note a job; its interpreter is started when it is the second one of its kind within `AGAIN_S`."""
        if self._most == 0 or plain_script(command) is None:
            return
        key, now = _key(interpreter), time.monotonic()
        repeated = now - self._used.get(key, -AGAIN_S) < AGAIN_S
        self._used[key] = now
        if repeated and self.find(interpreter, command) is None:
            task = asyncio.create_task(self._start(key, interpreter))
            self._starting.add(task)
            task.add_done_callback(self._starting.discard)

    async def _start(self, key: str, interpreter: Interpreter) -> None:
        try:
            running = (await self._supervisor.call("list", prefix="zygote/"))["ids"]
            if f"zygote/{key}" in running:
                return  # it is loading
            for id in sorted(running, key=lambda id: self._used.get(id.removeprefix("zygote/"), 0.0))[
                : max(0, len(running) + 1 - self._most)
            ]:
                await self._supervisor.call("stop", id=id)
            request = await asyncio.to_thread(self._lay_out, key, interpreter)
            await self._supervisor.call("start", id=f"zygote/{key}", kind="job", request=protocol.document(request), secrets={})
        except (YardError, OSError) as error:
            log.warning("a warm interpreter could not be started: %s", error)

    def _lay_out(self, key: str, interpreter: Interpreter) -> JobRequest:
        folder = self._root / key
        trees.remove(folder)
        trees.make(folder, 0o755)
        writable = [folder / name for name in ("run", "home", "tmp")]
        for path in writable:
            trees.make(path)
        secret = secrets.token_bytes(32)
        trees.replace(folder / "run" / "key", secret)
        trees.replace(folder / "key", secret.hex().encode())
        sandbox = Sandbox((self._jobs, *writable), (*interpreter.readable, RUNTIME), folder / "tmp")
        return JobRequest(
            id=f"zygote/{key}",
            argv=[str(interpreter.python), str(RUNTIME), "zygote", str(folder)],
            cwd=str(folder / "home"),
            environment={**interpreter.environment, "HOME": str(folder / "home"), "TMPDIR": str(folder / "tmp"), "USER": "job"},
            folder=str(folder),
            log=str(folder / "zygote.log"),
            log_limit=2**20,
            sandbox=self._isolation.confinement(sandbox),
            own=[str(path) for path in writable],
        )


def _names_own(script: Path) -> bool:
    text = trees.read(script, SCRIPT_BYTES)
    return any(word in text for word in OWN) or _INSTALLS.search(text) is not None


def _key(interpreter: Interpreter) -> str:
    kind = [interpreter.workspace, str(interpreter.python), sorted(interpreter.environment.items())]
    return hashlib.sha256(json.dumps(kind).encode()).hexdigest()[:24]
