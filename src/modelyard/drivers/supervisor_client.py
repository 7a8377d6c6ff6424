"""Talking to the supervisor over its socket, and starting one when none answers."""

from __future__ import annotations

import asyncio
import errno
import json
import subprocess
import time
from pathlib import Path
from typing import Any

from modelyard_runtime import files

from ..core.errors import Unavailable
from .isolation import program

START_SECONDS = 15.0
AGAIN_SECONDS = 1.0
"""How long a supervisor that was started is waited for before another one is."""
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS)
CODE = files.code_digest("supervision")
"""Of the code as it was when this process began."""


class SupervisorClient:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._starting = asyncio.Lock()
        self._met = False
        """Whether a supervisor of our code has answered, or one that we started from the code on disk."""

    async def call(self, op: str, *, patient: bool = False, **fields: Any) -> dict[str, Any]:
        """One request. A supervisor is started when none is there. Raises Unavailable when it refuses or cannot start.

        `patient`: the answer may take as long as it wants (`wait`); otherwise 30 s.
        """
        if not self._met:
            await self.ensure()
        for _ in range(3):
            try:
                return await self._once(op, fields, None if patient else 30)
            except (OSError, asyncio.IncompleteReadError, EOFError):
                await self.ensure()
        raise self._unavailable("the supervisor does not answer")

    async def ensure(self) -> None:
        """Start a supervisor unless one answers. One of other code makes way once: its successor adopts all that it keeps."""
        async with self._starting:
            deadline = time.monotonic() + START_SECONDS
            spawned_at: float | None = None
            while True:
                answer = await self._ping()
                if answer is not None and (self._met or spawned_at is not None or answer.get("code") == CODE):
                    self._met = True
                    return
                now = time.monotonic()
                if now > deadline:
                    raise self._unavailable("the supervisor does not start")
                if answer is not None:
                    await self._make_way()
                elif spawned_at is None or now - spawned_at > AGAIN_SECONDS:
                    spawn(self.folder)
                    spawned_at = now
                await asyncio.sleep(0.02)

    def _unavailable(self, message: str) -> Unavailable:
        return Unavailable(message, code="supervisor_unavailable", hint=f"See {self.folder / 'supervisor.log'}.", transient=True)

    async def _ping(self) -> dict[str, Any] | None:
        """The answer of the supervisor that is there, or None."""
        try:
            return await self._once("ping", {}, 5)
        except (OSError, asyncio.IncompleteReadError, EOFError, Unavailable):
            return None

    async def _make_way(self) -> None:
        """Ask a supervisor to end without what it keeps."""
        try:
            await self._once("shutdown", {}, 5)
        except (OSError, asyncio.IncompleteReadError, EOFError, Unavailable):
            return

    async def _once(self, op: str, fields: dict[str, Any], timeout: float | None) -> dict[str, Any]:
        token = (self.folder / "token").read_text()
        with files.socket_address(str(self.folder / "sock")) as address:
            reader, writer = await asyncio.open_unix_connection(address, limit=1 << 22)
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
        if answer.get("errno") in NO_ROOM:
            raise Unavailable(
                f"the yard's disk is full or fails, so the supervisor does not {op}; nothing was changed", code="insufficient_storage",
                hint="Free some space; what waits for it goes on by itself.", transient=True,
            )  # fmt: skip
        if not answer.get("ok"):
            raise Unavailable(f"the supervisor refused to {op}: {answer.get('error')}", code="supervisor_refused")
        return answer


def spawn(folder: Path) -> None:
    """Start a supervisor that outlives this process. A second one finds the first one's lock and ends at once."""
    command = program("supervisor", str(folder))
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
