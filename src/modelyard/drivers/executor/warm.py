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
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from ...core.errors import YardError
from ...ports.processes import Interpreter, JobRun, Sandbox
from ..isolation import RUNTIME, Isolation
from ..supervisor_client import SupervisorClient

AGAIN_S = 600.0
_SHELL = re.compile(r"[$`\\!*?\[\]{}()<>|&;#~\n]")
log = logging.getLogger(__name__)


def plain_script(command: str) -> list[str] | None:
    """`python SCRIPT.py ARGUMENTS…` as [script, arguments…]; None for what needs a shell or another program."""
    text = command.strip()
    if _SHELL.search(text):
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
        """key → when a job of the kind last came"""
        self._starting: set[asyncio.Task[None]] = set()

    def find(self, wanted: Interpreter, command: str) -> Path | None:
        if self._most == 0 or plain_script(command) is None:
            return None
        folder = self._root / _key(wanted)
        return folder if (folder / "run" / "ready").exists() and not (folder / "exit.json").exists() else None

    def request(self, run: JobRun) -> dict[str, Any] | None:
        """The `warm` part of a runner's request. None when the job's folder has modules that it would shadow, or it is gone."""
        script = plain_script(run.command)
        if run.warm is None or script is None:
            return None
        try:
            loaded = set(json.loads((run.warm / "run" / "ready").read_text())["modules"])
            here = {path.name.partition(".")[0] for path in (run.cwd / script[0]).parent.iterdir()}
            key = (run.warm / "key").read_text()
        except (OSError, ValueError):
            return None
        own = here - {Path(script[0]).stem}
        return {"folder": str(run.warm), "key": key, "script": script[0], "arguments": script[1:]} if not own & loaded else None

    def used(self, run: JobRun) -> None:
        """A job came; its kind's interpreter is started when it is the second one within a while."""
        if run.interpreter is None or self._most == 0 or plain_script(run.command) is None:
            return
        key, now = _key(run.interpreter), time.monotonic()
        again = now - self._used.get(key, -AGAIN_S) < AGAIN_S
        self._used[key] = now
        if again and self.find(run.interpreter, run.command) is None:
            task = asyncio.create_task(self._start(key, run.interpreter))
            self._starting.add(task)
            task.add_done_callback(self._starting.discard)

    async def _start(self, key: str, wanted: Interpreter) -> None:
        try:
            running = (await self._supervisor.call("list", prefix="zygote/"))["ids"]
            if f"zygote/{key}" in running:
                return  # it is loading
            for id in sorted(running, key=lambda id: self._used.get(id.removeprefix("zygote/"), 0.0))[
                : max(0, len(running) + 1 - self._most)
            ]:
                await self._supervisor.call("stop", id=id)
            request = await asyncio.to_thread(self._lay_out, key, wanted)
            await self._supervisor.call("start", id=f"zygote/{key}", kind="job", request=request, secrets={})
        except (YardError, OSError) as error:
            log.warning("a warm interpreter could not be started: %s", error)

    def _lay_out(self, key: str, wanted: Interpreter) -> dict[str, Any]:
        folder = self._root / key
        shutil.rmtree(folder, ignore_errors=True)
        own = [folder / name for name in ("run", "home", "tmp")]
        for place in own:
            place.mkdir(parents=True, mode=0o700)
        secret = secrets.token_bytes(32)
        for path, data in ((folder / "run" / "key", secret), (folder / "key", secret.hex().encode())):
            path.touch(mode=0o600)
            path.write_bytes(data)
        sandbox = Sandbox((self._jobs, *own), (*wanted.readable, RUNTIME))
        return {
            "id": f"zygote/{key}",
            "argv": [str(wanted.python), str(RUNTIME / "zygote.py"), str(folder)],
            "cwd": str(folder / "home"),
            "environment": {**wanted.environment, "HOME": str(folder / "home"), "TMPDIR": str(folder / "tmp"), "USER": "job"},
            "log": str(folder / "zygote.log"),
            "log_limit": 2**20,
            "folder": str(folder),
            "sandbox": self._isolation.document(sandbox),
            "own": [str(place) for place in own],
        }


def _key(wanted: Interpreter) -> str:
    kind = [wanted.workspace, str(wanted.python), sorted(wanted.environment.items())]
    return hashlib.sha256(json.dumps(kind).encode()).hexdigest()[:24]
