"""Talking to the supervisor over its socket, and starting one when none answers."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from ..core.errors import Unavailable
from .isolation import RUNTIME

START_SECONDS = 15.0


class SupervisorClient:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._starting = asyncio.Lock()

    async def call(self, op: str, *, patient: bool = False, **fields: Any) -> dict[str, Any]:
        """One request. A supervisor is started when none is there. Raises Unavailable when it refuses or cannot start.

        `patient`: the answer may take as long as it wants (`wait`); otherwise 30 s.
        """
        for _ in range(3):
            try:
                return await self._once(op, fields, None if patient else 30)
            except (OSError, asyncio.IncompleteReadError, EOFError):
                await self.ensure()
        raise Unavailable("the supervisor does not answer", code="supervisor_unavailable", hint=f"See {self.folder / 'supervisor.log'}.")

    async def ensure(self) -> None:
        """Start a supervisor unless one answers."""
        async with self._starting:
            deadline = time.monotonic() + START_SECONDS
            if await self._answers():
                return
            spawn(self.folder)
            while not await self._answers():
                if time.monotonic() > deadline:
                    raise Unavailable(
                        "the supervisor does not start", code="supervisor_unavailable", hint=f"See {self.folder / 'supervisor.log'}."
                    )
                await asyncio.sleep(0.02)

    async def _answers(self) -> bool:
        try:
            await self._once("ping", {}, 5)
        except (OSError, asyncio.IncompleteReadError, EOFError, Unavailable):
            return False
        return True

    async def _once(self, op: str, fields: dict[str, Any], timeout: float | None) -> dict[str, Any]:
        token = (self.folder / "token").read_text()
        folder = os.open(self.folder, os.O_RDONLY)
        try:
            # Through the descriptor: the path of a unix socket has 107 bytes at most.
            path = f"/proc/self/fd/{folder}/sock" if sys.platform.startswith("linux") else str(self.folder / "sock")
            reader, writer = await asyncio.open_unix_connection(path, limit=1 << 22)
        finally:
            os.close(folder)
        try:
            writer.write(json.dumps({"token": token, "op": op, **fields}).encode() + b"\n")
            await writer.drain()
            line = await asyncio.wait_for(reader.readline(), timeout)
        except TimeoutError:
            raise OSError("no answer in time") from None
        finally:
            writer.close()
        if not line:
            raise EOFError
        answer: dict[str, Any] = json.loads(line)
        if not answer.get("ok"):
            raise Unavailable(f"the supervisor refused to {op}: {answer.get('error')}", code="supervisor_refused")
        return answer


def spawn(folder: Path) -> None:
    """Start a supervisor that outlives this process. A second one finds the first one's lock and ends at once."""
    command = [sys.executable, "-I", str(RUNTIME / "supervisor.py"), str(folder)]
    with (folder / "supervisor.log").open("ab") as log:
        # Through a shell that ends at once: the supervisor is nobody's child then, and leaves us no zombie.
        subprocess.run(
            ["/bin/sh", "-c", '"$0" "$@" &', *command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            close_fds=True,
            cwd="/",
            check=True,
        )
